"""Commands about speed: bench."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.errors import MixerError, UsageError
from models.selection import select_handles

if TYPE_CHECKING:
    from convert.pipeline.benchmark import Part
    from validation.benchmark.records import Benchmark, QuickBenchmark
    from validation.benchmark.tables import Tables


class _PartChoice(StrEnum):
    """The parts of the benchmark."""

    conversion = "conversion"
    inference = "inference"
    start = "start"


Handles = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="HANDLE",
        help="Handles of the catalog. Default: all twelve for conversion, a B/16 for inference, a B/16 and an L/16 for "
        "start.",
    ),
]
Parts = Annotated[
    list[_PartChoice] | None, typer.Option("--part", help="Part to measure; may be repeated. Default: all.")
]
Sides = Annotated[
    list[str] | None,
    typer.Option("--side", metavar="SIDE", help="Measure only this side; may be repeated. An unknown name lists all."),
]
Repeats = Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each side, interleaved with the others.")]
Batches = Annotated[str, typer.Option(metavar="1,8,32", help="Batch sizes of inference.")]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Threads of each engine.", show_default="the cores of this process"),
]
GivenSource = Annotated[
    Path | None,
    typer.Option(
        "--source", metavar="DIR", help="Checkpoints in the bucket's layout. Default: synthetic ones are made."
    ),
]
GivenModels = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="Converted models to use; missing ones are converted into it."),
]
Out = Annotated[
    Path, typer.Option(metavar="DIR", help="Directory of the records and, during the run, of all other files.")
]
Count = Annotated[int, typer.Option(metavar="N", min=2, help="Number of small checkpoints to convert in one run.")]
Blocks = Annotated[
    int, typer.Option(metavar="N", min=1, help="Blocks of a small model, which is also converted with twice as many.")
]

Markdown = Annotated[
    bool, typer.Option("--markdown", help="Measure nothing; print the records in DIR as Markdown, as in its page.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Measure a few ratios of a B/32 in five minutes; exit status 1 if one grew.")
]


def bench(
    handles: Handles = None,
    part: Parts = None,
    side: Sides = None,
    repeats: Repeats = 3,
    batches: Batches = "1,8,32",
    threads: Threads = None,
    source: GivenSource = None,
    models: GivenModels = None,
    out: Out = Path("build/bench"),
    count: Count = 100,
    blocks: Blocks = 24,
    markdown: Markdown = False,
    quick: Quick = False,
    json: options.Json = False,
) -> None:
    """Measure conversion, inference and start-up, and compare with the notebook way, JAX and other engines."""
    from convert.pipeline import benchmark as run
    from validation.benchmark import tables
    from validation.benchmark.conversion import Scale

    parts: tuple[Part, ...] = tuple(one.value for one in part or _PartChoice)
    if markdown:
        sys.stdout.writelines(f"{line}\n" for line in tables.markdown_lines(run.read_parts(out, parts)))
        return
    cores = len(os.sched_getaffinity(0))
    if quick and (handles or part or side):
        raise UsageError("--quick has its own handles, parts and sides: leave out HANDLE, --part and --side.")
    names = run.QUICK_HANDLES if quick else handles
    work = run.Bench(
        ("conversion",) if quick else parts,
        tuple(select_handles(names)) if names else (),
        run.QUICK_SIDES if quick else tuple(side or ()),
        repeats,
        _numbers(batches),
        threads or cores,
        source,
        models,
        out,
        Scale(count=count, blocks=blocks),
    )
    _refuse_threads(work.threads, cores)
    if not part:
        work = work.narrowed()
    watch = console.progress_bar()
    work.check(watch)
    if quick:
        _print_quick(*work.run_quick(watch), json=json)
    else:
        _print(work.parts, work.run(watch), json=json)


def _refuse_threads(threads: int, cores: int) -> None:
    if threads > cores:
        raise UsageError(
            f"--threads {threads} is more than the {cores} cores that this process may use: give at most {cores}."
        )


def _print_quick(found: "QuickBenchmark", grown: "Sequence[str]", *, json: bool) -> None:
    """Print the ratios of a quick run.

    Raises:
        MixerError: some have grown.
    """
    if json:
        console.print_json({**found.model_dump(mode="json"), "grown": grown})
    else:
        rows = [(name, f"{value:.2f}") for name, value in found.ratios.items()]
        console.print_table(f"Ratios of {', '.join(found.handles)}", ("ratio", "#found"), rows)
    if grown:
        raise MixerError(f"slower than before, or not measured: {'; '.join(grown)}.")


def _print(parts: "Sequence[Part]", done: "Sequence[Benchmark]", *, json: bool) -> None:
    """Print what was measured.

    Raises:
        MixerError: some of it failed; the message says what.
    """
    from validation.benchmark.tables import Tables

    if json:
        console.print_json({name: found.model_dump(mode="json") for name, found in zip(parts, done, strict=True)})
    else:
        for found in done:
            _print_tables(Tables.of(found))
    failures = [failure for found in done for failure in Tables.of(found).failures]
    if failures:
        raise MixerError("not everything was measured.\n" + "\n".join(failures))


_LEAST = (
    "system, s", "user, s", "peak memory, MB", "min to max", "of the limit", "JAX = 1", "Python, s", "load",
    "of which preparing", "TensorFlow's import", "second call", "first call",
)  # fmt: skip
"""Columns of the tables that are left out first on a narrow terminal."""


def _print_tables(part: "Tables") -> None:
    from validation.benchmark.tables import FINDING_COLUMNS

    console.print_table(part.title, part.columns, part.rows, least=_LEAST)
    console.print_table("", FINDING_COLUMNS, part.finding_rows, prose=("figure",))
    for failure in part.failures:
        console.tell(f"failed: {failure}")
    for absent in part.absent:
        console.tell(f"not measured: {absent}")


def _numbers(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(
            f"--batches {text!r} is not a list of batch sizes: expected positive numbers with commas, such as 1,8,32."
        )
    return tuple(dict.fromkeys(map(int, words)))
