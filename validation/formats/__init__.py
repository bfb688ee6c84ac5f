"""Exported files compared with JAX, in their own runtimes."""
