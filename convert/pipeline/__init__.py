"""What is done with which handle, in which order; what Python callers use."""
