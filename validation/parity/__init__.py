"""A SavedModel compared with JAX and a float64 oracle."""
