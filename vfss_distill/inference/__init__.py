"""A student and a recording become masks and an overlay."""
