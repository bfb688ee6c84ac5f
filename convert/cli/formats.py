"""Commands about formats beyond TensorFlow: export."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.catalog import BUCKET, DEFAULT_VERSION
from models.errors import MixerError, UsageError
from models.formats import FORMATS, Format, FormatName
from models.storage.files import megabytes

if TYPE_CHECKING:
    from convert.pipeline.export_formats import ExportOutcome
    from models.records.check import Check


_OTHER_NAMES: dict[str, FormatName] = {"tflite": "litert"}

To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="FORMAT,...",
        help="One or more formats, with the dtypes of the weights: "
        + "; ".join(f"{name} ({', '.join(one.models.values())})" for name, one in FORMATS.items())
        + ". Each needs the extra of the same name.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        envvar=options.OUT_VARIABLE,
        help="Directory of the models: reads DIR/<handle>-graph, writes DIR/<handle>-<format>.",
    ),
]


def export(
    to: To,
    handles: options.HandlesOrNames = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    overwrite: options.Overwrite = False,
    checkpoint: options.CustomCheckpoint = None,
    name: options.CustomName = None,
    labels: options.Labels = None,
    strip_prefix: options.StripPrefix = None,
    json: options.Json = False,
) -> None:
    """Export SavedModels of the graph flavour to another format, and compare each file with a float64 oracle."""
    from convert.checkpoints.fetch import Source
    from convert.pipeline.export_formats import Exports
    from convert.pipeline.page import refresh_page
    from convert.pipeline.selection import choose, custom_checkpoint

    formats = _parse_formats(to)
    given = custom_checkpoint(handles or [], checkpoint, name, labels, strip_prefix)
    place = Source(source, cache)
    chosen, custom = choose(handles or [], place, given, out, version)
    if custom is not None:
        custom.refuse_unreadable()
    works = [Exports(one, chosen, place, out, version, custom=custom, overwrite=overwrite) for one in formats]
    for work in works:
        work.check()
    watch = console.progress_bar()
    outcomes = [outcome for work in works for outcome in work.run(watch)]
    refresh_page(out, watch)
    _print(outcomes, json=json)


def _parse_formats(to: str) -> list[Format]:
    words = [word.strip().lower() for word in to.split(",")]
    named: dict[str, Format] = dict(FORMATS.items())
    named |= {other: FORMATS[name] for other, name in _OTHER_NAMES.items()}
    unknown = [word for word in words if word not in named]
    if unknown:
        raise UsageError(
            f"--to {', '.join(map(repr, unknown))}: no such format; expected one or more of {', '.join(FORMATS)}, with "
            "commas between them."
        )
    return list({named[word].name: named[word] for word in words}.values())


def _print(outcomes: list["ExportOutcome"], *, json: bool) -> None:
    """Print the results for the handles, one line per file.

    Raises:
        MixerError: one or more failed; names them with their reasons.
    """
    if json:
        console.print_json([_as_json(outcome) for outcome in outcomes])
    else:
        columns = (
            "handle",
            "weights",
            "file",
            "#size",
            "#worst error",
            "#on its own weights",
            "first class",
            "verdict",
        )
        rows = [row for outcome in outcomes for row in _rows(outcome)]
        least = ("size", "first class", "file", "on its own weights", "worst error")
        console.print_table("", columns, rows, least=least)
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    for report in reports:
        if (worst := report.worst("float32 default_settings_relative")) is not None:
            settings = ", ".join(f"{key}={value}" for key, value in FORMATS[report.format].settings.items())
            console.tell(
                f"{report.handle}: without {settings} it computes in {worst.detail}: worst error {_figure(worst)}"
            )
    for note in dict.fromkeys(note for report in reports for note in report.not_checked):
        console.tell(f"not checked: {note}")
    failed = [outcome for outcome in outcomes if outcome.problems]
    if failed:
        reasons = "\n".join(f"{outcome.name}: {'; '.join(outcome.problems)}" for outcome in failed)
        raise MixerError(f"{len(failed)} of {len(outcomes)} exports failed.\n{reasons}")


def _rows(outcome: "ExportOutcome") -> Iterator[tuple[str, ...]]:
    """Yield a line for each file; each error with the limit that it was judged by."""
    report = outcome.report
    if report is None:
        yield outcome.name, "", "", "", "", "", "", "failed"
        return
    for file in report.files:
        of_file = [check for check in report.checks if check.on.startswith(f"{file.name} ") and check.has_power]
        yield (
            outcome.name,
            file.weights,
            file.name,
            megabytes(file.size),
            _figure(file.error),
            _figure(file.own_weights),
            _same_first_class([check for check in of_file if check.name.endswith(" top1_disagreement")]),
            report.verdict + (f", {file.weights} limits" if file.weights != "float32" else ""),
        )


def _figure(check: "Check | None") -> str:
    """Return the figure of a check and its limit; nothing without one."""
    return "" if check is None else f"{check.measured:.1e} of {check.limit:g}"


def _same_first_class(checks: Sequence["Check"]) -> str:
    """Return whether the first class of every image is the oracle's; nothing for features."""
    if any(check.measured != 0 for check in checks):
        return "differs"
    return "same, a near tie apart" if any(check.detail for check in checks) else "same" if checks else ""


def _as_json(outcome: "ExportOutcome") -> dict[str, object]:
    report = None if outcome.report is None else outcome.report.model_dump(mode="json")
    return {
        "handle": outcome.name,
        "verdict": outcome.verdict,
        "seconds": outcome.seconds,
        "problems": outcome.problems,
        "report": report,
    }
