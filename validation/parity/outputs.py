"""Measure how far outputs are from the expected ones, and compare the figures with their limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.records.check import Check, Probe, Tolerance
from models.records.tolerances import TOLERANCES
from validation.parity.scale import Scale, Values

Outputs = NDArray[np.float32]
Entry = Literal["__call__", "serving_default"]


@dataclass(frozen=True)
class Expected:
    """The expected outputs `[n, k]` of named images.

    Attributes:
        names: of the images.
        jax: JAX's outputs.
        oracle: outputs `[k]` of the float64 oracle, for the names that it was run on.
        classes: whether the outputs are logits, whose top classes are compared.
        scale: what differences are divided by, one entry per image.
    """

    names: tuple[str, ...]
    jax: Outputs | Values
    oracle: Mapping[str, Values]
    classes: bool
    scale: Scale

    def compare(
        self, entry: Entry, found: Outputs, indices: NDArray[np.intp], *, probe: Probe | None = None
    ) -> "Comparison":
        """Measure how far the outputs `[m, k]` of an entry point for the images `indices` `[m]` are from these.

        NaN and infinity count as infinitely far.

        Raises:
            ValueError: the shapes differ.
        """
        jax = self.jax[indices]
        names = tuple(self.names[index] for index in indices)
        if found.shape != jax.shape:
            raise ValueError(f"{entry} gives outputs of shape {found.shape}, expected {jax.shape}")
        tie = 2 * TOLERANCES["max_relative"].limit
        return Comparison(
            entry,
            len(found),
            tuple(dict.fromkeys(names)),
            measure(found, jax, self.scale[indices], classes=self.classes, tie=tie),
            _compare_with_oracle(found, jax, self, indices),
            probe,
        )

    def check_batching(self, batches: Sequence[tuple[Sequence[str], Outputs]]) -> Iterator[Check]:
        """Yield a check of how much an image's outputs differ between batches; nothing if no image was in two batches.

        Args:
            batches: the names of the images of each batch, and their outputs `[n, k]`, float32.
        """
        found: dict[str, list[Outputs]] = {}
        for names, outputs in batches:
            for name, row in zip(names, outputs, strict=True):
                found.setdefault(name, []).append(row)
        repeated = [name for name, rows in found.items() if len(rows) > 1]
        if repeated:
            scale = self.scale[np.array([self.names.index(name) for name in repeated])]
            worst = float((np.array([_apart(found[name]) for name in repeated]) / scale.of).max())
            on, limit = f"{', '.join(repeated)} in different batches", TOLERANCES["batch_relative"].limit
            yield limited("batch_relative", on, worst, limit, power=float(scale.power.min()))


@dataclass(frozen=True)
class _Distances:
    """Distances of outputs from the expected ones, each of the worst image.

    Attributes:
        max_relative: largest difference over the scale of the image's outputs.
        max_ulp: the same in units in the last place (float32).
        cosine_distance: 1 - cosine similarity; None if no image's outputs have a meaningful direction.
        top1: share of images whose top class agrees; None for features.
        top5: share of images whose set of top five classes agrees; None for features.
        power: the lowest of any image.
    """

    max_relative: float
    max_ulp: float
    cosine_distance: float | None
    top1: float | None
    top5: float | None
    power: float

    def checks(
        self, on: str, tolerances: Mapping[str, Tolerance], *, prefix: str = "", probe: Probe | None = None
    ) -> Iterator[Check]:
        """Yield a check for each figure that `tolerances` has a limit for, its name preceded by `prefix`."""
        figures = {
            "max_relative": self.max_relative,
            "max_ulp": self.max_ulp,
            "cosine_distance": self.cosine_distance,
            "top1_disagreement": None if self.top1 is None else 1 - self.top1,
            "top5_disagreement": None if self.top5 is None else 1 - self.top5,
        }
        for name, found in figures.items():
            if found is not None and name in tolerances:
                yield limited(f"{prefix}{name}", on, found, tolerances[name].limit, power=self.power, probe=probe)


@dataclass(frozen=True)
class _OracleDistances:
    """Distances of the SavedModel and of JAX from the float64 oracle, each of the worst image.

    Attributes:
        saved_model: largest difference over the scale of the image's outputs.
        jax: the same for JAX.
        excess_ulp: by how much the SavedModel's error exceeds twice JAX's, in units in the last place; negative if it
            does not.
        power: the lowest of any image.
    """

    saved_model: float
    jax: float
    excess_ulp: float
    power: float


@dataclass(frozen=True)
class Comparison:
    """SavedModel compared with JAX, and both with the oracle, on one batch through one entry point.

    Attributes:
        entry: the entry point of the SavedModel.
        batch: number of images.
        names: of the images, each once.
        distances: from JAX.
        oracle: distances from the oracle; None if it was run on none of the images.
        probe: the part of the model that a probe replaced, if any.
    """

    entry: Entry
    batch: int
    names: tuple[str, ...]
    distances: _Distances
    oracle: _OracleDistances | None
    probe: Probe | None = None

    def __str__(self) -> str:
        """Return what was compared, in words."""
        how = f"probing {self.probe}, " if self.probe else ""
        return f"{how}{self.entry} on {', '.join(self.names)} (batch {self.batch})"

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every figure with its limit and any problem."""
        return (*self.distances.checks(str(self), TOLERANCES, probe=self.probe), *self._oracle_checks())

    def _oracle_checks(self) -> Iterator[Check]:
        found = self.oracle
        if found is None:
            return
        on, power, probe = str(self), found.power, self.probe
        yield Check(name="saved_model_oracle_relative", on=on, measured=found.saved_model, power=power, probe=probe)
        limit = TOLERANCES["oracle_excess_ulp"].limit
        said = (
            f"{on}: the SavedModel differs from the oracle by {found.saved_model:.3g}, JAX by {found.jax:.3g}: "
            f"{found.excess_ulp:.3g} ULP over twice JAX's error, allowed {limit:.3g}"
        )
        yield limited("oracle_excess_ulp", on, found.excess_ulp, limit, power=power, probe=probe, problem=said)
        limit = TOLERANCES["jax_oracle_relative"].limit
        said = (
            f"{on}: JAX differs from the oracle by {found.jax:.3g}, allowed {limit:.3g}: the outputs to compare with "
            "are wrong themselves"
        )
        yield limited("jax_oracle_relative", on, found.jax, limit, power=power, probe=probe, problem=said)


def limited(
    name: str,
    on: str,
    found: float,
    limit: float,
    *,
    power: float | None,
    probe: Probe | None = None,
    problem: str = "",
) -> Check:
    """Return the check of a figure; if it is over the limit, `problem` says so, or a default message."""
    check = Check(name=name, on=on, measured=found, limit=limit, power=power, probe=probe)
    said = problem or _over(name, on, found, limit)
    return check.model_copy(update={"problems": (said,)}) if check.is_over else check


def _over(name: str, on: str, found: float, limit: float) -> str:
    if name.endswith("_disagreement"):
        which = "top1" if "top1" in name else "top5"
        return f"{on}: {which} agrees on {1 - found:.0%} of the images, expected all"
    return f"{on}: {name} {found:.3g} is over {limit:.3g}"


def measure(found: Outputs, expected: Outputs | Values, scale: Scale, *, classes: bool, tie: float) -> _Distances:
    """Measure how far outputs `[m, k]` are from the expected ones.

    NaN and infinity count as infinitely far.

    Args:
        found: the outputs.
        expected: the expected outputs.
        scale: what differences are divided by, one entry per image.
        classes: whether they are logits, whose top classes are compared.
        tie: expected logits that differ by no more than this, over the image's scale, count as equal.
    """
    ours, theirs = _finite_or_far(found), expected.astype(np.float64)
    distance = np.abs(ours - theirs).max(axis=1)
    slack = tie * scale.of
    return _Distances(
        max_relative=float((distance / scale.of).max()),
        max_ulp=float((distance / scale.unit).max()),
        cosine_distance=_cosine_distance(ours[scale.turns], theirs[scale.turns]),
        top1=_agreement(ours, theirs, 1, slack) if classes else None,
        top5=_agreement(ours, theirs, 5, slack) if classes else None,
        power=float(scale.power.min()),
    )


def _apart(rows: Sequence[Outputs]) -> float:
    values = np.asarray(rows, np.float64)
    return float(np.ptp(values, axis=0).max()) if np.isfinite(values).all() else float("inf")


def _finite_or_far(found: Outputs) -> Values:
    values = found.astype(np.float64)
    return np.where(np.isfinite(values), values, np.inf)


def relative_distance(found: Outputs, expected: Outputs | Values, scale: Values) -> float:
    """Return the largest difference from the expected outputs `[n, k]` over their scale `[n]`, of the worst row."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(axis=1)
    worst = float((difference / scale).max())
    return worst if np.isfinite(worst) else float("inf")


def _compare_with_oracle(
    found: Outputs, jax: Outputs | Values, expected: Expected, indices: NDArray[np.intp]
) -> _OracleDistances | None:
    names = [expected.names[index] for index in indices]
    known = [row for row, name in enumerate(names) if name in expected.oracle]
    if not known:
        return None
    truth = np.stack([expected.oracle[names[row]] for row in known])
    scale = expected.scale[indices[known]]
    ours_off = np.abs(_finite_or_far(found[known]) - truth).max(axis=1)
    jax_off = np.abs(jax[known] - truth).max(axis=1)
    return _OracleDistances(
        saved_model=float((ours_off / scale.of).max()),
        jax=float((jax_off / scale.of).max()),
        excess_ulp=float(((ours_off - 2 * jax_off) / scale.unit).max()),
        power=float(scale.power.min()),
    )


def _cosine_distance(left: Values, right: Values) -> float | None:
    """Return the largest 1 - cosine similarity of any row; None if there are no rows.

    It is half the squared distance of the unit vectors: 1 - cos loses all its digits when the vectors nearly agree.
    """
    if not len(left):
        return None
    if not np.isfinite(left).all():
        return 2.0
    units = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-300) for side in (left, right)]
    return float((np.square(units[0] - units[1]).sum(axis=1) / 2).max())


def _agreement(ours: Values, theirs: Values, k: int, slack: Values) -> float:
    """Return the share of images whose top k classes are the expected ones, except for ties within `slack`.

    An image with an output that is not finite does not agree. If there are fewer than k classes, all are compared.
    """
    k = min(k, ours.shape[1])
    chosen = np.argpartition(-ours, k - 1, axis=1)[:, :k]
    lowest_expected = np.sort(theirs, axis=1)[:, -k]
    lowest_chosen = np.take_along_axis(theirs, chosen, axis=1).min(axis=1)
    return float(np.mean((lowest_chosen >= lowest_expected - slack) & np.isfinite(ours).all(axis=1)))
