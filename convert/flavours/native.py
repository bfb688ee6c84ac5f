"""The native flavour: JAX's own lowering of the Mixer, called from TensorFlow as one `XlaCallModule` op.

jax2tf traces the Flax apply function with a symbolic batch and wraps the StableHLO artifact of `jax.export`; its
gradient is a second artifact, made from JAX's own VJP.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import tensorflow as tf
from jax.experimental import jax2tf

from models.catalog import Architecture
from models.mixer import MixerBlock, MlpMixer
from models.signatures import OUTPUT, TOKEN_FEATURES

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Platforms that the artifact may run on; by default it would be only the one that made it."""

Apply = Callable[[Mapping[str, Any], jax.Array], Any]
"""A JAX apply function of nested params and images; returns an array or a tree of arrays."""

TensorFlowFunction = Callable[[Mapping[str, Any], tf.Tensor], Any]
"""Takes nested params and images `[batch, height, width, 3]`, and returns what the apply function does."""


def mixer_apply(architecture: Architecture, num_classes: int | None) -> Apply:
    """Return the apply function of a Mixer with a head of `num_classes`, or (None) of a feature extractor.

    Its layers share one function, which JAX traces, differentiates and lowers only once.
    """
    model = MlpMixer(architecture, num_classes, nn.jit(MixerBlock))
    if num_classes is not None:
        return lambda params, images: model.apply({"params": params}, images)

    def apply(params: Mapping[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        features, state = model.apply(
            {"params": params},
            images,
            mutable=["intermediates"],
            capture_intermediates=lambda module, _: module.name == "pre_head_layer_norm",
        )
        return {OUTPUT: features, TOKEN_FEATURES: state["intermediates"]["pre_head_layer_norm"]["__call__"][0]}

    return apply


def to_tensorflow(apply: Apply, *, gradient: bool = True) -> TensorFlowFunction:
    """Return an apply function for TensorFlow, with JAX's gradient if `gradient`.

    jax2tf traces it when called, and its gradient when saved.
    """
    function: TensorFlowFunction = jax2tf.convert(
        apply,
        polymorphic_shapes=(None, "(batch, ...)"),
        with_gradient=gradient,
        native_serialization_platforms=PLATFORMS,
    )
    return function
