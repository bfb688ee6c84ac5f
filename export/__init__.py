"""Write, package, describe and publish SavedModels made from TensorFlow functions."""
