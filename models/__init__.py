"""The catalog of checkpoints and handles, the Flax model, and the records on disk."""
