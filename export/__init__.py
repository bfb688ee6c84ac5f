"""From a TensorFlow function to what is published."""
