"""From an original `.npz` checkpoint to a TensorFlow function, and the command line."""
