"""Probing heads and stem biases, which replace a model's own so that every wrong computation shows in the outputs.

A head of zeros, or one whose outputs cancel, hides errors before it; a large stem bias hides the epsilon of the layer
norms. The expected outputs of a probing head are known without running the Mixer again: JAX's and the oracle's features
times the head, in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.parity.scale import Values, columns

SEED = 20210504
COLUMNS = 32
"""Least number of outputs: this many random combinations of all features miss no error."""

BIAS = 0.25

TOKEN_VARIANCE = 1e-6
"""Variance of a blank image's tokens with the probing stem: the epsilon of the layer norms."""

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ProbingHead:
    """Heads of k outputs, `[d, k]` and `[k]` each, that a model is run with in turn; together 32 columns or more."""

    heads: tuple[Arrays, ...]

    @classmethod
    def of(cls, features: int, outputs: int) -> "ProbingHead":
        """Return the heads for these numbers of features and outputs, always the same.

        With at least as many outputs as features, each output is a feature or its negative, and every feature is used;
        with fewer, each is the sum of all features with random signs, over the square root of their number.
        """
        random = np.random.default_rng(SEED)
        rounds = -(-COLUMNS // outputs)
        return cls(tuple(_head(random, features, outputs) for _ in range(rounds)))

    @property
    def whole(self) -> Arrays:
        """All columns as one head."""
        if len(self.heads) == 1:
            return self.heads[0]
        return {
            "kernel": np.concatenate([head["kernel"] for head in self.heads], axis=1),
            "bias": np.concatenate([head["bias"] for head in self.heads]),
        }

    def outputs(self, features: NDArray[Any]) -> Values:
        """Return the outputs of all columns for features `[n, d]`, in float64."""
        given = features.astype(np.float64)
        return np.concatenate([given @ kernel + bias for kernel, bias in columns(self.whole)], axis=1)


def _head(random: np.random.Generator, features: int, outputs: int) -> Arrays:
    dense = outputs < features
    signs = random.choice(np.array([-1, 1], np.float32), size=(features, outputs) if dense else outputs)
    if dense:
        kernel = signs / np.sqrt(np.float32(features))
    else:
        kernel = np.zeros((features, outputs), np.float32)
        kernel[np.arange(outputs) % features, np.arange(outputs)] = signs
    return {"kernel": kernel, "bias": np.full(outputs, BIAS, np.float32)}


def probing_stem_bias(bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the stem's bias `[d]`, scaled so that the variance of a blank image's tokens is the epsilon.

    A bias without variance is replaced by random numbers.
    """
    values = bias.astype(np.float64)
    if not values.std() > 0:
        values = np.random.default_rng(SEED).standard_normal(values.size)
    return np.asarray(values * (np.sqrt(TOKEN_VARIANCE) / values.std()), np.float32)


def assign(model: Any, values: Mapping[str, NDArray[np.float32]], *, group: str) -> None:  # noqa: ANN401 (a user object)
    """Assign values to the variables `<group>/<name>` of a loaded SavedModel."""
    variables = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    for name, value in values.items():
        variables[f"{group}/{name}"].assign(value)
