"""The report: a verdict bound to its manifest."""

import hashlib
import json
from dataclasses import replace

import pytest
from reporting import OF_THE_FULL_SET, check, checks

from models.catalog import TESTING_HANDLES
from models.records.check import GRAPH
from models.records.manifest import Manifest
from models.records.report import DepthStep, PublishedComparison, PublishedVariables, Report
from models.records.tolerances import TOLERANCES
from validation.parity import report as report_module
from validation.parity.check import Findings, _VariablesCheck
from validation.parity.images import Inputs
from validation.parity.outputs import Comparison, _Distances, _OracleDistances
from validation.parity.report import VALIDATOR_SOURCES, Extras, is_current, make_report

CLASSIFIER, _ = TESTING_HANDLES
NOT_TRACED = "saved_model.pb against a fresh trace: other sources or libraries made the model"
INPUTS = Inputs.gate(32)
COMPARISON = Comparison(
    "__call__",
    1,
    ("blank",),
    _Distances(max_relative=1e-6, max_ulp=2.0, cosine_distance=1e-14, top1=1.0, top5=1.0, power=1.0),
    _OracleDistances(saved_model=1e-6, jax=1e-6, excess_ulp=-2.0, power=1.0),
)
GOOD = Findings((COMPARISON, replace(COMPARISON, probe="head")), _VariablesCheck(compared=30), outputs={"blank": None})
BAD = Findings(interface=("does not load: why",))


@pytest.fixture
def manifest_bytes(tiny_build):
    return (tiny_build / CLASSIFIER / "2.manifest.json").read_bytes()


def test_findings_without_problems_pass(manifest_bytes):
    report = make_report(manifest_bytes, GOOD, INPUTS)
    assert report.verdict == "passed"
    assert report.problems == ()
    assert report.checks[1:] == GOOD.checks
    assert set(COMPARISON.checks) < set(report.checks)
    assert report.images == ("blank",)
    assert report.figure("max_relative") == 1e-6
    assert list(report.contradictions(TOLERANCES)) == []


def test_findings_with_problems_fail(manifest_bytes):
    report = make_report(manifest_bytes, BAD, INPUTS)
    assert (report.verdict, report.problems) == ("failed", ("does not load: why",))
    assert report.figure("max_relative") is None


def test_other_problems_fail_and_come_first(manifest_bytes):
    report = make_report(manifest_bytes, BAD, INPUTS, other_problems=["a file is missing"])
    assert (report.verdict, report.problems) == ("failed", ("a file is missing", "does not load: why"))
    assert make_report(manifest_bytes, GOOD, INPUTS, other_problems=["a file is missing"]).verdict == "failed"


def test_the_report_names_what_it_is_about(manifest_bytes):
    manifest = Manifest.model_validate_json(manifest_bytes)
    report = make_report(manifest_bytes, GOOD, INPUTS)
    for name in ("handle", "version", "flavour"):
        assert getattr(report, name) == getattr(manifest, name)
    assert report.origin == manifest.checkpoint.origin
    assert report.manifest_sha256 == hashlib.sha256(manifest_bytes).hexdigest()
    assert (report.inputs_set, report.inputs_sha256) == ("gate", INPUTS.sha256)


def test_tolerances_stand_in_the_report_with_their_reasons(manifest_bytes):
    written = json.loads(make_report(manifest_bytes, GOOD, INPUTS).to_bytes())
    assert written["tolerances"] == {name: limit.model_dump() for name, limit in TOLERANCES.items()}
    names = {check["name"] for check in written["checks"] if check["limit"] is not None}
    assert names <= written["tolerances"].keys()
    assert all(len(tolerance["reason"]) > 40 for tolerance in written["tolerances"].values())


EXTRAS = Extras(
    checks=tuple(one for one in checks() if one.name in {*OF_THE_FULL_SET, "consumer"} or one.probe == "stem"),
    fine_tunable=True,
    depth=(DepthStep(name="stem", jax=1e-7, saved_model=1e-7),),
)


def test_the_full_set_adds_to_the_report(manifest_bytes):
    report = make_report(manifest_bytes, GOOD, INPUTS, inputs_set="full", extras=EXTRAS)
    assert (report.inputs_set, report.verdict) == ("full", "passed")
    assert (report.fine_tunable, report.depth) == (True, EXTRAS.depth)
    assert report.checks[-len(EXTRAS.checks) :] == EXTRAS.checks


def test_without_a_check_of_the_full_set_its_report_fails(manifest_bytes):
    report = make_report(manifest_bytes, GOOD, INPUTS, inputs_set="full")
    assert report.verdict == "failed"
    missing = [problem.split()[2] for problem in report.problems if problem.startswith("no check ")]
    assert missing == ["max_relative", *OF_THE_FULL_SET, "consumer"]
    assert report.problems[0].startswith("no check max_relative on a probing stem ")


def test_without_a_comparison_of_power_a_report_fails(manifest_bytes):
    distances, oracle = replace(COMPARISON.distances, power=0.4), replace(COMPARISON.oracle, power=0.4)
    powerless = replace(COMPARISON, distances=distances, oracle=oracle)
    report = make_report(manifest_bytes, replace(GOOD, comparisons=(powerless,)), INPUTS)
    assert report.verdict == "failed"
    assert "no check max_relative can tell a right model from a wrong one" in report.problems[0]
    probed = replace(GOOD, comparisons=(powerless, replace(COMPARISON, probe="head")))
    assert make_report(manifest_bytes, probed, INPUTS).verdict == "passed"


def test_without_a_probing_head_the_report_of_a_classifier_fails(manifest_bytes):
    report = make_report(manifest_bytes, replace(GOOD, comparisons=(COMPARISON,)), INPUTS)
    (problem,) = report.problems
    assert problem.startswith("no check max_relative on a probing head can tell a right model from a wrong one")
    features = Manifest.model_validate_json(manifest_bytes).model_copy(update={"head": "fe"}).to_bytes()
    assert make_report(features, replace(GOOD, comparisons=(COMPARISON,)), INPUTS).verdict == "passed"


def test_variables_that_were_not_compared_do_not_pass(manifest_bytes):
    assert make_report(manifest_bytes, replace(GOOD, variables=_VariablesCheck()), INPUTS).verdict == "failed"


def test_how_it_compares_with_an_earlier_version_does_not_touch_the_verdict(manifest_bytes):
    found = PublishedComparison(
        name="1",
        kind="directory",
        sha256="0",
        outputs=None,
        signatures=None,
        variables=None,
        differences=("1 does not load: why",),
        verdict="different",
    )
    report = make_report(manifest_bytes, GOOD, INPUTS, reference=found)
    assert report.reference == found
    assert (report.verdict, report.problems) == ("passed", ())
    assert is_current(report, manifest_bytes)
    assert make_report(manifest_bytes, GOOD, INPUTS).reference is None


def test_the_gate_set_says_nothing_of_what_it_did_not_look_at(manifest_bytes):
    report = make_report(manifest_bytes, GOOD, INPUTS)
    assert (report.fine_tunable, report.depth) == (None, ())
    assert not {check.name for check in report.checks} & {*OF_THE_FULL_SET, "consumer"}
    assert report.not_checked == (
        "cuda, rocm, tpu: exported, not run",
        "gradients, and the ways users call a model: only `--set full` checks them",
        NOT_TRACED,
    )


def test_the_full_set_names_the_platforms_it_did_not_run_on(manifest_bytes):
    assert make_report(manifest_bytes, GOOD, INPUTS, inputs_set="full", extras=EXTRAS).not_checked == (
        "cuda, rocm, tpu: exported, not run",
        NOT_TRACED,
    )
    everywhere = Manifest.model_validate_json(manifest_bytes).model_copy(update={"platforms": ("cpu",)})
    report = make_report(everywhere.to_bytes(), GOOD, INPUTS, inputs_set="full", extras=EXTRAS)
    assert report.not_checked == (NOT_TRACED,)
    traced = replace(EXTRAS, checks=(*EXTRAS.checks, check(GRAPH, on="a fresh trace", power=None)))
    assert make_report(everywhere.to_bytes(), GOOD, INPUTS, inputs_set="full", extras=traced).not_checked == ()


def test_equal_findings_give_equal_bytes(manifest_bytes):
    first, second = (make_report(manifest_bytes, GOOD, INPUTS).to_bytes() for _ in range(2))
    assert first == second


def test_what_convert_all_wrote_is_current(tiny_build):
    manifests = sorted(tiny_build.glob("*/2.manifest.json"))
    assert len(manifests) == 4
    for manifest in manifests:
        report = Report.read(manifest.with_name("2.report.json"))
        assert report.verdict == "passed"
        assert is_current(report, manifest.read_bytes())


def test_a_report_on_another_manifest_is_not_current(manifest_bytes):
    report = make_report(manifest_bytes, GOOD, INPUTS)
    assert is_current(report, manifest_bytes)
    assert not is_current(report, manifest_bytes + b"\n")
    assert not is_current(report, manifest_bytes.replace(b'"version": 2', b'"version": 3'))


def test_a_report_by_another_validator_is_not_current(manifest_bytes, monkeypatch):
    report = make_report(manifest_bytes, GOOD, INPUTS)
    asked = []
    monkeypatch.setattr(report_module, "sources_sha256", lambda *packages: asked.append(packages) or "0" * 64)
    assert not is_current(report, manifest_bytes)
    assert asked == [VALIDATOR_SOURCES]


def test_a_report_with_other_libraries_is_not_current(manifest_bytes, monkeypatch):
    report = make_report(manifest_bytes, GOOD, INPUTS)
    versions = report.libraries | {"tensorflow": "2.0.0"}
    monkeypatch.setattr(report_module, "library_versions", lambda: versions)
    assert not is_current(report, manifest_bytes)


# --- a report against its own figures ---


def passed(manifest_bytes):
    return make_report(manifest_bytes, GOOD, INPUTS, inputs_set="full", extras=EXTRAS)


ANY = object()


def altered(report, name, *, probe=ANY, **fields):
    """Return the report with other fields of the checks of a name, where told to only of those on a probe."""
    changed = tuple(
        one.model_copy(update=fields) if one.name == name and probe in {ANY, one.probe} else one
        for one in report.checks
    )
    return report.model_copy(update={"checks": changed})


def without(report, probe):
    return report.model_copy(update={"checks": tuple(one for one in report.checks if one.probe != probe)})


EARLIER = PublishedComparison(
    name="1",
    kind="directory",
    sha256="0",
    outputs=COMPARISON.checks,
    signatures=(),
    variables=PublishedVariables(count=30, published=30, same_name=30, equal=30, different=(), left_over=()),
    differences=(),
    verdict="same",
)


def compared_with(report, **changes):
    """Return the report with an earlier version that is the same but for these fields."""
    return report.model_copy(update={"reference": EARLIER.model_copy(update=changes)})


FORGED = {
    "an earlier version that is called the same": (
        lambda report: compared_with(report, differences=("1 does not load",)),
        "earlier version: the verdict is same, but its list of differences",
    ),
    "an earlier version that is called another": (
        lambda report: compared_with(report, verdict="different"),
        "earlier version: the verdict is different, but its list of differences",
    ),
    "an earlier version far off": (
        lambda report: compared_with(report, outputs=(COMPARISON.checks[0].model_copy(update={"measured": 9.9}),)),
        "earlier version: max_relative, __call__ on blank (batch 1): measured 9.9, over its limit",
    ),
    "an earlier version with other signatures": (
        lambda report: compared_with(report, signatures=("signature x: only in the published version",)),
        "but no difference is listed",
    ),
    "a figure over its limit": (lambda report: altered(report, "max_relative", measured=9.9), "measured 9.9, over its"),
    "no number": (lambda report: altered(report, "step_relative", measured=float("nan")), "measured nan, over its"),
    "no figure": (lambda report: altered(report, "max_ulp", measured=None), "measured None, over its"),
    "no limit": (lambda report: altered(report, "max_ulp", measured=9.9, limit=None), "its limit 64 is missing"),
    "nothing measured": (
        lambda report: altered(report, "gradient_relative", measured=None, limit=None),
        "no measurement was compared with a limit",
    ),
    "no word of power": (lambda report: altered(report, "max_relative", power=None), "the power of its comparisons"),
    "gradients that failed": (lambda report: altered(report, "step_relative", power=0.0), "no gradients prove it"),
    "no limits at all": (
        lambda report: report.model_copy(
            update={
                "checks": tuple(one.model_copy(update={"limit": None}) for one in report.checks),
                "tolerances": {},
            }
        ),
        "no measurement was compared with a limit",
    ),
    "another limit": (lambda report: altered(report, "max_relative", limit=10.0), "differs from the report's"),
    "a problem": (
        lambda report: altered(report, "files", problems=("x",)),
        "the verdict is passed, but its list of problems",
    ),
    "no power": (lambda report: altered(report, "max_relative", power=0.2), "no check max_relative can tell"),
    "no probing head": (lambda report: without(report, "head"), "no check max_relative on a probing head can tell"),
    "no probing stem": (lambda report: without(report, "stem"), "no check max_relative on a probing stem can tell"),
    "a probing head without power": (
        lambda report: altered(report, "max_relative", probe="head", power=0.2),
        "no check max_relative on a probing head can tell",
    ),
    "a zero head with power": (
        lambda report: report.model_copy(update={"zero_head": True}),
        "zero_head is True, but outputs have power",
    ),
    "a zero head that is not named": (
        lambda report: altered(report, "max_relative", probe=None, power=0.0),
        "zero_head is False, but outputs have no power",
    ),
    "gradients of the gate set": (
        lambda report: report.model_copy(update={"inputs_set": "gate"}),
        "which only the full set checks",
    ),
    "no word of fine-tuning": (lambda report: report.model_copy(update={"fine_tunable": None}), "does not say whether"),
    "a check less": (
        lambda report: report.model_copy(update={"checks": tuple(c for c in report.checks if c.name != "variables")}),
        "no check variables can tell",
    ),
    "failed without a reason": (
        lambda report: report.model_copy(update={"verdict": "failed"}),
        "but its list of problems means",
    ),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_verdict_that_the_figures_do_not_carry_is_a_contradiction(forgery, manifest_bytes):
    report = compared_with(passed(manifest_bytes))
    assert list(report.contradictions(TOLERANCES)) == []
    change, said = FORGED[forgery]
    forged = change(report)
    assert any(said in one for one in forged.contradictions())
    assert any(said in one for one in forged.contradictions(TOLERANCES))


def test_limits_that_were_wider_than_todays_are_told_apart(manifest_bytes):
    wide = TOLERANCES["max_relative"].model_copy(update={"limit": 10.0})
    report = altered(passed(manifest_bytes), "max_relative", limit=10.0, measured=9.9)
    report = report.model_copy(update={"tolerances": TOLERANCES | {"max_relative": wide}})
    assert list(report.contradictions()) == []
    assert list(report.contradictions(TOLERANCES)) == ["its limit of max_relative is 10, today's is 5e-05"]
    narrow = {name: one for name, one in TOLERANCES.items() if name != "max_ulp"}
    assert "it uses limits that no longer exist: max_ulp" in list(report.contradictions(narrow))
