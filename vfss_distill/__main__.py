"""`python -m vfss_distill`: the same as `vfss`."""

from .commands.main import main

if __name__ == "__main__":
    main()
