"""The verdicts as a JUnit file, which CI systems show test by test."""

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from models.errors import printable, shown
from models.records.check import Check
from models.records.report import Report

_LONGEST = 500
"""Most characters of an attribute."""


def junit(reports: Mapping[str, Report], failures: Mapping[str, Sequence[str]]) -> bytes:
    """Return a JUnit document: a case for each check of each handle; a check without power is skipped.

    Args:
        reports: by handle.
        failures: why a handle has failed, by handle; those without a report have one case, which fails.
    """
    suite = ElementTree.Element("testsuite", name="parity")
    cases = [
        (handle, str(check), check.problems, _said(check), not check.has_power)
        for handle, report in reports.items()
        for check in report.checks
    ]
    cases += [(handle, "report", tuple(why), "", False) for handle, why in failures.items() if handle not in reports]
    for handle, name, problems, said, skipped in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"parity.{shown(handle)}", name=shown(name, _LONGEST)
        )
        if said:
            ElementTree.SubElement(case, "system-out").text = printable(said)
        if problems:
            failure = ElementTree.SubElement(case, "failure", message=shown(problems[0], _LONGEST))
            failure.text = printable("\n".join(problems))
        elif skipped:
            ElementTree.SubElement(case, "skipped", message="no power: cannot tell a right model from a wrong one")
    failed, skips = (sum(case.find(kind) is not None for case in suite) for kind in ("failure", "skipped"))
    suite.attrib |= {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": str(skips)}
    ElementTree.indent(suite)
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _said(check: Check) -> str:
    figures = [f"measured {check.measured:.3g}"] if check.measured is not None else []
    figures += [f"limit {check.limit:g}"] if check.limit is not None else []
    figures += [f"power {check.power:.2g}"] if check.power is not None else []
    return "; ".join([", ".join(figures), *([check.detail] if check.detail else [])]).removeprefix("; ")
