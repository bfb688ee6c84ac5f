"""The JUnit file: one case a handle and kind of check, failures with their reasons."""

from xml.etree import ElementTree

import pytest
from reporting import check, consumed

from models.catalog import TESTING_HANDLES
from models.records.report import Report
from validation.views.junit import junit

HANDLE = next(iter(TESTING_HANDLES))


@pytest.fixture
def report(tiny_build):
    return Report.read(tiny_build / HANDLE / "2.report.json")


def read(document):
    suite = ElementTree.fromstring(document)  # noqa: S314 (our own document)
    failures = {case.get("name"): case.findtext("failure") for case in suite if case.find("failure") is not None}
    return suite, failures


def test_each_check_of_a_passing_report_is_a_case(report):
    suite, failures = read(junit({HANDLE: report}, {}))
    assert (suite.get("tests"), suite.get("failures")) == (str(len(report.checks)), "0")
    assert {case.get("classname") for case in suite} == {f"parity.{HANDLE}"}
    assert [case.get("name") for case in suite] == [str(check) for check in report.checks]
    assert any("measured 0, limit 0" in (case.findtext("system-out") or "") for case in suite)
    assert failures == {}


def test_what_is_foreign_is_escaped_and_cut(report):
    hostile = "\x1b]0;title\x07\x1b[31mred\u202eevil\udcff" + "n" * 60_000
    of_it = check("gradient_relative", 1.0, on=hostile, problems=(hostile, f"two\n{hostile}"), detail=hostile)
    document = junit({HANDLE: report.model_copy(update={"checks": (of_it,)})}, {hostile: [hostile]})
    suite, _ = read(document)
    assert len(document) < 40_000
    assert all(line.isprintable() for line in document.decode().split("\n"))
    assert suite[0].get("name").startswith(r"gradient_relative, \x1b]0;title\x07\x1b[31mred\u202eevil\udcff")
    assert suite[0].find("failure").get("message").endswith(f"... ({len(hostile):,} characters)")


def test_each_problem_fails_the_case_that_it_belongs_to_and_what_has_no_power_is_skipped(report):
    more = (
        consumed("batch 0", status="refused", detail="Expected value >= 1", worst=None),
        consumed("hub.load", status="failed", detail="outputs differ", worst=0.5),
        consumed("absent", status="absent", detail="not installed", worst=None),
        check("gradient_relative", 1.0, on="stem/kernel", problems=("gradient by stem/kernel is 1 off",)),
        check("variables", 12.0, on="of <x>", problems=("12 variables differ: <x> & y",)),
    )
    bad = report.model_copy(update={"checks": more, "verdict": "failed"})
    suite, failures = read(junit({HANDLE: bad}, {HANDLE: bad.problems}))
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["5", "3", "1"]
    assert failures == {
        "variables, of <x>": "12 variables differ: <x> & y",
        "gradient_relative, stem/kernel": "gradient by stem/kernel is 1 off",
        "consumer, hub.load": "consumer: hub.load: outputs differ",
    }


def test_a_handle_without_a_report_fails(report):
    suite, failures = read(junit({}, {HANDLE: ("nothing was converted there",)}))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert failures == {"report": "nothing was converted there"}
