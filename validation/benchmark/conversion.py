"""Time the conversion of checkpoints to SavedModels: the notebook way, the floor, and `convert`, interleaved.

Every side is one or more commands in their own processes; what they write is deleted after the measurement.
"""

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.catalog import DEFAULT_VERSION, Handle
from models.records.layout import ModelPaths
from models.records.provenance import ROOT
from models.storage.files import CHUNK
from validation.benchmark.interleave import run_interleaved
from validation.benchmark.records import Side, Tell
from validation.benchmark.stopwatch import CommandError, Run, time_commands

Command = tuple[str, ...]
PYTHON = (sys.executable, "-m")
VERSION = str(DEFAULT_VERSION)
COPYING = frozenset({"floor", "cp", "convert-kept", "parity"})
"""Sides for which the handles are converted beforehand: their models are copied, or their graphs are kept."""


@dataclass(frozen=True)
class Scale:
    """Synthetic models for measuring how conversion scales."""

    architecture: str = "Small/16"
    """Architecture of `count` checkpoints that are converted in one run."""
    count: int = 100
    deep: str = "Ti/8"
    """Architecture that is converted with `blocks` blocks, and with twice as many."""
    blocks: int = 24

    def many(self, count: int) -> tuple[str, str, str]:
        """Return the arguments for `count` small checkpoints."""
        return (self.architecture, "0", str(count))


@dataclass(frozen=True)
class Scenario:
    """One side: its commands, the files that they read, and the directory that they write into."""

    name: str
    what: str
    commands: tuple[Command, ...]
    reads: tuple[Path, ...] = ()
    out: Path | None = None
    models: tuple[str, ...] = ()
    """Models whose finishing times are recorded."""


@dataclass(frozen=True)
class Folders:
    """Folders: of checkpoints, of models converted before timing starts, and for what the timed commands write."""

    source: Path
    kept: Path
    work: Path

    @property
    def many(self) -> Path:
        """The models of the many small checkpoints, which are copied."""
        return self.work / "many"

    def scale_command(self, task: str, what: tuple[str, str, str], out: Path) -> Command:
        """Return the command that makes or converts synthetic checkpoints (`convert/pipeline/benchmark_scale.py`)."""
        return (*PYTHON, "convert.pipeline.benchmark_scale", task, *what, str(self.work / "seeds"), str(out))


def further_handles(handles: Sequence[Handle]) -> tuple[str, ...]:
    """Return the handles of the checkpoints that need no new graph: earlier ones had the same, for all their heads."""
    seen: set[tuple[object, ...]] = set()
    further: list[str] = []
    for checkpoint in dict.fromkeys(handle.checkpoint for handle in handles):
        own = [handle for handle in handles if handle.checkpoint == checkpoint]
        graphs = {(checkpoint.architecture, handle.num_classes) for handle in own}
        further += [handle.name for handle in own] if graphs <= seen else []
        seen |= graphs
    return tuple(further)


def scenarios(handles: Sequence[Handle], place: Folders, scale: Scale) -> dict[str, Scenario]:
    """Return all sides by name, in the order in which they run."""
    rows = (*_catalog_ways(handles, place), *_scale_ways(place, scale))
    return {row.name: row for row in rows}


def _catalog_ways(handles: Sequence[Handle], place: Folders) -> list[Scenario]:
    out = place.work / "out"
    names = tuple(handle.name for handle in handles)
    files = {handle.name: place.source / handle.checkpoint.object for handle in handles}
    reads = tuple(dict.fromkeys(files.values()))
    models = [place.kept / name for name in names]
    notebook = tuple(
        (*PYTHON, "validation.benchmark.notebook", name, str(files[name]), str(out / name)) for name in names
    )
    copies = ("cp", "-r", *map(str, models), str(out))
    options = (*names, "--source", str(place.source), "--out", str(out), "--version", VERSION)
    without_tracing = (*PYTHON, "convert", "convert", *options)
    convert = (*without_tracing, "--no-graph-cache")
    all_ = (*PYTHON, "convert", "convert-all", *options)
    parity = (*PYTHON, "convert", "validate", "--set", "full", "--jobs", "2", "--memory", "7", *options)
    rows = [
        Scenario("notebook", "the notebook way, one process per handle", notebook, reads, out),
        Scenario("imports", "only importing what `convert` imports", ((*PYTHON, "convert.pipeline.benchmark_floor"),)),
        Scenario(
            "floor",
            "the floor: importing it, and copying the models",
            ((*PYTHON, "convert.pipeline.benchmark_floor", str(out), *map(str, models)),),
            tuple(models),
            out,
        ),
        Scenario("convert", "`convert`", (convert,), reads, out, names),
        Scenario("convert-jobs", "`convert --jobs 2`", ((*convert, "--jobs", "2"),), reads, out),
        Scenario("convert-kept", "`convert` with kept graphs", (without_tracing,), reads, out),
        Scenario("convert-all", "`convert-all`, checks included", (all_,), reads, out),
        Scenario("convert-all-jobs", "`convert-all --jobs 2`, checks included", ((*all_, "--jobs", "2"),), reads, out),
        Scenario("parity", "`validate --set full --jobs 2`, and copying what it checks", (copies, parity), reads, out),
    ]
    copied = tuple(place.kept / name for name in further_handles(handles))
    command = ("cp", "-r", *map(str, copied), str(out))
    copy = Scenario("cp", "copying (`cp`) the models of further checkpoints", (command,), copied, out)
    return [*rows, copy] if copied else rows


def _scale_ways(place: Folders, scale: Scale) -> list[Scenario]:
    out = place.work / "scale"
    shallow, deep = ((scale.deep, str(blocks), "1") for blocks in (scale.blocks, 2 * scale.blocks))

    def converted(what: tuple[str, str, str]) -> tuple[Command]:
        return (place.scale_command("convert", what, out),)

    return [
        Scenario("blocks", f"a small model of {scale.blocks} blocks, both heads", converted(shallow), (), out),
        Scenario("blocks-twice", f"the same with {2 * scale.blocks} blocks", converted(deep), (), out),
        Scenario("many-one", "one small checkpoint, both heads", converted(scale.many(1)), (), out),
        Scenario("many", f"{scale.count} of its architecture", converted(scale.many(scale.count)), (), out),
        Scenario(
            "many-cp", "copying (`cp`) their models", (("cp", "-r", str(place.many), str(out)),), (place.many,), out
        ),
    ]


def run_scenarios(rows: Sequence[Scenario], repeats: int, *, started: Tell, finished: Tell) -> tuple[Side, ...]:
    """Run all sides in turn, `repeats` times; a side that fails is not run again, and its failure is recorded."""
    turns = run_interleaved(
        {row.name: partial(_run_scenario, row) for row in rows},
        repeats,
        failing=(CommandError, OSError),
        said=lambda run: f"{run.wall:.1f} s, {run.peak / 1e6:,.0f} MB",
        started=started,
        finished=finished,
    )
    return tuple(
        Side(name=row.name, what=row.what, runs=turns.runs[row.name], failure=turns.failures.get(row.name))
        for row in rows
    )


def _run_scenario(row: Scenario) -> Run:
    """Run a side once, with its input files in the page cache and no writes pending.

    Raises:
        CommandError: a command failed.
        OSError: the directory cannot be written.
    """
    _read_through(row.reads)
    if row.out is not None:
        shutil.rmtree(row.out, ignore_errors=True)
        row.out.mkdir(parents=True)
    os.sync()
    begin = time.time()
    try:
        run = time_commands(row.commands, cwd=ROOT)
        return run.model_copy(update={"finished": _finished(row, begin)})
    finally:
        if row.out is not None:
            shutil.rmtree(row.out, ignore_errors=True)


def _read_through(paths: Sequence[Path]) -> None:
    for path in paths:
        for file in (path,) if path.is_file() else filter(Path.is_file, path.rglob("*")):
            with file.open("rb", buffering=0) as stream:
                while stream.read(8 * CHUNK):
                    pass


def _finished(row: Scenario, begin: float) -> Mapping[str, float]:
    """Return the seconds from `begin` (wall-clock time) until the manifest of each model was written."""
    if row.out is None:
        return {}
    manifests = {name: ModelPaths.of(row.out, name, DEFAULT_VERSION).manifest for name in row.models}
    return {name: path.stat().st_mtime - begin for name, path in manifests.items() if path.exists()}
