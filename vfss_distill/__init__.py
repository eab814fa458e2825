"""Segment swallowing X-ray films with a small network distilled from large medical encoders.

Research use only. Not a medical device.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
