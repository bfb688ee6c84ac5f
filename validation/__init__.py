"""Proof that a SavedModel computes what the original JAX model computes."""
