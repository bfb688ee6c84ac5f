"""The Keras model that is fine-tuned: a SavedModel's feature extractor, and a head of its own."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from convert.finetune.recipe import Recipe
from models.catalog import Architecture
from models.errors import MixerError
from models.signatures import SERVING_DEFAULT

HEAD = "head"

Arrays = dict[str, NDArray[np.float32]]
"""Params by their names in a checkpoint."""


class FineTuned:
    """A feature extractor and a head: images in, logits out."""

    def __init__(self, extractor: Path, architecture: Architecture, classes: int, recipe: Recipe, seed: int) -> None:
        """Load the SavedModel of a feature extractor, and put a new head on it.

        Raises:
            MixerError: the SavedModel's variables are not the params of this architecture.
        """
        size = architecture.image_size
        layer = keras.layers.TFSMLayer(str(extractor), call_endpoint=SERVING_DEFAULT)
        self._variables = _named(layer, architecture, extractor)
        images = keras.Input((size, size, 3))
        (features,) = layer(images).values()
        kernel = "zeros" if recipe.zero_head else keras.initializers.GlorotUniform(seed)
        head = keras.layers.Dense(classes, kernel_initializer=kernel, name=HEAD)
        self.whole = keras.Model(images, head(features))
        """`[batch, size, size, 3]` -> logits `[batch, classes]`."""
        self._extract = tf.function(keras.Model(images, features))
        vectors = keras.Input((architecture.hidden_dim,))
        self.head = keras.Model(vectors, head(vectors))
        """Features -> logits, with the head of `whole`."""
        self._variables |= {f"{HEAD}/kernel": head.kernel, f"{HEAD}/bias": head.bias}

    def arrays(self) -> Arrays:
        """Return the values of all params, in the layout of the original checkpoints."""
        return {name: np.asarray(variable) for name, variable in self._variables.items()}

    def extract(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features `[batch, hidden_dim]` of images `[batch, size, size, 3]`."""
        features: NDArray[np.float32] = self._extract(tf.constant(images)).numpy()
        return features


def _named(layer: keras.layers.TFSMLayer, architecture: Architecture, path: Path) -> dict[str, Any]:
    """Return the variables of a layer by the names of the params; in their paths, Keras has `_` for each slash.

    Each variable's path loses TensorFlow's `:0`: with it, an optimizer refuses to name its slots after it.
    """
    names = {f"{name.replace('/', '_')}:0": (name, shape) for name, shape in architecture.arrays(None).items()}
    found = {variable.path: variable for variable in layer.variables}
    wrong = sorted(
        path
        for path in names.keys() | found.keys()
        if path not in names or path not in found or tuple(found[path].shape) != names[path][1]
    )
    if wrong:
        raise MixerError(
            f"{path} is not a feature extractor of the architecture {architecture.name}: {len(wrong)} variables are "
            f"missing, unexpected or of another shape, the first {wrong[0]}. Convert it again."
        )
    for variable in found.values():
        variable._path = variable.path.removesuffix(":0")  # there is no public way
    return {name: found[path] for path, (name, _) in names.items()}
