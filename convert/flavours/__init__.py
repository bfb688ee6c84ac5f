"""An apply function of JAX as a TensorFlow function, in one of two flavours."""
