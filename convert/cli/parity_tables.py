"""The results for the handles: the table, and the reports for people and for CI."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convert.cli import console
from convert.pipeline.outcome import Outcome
from models.errors import DifferentError, MixerError
from models.markdown import markdown_bullets, markdown_table
from models.records.report import ZERO_HEAD
from models.records.tolerances import TOLERANCES
from models.storage.files import megabytes, write_atomically

if TYPE_CHECKING:
    from convert.pipeline.job import Batch


def show(batch: "Batch", outcomes: list[Outcome], *, json: bool) -> None:
    """Print the results of a batch: a table, JSON or, of the full set, Markdown; write what CI reads of it.

    Raises:
        MixerError: one or more failed; names them with their reasons.
        DifferentError: none failed, but one differs from an earlier version; the message says in what.
    """
    if batch.explain and not json:
        _print_depth(outcomes)
    full = batch.inputs_set == "full"
    if full and batch.out.is_dir():
        _write_for_machines(outcomes, batch.out)
    _print_outcomes(outcomes, json=json, markdown=_summarise(outcomes) if full else None)


def _print_outcomes(outcomes: list[Outcome], *, json: bool, markdown: str | None) -> None:
    """Print the results for the handles as JSON, as `markdown` if that is given, or as a table.

    Raises:
        MixerError: one or more failed; names them with their reasons.
        DifferentError: none failed, but one differs from an earlier version; the message says in what.
    """
    columns = ("handle", "origin", "#parameters", "#size", "#seconds", "#worst difference", "#agreement", "verdict")
    rows = [_cells(outcome) for outcome in outcomes]
    if json:
        console.print_json([_as_json(outcome) for outcome in outcomes])
    elif markdown is None:
        least = ("parameters", "size", "seconds", "origin", "agreement", "worst difference")
        console.print_table("", columns, rows, least=least)
    elif console.is_terminal():
        console.print_table("", _SUMMARY_COLUMNS, map(_summary_cells, outcomes), least=_LEAST_OF_SUMMARY)
    else:
        sys.stdout.write(markdown)
    console.add_to_job_summary(markdown_table(columns, rows) if markdown is None else markdown)
    differences = _print_references(outcomes, json=json)
    seen = not json and markdown is not None and console.is_terminal()
    for note in dict.fromkeys(note for outcome in outcomes for note in _unchecked(outcome, full=seen)):
        console.tell(f"not checked: {note}")
    failed = [outcome for outcome in outcomes if outcome.verdict == "failed"]
    if failed:
        reasons = "\n".join(f"{outcome.handle}: {'; '.join(outcome.problems)}" for outcome in failed)
        raise MixerError("\n".join((f"{len(failed)} of {len(outcomes)} handles failed.\n{reasons}", *differences)))
    if differences:
        raise DifferentError("\n".join(differences))


def _print_references(outcomes: Sequence[Outcome], *, json: bool) -> list[str]:
    """Print the comparisons with earlier versions, if there are any, and return the differences."""
    from validation.previous.open import summarise

    differences = []
    for outcome in outcomes:
        found = outcome.report.reference if outcome.report else None
        if found is None or outcome.verdict == "kept":  # a kept model was compared by an earlier command
            continue
        if not json:
            console.print_table(
                f"{outcome.handle} against {found.name}", ("what", "outcome"), summarise(found), prose=("outcome",)
            )
        if found.verdict == "different":
            differences.append("\n  ".join((f"{outcome.handle} differs from {found.name}:", *found.differences)))
    return differences


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.handle,
        outcome.origin,
        f"{outcome.parameters:,}" if outcome.parameters else "",
        megabytes(outcome.size) if outcome.size else "",
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
    del values["report"]  # it is stored beside the model
    return values


def _print_depth(outcomes: Sequence[Outcome]) -> None:
    """Show step by step how far JAX and each SavedModel are from the oracle, and where a SavedModel is first too far.

    Too far means over the tolerance of outputs and over four times JAX's own distance there.
    """
    limit = TOLERANCES["max_relative"].limit
    for outcome in outcomes:
        steps = outcome.report.depth if outcome.report else ()
        first = next((step.name for step in steps if not step.saved_model <= max(limit, 4 * step.jax)), None)
        rows = [
            (step.name, f"{step.jax:.1e}", f"{step.saved_model:.1e}", "first over the limit" * (step.name == first))
            for step in steps
        ]
        what = "distance from the oracle, over the activations' spread" if rows else "not measured"
        console.print_table(f"{outcome.handle}: {what}", ("after", "#JAX", "#SavedModel", ""), rows)


def _write_for_machines(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write `parity.xml` (JUnit) into the output directory."""
    from validation.views.junit import junit

    reports = {outcome.handle: outcome.report for outcome in outcomes if outcome.report is not None}
    failures = {outcome.handle: outcome.problems for outcome in outcomes if outcome.verdict == "failed"}
    write_atomically(out / "parity.xml", junit(reports, failures))
    console.tell(f"written: {out / 'parity.xml'}")


# --- the summary of the full set, in Markdown ---

_SUMMARY_COLUMNS = (
    "handle",
    "origin",
    "#SavedModel to JAX",
    "#SavedModel to oracle",
    "#JAX to oracle",
    "#worst gradient",
    "#after an SGD step",
    "#agreement",
    "#seconds",
    "verdict",
)

_LEAST_OF_SUMMARY = ("seconds", "origin", "JAX to oracle", "after an SGD step", "worst gradient")

_NOTE = (
    "Largest differences, of the worst image: outputs over the scale of the image's outputs, a variable's gradient "
    "over its largest value. Only comparisons that can tell right from wrong count, probing heads included."
)


def _summarise(outcomes: Sequence[Outcome]) -> str:
    """Return verdicts, the three distances, gradients, what failed and what was not checked, in Markdown."""
    passed = sum(outcome.verdict in {"passed", "kept"} for outcome in outcomes)
    parts = [
        f"### Parity: {passed} of {len(outcomes)} passed\n",
        markdown_table(_SUMMARY_COLUMNS, map(_summary_cells, outcomes)),
        f"{_NOTE}\n",
    ]
    failures = [f"{one.handle}: {problem}" for one in outcomes for problem in one.problems]
    parts += ["**Failed:**\n", markdown_bullets(failures)] if failures else []
    unseen = list(dict.fromkeys(note for one in outcomes for note in _not_checked(one)))
    parts += ["**Not checked:**\n", markdown_bullets(unseen)] if unseen else []
    return "\n".join(parts)


def _summary_cells(outcome: Outcome) -> tuple[str, ...]:
    report = outcome.report
    gradient = report.worst("gradient_relative") if report else None
    return (
        outcome.handle,
        outcome.origin,
        _figure(outcome.worst),
        *(
            _figure(report.figure(name) if report else None)
            for name in ("saved_model_oracle_relative", "jax_oracle_relative")
        ),
        f"{_figure(gradient.measured)} ({gradient.on.split(',')[0]})" if gradient else "",
        _figure(report.figure("step_relative") if report else None),
        "" if outcome.agreement is None else f"{outcome.agreement:.0%}",
        f"{outcome.seconds:.1f}",
        outcome.verdict,
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _unchecked(outcome: Outcome, *, full: bool) -> Iterator[str]:
    if full:
        yield from _not_checked(outcome)
    elif outcome.report is not None:
        yield from outcome.report.not_checked


def _not_checked(outcome: Outcome) -> Iterator[str]:
    if outcome.report is None:
        yield f"{outcome.handle}: there is no report"
        return
    yield from outcome.report.not_checked
    if outcome.origin == "seeded":
        yield "the original checkpoints: synthetic ones were used instead"
    if outcome.report.zero_head:
        yield f"{outcome.handle}: {ZERO_HEAD}"
    powerless = [check for check in outcome.report.checks if not check.has_power]
    for check in powerless:
        if check.name == "consumer" and check.measured is None:
            yield f"{outcome.handle}: {check.on}: {check.detail.removeprefix('absent: ')}"
    outputs = sum(check.name == "max_relative" for check in powerless)
    if outputs:
        compared = f"{outputs} comparison{'s' * (outputs > 1)} of outputs"
        hidden = "the head hides what comes before it"
        why = hidden if outcome.report.head == "classification" else "all images have the same features"
        yield f"{outcome.handle}: {compared} had no power: {why}"
