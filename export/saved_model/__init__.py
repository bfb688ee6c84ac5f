"""A traced function and its params as a SavedModel of reproducible bytes."""
