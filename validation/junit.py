"""The verdicts as a JUnit file, which CI systems show test by test."""

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from models.records import Report


def junit(reports: Mapping[str, Report], failures: Mapping[str, Sequence[str]]) -> bytes:
    """Return a JUnit document: one case a handle and kind of check.

    Args:
        reports: by handle.
        failures: why a handle has failed, by handle; those without a report have one case, which fails.
    """
    suite = ElementTree.Element("testsuite", name="parity")
    cases = [(handle, *case) for handle, report in reports.items() for case in _cases(report)]
    cases += [(handle, "report", tuple(why), 0.0) for handle, why in failures.items() if handle not in reports]
    for handle, check, problems, worst in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=f"parity.{handle}", name=check)
        if worst:
            ElementTree.SubElement(case, "system-out").text = f"worst {worst:.3g}"
        if problems:
            ElementTree.SubElement(case, "failure", message=problems[0]).text = "\n".join(problems)
    failed = sum(1 for case in cases if case[2])
    suite.attrib |= {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": "0"}
    ElementTree.indent(suite)
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _cases(report: Report) -> list[tuple[str, tuple[str, ...], float]]:
    """Return name, problems and worst figure of each kind of check; what fits none counts for all of them."""
    rest = report.problems
    cases: list[tuple[str, tuple[str, ...], float]] = []
    if report.gradients is not None:
        words = ("gradient", "SGD")
        mine = tuple(p for p in rest if not p.startswith("consumer: ") and any(word in p for word in words))
        rest = tuple(problem for problem in rest if problem not in mine)
        cases.append(("gradients", mine, report.gradients.worst_relative))
    for check in report.consumer:
        mine = (check.detail,) if check.status == "failed" else ()
        rest = tuple(problem for problem in rest if not problem.startswith(f"consumer: {check.name}: "))
        cases.append((f"consumer: {check.name}", mine, check.worst or 0.0))
    return [("outputs, variables, interface", rest, report.worst_relative or 0.0), *cases]
