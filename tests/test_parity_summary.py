"""The summary of the full set in Markdown: verdicts, the three distances, gradients, failures, what was not checked."""

import pytest
from test_junit import GRADIENTS, HANDLE

from convert.cli.outcomes import Outcome
from convert.cli.parity_summary import COLUMNS, NOTE, summarise
from models.records import ConsumerCheck, OracleDistances, Report

ABSENT = ConsumerCheck(name="hub.load", status="absent", detail="No module named 'tensorflow_hub'", worst=None)
PRESENT = ConsumerCheck(name="load", status="passed", detail="fine", worst=None)


@pytest.fixture
def outcome(tiny_build):
    report = Report.read(tiny_build / HANDLE / "2.report.json")
    distances = [
        OracleDistances(inputs=("blank",), saved_model=one * 3e-6, jax=one * 1e-6, excess_ulp=-1) for one in (2, 1)
    ]
    known = report.comparisons[:2]
    report = report.model_copy(
        update={
            "comparisons": tuple(
                comparison.model_copy(update={"max_relative": 7e-6, "oracle": oracle})
                for comparison, oracle in zip(known, distances, strict=True)
            ),
            "gradients": GRADIENTS,
            "consumer": (PRESENT,),
            "not_checked": ("cuda: exported, not run",),
        }
    )
    return Outcome(HANDLE, "original", 47_416, 1, 2.04, 7e-6, 1.0, "passed", report=report)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_handle_that_passed_shows_all_its_figures(outcome):
    lines = summarise([outcome]).splitlines()
    assert lines[0] == "### Parity: 1 of 1 passed"
    assert dict(zip(COLUMNS, cells(lines[4]), strict=True)) == {
        "handle": HANDLE,
        "origin": "original",
        "#SavedModel to JAX": "7.0e-06",
        "#SavedModel to oracle": "6.0e-06",
        "#JAX to oracle": "2.0e-06",
        "#worst gradient": "2.0e-06 (stem/kernel)",
        "#after an SGD step": "1.0e-06",
        "#agreement": "100%",
        "#seconds": "2.0",
        "verdict": "passed",
    }
    assert lines[5:] == ["", NOTE, "", "**Not checked:**", "", "- cuda: exported, not run"]


def test_a_failure_is_named_with_its_reasons_each_on_a_line(outcome):
    failed = Outcome(HANDLE, problems=("does not load: why", "a list:\n  of more"))
    lines = summarise([outcome, failed]).splitlines()
    assert lines[0] == "### Parity: 1 of 2 passed"
    assert cells(lines[5]) == [HANDLE, *[""] * 7, "0.0", "failed"]
    after = lines[lines.index("**Failed:**") + 2 :]
    assert after[:3] == [f"- {HANDLE}: does not load: why", f"- {HANDLE}: a list: of more", ""]
    assert after[-1] == f"- {HANDLE}: there is no report"


def test_what_was_not_checked_is_said_once(outcome):
    seeded = Outcome(HANDLE, "seeded", verdict="passed", report=outcome.report)
    absent = outcome.report.model_copy(update={"consumer": (ABSENT, PRESENT)})
    without = Outcome(HANDLE, "original", verdict="passed", report=absent)
    lines = summarise([seeded, without, outcome]).splitlines()
    assert lines[lines.index("**Not checked:**") + 2 :] == [
        "- cuda: exported, not run",
        "- the original checkpoints: seeded ones stand in for them",
        "- hub.load: No module named 'tensorflow_hub'",
    ]
