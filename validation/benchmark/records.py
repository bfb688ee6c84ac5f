"""The records of the benchmark: what was measured, on which machine, with what.

Each part is a record of its own, written as `<part>.json`: `conversion`, `inference`, `start`.
"""

import datetime
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from models.records.manifest import Record
from models.records.provenance import library_versions
from models.storage.files import write_atomically
from validation.benchmark.stopwatch import Run

Tell = Callable[[str], object]

QUIET = 0.3
"""Cores that may be busy with something else before figures are called a trial."""


class _Machine(Record):
    """What the figures hold for."""

    processor: str
    cores: int
    """That this process may use."""
    memory: int
    """Bytes."""
    platform: str
    load: float
    """Processes that wanted a core in the minute before, the benchmark's own of an earlier part included."""
    busy: float | None = None
    """Cores that something else used in the second before; None where that was not looked at."""

    @property
    def quiet(self) -> bool:
        """Whether the figures can be trusted: nothing much else was running."""
        return (self.load if self.busy is None else self.busy) <= QUIET


class Benchmark(Record):
    """What all parts say."""

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
    """One way to do it, and what each of its runs took; or why it failed."""

    name: str
    what: str
    runs: tuple[Run, ...] = ()
    failure: str | None = None

    @property
    def walls(self) -> list[float]:
        """Seconds of each run."""
        return [run.wall for run in self.runs]


class ConversionBenchmark(Benchmark):
    """Checkpoints to SavedModels: whole processes, each side several times in turn."""

    source: Literal["seeded", "given"]
    handles: tuple[str, ...]
    largest: int
    """Bytes of the largest checkpoint."""
    outputs: int
    """Bytes of all models."""
    further: tuple[str, ...]
    """Handles of the checkpoints whose graphs an earlier one of the run had needed already, for both heads."""
    count: int
    """Of the small checkpoints of one architecture."""
    blocks: int
    """Of the shallower of the two models that differ in their depth alone; the other has twice as many."""
    sides: tuple[Side, ...]


class EngineSpeed(Record):
    """One engine running a model: what each call took."""

    name: str
    title: str
    version: str | None
    difference: float | None = None
    """The largest difference of an output from JAX's over the spread of the image's outputs."""
    seconds: dict[int, tuple[float, ...]] = Field(default_factory=dict)
    """By batch."""
    failure: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the engine is there at all."""
        return self.version is not None


class ModelSpeed(Record):
    """One model in all engines."""

    handle: str
    architecture: str
    flops: int
    """Floating-point operations of one image: those of its matrix products."""
    engines: tuple[EngineSpeed, ...]


class InferenceBenchmark(Benchmark):
    """A loaded model, call after call."""

    threads: int
    product: float | None
    """FLOP/s of the fastest large matrix product of any of the libraries; None where none was asked."""
    models: tuple[ModelSpeed, ...]

    @property
    def limit(self) -> float | None:
        """FLOP/s that nothing exceeded: those of the fastest matrix product, or of the fastest run if it was faster."""
        runs = (
            batch * model.flops / second
            for model in self.models
            for engine in model.engines
            for batch, seconds in engine.seconds.items()
            for second in seconds
        )
        return max((self.product or 0.0, *runs)) or None


class Start(Record):
    """Seconds of one process from its start to its second outputs, of one image."""

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
    """What one model took to start, several times; or why it failed."""

    handle: str
    architecture: str
    flavour: str
    runs: tuple[Start, ...] = ()
    failure: str | None = None


class StartBenchmark(Benchmark):
    """Process start to first outputs."""

    sides: tuple[StartSide, ...]


def describe_machine() -> _Machine:
    """Return what is known of this machine, after a look of a second at what else it does."""
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


def today() -> str:
    """Return the date, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries."""
    return dict(library_versions())


def median(values: Sequence[float]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None


def ratio(above: float | None, below: float | None) -> float | None:
    """Return the quotient; None where one of them is not known."""
    return above / below if above is not None and below else None
