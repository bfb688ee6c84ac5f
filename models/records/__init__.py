"""What stands beside a model on disk: manifest, report, provenance, index, and their paths."""
