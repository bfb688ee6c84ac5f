"""The scale that differences of an image's outputs are divided by, and whether outputs can tell right from wrong.

Outputs may be zero, cancel or share a large bias; their own spread then says nothing about how accurate they are. So
the scale is computed from the features and the head that the outputs come from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.records.tolerances import TOLERANCES

Values = NDArray[np.float64]

OF_THE_TERMS = 0.01
"""Share of the largest sum of terms below which an output's rounding hides errors."""

OF_THE_BIAS = 0.1
"""The same for the largest bias: in a sum that starts from it, each term is rounded to the bias's last place."""

_COLUMNS = 4096
"""Columns of a head that are converted to float64 at a time."""


@dataclass(frozen=True)
class Scale:
    """The scale of the outputs `[n, k]` of n images; each array is `[n]`, float64 (`turns`: bool).

    Attributes:
        of: what an image's differences are divided by.
        power: from 0 to 1: the share of `of` that is the outputs' own spread.
        unit: the unit in the last place (float32) of the largest output, or of the scale where that is larger.
        turns: whether the direction of the outputs is meaningful (for the cosine distance).
    """

    of: Values
    power: Values
    unit: Values
    turns: NDArray[np.bool_]

    @classmethod
    def measure(
        cls,
        outputs: NDArray[Any],
        features: NDArray[Any],
        head: Mapping[str, NDArray[Any]] | None,
        *,
        exact: bool = True,
    ) -> Self:
        """Return the scale of the outputs that a head computes from features.

        It is the largest of: s, the standard deviation of the outputs; t, that of the outputs less the bias; r/2, where
        r is the standard deviation of the features times the root mean square of the norms of the head's columns;
        a/100, where a is the largest sum of the magnitudes of an output's terms; and a tenth of the largest bias. For
        the features themselves, without a head, r is 0 and a is their largest magnitude. Power is the larger of r/2 and
        t, over the scale.

        The scale is zero if the kernel is: outputs must then be equal, unless weights are rounded. Power is then 0; it
        is almost 0 if all images (two or more) have the same outputs.

        Args:
            outputs: the expected outputs, `[n, k]`.
            features: the inputs of the head, `[n, d]`; the outputs themselves if there is no head.
            head: its `kernel` `[d, k]` and `bias` `[k]`; None for features.
            exact: whether the weights are stored unrounded; rounding changes the bias, even beside a kernel of zeros.
        """
        outputs, features = outputs.astype(np.float64), features.astype(np.float64)
        spread = outputs.std(axis=1)
        added = spread if head is None else (outputs - head["bias"]).std(axis=1)
        if head is None:
            gain, terms, constant = np.zeros(len(outputs)), OF_THE_TERMS * np.abs(features).max(axis=1), False
        else:
            gain, terms, constant = _of_head(features, head)
        own = np.maximum(added, gain / 2)
        scale = np.maximum(np.maximum(spread, own), terms)
        if constant:
            scale = np.zeros(len(outputs)) if exact else terms
        most = TOLERANCES["max_relative"].limit if _same_for_all(outputs, scale) else 1
        positive = np.maximum(scale, np.finfo(np.float64).tiny)
        largest = np.maximum(np.abs(outputs).max(axis=1), scale).astype(np.float32)
        return cls(
            of=positive,
            power=np.zeros(len(outputs)) if constant else np.nan_to_num(np.minimum(own / positive, most)),
            unit=np.spacing(largest).astype(np.float64),
            turns=(added >= gain / 2) & (outputs.shape[1] > 1),
        )

    def __getitem__(self, rows: Any) -> "Scale":  # noqa: ANN401 (any index of an array)
        """Return the scale of some images."""
        return Scale(self.of[rows], self.power[rows], self.unit[rows], self.turns[rows])


def _of_head(features: Values, head: Mapping[str, NDArray[Any]]) -> tuple[Values, Values, bool]:
    """Return r and the least scale of each image, and whether the kernel is zero throughout."""
    squares, terms = 0.0, np.zeros(len(features))
    for kernel, bias in columns(head):
        squares += float(np.square(kernel).sum())
        sums = OF_THE_TERMS * (np.abs(features) @ np.abs(kernel) + np.abs(bias))
        terms = np.maximum(terms, np.maximum(sums, OF_THE_BIAS * np.abs(bias)).max(axis=1))
    return features.std(axis=1) * np.sqrt(squares / head["bias"].size), terms, squares == 0


def columns(head: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Values, Values]]:
    """Yield a head's kernel `[d, k]` and bias `[k]` in float64, some columns at a time."""
    for start in range(0, head["bias"].size, _COLUMNS):
        some = slice(start, start + _COLUMNS)
        yield head["kernel"][:, some].astype(np.float64), head["bias"][some].astype(np.float64)


def _same_for_all(outputs: Values, scale: Values) -> bool:
    """Return whether all images (two or more) have the same outputs, within the tolerance for one image."""
    if len(outputs) < 2:
        return False
    return bool(np.all(np.abs(outputs - outputs[0]).max(axis=1) <= TOLERANCES["max_relative"].limit * scale))
