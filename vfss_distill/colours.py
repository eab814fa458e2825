"""Colours of lines in plots, told apart by people of all common kinds of colour vision."""

# Okabe and Ito (2008), without yellow, which is faint on white.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
