"""A SavedModel compared with an earlier version of it."""
