"""The records of the benchmark: what was measured, on which machine, with what.

Each part is a record of its own, written as `<part>.json`: `conversion`, `inference`, `start`.
"""

import datetime
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from models.records.manifest import Record
from models.records.provenance import library_versions
from models.storage.files import write_atomically
from validation.benchmark.stopwatch import Run

Tell = Callable[[str], object]

QUICK_RATIOS = (("convert", "floor"), ("convert-kept", "floor"), ("convert-all", "convert"), ("parity", "convert"))
"""Pairs of sides whose times a quick run compares."""

REGRESSION = 0.2
"""How much a ratio of a quick run may grow."""

QUIET = 0.3
"""Cores that may be busy with other work before the figures count only as a trial."""


class _Machine(Record):
    """The machine that the figures were measured on."""

    processor: str
    cores: int
    """Cores that this process may use."""
    memory: int
    """Bytes."""
    platform: str
    load: float
    """Load average of the minute before, including the benchmark's own processes of an earlier part."""
    busy: float | None = None
    """Cores that other processes used in the second before; None if that was not measured."""

    @property
    def quiet(self) -> bool:
        """Whether the figures can be trusted: little else was running."""
        return (self.load if self.busy is None else self.busy) <= QUIET


class Benchmark(Record):
    """What the records of all parts share."""

    schema_version: Literal[1] = 1
    date: str
    machine: _Machine
    libraries: dict[str, str]
    repeats: int

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_bytes())


class Side(Record):
    """One of the commands that are compared, and the cost of each run, or why it failed."""

    name: str
    what: str
    runs: tuple[Run, ...] = ()
    failure: str | None = None

    @property
    def walls(self) -> list[float]:
        """Wall-clock seconds of each run."""
        return [run.wall for run in self.runs]


class ConversionBenchmark(Benchmark):
    """Conversion of checkpoints to SavedModels: whole processes, all sides interleaved."""

    source: Literal["seeded", "given"]
    handles: tuple[str, ...]
    largest: int
    """Bytes of the largest checkpoint."""
    outputs: int
    """Bytes of all models."""
    further: tuple[str, ...]
    """Handles of the checkpoints that needed no new graph: an earlier one of the run had the same, for all heads."""
    count: int
    """Number of small checkpoints of one architecture."""
    blocks: int
    """Blocks of the shallower of the two models that differ only in depth; the other has twice as many."""
    sides: tuple[Side, ...]

    def wall(self, name: str) -> float | None:
        """Return the median seconds of a side; None if it was not measured."""
        return median([seconds for side in self.named(name) for seconds in side.walls])

    def over(self, above: str, below: str) -> float | None:
        """Return the median seconds of a side over another's; None if one of them was not measured."""
        return ratio(self.wall(above), self.wall(below))

    def named(self, name: str) -> list[Side]:
        """Return the side of a name, if it was measured."""
        return [side for side in self.sides if side.name == name]


class QuickBenchmark(Benchmark):
    """Ratios of a short run, to be compared with those of an earlier one."""

    handles: tuple[str, ...]
    ratios: dict[str, float]

    @classmethod
    def of(cls, found: ConversionBenchmark) -> Self:
        """Return the ratios that were measured, with two decimals."""
        same = {name: getattr(found, name) for name in ("date", "machine", "libraries", "repeats", "handles")}
        ratios = {f"{above} over {below}": found.over(above, below) for above, below in QUICK_RATIOS}
        return cls(**same, ratios={name: round(value, 2) for name, value in ratios.items() if value is not None})

    def regressions(self, earlier: "QuickBenchmark") -> list[str]:
        """Return the ratios that grew by more than `REGRESSION`, or are missing, in words."""
        now, before = self.ratios, earlier.ratios
        found = [f"{name} is missing, {old:.2f} before" for name, old in before.items() if name not in now]
        grown = {name: (old, now[name]) for name, old in before.items() if now.get(name, 0) > (1 + REGRESSION) * old}
        return found + [f"{name} grew from {old:.2f} to {new:.2f}" for name, (old, new) in grown.items()]


class EngineSpeed(Record):
    """The times of one engine running a model."""

    name: str
    title: str
    version: str | None
    difference: float | None = None
    """The largest difference of an output from JAX's over the spread of the image's outputs."""
    seconds: dict[int, tuple[float, ...]] = Field(default_factory=dict)
    """Seconds of each call, by batch size."""
    failure: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the engine is installed."""
        return self.version is not None


class ModelSpeed(Record):
    """One model in all engines."""

    handle: str
    architecture: str
    flops: int
    """Floating-point operations of one image: those of its matrix products."""
    engines: tuple[EngineSpeed, ...]

    def over_jax(self, name: str, batch: int) -> float | None:
        """Return the median seconds of an engine over JAX's."""
        return ratio(*(median(self._seconds(each).get(batch, ())) for each in (name, "jax")))

    def _seconds(self, name: str) -> dict[int, tuple[float, ...]]:
        return next((engine.seconds for engine in self.engines if engine.name == name), {})


class InferenceBenchmark(Benchmark):
    """Calls of loaded models."""

    threads: int
    product: float | None
    """FLOP/s of the fastest large matrix product of any of the libraries; None if none was measured."""
    models: tuple[ModelSpeed, ...]

    @property
    def limit(self) -> float | None:
        """The highest FLOP/s measured: of the fastest matrix product, or of the fastest run if that was faster."""
        runs = (
            batch * model.flops / second
            for model in self.models
            for engine in model.engines
            for batch, seconds in engine.seconds.items()
            for second in seconds
        )
        return max((self.product or 0.0, *runs)) or None


class Start(Record):
    """Seconds of the steps of one process, from its start to its second outputs, for one image."""

    interpreter: float
    imports: float
    load: float
    first: float
    second: float
    prepared: float
    """Processor seconds of the calling thread in the first call: tracing and optimising."""

    @property
    def total(self) -> float:
        """Seconds until the first outputs."""
        return self.interpreter + self.imports + self.load + self.first


class StartSide(Record):
    """The start-up times of one model in several runs, or why it failed."""

    handle: str
    architecture: str
    flavour: str
    runs: tuple[Start, ...] = ()
    failure: str | None = None


class StartBenchmark(Benchmark):
    """Process start to first outputs."""

    sides: tuple[StartSide, ...]


def circumstances() -> dict[str, Any]:
    """Return the fields of a record that say when, where and with what it is measured now."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _describe_machine(),
        "libraries": dict(library_versions()),
    }


def _describe_machine() -> _Machine:
    """Return a description of this machine, after measuring for a second how busy it is."""
    import psutil

    return _Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        platform=f"{platform.system()} {platform.machine()}",
        load=round(os.getloadavg()[0], 2),
        busy=round(psutil.cpu_percent(interval=1.0) / 100 * psutil.cpu_count(), 2),
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def median(values: Sequence[float]) -> float | None:
    """Return the median; None if there are no values."""
    return statistics.median(values) if values else None


def ratio(above: float | None, below: float | None) -> float | None:
    """Return the quotient; None if one of them is unknown, or `below` is 0."""
    return above / below if above is not None and below else None
