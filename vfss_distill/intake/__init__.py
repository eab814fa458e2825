"""Any recording a clinic has becomes a study in the store."""
