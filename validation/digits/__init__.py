"""A small Mixer trained on real pictures: handwritten digits."""
