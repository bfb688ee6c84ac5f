"""Faults that are injected on purpose, and how many of them the project withstands."""
