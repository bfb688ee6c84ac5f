"""The name of the collection on every site."""

COLLECTION = "mlp-mixer"
COLLECTION_TITLE = "MLP-Mixer"
COLLECTION_SUMMARY = (
    "MLP-Mixer image classifiers and feature extractors in TensorFlow, converted from the original JAX checkpoints."
)
