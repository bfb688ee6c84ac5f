"""The reference for a SavedModel: the outputs of JAX and of the float64 oracle for a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from numpy.typing import NDArray

from models.catalog import Architecture, Checkpoint, Head
from models.mixer import MlpMixer
from validation.parity.images import Images, Inputs
from validation.parity.oracle import OracleOutputs
from validation.parity.outputs import Expected, Outputs
from validation.parity.probe import ProbingHead, probing_stem_bias
from validation.parity.scale import Scale, Values


@dataclass(frozen=True)
class _StemReference:
    """The features `[1, hidden_dim]` of the blank image with a stem bias that exposes the layer norms' epsilon."""

    bias: NDArray[np.float32]
    jax: Outputs
    oracle: Values


@dataclass(frozen=True)
class Reference:
    """The outputs of both heads of a checkpoint for `inputs`.

    Attributes:
        inputs: the images.
        logits: JAX's, `[n, num_classes]`.
        features: JAX's, `[n, hidden_dim]`.
        oracle_names: the images that the oracle was run on.
        oracle: the oracle's outputs for these.
        scales: what differences of logits, and of features, are divided by.
        zero_head: whether the head's kernel is zero throughout.
        stem: None if the stem is not probed.
    """

    inputs: Inputs
    logits: Outputs
    features: Outputs
    oracle_names: tuple[str, ...]
    oracle: OracleOutputs
    scales: Mapping[Head, Scale]
    zero_head: bool
    stem: _StemReference | None = None

    @classmethod
    def compute(
        cls,
        checkpoint: Checkpoint,
        path: Path,
        params: Mapping[str, Any],
        inputs: Inputs,
        oracle_names: tuple[str, ...],
        *,
        probe_stem: bool = False,
        prefix: str = "",
    ) -> Self:
        """Run the Flax model once over the images for both heads, and the oracle on some of them.

        Args:
            checkpoint: gives the architecture and the number of classes.
            path: the checkpoint's file, which the oracle reads itself.
            params: all its params, including the head.
            inputs: the images.
            oracle_names: the images that the oracle is run on.
            probe_stem: whether to run both again, on the blank image with a stem bias that exposes the epsilon.
            prefix: what the names of the arrays in the file begin with.
        """
        logits, features = apply_both(checkpoint, params, inputs.images)
        chosen = [inputs.names.index(name) for name in oracle_names]
        return cls(
            inputs,
            logits,
            features,
            oracle_names,
            OracleOutputs.compute(path, inputs.images[chosen], prefix=prefix),
            {
                "classification": Scale.measure(logits, features, params["head"]),
                "fe": Scale.measure(features, features, None),
            },
            zero_head=not np.any(params["head"]["kernel"]),
            stem=_probe_stem(checkpoint, path, params, inputs, prefix) if probe_stem else None,
        )

    def for_head(self, head: Head) -> Expected:
        """Return the expected outputs of a model with that head."""
        classes = head == "classification"
        truth = self.oracle.logits if classes else self.oracle.features
        return Expected(
            names=self.inputs.names,
            jax=self.logits if classes else self.features,
            oracle=dict(zip(self.oracle_names, truth, strict=True)),
            classes=classes,
            scale=self.scales[head],
        )

    def for_probe(self, probe: ProbingHead) -> Expected:
        """Return the expected outputs of a classifier with a probing head, all columns together."""
        jax = probe.outputs(self.features)
        return Expected(
            names=self.inputs.names,
            jax=jax,
            oracle=dict(zip(self.oracle_names, probe.outputs(self.oracle.features), strict=True)),
            classes=False,
            scale=Scale.measure(jax, self.features, probe.whole),
        )

    def for_stem(self, probe: ProbingHead | None) -> Expected | None:
        """Return the expected outputs of a model with the probing stem for the blank image: features or probe outputs.

        None if the stem is not probed.
        """
        if self.stem is None:
            return None
        jax: Outputs | Values = self.stem.jax
        oracle = self.stem.oracle
        if probe is not None:
            jax, oracle = probe.outputs(jax), probe.outputs(oracle)
        scale = Scale.measure(jax, self.stem.jax, None if probe is None else probe.whole)
        return Expected(("blank",), jax, {"blank": oracle[0]}, classes=False, scale=scale)


def _probe_stem(
    checkpoint: Checkpoint, path: Path, params: Mapping[str, Any], inputs: Inputs, prefix: str
) -> _StemReference:
    bias = probing_stem_bias(np.asarray(params["stem"]["bias"]))
    blank = inputs.images[[inputs.names.index("blank")]]
    _, features = apply_both(checkpoint, {**params, "stem": {**params["stem"], "bias": bias}}, blank)
    oracle = OracleOutputs.compute(path, blank, replaced={"stem/bias": bias}, prefix=prefix)
    return _StemReference(bias, features, oracle.features)


def apply_both(checkpoint: Checkpoint, params: Mapping[str, Any], images: Images) -> tuple[Outputs, Outputs]:
    """Return JAX's logits and features of images `[n, size, size, 3]`; compiled once per architecture and batch."""
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
