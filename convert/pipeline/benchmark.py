"""Run the parts of the benchmark in order: prepare what each needs, measure it, and write its record at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

from convert.checkpoints.synthetic import write_seeded
from convert.pipeline.progress import Event, Steps, Watch
from export.install import prepare_out
from models.catalog import DEFAULT_VERSION, HANDLES, Handle
from models.errors import MixerError, UsageError
from models.storage.files import require_room
from models.storage.temporary import temporary_folder
from validation.benchmark import conversion, preparation
from validation.benchmark.conversion import COPYING, Folders, Scale, Scenario
from validation.benchmark.engines import ENGINES, Engine
from validation.benchmark.inference import measure_model
from validation.benchmark.records import (
    Benchmark,
    ConversionBenchmark,
    EngineSpeed,
    InferenceBenchmark,
    QuickBenchmark,
    StartBenchmark,
    circumstances,
)
from validation.benchmark.startup import measure_starts
from validation.benchmark.synthetic_models import rows

Part = Literal["conversion", "inference", "start"]
PARTS: dict[Part, type[Benchmark]] = {
    "conversion": ConversionBenchmark,
    "inference": InferenceBenchmark,
    "start": StartBenchmark,
}
FLAVOURS = ("native", "graph")
QUICK = Path(conversion.__file__).with_name("quick.json")
"""The ratios of a quick run that later ones are compared with."""
QUICK_HANDLES = tuple(name for name, one in HANDLES.items() if one.checkpoint.name == "b32_sam")[:1]
QUICK_SIDES = ("floor", "convert", "convert-kept", "convert-all", "parity")
SPARE = 1 << 28
"""Allowance in bytes for graphs, class lists and the file system's overhead."""


@dataclass(frozen=True)
class Bench:
    """What to measure."""

    parts: tuple[Part, ...]
    handles: tuple[Handle, ...]
    sides: tuple[str, ...]
    """Empty means all."""
    repeats: int
    batches: tuple[int, ...]
    threads: int
    source: Path | None
    models: Path | None
    out: Path
    scale: Scale

    def wants(self, side: str) -> bool:
        """Return whether a side is to be measured."""
        return not self.sides or side in self.sides

    def narrowed(self) -> "Bench":
        """Return the benchmark with only those parts that the chosen sides belong to."""
        names = _side_names(self)
        parts = tuple(part for part in self.parts if any(map(self.wants, names[part])))
        return replace(self, parts=parts or self.parts)

    def handles_of(self, part: Part) -> list[Handle]:
        """Return the handles of a part: the given ones that it supports or, by default, all or a few classifiers."""
        if part == "conversion":
            return list(self.handles or HANDLES.values())
        defaults = {"inference": ("b16_i1k",), "start": ("b16_i1k", "l16_i1k")}[part]
        some = self.handles or [one for one in HANDLES.values() if one.checkpoint.name in defaults]
        return [handle for handle in some if handle.head == "classification"]

    def check(self, watch: Watch) -> None:
        """Refuse, before any work, what cannot succeed.

        Raises:
            UsageError: a side is unknown or its library missing, a checkpoint is missing, the disk is too small.
        """
        if find_spec("psutil") is None:
            raise UsageError(
                "the benchmark needs psutil: install the extra bench, `pip install --editable '.[bench]'`."
            )
        known = _side_names(self)
        names = dict.fromkeys(name for part in self.parts for name in known[part])
        unknown = [side for side in self.sides if side not in names]
        if unknown:
            raise UsageError(
                f"{', '.join(self.parts)} has no side {', '.join(unknown)}: expected some of {', '.join(names)}."
            )
        for part in self.parts:
            if not any(self.wants(name) for name in known[part]):
                raise UsageError(
                    f"--side names no side of {part} ({', '.join(known[part])}): add one, or leave out --part {part}."
                )
            if not self.handles_of(part):
                raise UsageError(f"{part} takes only classifiers, but none of the handles is one: add a classifier.")
        for name, engine in ENGINES.items():
            if "inference" in self.parts and name in self.sides:
                engine.require()
        _check_files(self, watch)
        for engine in ENGINES.values():
            if "inference" in self.parts and not self.sides and not engine.here:
                watch(Event("noted", f"{engine.title} will not be measured: {engine.advice}"))

    def run(self, watch: Watch | None = None) -> list[Benchmark]:
        """Measure the parts, and write each one's record into the output directory."""
        done: list[Benchmark] = []
        with temporary_folder(self.out, ".work-") as folder, Steps(watch, _count(self)) as on:
            work = folder.resolve()
            place = Folders((self.source or work / "source").resolve(), (self.models or work / "kept").resolve(), work)
            if self.source is None:
                _seed(self, place.source, on)
            measure = {"conversion": _conversion, "inference": _inference, "start": _start}
            for part in self.parts:
                found = measure[part](self, place, on)
                path = self.out / f"{part}.json"
                found.write(path)
                on.note(f"written: {path}")
                done.append(found)
        return done

    def run_quick(self, watch: Watch | None = None) -> tuple[QuickBenchmark, list[str]]:
        """Measure the ratios of a few handles in minutes; return them, and which of them have grown.

        They are compared with those in the repository, `QUICK`; the record is written into the output directory.

        Raises:
            MixerError: a side failed.
        """
        found = cast(ConversionBenchmark, self.run(watch)[0])
        if failed := [f"{side.name} failed: {side.failure}" for side in found.sides if side.failure]:
            raise MixerError("\n".join(failed))
        quick = QuickBenchmark.of(found)
        quick.write(self.out / QUICK.name)
        return quick, quick.regressions(QuickBenchmark.read(QUICK))


def _side_names(bench: Bench) -> dict[Part, list[str]]:
    """Return the names of the sides of each part."""
    rows = _scenarios(bench, Folders(Path(), Path(), Path()))
    return {"conversion": [*rows], "inference": [*ENGINES], "start": [*FLAVOURS]}


def _check_files(bench: Bench, watch: Watch) -> None:
    if bench.source is not None:
        files = {bench.source / one.checkpoint.object for part in bench.parts for one in bench.handles_of(part)}
        missing = sorted(str(file) for file in files if not file.is_file())
        if missing:
            raise UsageError(
                f"no such checkpoint: {', '.join(missing)}. --source takes a directory of the bucket's layout; leave "
                "it out to use synthetic checkpoints."
            )
    prepare_out(bench.out)
    advice = "free some space, name fewer handles or sides, or give --source, --models or another --out."
    watch(Event("noted", require_room(bench.out, _disk_need(bench), advice)))


def _disk_need(bench: Bench) -> int:
    """Return the most bytes on the disk at one time."""
    handles = {handle.name: handle for part in bench.parts for handle in bench.handles_of(part)}
    need = SPARE
    if bench.source is None:
        need += sum(4 * row.parameters for row in {handle.checkpoint for handle in handles.values()})
    if "conversion" in bench.parts:
        models = sum(4 * handle.parameters for handle in bench.handles_of("conversion"))
        need += models * (2 if any(map(bench.wants, COPYING)) else 1)  # those to copy, and those of one side
        many = sum(4 * row.parameters for row in rows(bench.scale.architecture, 0, bench.scale.count))
        # The checkpoints, and both heads of each, twice: to copy, and of one side.
        need += 5 * many if bench.wants("many") or bench.wants("many-cp") else 0
    for part, copies in (("start", len(FLAVOURS)), ("inference", len(ENGINES))):
        if part in bench.parts:
            need += sum(copies * 4 * handle.parameters for handle in bench.handles_of(part))
    return need


def _count(bench: Bench) -> int:
    """Return the number of steps, without preparations."""
    counts = {
        "conversion": bench.repeats * len([name for name in _side_names(bench)["conversion"] if bench.wants(name)]),
        "inference": len(bench.batches) * len(bench.handles_of("inference")),
        "start": bench.repeats * len(bench.handles_of("start")) * len([one for one in FLAVOURS if bench.wants(one)]),
    }
    return sum(counts[part] for part in bench.parts)


def _seed(bench: Bench, directory: Path, on: Steps) -> None:
    for checkpoint in {one.checkpoint: None for part in bench.parts for one in bench.handles_of(part)}:
        write_seeded(checkpoint, directory, progress=on.start(f"seeding {checkpoint.object}"))


def _scenarios(bench: Bench, place: Folders) -> dict[str, Scenario]:
    return conversion.scenarios(bench.handles_of("conversion"), place, bench.scale)


def _conversion(bench: Bench, place: Folders, on: Steps) -> Benchmark:
    handles = bench.handles_of("conversion")
    rows = [row for name, row in _scenarios(bench, place).items() if bench.wants(name)]
    commands = preparation.for_conversion(handles, place, bench.scale, rows)
    preparation.prepare(commands, started=on.start, finished=on.note)
    return ConversionBenchmark(
        **circumstances(),
        repeats=bench.repeats,
        source="seeded" if bench.source is None else "given",
        handles=tuple(handle.name for handle in handles),
        largest=max((place.source / handle.checkpoint.object).stat().st_size for handle in handles),
        outputs=sum(4 * handle.parameters for handle in handles),
        further=conversion.further_handles(handles),
        count=bench.scale.count,
        blocks=bench.scale.blocks,
        sides=conversion.run_scenarios(rows, bench.repeats, started=on.start, finished=on.finish),
    )


def _inference(bench: Bench, place: Folders, on: Steps) -> Benchmark:
    handles = bench.handles_of("inference")
    engines = [engine for name, engine in ENGINES.items() if name == "jax" or bench.wants(name)]
    here = [engine for engine in engines if engine.here]
    commands = preparation.for_running(handles, place, [engine.name for engine in here])
    preparation.prepare(commands, started=on.start, finished=on.note)
    given = circumstances()
    speeds = [
        measure_model(
            handle,
            {one: _path(one, place, handle) for one in here},
            batches=bench.batches, threads=bench.threads, repeats=bench.repeats,
            started=on.start, finished=on.finish,
        )
        for handle in handles
    ]  # fmt: skip
    absent = tuple(
        EngineSpeed(name=one.name, title=one.title, version=None, failure=f"not installed: {one.advice}")
        for one in engines
        if not one.here
    )
    return InferenceBenchmark(
        **given,
        repeats=bench.repeats,
        threads=bench.threads,
        product=max((one.product for one in speeds if one.product), default=None),
        models=tuple(one.model.model_copy(update={"engines": one.model.engines + absent}) for one in speeds),
    )


def _path(engine: Engine, place: Folders, handle: Handle) -> Path:
    return engine.path(place.kept, handle, DEFAULT_VERSION, place.source / handle.checkpoint.object)


def _start(bench: Bench, place: Folders, on: Steps) -> Benchmark:
    handles, flavours = bench.handles_of("start"), [one for one in FLAVOURS if bench.wants(one)]
    commands = preparation.for_running(handles, place, flavours)
    preparation.prepare(commands, started=on.start, finished=on.note)
    made = [handle.in_flavour("graph" if name == "graph" else "native") for handle in handles for name in flavours]
    models = {one: place.kept / one.name / str(DEFAULT_VERSION) for one in made}
    given = circumstances()
    sides = measure_starts(models, bench.repeats, started=on.start, finished=on.finish)
    return StartBenchmark(**given, repeats=bench.repeats, sides=sides)


def read_parts(out: Path, parts: Sequence[Part]) -> list[Benchmark]:
    """Return the records of the parts that are in the output directory.

    Raises:
        UsageError: there is none.
        MixerError: one cannot be read.
    """
    there = [part for part in parts if (out / f"{part}.json").is_file()]
    if not there:
        raise UsageError(
            f"{out} contains none of {', '.join(f'{part}.json' for part in parts)}: run the benchmark first."
        )
    return [PARTS[part].read(out / f"{part}.json") for part in there]
