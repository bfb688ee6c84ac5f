"""The summary of the full set in Markdown: what CI shows of it, and an auditor reads first."""

from collections.abc import Iterator, Sequence

from convert.cli.outcomes import Outcome
from convert.cli.show import markdown_table

COLUMNS = (
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

NOTE = (
    "Largest differences, the worst image: of outputs over the standard deviation of the image's outputs, of a "
    "variable's gradient over its largest value."
)


def summarise(outcomes: Sequence[Outcome]) -> str:
    """Return verdicts, the three distances, gradients, what failed and what was not checked, in Markdown."""
    passed = sum(outcome.verdict in {"passed", "kept"} for outcome in outcomes)
    parts = [
        f"### Parity: {passed} of {len(outcomes)} passed\n",
        markdown_table(COLUMNS, map(_cells, outcomes)),
        f"{NOTE}\n",
    ]
    failures = [f"- {one.handle}: {' '.join(problem.split())}\n" for one in outcomes for problem in one.problems]
    parts += ["**Failed:**\n", "".join(failures)] if failures else []
    unseen = [f"- {note}\n" for note in dict.fromkeys(note for one in outcomes for note in _not_checked(one))]
    parts += ["**Not checked:**\n", "".join(unseen)] if unseen else []
    return "\n".join(parts)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    report = outcome.report
    to_oracle = [one.oracle for one in report.comparisons if one.oracle is not None] if report else []
    gradients = report.gradients if report else None
    return (
        outcome.handle,
        outcome.origin,
        _figure(outcome.worst),
        _figure(max((one.saved_model for one in to_oracle), default=None)),
        _figure(max((one.jax for one in to_oracle), default=None)),
        f"{gradients.worst_relative:.1e} ({gradients.worst_variable})" if gradients else "",
        _figure(gradients.step_relative if gradients else None),
        "" if outcome.agreement is None else f"{outcome.agreement:.0%}",
        f"{outcome.seconds:.1f}",
        outcome.verdict,
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _not_checked(outcome: Outcome) -> Iterator[str]:
    if outcome.report is None:
        yield f"{outcome.handle}: there is no report"
        return
    yield from outcome.report.not_checked
    if outcome.origin == "seeded":
        yield "the original checkpoints: seeded ones stand in for them"
    for check in outcome.report.consumer:
        if check.status == "absent":
            yield f"{check.name}: {check.detail}"
