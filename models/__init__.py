"""What a Mixer is: the catalog of checkpoints and handles, the records on disk, the Flax model."""
