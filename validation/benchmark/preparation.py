"""Make what the benchmark needs before timing: its synthetic checkpoints, converted and exported models."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from models.catalog import Flavour, Handle
from models.formats import FORMATS, FormatName
from models.records.provenance import ROOT
from validation.benchmark.conversion import COPYING, PYTHON, VERSION, Command, Folders, Scale, Scenario
from validation.benchmark.records import Tell
from validation.benchmark.stopwatch import CommandError, time_commands


def prepare(commands: Sequence[Command], *, started: Tell, finished: Tell) -> None:
    """Run commands one after the other, even if one fails: what needs its files then reports that they are missing."""
    for command in commands:
        words = " ".join(command[2:6])
        started(f"preparing: {words}")
        try:
            run = time_commands([command], cwd=ROOT)
            finished(f"prepared in {run.wall:.1f} s: {words}")
        except CommandError as error:
            finished(f"preparing failed: {error}")


def for_conversion(handles: Sequence[Handle], place: Folders, scale: Scale, rows: Sequence[Scenario]) -> list[Command]:
    """Return the commands that make the input files of these sides."""
    chosen = {row.name for row in rows}
    commands = list(_convert(handles, place, "native")) if COPYING & chosen else []
    deep = scale.deep
    for name, what in (
        ("blocks", (deep, str(scale.blocks), "1")),
        ("blocks-twice", (deep, str(2 * scale.blocks), "1")),
        ("many-one", scale.many(1)),
        ("many", scale.many(scale.count)),
        ("many-cp", scale.many(scale.count)),
    ):
        if name in chosen:
            commands.append(place.scale_command("seed", what, place.many))
    if "many-cp" in chosen:
        commands.append(place.scale_command("convert", scale.many(scale.count), place.many))
    return list(dict.fromkeys(commands))


def for_running(handles: Sequence[Handle], place: Folders, forms: Sequence[str]) -> list[Command]:
    """Return the commands that make the handles' models in these forms: `native`, `graph`, or a format's name."""
    commands: list[Command] = []
    formats: list[FormatName] = [name for name in FORMATS if name in forms]
    if "native" in forms:
        commands += _convert(handles, place, "native")
    if "graph" in forms or formats:
        commands += _convert(handles, place, "graph")
    for name in formats:
        missing = [one.name for one in handles if not _is_there(place.kept, FORMATS[name].named(one.name))]
        if missing:
            commands.append((*PYTHON, "convert", "export", "--to", name, *missing, *_options(place)))
    return commands


def _convert(handles: Sequence[Handle], place: Folders, flavour: Flavour) -> Iterator[Command]:
    missing = [one.name for one in handles if not _is_there(place.kept, one.in_flavour(flavour).name)]
    if missing:
        yield (*PYTHON, "convert", "convert", "--flavour", flavour, *missing, *_options(place))


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name / VERSION).is_dir()


def _options(place: Folders) -> Command:
    return ("--source", str(place.source), "--out", str(place.kept), "--version", VERSION)
