"""Write a traced function and its params as a SavedModel with reproducible bytes."""
