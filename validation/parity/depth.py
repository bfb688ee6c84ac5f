"""Compare the activations after each step with the oracle's, to find where along the depth a model departs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from numpy.typing import NDArray

from models.catalog import Architecture
from models.mixer import MixerBlock, MlpMixer
from models.records.report import DepthStep


def apply_steps(
    architecture: Architecture, num_classes: int | None
) -> Callable[[Mapping[str, Any], jax.Array], dict[str, jax.Array]]:
    """Return an apply function of a Mixer that returns the activations after each step, by the step's name.

    The names are the oracle's: `stem`, `MixerBlock_0` ..., `pre_head_layer_norm`, `features` and, with a head, `head`.
    """
    model = MlpMixer(architecture, num_classes)
    tokens, hidden = architecture.tokens, architecture.hidden_dim

    def wanted(module: nn.Module, _: str) -> bool:
        return isinstance(module, MixerBlock) or module.name in {"stem", "pre_head_layer_norm", "head"}

    def apply(params: Mapping[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        _, state = model.apply({"params": params}, images, mutable=["intermediates"], capture_intermediates=wanted)
        kept = state["intermediates"]
        steps = {name: value["__call__"][0] for name, value in kept.items() if name != "features"}
        steps["stem"] = steps["stem"].reshape(-1, tokens, hidden)
        return steps | {"features": kept["features"][0]}

    return apply


def compare_depth(
    oracle: Iterable[tuple[str, NDArray[np.float64]]],
    jax_steps: Mapping[str, NDArray[np.float32]],
    saved_model_steps: Mapping[str, NDArray[np.float32]],
) -> tuple[DepthStep, ...]:
    """Return how far both are from the oracle after each shared step, over the standard deviation of activations."""
    return tuple(
        DepthStep(
            name=name, jax=_distance(jax_steps[name], truth), saved_model=_distance(saved_model_steps[name], truth)
        )
        for name, truth in oracle
        if name in jax_steps
    )


def _distance(found: NDArray[np.float32], truth: NDArray[np.float64]) -> float:
    worst = float(np.abs(found.astype(np.float64) - truth).max() / max(float(truth.std()), np.finfo(np.float64).tiny))
    return worst if np.isfinite(worst) else float("inf")
