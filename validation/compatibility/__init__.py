"""Models in other TensorFlow releases, each in its own environment."""
