"""Label files of other tools, read and written. `registry.py` lists them."""
