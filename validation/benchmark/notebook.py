"""The notebook way: convert a checkpoint to a SavedModel in the obvious steps, one handle per process.

The benchmark compares the conversion with it; nothing else uses it. As in the notebooks that made version 1, feature
extractors have gradients and classifiers do not, and nothing is checked.

    python -m validation.benchmark.notebook HANDLE CHECKPOINT.npz DIRECTORY
"""

import sys

import jax
import numpy as np
import tensorflow as tf
from flax.traverse_util import unflatten_dict
from jax.experimental import jax2tf

from models.mixer import MlpMixer
from models.selection import select_handles

name, path, directory = sys.argv[1:]
(handle,) = select_handles([name])
architecture = handle.checkpoint.architecture
size = architecture.image_size
trainable = handle.head == "fe"

# The weights.
with np.load(path) as file:
    params = unflatten_dict({key: file[key] for key in file.files}, sep="/")  # type: ignore[no-untyped-call]
if trainable:
    del params["head"]

# The model, in JAX and then in TensorFlow.
model = MlpMixer(architecture, handle.num_classes)


def _predict(params: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """Return the model's outputs."""
    outputs: jax.Array = model.apply({"params": params}, images)  # type: ignore[assignment]
    return outputs


converted = jax2tf.convert(_predict, polymorphic_shapes=[None, f"(b, {size}, {size}, 3)"], with_gradient=trainable)


class _Module(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """The model with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.params = jax.tree.map(tf.Variable, params)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, name="inputs")])  # type: ignore[untyped-decorator]
    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the outputs for images."""
        return converted(self.params, inputs)


module = _Module()
options = tf.saved_model.SaveOptions(experimental_custom_gradients=trainable)
tf.saved_model.save(module, directory, signatures=module.__call__.get_concrete_function(), options=options)
