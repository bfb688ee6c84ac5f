"""Checks that depend on a graph alone are made once, and taken over only where they hold."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from command import status_of
from publishable import fields_of
from writing import directory_of

from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from models.labels import LABELS_1K
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import GRADIENTS, Report
from models.storage.files import sha256_of
from validation.compatibility import run_consumer as consumption
from validation.compatibility.run_consumer import OF_THE_GRAPH
from validation.compatibility.same_graph import find_checks
from validation.consumer import CHECKS, OWN
from validation.views.handle import _check

CLASSIFIER, _ = TESTING_HANDLES
HANDLE = TESTING_HANDLES[CLASSIFIER]
OTHER = "0" * 64
pytestmark = pytest.mark.whole  # all use the report of the full set


@pytest.fixture
def out(tiny_full, tmp_path):
    """A copy of the checked classifier, alone."""
    shutil.copytree(tiny_full / CLASSIFIER, tmp_path / "out" / CLASSIFIER)
    return tmp_path / "out"


def paths(out, name=CLASSIFIER):
    return ModelPaths.of(out, name, DEFAULT_VERSION)


@pytest.fixture
def graph(out):
    return sha256_of(paths(out).directory / "saved_model.pb")


def test_the_checks_of_a_graph_are_found_by_its_digest(out, graph):
    found = find_checks(out, graph, OF_THE_GRAPH)
    assert [check.on for check in found if check.name == "consumer"] == list(OF_THE_GRAPH)
    assert {check.name for check in found} == {"consumer", *GRADIENTS}
    assert {(check.made_on.handle, check.made_on.saved_model_sha256) for check in found} == {(CLASSIFIER, graph)}
    assert find_checks(out, OTHER, OF_THE_GRAPH) == ()
    assert find_checks(out / "nowhere", graph, OF_THE_GRAPH) == ()


def test_own_checks_are_of_no_graph(out):
    report = Report.read(paths(out).report)
    assert [check.on for check in report.find("consumer") if check.made_on is None] == [
        name for name in CHECKS if name in OWN
    ]


def test_the_page_says_on_which_graph_a_check_was_made(out, graph):
    said = {check.on: _check(check)[-1] for check in Report.read(paths(out).report).find("consumer")}
    made_on = {on: f"made on {CLASSIFIER}, saved_model.pb {graph}" in what for on, what in said.items()}
    assert made_on == {name: name in OF_THE_GRAPH for name in CHECKS}


def edit_report(change):
    def edit(out):
        report = fields_of(paths(out).report.read_bytes())
        change(report)
        paths(out).report.write_text(json.dumps(report))

    return edit


def consumed(report):
    return [check for check in report["checks"] if check["made_on"]]


def claim_another_graph(report):
    report["saved_model_sha256"] = OTHER
    for check in consumed(report):
        check["made_on"]["saved_model_sha256"] = OTHER


def make_one_on_another_graph(report):
    consumed(report)[0]["made_on"]["saved_model_sha256"] = OTHER


def forget_one(report):
    report["checks"].remove(consumed(report)[0])


def make_one_of_no_graph(report):
    consumed(report)[0]["made_on"] = None


def leave_one_without_power(report):
    consumed(report)[0]["power"] = 0.0


def fail_one(report):
    consumed(report)[0]["problems"] = ["consumer: wrong"]
    report["verdict"] = "failed"


def fail_one_in_secret(report):
    next(check for check in consumed(report) if check["limit"])["measured"] = 1.0


def other_version(library):
    return edit_report(lambda report: report["libraries"].update({library: "0.0"}))


def replace_graph(out):
    (paths(out).directory / "saved_model.pb").write_bytes(b"another")


def convert_again(out):
    manifest = Manifest.read(paths(out).manifest)
    paths(out).manifest.write_bytes(manifest.model_copy(update={"git_commit": "another"}).to_bytes())


def cut_short(out):
    paths(out).report.write_bytes(paths(out).report.read_bytes()[:100])


@pytest.mark.parametrize(
    "fault",
    [
        *map(edit_report, (make_one_on_another_graph, forget_one, make_one_of_no_graph, leave_one_without_power)),
        *map(edit_report, (fail_one, fail_one_in_secret, lambda report: report.update(validator_sha256=OTHER))),
        *map(other_version, ("tensorflow", "keras", "tf-keras", "tensorflow-hub", "python", "numpy")),
        replace_graph,
        convert_again,
        cut_short,
        lambda out: paths(out).report.unlink(),
        lambda out: paths(out).manifest.unlink(),
        lambda out: shutil.rmtree(paths(out).directory),
    ],
)
def test_nothing_is_taken_over_from_a_report_that_does_not_hold(fault, out, graph):
    assert find_checks(out, graph, OF_THE_GRAPH)
    fault(out)
    assert find_checks(out, graph, OF_THE_GRAPH) == ()


def test_a_report_is_not_taken_for_one_on_the_graph_that_it_claims(out, graph):
    edit_report(claim_another_graph)(out)
    assert not list(Report.read(paths(out).report).contradictions())
    assert find_checks(out, OTHER, OF_THE_GRAPH) == ()
    assert find_checks(out, graph, OF_THE_GRAPH) == ()


def test_a_check_made_on_another_graph_contradicts_the_report(out, graph):
    edit_report(make_one_on_another_graph)(out)
    (said,) = Report.read(paths(out).report).contradictions()
    where, what = said.split(": ", 1)
    assert where.startswith("gradients_missing, ")
    assert what == f"made on a saved_model.pb of sha256 {OTHER}, but the model's is {graph}"


# --- two models with one graph, through the command line ---


@pytest.fixture(scope="module")
def trained(tiny_source, tmp_path_factory):
    """A checkpoint of the same architecture with other weights."""
    path = tmp_path_factory.mktemp("trained") / "mine.npz"
    with np.load(tiny_source / HANDLE.checkpoint.object) as arrays:
        np.savez(path, **{name: arrays[name] * np.float32(0.99) for name in arrays.files})
    return path


def mine(command, out, trained, *more):
    options = ["--checkpoint", trained, "--name", "mine", "--labels", LABELS_1K.checked_path(), "--out", out]
    return status_of(command, CLASSIFIER, *options, *more)


@pytest.fixture
def runs(monkeypatch):
    """Each run of the consumer, by whether it made only the checks of the model's own files."""
    found, real = [], consumption.run_consumer

    def run(directory, **options):
        found.append((directory.parent.name, options["own"]))
        return real(directory, **options)

    monkeypatch.setattr(consumption, "run_consumer", run)
    return found


@pytest.fixture
def both(out, graph, trained):
    """The checked classifier, and another model of the same graph that was not checked."""
    assert mine("convert", out, trained) == 0
    assert sha256_of(paths(out, "mine").directory / "saved_model.pb") == graph
    return out


def test_a_model_with_a_graph_that_is_proven_is_itself_loaded_and_run(both, trained, runs, graph):
    assert mine("validate", both, trained, "--set", "full") == 0
    assert runs == [("mine", True)]
    first, second = (Report.read(paths(both, name).report) for name in (CLASSIFIER, "mine"))
    checks = [list(report.find("consumer")) for report in (first, second)]
    gradients = [[check for check in report.checks if check.name in GRADIENTS] for report in (first, second)]
    assert gradients[0] == gradients[1] and len(gradients[0]) == 4
    assert second.fine_tunable
    assert [[check.on for check in one] for one in checks] == [list(CHECKS)] * 2
    for before, after in zip(*checks, strict=True):
        assert after.made_on == before.made_on
        assert (after == before) == (before.measured is None or before.made_on is not None), after.on
    assert second.saved_model_sha256 == graph
    assert hashlib.sha256(paths(both, "mine").manifest.read_bytes()).hexdigest() == second.manifest_sha256


def test_variables_of_the_other_model_are_noticed_under_a_graph_that_is_proven(both, trained, runs):
    variables = [directory_of(both, name) / "variables" for name in (CLASSIFIER, "mine")]
    shutil.rmtree(variables[1])
    shutil.copytree(*variables)
    assert mine("validate", both, trained, "--set", "full") == 1
    assert runs == [("mine", True)]
    problems = Report.read(paths(both, "mine").report).problems
    assert any(problem.startswith("consumer: signatures: over the limit") for problem in problems)
    assert any("variables differ" in problem for problem in problems)


def test_another_graph_is_consumed_itself(both, trained, monkeypatch):
    asked = []
    monkeypatch.setattr(
        consumption, "run_consumer", lambda _, **options: asked.append(options["own"]) or {"checks": []}
    )
    pb = paths(both, "mine").directory / "saved_model.pb"
    pb.write_bytes(pb.read_bytes() + b"\x1a\x00")  # one more field of the same message: it still loads
    assert mine("validate", both, trained, "--set", "full") == 1
    assert asked == [False]
    checks = Report.read(paths(both, "mine").report).checks
    assert {check.made_on.handle for check in checks if check.made_on} == {"mine"}
