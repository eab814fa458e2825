"""Frozen foundation encoders behind one interface. Import the submodules."""
