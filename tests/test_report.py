"""The report: a verdict bound to its manifest."""

import hashlib
import json

import pytest

from models.records import (
    Comparison,
    ConsumerCheck,
    DepthStep,
    GradientCheck,
    Manifest,
    OracleDistances,
    PublishedComparison,
    Report,
    VariablesCheck,
)
from models.tolerances import TOLERANCES
from validation import report as report_module
from validation.images import gate_inputs
from validation.parity import Findings
from validation.report import VALIDATOR_PACKAGES, Extras, is_current, make_report

INPUTS = gate_inputs(32)
COMPARISON = Comparison(
    entry="__call__",
    batch=1,
    inputs=("blank",),
    max_abs=1e-6,
    max_relative=1e-6,
    max_ulp=2.0,
    cosine_distance=1e-14,
    top1=1.0,
    top5=1.0,
    oracle=OracleDistances(inputs=("blank",), saved_model=1e-6, jax=1e-6, excess_ulp=-2.0),
)
GOOD = Findings((COMPARISON,), VariablesCheck(compared=30, different=()), ())
BAD = Findings((), VariablesCheck(compared=0, different=()), ("does not load: why",))


@pytest.fixture
def manifest_bytes(tiny_build):
    return next(tiny_build.glob("*/2.manifest.json")).read_bytes()


def test_findings_without_problems_pass(manifest_bytes):
    report = make_report(manifest_bytes, GOOD, INPUTS)
    assert report.verdict == "passed"
    assert report.problems == ()
    assert report.comparisons == (COMPARISON,)
    assert report.worst_relative == 1e-6


def test_findings_with_problems_fail(manifest_bytes):
    report = make_report(manifest_bytes, BAD, INPUTS)
    assert (report.verdict, report.problems) == ("failed", ("does not load: why",))
    assert report.worst_relative is None


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
    assert written["tolerances"].keys() == {
        "max_relative",
        "max_ulp",
        "cosine_distance",
        "topk",
        "jax_oracle_relative",
        "oracle_excess_ulp",
        "gradient_relative",
        "step_relative",
    }
    assert all(len(tolerance["reason"]) > 40 for tolerance in written["tolerances"].values())


EXTRAS = Extras(
    gradients=GradientCheck(
        inputs=("noise",),
        compared=30,
        missing=(),
        worst_variable="head/bias",
        worst_relative=1e-6,
        input_relative=1e-6,
        step_change=0.1,
        step_relative=1e-6,
    ),
    fine_tunable=True,
    depth=(DepthStep(name="stem", jax=1e-7, saved_model=1e-7),),
    consumer=(ConsumerCheck(name="hub.load", status="absent", detail="not installed", worst=None),),
)


def test_the_full_set_adds_to_the_report(manifest_bytes):
    report = make_report(manifest_bytes, GOOD, INPUTS, inputs_set="full", extras=EXTRAS)
    assert (report.inputs_set, report.verdict) == ("full", "passed")
    found = Extras(report.gradients, report.fine_tunable, report.depth, report.consumer)
    assert found == EXTRAS


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
    assert (report.gradients, report.fine_tunable, report.depth, report.consumer) == (None, None, (), ())
    assert report.not_checked == (
        "cuda, rocm, tpu: exported, not run",
        "gradients, and what consumers do: see the full set",
    )


def test_the_full_set_names_the_platforms_it_did_not_run_on(manifest_bytes):
    assert make_report(manifest_bytes, GOOD, INPUTS, inputs_set="full", extras=EXTRAS).not_checked == (
        "cuda, rocm, tpu: exported, not run",
    )
    everywhere = Manifest.model_validate_json(manifest_bytes).model_copy(update={"platforms": ("cpu",)})
    assert make_report(everywhere.to_bytes(), GOOD, INPUTS, inputs_set="full", extras=EXTRAS).not_checked == ()


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
    assert asked == [VALIDATOR_PACKAGES] == [("models", "validation")]


def test_a_report_with_other_libraries_is_not_current(manifest_bytes, monkeypatch):
    report = make_report(manifest_bytes, GOOD, INPUTS)
    versions = report.libraries | {"tensorflow": "2.0.0"}
    monkeypatch.setattr(report_module, "library_versions", lambda: versions)
    assert not is_current(report, manifest_bytes)
