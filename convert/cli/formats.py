"""Commands about formats beyond TensorFlow: export."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.catalog import BUCKET, DEFAULT_VERSION
from models.errors import MixerError
from models.formats import FORMATS, FormatName
from models.storage.files import megabytes

if TYPE_CHECKING:
    from convert.pipeline.export_formats import ExportOutcome
    from models.records.report import Check


To = Annotated[
    FormatName,
    typer.Option(
        "--to",
        help="Format, with the dtypes of the weights: "
        + "; ".join(f"{name} ({', '.join(one.models.values())})" for name, one in FORMATS.items())
        + ". Each needs the extra of the same name.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Directory of the models: reads DIR/<handle>-graph, writes DIR/<handle>-<format>.",
    ),
]


def export(
    to: To,
    handles: options.Handles = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    overwrite: options.Overwrite = False,
    checkpoint: options.CustomCheckpoint = None,
    name: options.CustomName = None,
    json: options.Json = False,
) -> None:
    """Export SavedModels of the graph flavour to another format, and compare each file with a float64 oracle."""
    from convert.checkpoints.open import Source
    from convert.pipeline.export_formats import Exports, check_exports, run_exports
    from convert.pipeline.selection import choose, custom_checkpoint
    from models.digests import DigestTable

    custom = custom_checkpoint(checkpoint, name)
    work = Exports(
        FORMATS[to],
        choose(handles or [], source, custom),
        Source(source, cache, DigestTable.read()),
        out,
        version,
        custom=custom,
        overwrite=overwrite,
    )
    check_exports(work)
    _print(run_exports(work, console.progress_bar()), json=json)


def _print(outcomes: list["ExportOutcome"], *, json: bool) -> None:
    """Print the results for the handles, one line per file.

    Raises:
        MixerError: one or more failed; names them with their reasons.
    """
    if json:
        console.print_json([_as_json(outcome) for outcome in outcomes])
    else:
        columns = ("model", "file", "#size", "#worst error", "#first class", "verdict")
        rows = [row for outcome in outcomes for row in _rows(outcome)]
        console.print_table("", columns, rows)
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    for note in dict.fromkeys(note for report in reports for note in report.not_checked):
        console.tell(f"not checked: {note}")
    failed = [outcome for outcome in outcomes if outcome.problems]
    if failed:
        reasons = "\n".join(f"{outcome.name}: {'; '.join(outcome.problems)}" for outcome in failed)
        raise MixerError(f"{len(failed)} of {len(outcomes)} exports failed.\n{reasons}")


def _rows(outcome: "ExportOutcome") -> Iterator[tuple[str, ...]]:
    if outcome.report is None:
        yield outcome.name, "", "", "", "", "failed"
        return
    for file, size in outcome.report.sizes.items():
        of_file = [check for check in outcome.report.checks if check.on.startswith(f"{file} ") and check.has_power]
        worst = _most(check for check in of_file if check.name.endswith(" max_relative"))
        apart = _most(check for check in of_file if check.name.endswith(" top1_disagreement"))
        yield (
            outcome.name,
            file,
            megabytes(size),
            "" if worst is None else f"{worst:.1e}",
            "" if apart is None else f"{1 - apart:.0%}",
            outcome.report.verdict,
        )


def _most(checks: Iterable["Check"]) -> float | None:
    return max((check.measured for check in checks if check.measured is not None), default=None)


def _as_json(outcome: "ExportOutcome") -> dict[str, object]:
    report = None if outcome.report is None else outcome.report.model_dump(mode="json")
    return {
        "name": outcome.name,
        "verdict": outcome.verdict,
        "seconds": outcome.seconds,
        "problems": outcome.problems,
        "report": report,
    }
