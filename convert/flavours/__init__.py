"""Convert a JAX apply function to a TensorFlow function, in one of two flavours."""
