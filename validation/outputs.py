"""Measures of how far outputs are from what they should be, and the judgement on them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.records import Comparison, OracleDistances
from validation.tolerances import TOLERANCES

Outputs = NDArray[np.float32]
Values = NDArray[np.float64]
Entry = Literal["__call__", "serving_default"]

JAX_IS_OFF = "JAX is off the oracle by"
"""How the problem begins that is not the SavedModel's alone."""


@dataclass(frozen=True)
class Expected:
    """What the outputs `[n, k]` of named images should be.

    Attributes:
        names: of the images.
        jax: JAX's outputs.
        oracle: outputs `[k]` of the float64 oracle, for the names that it was run on.
        classes: whether the outputs are logits, of which the largest matter.
    """

    names: tuple[str, ...]
    jax: Outputs
    oracle: Mapping[str, Values]
    classes: bool


def compare_outputs(entry: Entry, found: Outputs, expected: Expected, indices: NDArray[np.intp]) -> Comparison:
    """Measure how far outputs `[m, k]` are from those expected of the images `indices` `[m]`.

    NaN and infinity count as infinitely far.

    Raises:
        ValueError: the shapes differ.
    """
    jax = expected.jax[indices]
    names = tuple(expected.names[index] for index in indices)
    if found.shape != jax.shape:
        raise ValueError(f"{entry} gives outputs of shape {found.shape}, expected {jax.shape}")
    tie = 2 * TOLERANCES["max_relative"].limit
    return Comparison(
        entry=entry,
        batch=len(found),
        inputs=tuple(dict.fromkeys(names)),
        **asdict(measure(found, jax, classes=expected.classes, tie=tie)),
        oracle=_compare_with_oracle(_finite_or_far(found), jax, expected.oracle, names),
    )


@dataclass(frozen=True)
class Distances:
    """How far outputs are from those expected, each figure that of the worst image.

    Attributes:
        max_abs: largest difference.
        max_relative: the same over the spread (standard deviation) of the image's expected outputs.
        max_ulp: the same in units of the last place (float32) of the largest of them.
        cosine_distance: 1 - cosine similarity.
        top1: share of images whose first class agrees; None for features.
        top5: share of images whose set of first five agrees; None for features.
    """

    max_abs: float
    max_relative: float
    max_ulp: float
    cosine_distance: float
    top1: float | None
    top5: float | None


def measure(found: Outputs, expected: Outputs | Values, *, classes: bool, tie: float) -> Distances:
    """Measure how far outputs `[m, k]` are from those expected.

    NaN and infinity count as infinitely far.

    Args:
        found: the outputs.
        expected: what they should be.
        classes: whether they are logits, of which the largest matter.
        tie: expected logits that differ by no more than this, over the image's spread, count as equal.
    """
    ours, theirs = _finite_or_far(found), expected.astype(np.float64)
    distance = np.abs(ours - theirs).max(axis=1)
    spread, last_place = _scales(expected)
    return Distances(
        max_abs=float(distance.max()),
        max_relative=float((distance / spread).max()),
        max_ulp=float((distance / last_place).max()),
        cosine_distance=float(_cosine_distance(ours, theirs).max()),
        top1=_agreement(ours, theirs, 1, tie * spread) if classes else None,
        top5=_agreement(ours, theirs, 5, tie * spread) if classes else None,
    )


def _finite_or_far(found: Outputs) -> Values:
    values = found.astype(np.float64)
    return np.where(np.isfinite(values), values, np.inf)


def relative_distance(found: Outputs, expected: Outputs | Values) -> float:
    """Return the largest difference over the spread (standard deviation) of the expected outputs; the worst row."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(axis=1)
    worst = float((difference / _scales(expected)[0]).max())
    return worst if np.isfinite(worst) else float("inf")


def judge(comparison: Comparison) -> Iterator[str]:
    """Yield what of a comparison is over its limit."""
    where = f"{comparison.entry} on {', '.join(comparison.inputs)} (batch {comparison.batch})"
    for name in ("max_relative", "max_ulp", "cosine_distance"):
        found, limit = getattr(comparison, name), TOLERANCES[name].limit
        if not found <= limit:
            yield f"{where}: {name} {found:.3g} is over {limit:.3g}"
    for name in ("top1", "top5"):
        share = getattr(comparison, name)
        if share is not None and share < TOLERANCES["topk"].limit:
            yield f"{where}: {name} agrees on {share:.0%} of the images, expected all"
    if comparison.oracle is not None:
        yield from (f"{where}: {problem}" for problem in _judge_by_oracle(comparison.oracle))


def _judge_by_oracle(found: OracleDistances) -> Iterator[str]:
    limit = TOLERANCES["oracle_excess_ulp"].limit
    if not found.excess_ulp <= limit:
        yield (
            f"{found.saved_model:.3g} off the oracle, JAX {found.jax:.3g}; that is "
            f"{found.excess_ulp:.3g} ULP over twice JAX's error, allowed {limit:.3g}"
        )
    limit = TOLERANCES["jax_oracle_relative"].limit
    if not found.jax <= limit:
        yield f"{JAX_IS_OFF} {found.jax:.3g}, allowed {limit:.3g}: what it is held against is wrong itself"


def _scales(outputs: Outputs | Values) -> tuple[Values, Values]:
    """Return standard deviation and unit in the last place (float32) of the largest value of each row."""
    spread = outputs.astype(np.float64).std(axis=1)
    largest = np.abs(outputs).max(axis=1).astype(np.float32)
    return np.maximum(spread, np.finfo(np.float64).tiny), np.spacing(largest).astype(np.float64)


def _compare_with_oracle(
    ours: Values, jax: Outputs, oracle: Mapping[str, Values], names: tuple[str, ...]
) -> OracleDistances | None:
    known = [index for index, name in enumerate(names) if name in oracle]
    if not known:
        return None
    truth = np.stack([oracle[names[index]] for index in known])
    spread, last_place = _scales(jax[known])
    ours_off = np.abs(ours[known] - truth).max(axis=1)
    jax_off = np.abs(jax[known] - truth).max(axis=1)
    return OracleDistances(
        inputs=tuple(dict.fromkeys(names[index] for index in known)),
        saved_model=float((ours_off / spread).max()),
        jax=float((jax_off / spread).max()),
        excess_ulp=float(((ours_off - 2 * jax_off) / last_place).max()),
    )


def _cosine_distance(left: Values, right: Values) -> Values:
    # Half the squared distance of the unit vectors: 1 - cos loses all its digits where the vectors nearly agree.
    if not np.isfinite(left).all():
        return np.full(len(left), 2.0)
    units = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-300) for side in (left, right)]
    return np.asarray(np.square(units[0] - units[1]).sum(axis=1) / 2)


def _agreement(ours: Values, theirs: Values, k: int, slack: Values) -> float:
    """Return the share of images whose k first classes are the expected ones, but for ties within `slack`.

    An image with an output that is not finite has none. Of fewer than k classes, all are the first.
    """
    k = min(k, ours.shape[1])
    chosen = np.argpartition(-ours, k - 1, axis=1)[:, :k]
    lowest_expected = np.sort(theirs, axis=1)[:, -k]
    lowest_chosen = np.take_along_axis(theirs, chosen, axis=1).min(axis=1)
    return float(np.mean((lowest_chosen >= lowest_expected - slack) & np.isfinite(ours).all(axis=1)))
