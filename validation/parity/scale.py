"""The scale that differences of an image's outputs are measured by, and whether outputs can tell right from wrong.

Outputs may vanish, cancel or share a large bias, where their own spread says nothing of how well they were computed.
So the scale comes from the features and the head that the outputs are made of.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.records.tolerances import TOLERANCES

Values = NDArray[np.float64]

OF_THE_TERMS = 0.01
"""Share of the largest sum of terms below which an output's rounding hides what is wrong."""

OF_THE_BIAS = 0.1
"""The same of the largest bias: where sums start from it, each term is rounded to its last place."""

_COLUMNS = 4096
"""Of a head that are taken to float64 at a time."""


@dataclass(frozen=True)
class Scale:
    """What the outputs `[n, k]` of n images are measured by; each array `[n]`, float64.

    Attributes:
        of: the scale of an image's differences.
        power: from 0 to 1: the share of it that is the outputs' own spread.
        unit: the unit in the last place (float32) of the largest output, or of the scale where that is larger.
        turns: whether the direction of the outputs says something (cosine).
    """

    of: Values
    power: Values
    unit: Values
    turns: NDArray[np.bool_]

    def __getitem__(self, rows: Any) -> "Scale":  # noqa: ANN401 (what indexes an array)
        """Return the scale of some images."""
        return Scale(self.of[rows], self.power[rows], self.unit[rows], self.turns[rows])


def measure_scale(
    outputs: NDArray[Any], features: NDArray[Any], head: Mapping[str, NDArray[Any]] | None, *, exact: bool = True
) -> Scale:
    """Return the scale of outputs that a head makes of features.

    It is the largest of: s, the standard deviation of the outputs; r/2, where r is the standard deviation of the
    features times the root mean square of the norms of the head's columns; a/100, where a is the largest sum of the
    magnitudes that an output is added up from; and a tenth of the largest bias. For the features themselves, of no
    head, r is 0 and a is their largest magnitude. Power is the larger of r/2 and the standard deviation of what the
    head adds to its bias, over the scale.

    The scale is zero where the kernel is: outputs must then be equal, unless weights are rounded. Power is 0 there,
    and next to nothing where all images (two or more) have the same outputs.

    Args:
        outputs: what should come out, `[n, k]`.
        features: what the head is given, `[n, d]`; the outputs themselves where there is no head.
        head: its `kernel` `[d, k]` and `bias` `[k]`.
        exact: whether the weights are stored as they are; rounded ones give other biases beside a kernel of zeros too.
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
    return Scale(
        of=positive,
        power=np.zeros(len(outputs)) if constant else np.nan_to_num(np.minimum(own / positive, most)),
        unit=np.spacing(largest).astype(np.float64),
        turns=(added >= gain / 2) & (outputs.shape[1] > 1),
    )


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
    """Tell whether images, two or more, have outputs that differ by no more than two computations of one may."""
    if len(outputs) < 2:
        return False
    return bool(np.all(np.abs(outputs - outputs[0]).max(axis=1) <= TOLERANCES["max_relative"].limit * scale))
