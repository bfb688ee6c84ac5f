"""The targets of the benchmark, mostly ratios of sides that were measured in one run."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from validation.benchmark.records import (
    ConversionBenchmark,
    EngineSpeed,
    InferenceBenchmark,
    ModelSpeed,
    Side,
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

    @property
    def met(self) -> bool | None:
        """Whether it is within the limit; None if it is unknown."""
        return None if self.value is None else self.value <= self.limit


def conversion_findings(found: ConversionBenchmark) -> list[Finding]:
    """Return the figures about conversion."""
    return [Finding(what.format(found=found), figure(found), limit) for what, limit, figure in _CONVERSION]


def inference_findings(found: InferenceBenchmark) -> list[Finding]:
    """Return the figures about loaded models."""
    return [
        Finding(f"{model.architecture}, batch {batch}: {name} over JAX", over_jax(model, name, batch), limit)
        for model in found.models
        for name, limits in _INFERENCE.items()
        for batch, limit in limits.items()
        if any(engine.name == name for engine in model.engines)
    ]


def start_findings(found: StartBenchmark) -> list[Finding]:
    """Return the figures about starting."""
    return [
        Finding(
            f"{side.architecture}, {side.flavour}: first call minus the second, seconds",
            median([run.first - run.second for run in side.runs]),
            GRAPH_FIRST_CALL,
        )
        for side in found.sides
        if side.flavour == "graph"
    ]


def over_jax(model: ModelSpeed, name: str, batch: int) -> float | None:
    """Return the median seconds of an engine over JAX's."""
    return ratio(*(median(_engine(model, each).get(batch, ())) for each in (name, "jax")))


def _engine(model: ModelSpeed, name: str) -> dict[int, tuple[float, ...]]:
    found: Iterator[EngineSpeed] = (engine for engine in model.engines if engine.name == name)
    return next((engine.seconds for engine in found), {})


def wall(found: ConversionBenchmark, name: str) -> float | None:
    """Return the median seconds of a side; None if it was not measured."""
    return median([seconds for side in _named(found, name) for seconds in side.walls])


def _peak(found: ConversionBenchmark, name: str) -> float | None:
    return max((float(run.peak) for side in _named(found, name) for run in side.runs), default=None)


def _named(found: ConversionBenchmark, name: str) -> Sequence[Side]:
    return [side for side in found.sides if side.name == name]


def _walls(above: str, below: str) -> Callable[[ConversionBenchmark], float | None]:
    return lambda found: ratio(wall(found, above), wall(found, below))


def _further_seconds(found: ConversionBenchmark) -> float | None:
    """Return the seconds of `convert` for the further checkpoints: of each model, from the end of the one before."""
    took = []
    for run in (run for side in _named(found, "convert") for run in side.runs):
        done = sorted((seconds, name in found.further) for name, seconds in run.finished.items())
        gaps = [now - before for (before, _), (now, further) in itertools.pairwise(done) if further]
        took += [sum(gaps)] if gaps else []
    return median(took)


def _memory(found: ConversionBenchmark) -> float | None:
    imports = _peak(found, "imports")
    return ratio(_peak(found, "convert"), imports and imports + CHECKPOINT_IN_MEMORY * found.largest)


def _depth(found: ConversionBenchmark) -> float | None:
    imports = wall(found, "imports")
    deep, shallow = (wall(found, name) for name in ("blocks-twice", "blocks"))
    return None if None in (imports, deep, shallow) else ratio(deep - imports, shallow - imports)  # type: ignore[operator]


def _each(found: ConversionBenchmark) -> float | None:
    """Return the time of each checkpoint after the first, over that of copying its models."""
    one, many, copy = (wall(found, name) for name in ("many-one", "many", "many-cp"))
    if one is None or many is None or copy is None or found.count < 2:
        return None
    return ratio((many - one) / (found.count - 1), copy / found.count)


_CONVERSION: tuple[tuple[str, float, Callable[[ConversionBenchmark], float | None]], ...] = (
    ("`convert` over the notebook way", 1 / 5, _walls("convert", "notebook")),
    ("`convert` over the floor", 2.5, _walls("convert", "floor")),
    (
        "further checkpoints of a known architecture, over `cp` of their models",
        2.0,
        lambda found: ratio(_further_seconds(found), wall(found, "cp")),
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

GRAPH_FIRST_CALL = 0.5
"""Seconds by which the first call of the graph flavour may exceed the second: it compiles nothing."""
