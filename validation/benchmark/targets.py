"""The targets of the benchmark, mostly ratios of sides that were measured in one run."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from models.catalog import HANDLES
from validation.benchmark.records import (
    Benchmark,
    ConversionBenchmark,
    InferenceBenchmark,
    StartBenchmark,
    median,
    ratio,
)

CHECKPOINT_IN_MEMORY = 1.3
"""Memory that `convert` may use beyond that of importing, as a multiple of the largest checkpoint."""


@dataclass(frozen=True)
class Finding:
    """A figure and its upper limit; the value is None if the sides that it needs were not measured."""

    what: str
    value: float | None
    limit: float

    @classmethod
    def all_of(cls, found: Benchmark) -> "list[Finding]":
        """Return the figures about a part."""
        if isinstance(found, ConversionBenchmark):
            return _about_conversion(found)
        if isinstance(found, InferenceBenchmark):
            return _about_inference(found)
        return _about_starts(found) if isinstance(found, StartBenchmark) else []

    @property
    def met(self) -> bool | None:
        """Whether it is within the limit; None if it is unknown."""
        return None if self.value is None else self.value <= self.limit


def _about_conversion(found: ConversionBenchmark) -> list[Finding]:
    ratios = [Finding(what.format(found=found), figure(found), limit) for what, limit, figure in _CONVERSION]
    return [*ratios, *_parity(found)]


def _about_inference(found: InferenceBenchmark) -> list[Finding]:
    return [
        Finding(f"{model.architecture}, batch {batch}: {name} over JAX", model.over_jax(name, batch), limit)
        for model in found.models
        for name, limits in _INFERENCE.items()
        for batch, limit in limits.items()
        if any(engine.name == name for engine in model.engines)
    ]


def _about_starts(found: StartBenchmark) -> list[Finding]:
    return [
        Finding(
            f"{side.architecture}, {side.flavour}: first call minus the second, seconds",
            median([run.first - run.second for run in side.runs]),
            _FIRST_CALL[side.flavour],
        )
        for side in found.sides
    ]


def _peak(found: ConversionBenchmark, name: str) -> float | None:
    return max((float(run.peak) for side in found.named(name) for run in side.runs), default=None)


def _walls(above: str, below: str) -> Callable[[ConversionBenchmark], float | None]:
    return lambda found: found.over(above, below)


def _further_seconds(found: ConversionBenchmark) -> float | None:
    """Return the seconds of `convert` for the further checkpoints: of each model, from the end of the one before."""
    took = []
    for run in (run for side in found.named("convert") for run in side.runs):
        done = sorted((seconds, name in found.further) for name, seconds in run.finished.items())
        gaps = [now - before for (before, _), (now, further) in itertools.pairwise(done) if further]
        took += [sum(gaps)] if gaps else []
    return median(took)


def _memory(found: ConversionBenchmark) -> float | None:
    imports = _peak(found, "imports")
    return ratio(_peak(found, "convert"), imports and imports + CHECKPOINT_IN_MEMORY * found.largest)


def _parity(found: ConversionBenchmark) -> list[Finding]:
    """Return the figures of the full set, which has limits for all twelve handles together alone."""
    if len(found.handles) < len(HANDLES):
        return []
    peak = _peak(found, "parity")
    return [
        Finding("the full set on all twelve, minutes", _minutes(found.wall("parity")), 15.0),
        Finding("its peak memory, GiB", None if peak is None else peak / 2**30, 7.0),
    ]


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


def _depth(found: ConversionBenchmark) -> float | None:
    imports = found.wall("imports")
    deep, shallow = (found.wall(name) for name in ("blocks-twice", "blocks"))
    return None if None in (imports, deep, shallow) else ratio(deep - imports, shallow - imports)  # type: ignore[operator]


def _each(found: ConversionBenchmark) -> float | None:
    """Return the time of each checkpoint after the first, over that of copying its models."""
    one, many, copy = (found.wall(name) for name in ("many-one", "many", "many-cp"))
    if one is None or many is None or copy is None or found.count < 2:
        return None
    return ratio((many - one) / (found.count - 1), copy / found.count)


_CONVERSION: tuple[tuple[str, float, Callable[[ConversionBenchmark], float | None]], ...] = (
    ("`convert` over the notebook way", 1 / 5, _walls("convert", "notebook")),
    ("`convert` over the floor", 2.5, _walls("convert", "floor")),
    ("`convert` with kept graphs over the floor", 1.6, _walls("convert-kept", "floor")),
    ("`convert-all` over `convert`", 2.5, _walls("convert-all", "convert")),
    ("`convert-all --jobs 2` over `convert`", 2.5, _walls("convert-all-jobs", "convert")),
    (
        "further checkpoints of a known architecture, over `cp` of their models",
        2.0,
        lambda found: ratio(_further_seconds(found), found.wall("cp")),
    ),
    (
        f"peak memory of `convert` over that of importing and {CHECKPOINT_IN_MEMORY:g} times the largest checkpoint",
        1.0,
        _memory,
    ),
    ("`convert-all`, checks included, over the notebook way, without", 1.0, _walls("convert-all", "notebook")),
    # Twice the blocks should take twice the time; quadratic growth would take four times as long.
    ("{found.blocks} blocks and twice as many: the time beside importing", 2.5, _depth),
    ("each of {found.count} small checkpoints, over `cp` of its models", 2.0, _each),
)

_INFERENCE: dict[str, dict[int, float]] = {"native": {8: 1.05, 32: 1.05}, "graph": {1: 1.25, 8: 1.10}}
"""The most time that an engine may take, over JAX's, by engine and batch size."""

_FIRST_CALL = {"graph": 0.5, "native": 1.2}
"""Seconds by which the first call may exceed the second: the graph flavour compiles nothing, the native one does."""
