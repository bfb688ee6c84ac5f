"""The summary of the full set in Markdown: what CI shows of it, and an auditor reads first."""

from collections.abc import Iterator, Sequence

from convert.cli.outcomes import Outcome
from convert.cli.show import markdown_bullets, markdown_table
from models.report import ZERO_HEAD

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
    "Largest differences, the worst image: of outputs over the scale of the image's outputs, of a variable's gradient "
    "over its largest value; of the comparisons that can tell right from wrong, probing heads included."
)


def summarise(outcomes: Sequence[Outcome]) -> str:
    """Return verdicts, the three distances, gradients, what failed and what was not checked, in Markdown."""
    passed = sum(outcome.verdict in {"passed", "kept"} for outcome in outcomes)
    parts = [
        f"### Parity: {passed} of {len(outcomes)} passed\n",
        markdown_table(COLUMNS, map(_cells, outcomes)),
        f"{NOTE}\n",
    ]
    failures = [f"{one.handle}: {problem}" for one in outcomes for problem in one.problems]
    parts += ["**Failed:**\n", markdown_bullets(failures)] if failures else []
    unseen = list(dict.fromkeys(note for one in outcomes for note in _not_checked(one)))
    parts += ["**Not checked:**\n", markdown_bullets(unseen)] if unseen else []
    return "\n".join(parts)


def _cells(outcome: Outcome) -> tuple[str, ...]:
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


def _not_checked(outcome: Outcome) -> Iterator[str]:
    if outcome.report is None:
        yield f"{outcome.handle}: there is no report"
        return
    yield from outcome.report.not_checked
    if outcome.origin == "seeded":
        yield "the original checkpoints: seeded ones stand in for them"
    if outcome.report.zero_head:
        yield f"{outcome.handle}: {ZERO_HEAD}"
    powerless = [check for check in outcome.report.checks if not check.tells]
    for check in powerless:
        if check.name == "consumer" and check.measured is None:
            yield f"{outcome.handle}: {check.on}: {check.detail.removeprefix('absent: ')}"
    outputs = sum(check.name == "max_relative" for check in powerless)
    if outputs:
        compared = f"{outputs} comparison{'s' * (outputs > 1)} of outputs"
        hidden = "the head hides what comes before it"
        why = hidden if outcome.report.head == "classification" else "the images have all the same features"
        yield f"{outcome.handle}: {compared} had no power: {why}"
