"""Models in other TensorFlow releases, each in an environment of its own."""
