"""The order of the work on handles, and the Python interface."""
