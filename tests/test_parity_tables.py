"""The summary of the full set in Markdown: verdicts, the three distances, gradients, failures, what was not checked."""

import pytest
from reporting import check, checks, consumed
from test_junit import HANDLE

from convert.cli.parity_tables import _NOTE as NOTE
from convert.cli.parity_tables import _SUMMARY_COLUMNS as COLUMNS
from convert.cli.parity_tables import _summarise
from convert.pipeline.outcome import Outcome
from models.records.report import ZERO_HEAD, Report

FIGURES = {
    "max_relative": 7e-6,
    "saved_model_oracle_relative": 6e-6,
    "jax_oracle_relative": 2e-6,
    "gradient_relative": 2e-6,
    "step_relative": 1e-6,
}


@pytest.fixture
def outcome(tiny_build):
    report = Report.read(tiny_build / HANDLE / "2.report.json")
    report = report.model_copy(update={"checks": checks(**FIGURES), "not_checked": ("cuda: exported, not run",)})
    return Outcome(HANDLE, "original", 47_416, 1, 2.04, 7e-6, 1.0, "passed", report=report)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_handle_that_passed_shows_all_its_figures(outcome):
    lines = _summarise([outcome]).splitlines()
    assert lines[0] == "### Parity: 1 of 1 passed"
    assert dict(zip(COLUMNS, cells(lines[4]), strict=True)) == {
        "handle": HANDLE,
        "origin": "original",
        "#SavedModel to JAX": "7.0e-06",
        "#SavedModel to oracle": "6.0e-06",
        "#JAX to oracle": "2.0e-06",
        "#worst gradient": "2.0e-06 (stem/bias)",
        "#after an SGD step": "1.0e-06",
        "#agreement": "100%",
        "#seconds": "2.0",
        "verdict": "passed",
    }
    assert lines[5:] == ["", NOTE, "", "**Not checked:**", "", "- cuda: exported, not run"]


def test_a_failure_is_named_with_its_reasons_each_on_a_line(outcome):
    failed = Outcome(HANDLE, problems=("does not load: why", "a list:\n  of more"))
    lines = _summarise([outcome, failed]).splitlines()
    assert lines[0] == "### Parity: 1 of 2 passed"
    assert cells(lines[5]) == [HANDLE, *[""] * 7, "0.0", "failed"]
    after = lines[lines.index("**Failed:**") + 2 :]
    assert after[:3] == [f"- {HANDLE}: does not load: why", f"- {HANDLE}: a list: of more", ""]
    assert after[-1] == f"- {HANDLE}: there is no report"


def test_what_was_not_checked_is_said_once(outcome):
    seeded = Outcome(HANDLE, "seeded", verdict="passed", report=outcome.report)
    gone = consumed("hub.load", status="absent", detail="No module named 'tensorflow_hub'", worst=None)
    dumb = check("max_relative", 0.0, power=0.0)
    dull = consumed("call", worst=0.0).model_copy(update={"power": 0.0})
    absent = outcome.report.model_copy(update={"checks": checks(more=(gone, dumb, dull)), "zero_head": True})
    without = Outcome(HANDLE, "original", verdict="passed", report=absent)
    lines = _summarise([seeded, without, outcome]).splitlines()
    assert lines[lines.index("**Not checked:**") + 2 :] == [
        "- cuda: exported, not run",
        "- the original checkpoints: synthetic ones were used instead",
        f"- {HANDLE}: {ZERO_HEAD}",
        f"- {HANDLE}: hub.load: No module named 'tensorflow_hub'",
        f"- {HANDLE}: 1 comparison of outputs had no power: the head hides what comes before it",
    ]


def test_features_are_not_said_to_be_hidden_by_a_head(outcome):
    changes = {"checks": checks(head="fe", more=(check("max_relative", 0.0, power=0.0),)), "head": "fe"}
    report = outcome.report.model_copy(update=changes)
    said = _summarise([Outcome(HANDLE, "original", verdict="passed", report=report)])
    assert "1 comparison of outputs had no power: all images have the same features" in said
