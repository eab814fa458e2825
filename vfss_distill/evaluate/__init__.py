"""Masks, and truth where there is some, become numbers and pages."""
