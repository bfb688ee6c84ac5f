"""What a SavedModel is held against: JAX's outputs for a checkpoint, and the float64 oracle's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from models.catalog import Architecture, Checkpoint, Head
from models.mixer import MlpMixer
from validation.images import Images, Inputs
from validation.oracle import OracleOutputs, run_oracle
from validation.outputs import Expected, Outputs


@dataclass(frozen=True)
class Reference:
    """The outputs of both heads of a checkpoint for `inputs`.

    Attributes:
        inputs: the images.
        logits: JAX's, `[n, num_classes]`.
        features: JAX's, `[n, hidden_dim]`.
        oracle_names: the images that the oracle was run on.
        oracle: its outputs for these.
    """

    inputs: Inputs
    logits: Outputs
    features: Outputs
    oracle_names: tuple[str, ...]
    oracle: OracleOutputs

    def for_head(self, head: Head) -> Expected:
        """Return what a model with that head should give."""
        classes = head == "classification"
        truth = self.oracle.logits if classes else self.oracle.features
        return Expected(
            names=self.inputs.names,
            jax=self.logits if classes else self.features,
            oracle=dict(zip(self.oracle_names, truth, strict=True)),
            classes=classes,
        )


def compute_reference(
    checkpoint: Checkpoint, path: Path, params: Mapping[str, Any], inputs: Inputs, oracle_names: tuple[str, ...]
) -> Reference:
    """Run the Flax model once over the images for both heads, and the oracle on some of them.

    Args:
        checkpoint: says the architecture and the number of classes.
        path: the checkpoint's file, which the oracle reads itself.
        params: all its parameters, the head included.
        inputs: the images.
        oracle_names: which of them the oracle is run on.
    """
    logits, features = apply_both(checkpoint, params, inputs.images)
    chosen = [inputs.names.index(name) for name in oracle_names]
    return Reference(inputs, logits, features, oracle_names, run_oracle(path, inputs.images[chosen]))


def apply_both(checkpoint: Checkpoint, params: Mapping[str, Any], images: Images) -> tuple[Outputs, Outputs]:
    """Return JAX's logits and features of images `[n, size, size, 3]`; one compilation an architecture and batch."""
    logits, features = _compiled(checkpoint.architecture, checkpoint.num_classes)(params, images)
    return np.asarray(logits), np.asarray(features)


@cache
def _compiled(
    architecture: Architecture, num_classes: int
) -> Callable[[Mapping[str, Any], Images], tuple[jax.Array, jax.Array]]:
    model = MlpMixer(architecture, num_classes)

    def apply(params: Mapping[str, Any], images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, state = model.apply({"params": params}, images, mutable=["intermediates"])
        return logits, state["intermediates"]["features"][0]

    return jax.jit(apply)
