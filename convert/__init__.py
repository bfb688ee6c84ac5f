"""Read `.npz` checkpoints, convert them to TensorFlow functions, and run the command line."""
