"""Exported files, run in their own runtimes and compared with the float64 oracle."""
