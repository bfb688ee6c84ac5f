"""The records of models on disk: manifest, report, provenance and index, and their paths."""
