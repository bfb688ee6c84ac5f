"""Heads and stems put in place of a model's own, through which every wrong computation shows.

A head of zeros, or one whose outputs cancel, hides whatever came before it; a large stem bias hides the epsilon of the
layer norms. What should come out is known without running the Mixer again: JAX's and the oracle's features times the
probing head, in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.parity.scale import Values, columns

SEED = 20210504
COLUMNS = 32
"""Outputs that must be seen: so few random combinations of all features leave no error out."""

BIAS = 0.25

TOKEN_VARIANCE = 1e-6
"""Of the tokens of a blank image under the probing stem: that of the layer norms' epsilon."""

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ProbingHead:
    """Heads of k outputs that take turns in a model, `[d, k]` and `[k]` each; together of 32 columns or more."""

    heads: tuple[Arrays, ...]

    @classmethod
    def of(cls, features: int, outputs: int) -> "ProbingHead":
        """Return the heads for that many features and outputs, always the same.

        With as many outputs as features or more, each output is a feature or its negative, and every feature is seen;
        with fewer each is the sum of all features with random signs, over the root of their number.
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
        """Return what all columns make of features `[n, d]`, in float64."""
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
    """Return the stem's bias `[d]`, scaled so that the token of a blank image has the variance of the epsilon.

    One without variance gives way to random numbers.
    """
    values = bias.astype(np.float64)
    if not values.std() > 0:
        values = np.random.default_rng(SEED).standard_normal(values.size)
    return np.asarray(values * (np.sqrt(TOKEN_VARIANCE) / values.std()), np.float32)


def assign(model: Any, values: Mapping[str, NDArray[np.float32]], *, group: str) -> None:  # noqa: ANN401 (a user object)
    """Change the variables `<group>/<name>` of a loaded SavedModel."""
    variables = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    for name, value in values.items():
        variables[f"{group}/{name}"].assign(value)
