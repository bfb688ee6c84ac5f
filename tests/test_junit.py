"""The JUnit file: one case a handle and kind of check, failures with their reasons."""

from xml.etree import ElementTree

import pytest

from models.catalog import TESTING_HANDLES
from models.records import ConsumerCheck, GradientCheck, Report
from validation.junit import junit

HANDLE = next(iter(TESTING_HANDLES))
GRADIENTS = GradientCheck(
    inputs=("noise",),
    compared=30,
    missing=(),
    worst_variable="stem/kernel",
    worst_relative=2e-6,
    input_relative=1e-6,
    step_change=0.1,
    step_relative=1e-6,
)


@pytest.fixture
def report(tiny_build):
    return Report.read(tiny_build / HANDLE / "2.report.json")


def read(document):
    suite = ElementTree.fromstring(document)  # noqa: S314 (our own document)
    failures = {case.get("name"): case.findtext("failure") for case in suite if case.find("failure") is not None}
    return suite, failures


def test_a_passing_report_has_cases_and_no_failure(report):
    suite, failures = read(junit({HANDLE: report}, {}))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert [case.get("classname") for case in suite] == [f"parity.{HANDLE}"]
    assert suite.findtext("testcase/system-out").startswith("worst ")
    assert failures == {}


def test_each_problem_fails_the_case_that_it_belongs_to(report):
    consumer = (
        ConsumerCheck(name="batch 0", status="refused", detail="Expected value >= 1", worst=None),
        ConsumerCheck(name="hub.load", status="failed", detail="outputs differ", worst=0.5),
    )
    problems = (
        "gradient by stem/kernel is 1 off",
        "consumer: hub.load: outputs differ",
        "12 variables differ: <x> & y",
    )
    bad = report.model_copy(
        update={"gradients": GRADIENTS, "consumer": consumer, "problems": problems, "verdict": "failed"}
    )
    suite, failures = read(junit({HANDLE: bad}, {HANDLE: problems}))
    assert (suite.get("tests"), suite.get("failures")) == ("4", "3")
    assert failures == {
        "outputs, variables, interface": "12 variables differ: <x> & y",
        "gradients": "gradient by stem/kernel is 1 off",
        "consumer: hub.load": "outputs differ",
    }


def test_a_handle_without_a_report_fails(report):
    suite, failures = read(junit({}, {HANDLE: ("nothing was converted there",)}))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert failures == {"report": "nothing was converted there"}
