"""What became of the handles: the table, and what is written for people and for CI."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from convert.cli import show
from models.catalog import Handle
from models.errors import DifferentError, MixerError
from models.files import write_atomically
from models.paths import ModelPaths
from models.report import Report
from models.tolerances import TOLERANCES


@dataclass(frozen=True)
class Outcome:
    """What became of one handle."""

    handle: str
    origin: str = ""
    parameters: int = 0
    size: int = 0
    seconds: float = 0.0
    worst: float | None = None
    """Largest difference of an output from JAX's, over the scale of the image's outputs."""
    agreement: float | None = None
    """Share of images with the same first class and the same first five, the lower; None for features."""
    verdict: Literal["passed", "kept", "converted", "failed"] = "failed"
    problems: tuple[str, ...] = ()
    report: Report | None = None
    """What the check said; None where it was not reached."""


def judged(handle: Handle, destination: ModelPaths, report: Report, *, kept: bool) -> Outcome:
    """Return the outcome that a report tells of."""
    apart = [report.figure(name) for name in ("top1_disagreement", "top5_disagreement")]
    known = [share for share in apart if share is not None]
    passed: Literal["kept", "passed"] = "kept" if kept else "passed"
    return Outcome(
        handle.name,
        size=sum(path.stat().st_size for path in destination.directory.rglob("*") if path.is_file()),
        worst=report.figure("max_relative"),
        agreement=1 - max(known) if known else None,
        verdict=passed if report.verdict == "passed" else "failed",
        problems=report.problems,
        report=report,
    )


def print_outcomes(outcomes: list[Outcome], *, json: bool, markdown: str | None = None) -> None:
    """Print what became of the handles: in a table, or where that is given in the words of `markdown`.

    Raises:
        MixerError: one or more failed; names them with their reasons.
        DifferentError: none failed, but one differs from the earlier version that it was compared with; says in what.
    """
    columns = ("handle", "origin", "#parameters", "#size", "#seconds", "#worst difference", "#agreement", "verdict")
    rows = [_cells(outcome) for outcome in outcomes]
    if json:
        show.print_json([_as_json(outcome) for outcome in outcomes])
    elif markdown is not None:
        sys.stdout.write(markdown)
    else:
        show.print_table("", columns, rows)
    show.add_to_job_summary(show.markdown_table(columns, rows) if markdown is None else markdown)
    differences = _print_references(outcomes, json=json)
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    for note in dict.fromkeys(note for report in reports for note in report.not_checked):
        show.tell(f"not checked: {note}")
    failed = [outcome for outcome in outcomes if outcome.verdict == "failed"]
    if failed:
        reasons = "\n".join(f"{outcome.handle}: {'; '.join(outcome.problems)}" for outcome in failed)
        raise MixerError("\n".join((f"{len(failed)} of {len(outcomes)} handles failed.\n{reasons}", *differences)))
    if differences:
        raise DifferentError("\n".join(differences))


def _print_references(outcomes: Sequence[Outcome], *, json: bool) -> list[str]:
    """Print how models compare with an earlier version, where one was given, and return in what they differ."""
    from validation.published import summarise

    differences = []
    for outcome in outcomes:
        found = outcome.report.reference if outcome.report else None
        if found is None or outcome.verdict == "kept":  # then it was compared by an earlier command
            continue
        if not json:
            show.print_table(f"{outcome.handle} against {found.name}", ("what", "outcome"), summarise(found))
        if found.verdict == "different":
            differences.append("\n  ".join((f"{outcome.handle} differs from {found.name}:", *found.differences)))
    return differences


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.handle,
        outcome.origin,
        f"{outcome.parameters:,}",
        show.megabytes(outcome.size),
        f"{outcome.seconds:.1f}",
        "" if outcome.worst is None else f"{outcome.worst:.1e}",
        "" if outcome.agreement is None else f"{outcome.agreement:.0%}",
        outcome.verdict,
    )


def _as_json(outcome: Outcome) -> dict[str, object]:
    said = outcome.report.not_checked if outcome.report else ()
    reference = outcome.report.reference if outcome.report else None
    values = asdict(replace(outcome, report=None)) | {
        "not_checked": said,
        "reference": None if reference is None else reference.model_dump(),
    }
    del values["report"]  # it stands beside the model
    return values


def print_depth(outcomes: Sequence[Outcome]) -> None:
    """Show step by step how far JAX and each SavedModel are from the oracle, and where a SavedModel first is too far.

    Too far is over the tolerance of outputs and over four times JAX's own distance there.
    """
    limit = TOLERANCES["max_relative"].limit
    for outcome in outcomes:
        steps = outcome.report.depth if outcome.report else ()
        first = next((step.name for step in steps if not step.saved_model <= max(limit, 4 * step.jax)), None)
        rows = [
            (step.name, f"{step.jax:.1e}", f"{step.saved_model:.1e}", "leaves the oracle" * (step.name == first))
            for step in steps
        ]
        what = "distance from the oracle, over the activations' spread" if rows else "nothing to explain"
        show.print_table(f"{outcome.handle}: {what}", ("after", "#JAX", "#SavedModel", ""), rows)


def write_for_people(outcomes: Sequence[Outcome], out: Path, version: int, handles: Sequence[Handle]) -> None:
    """Write `parity.xml` (JUnit) and `index.html` into the output directory."""
    from validation.junit import junit
    from validation.page import write_page

    reports = {outcome.handle: outcome.report for outcome in outcomes if outcome.report is not None}
    failures = {outcome.handle: outcome.problems for outcome in outcomes if outcome.verdict == "failed"}
    write_atomically(out / "parity.xml", junit(reports, failures))
    show.tell(f"written: {out / 'parity.xml'}, {write_page(out, version, handles)}")
