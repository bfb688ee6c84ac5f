"""The full set through the command line: what the report then says, of right models and of wrong ones."""

import json
import re
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from mutations import without_gradients
from reporting import consumed
from writing import native_function, write_saved_model

from convert.checkpoints import open as open_module
from convert.checkpoints.reader import load_checkpoint
from convert.cli import main
from models.catalog import TESTING_HANDLES
from models.params import flatten, nest
from models.records.contents import digest_files
from models.records.manifest import Manifest
from models.records.report import Report
from models.records.tolerances import TOLERANCES
from validation import gate
from validation.parity.check import GATE_ORACLE
from validation.parity.images import Inputs
from validation.parity.saved_outputs import SavedOutputs

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
CHECKPOINT = TESTING_HANDLES[CLASSIFIER].checkpoint
SIZE = CHECKPOINT.architecture.image_size


def validate(source, out, *more):
    with pytest.raises(SystemExit) as exit_:
        main(["validate", *map(str, more), "--source", str(source), "--out", str(out)])
    return exit_.value.code or 0


@pytest.fixture(scope="module")
def params(tiny_source):
    path = tiny_source / CHECKPOINT.object
    return load_checkpoint(path, CHECKPOINT.architecture, num_classes=CHECKPOINT.num_classes).params


def report_of(out, handle):
    return Report.read(out / handle / "2.report.json")


each_handle = pytest.mark.parametrize("handle", TESTING_HANDLES)


@pytest.mark.whole
@each_handle
def test_the_report_of_the_full_set_passes_and_says_so(handle, tiny_full):
    report = report_of(tiny_full, handle)
    assert (report.inputs_set, report.verdict, report.problems) == ("full", "passed", ())
    assert "cuda, rocm, tpu: exported, not run" in report.not_checked
    assert not any("gradients" in note for note in report.not_checked)


@pytest.mark.whole
@each_handle
def test_gradients_are_compared_and_make_it_fine_tunable(handle, tiny_full):
    report = report_of(tiny_full, handle)
    assert report.fine_tunable is True
    (missing,) = report.find("gradients_missing")
    assert (missing.on, missing.measured) == (f"{len(TESTING_HANDLES[handle].arrays)} variables", 0)
    worst, images = report.find("gradient_relative")
    assert worst.on.endswith(f", the worst of {len(TESTING_HANDLES[handle].arrays)} variables")
    assert images.on == "the images noise, chelsea.png"
    assert 0 < report.figure("gradient_relative") < TOLERANCES["gradient_relative"].limit / 5
    assert 0 < report.figure("step_relative") < TOLERANCES["step_relative"].limit / 5
    assert all(check.has_power for name in ("gradient_relative", "step_relative") for check in report.find(name))


@pytest.mark.whole
@each_handle
def test_the_depth_is_told_step_by_step_in_order(handle, tiny_full):
    depth = report_of(tiny_full, handle).depth
    blocks = [f"MixerBlock_{index}" for index in range(CHECKPOINT.architecture.num_blocks)]
    head = ["head"] if handle == CLASSIFIER else []
    assert [step.name for step in depth] == ["stem", *blocks, "pre_head_layer_norm", "features", *head]
    assert all(0 < step.jax < 1e-5 and 0 < step.saved_model < 1e-5 for step in depth)


@pytest.mark.whole
@each_handle
def test_every_image_is_compared_with_all_three(handle, tiny_full):
    report = report_of(tiny_full, handle)
    names = (*Inputs.full(SIZE).names, "near tie")
    compared = [check.on for check in report.find("max_relative")]
    assert {on[on.index("(") :] for on in compared} == {f"(batch {size})" for size in (1, 2, 7, 16)}
    assert {entry for on in compared for entry in ("__call__", "serving_default") if on.startswith(entry)} == {
        "__call__",
        "serving_default",
    }
    assert report.images == names
    assert [check.on for check in report.find("oracle_excess_ulp")] == compared
    assert report.figure("oracle_excess_ulp") < TOLERANCES["oracle_excess_ulp"].limit / 2


@pytest.mark.whole
@each_handle
def test_heads_and_stems_are_probed(handle, tiny_full):
    report = report_of(tiny_full, handle)
    checks = [check for check in report.find("max_relative") if check.on.startswith("probing")]
    hows = {check.on.partition(",")[0] for check in checks}
    assert hows == ({"probing head", "probing stem"} if handle == CLASSIFIER else {"probing stem"})
    assert all(check.power > 0.99 and check.measured < check.limit / 3 for check in checks)  # 0 on some processors
    for side in ("jax", "saved_model"):
        oracles = [check for check in report.find(f"{side}_oracle_relative") if check.on.startswith("probing")]
        assert [check.on for check in oracles] == [check.on for check in checks]
        assert all(0 < check.measured < TOLERANCES["jax_oracle_relative"].limit / 3 for check in oracles)


@pytest.mark.whole
@each_handle
def test_the_evidence_lies_beside(handle, tiny_full):
    evidence = SavedOutputs.read(tiny_full / handle / "2.evidence.npz")
    assert evidence.names == (*Inputs.full(SIZE).names, "near tie")
    assert evidence.saved_model.shape == (12, TESTING_HANDLES[handle].outputs)
    assert evidence.oracle.dtype == np.float64
    spread = evidence.oracle.std(axis=1)
    for found in (evidence.saved_model, evidence.jax):
        assert found.dtype == np.float32
        assert (np.abs(found - evidence.oracle).max(axis=1) < 1e-5 * spread).all()
    model = tf.saved_model.load(str(tiny_full / handle / "2"))
    expected = model(tf.constant(Inputs.full(SIZE).images)).numpy()
    assert np.abs(evidence.saved_model[:-1] - expected).max() < 1e-5 * expected.std()


@pytest.mark.whole
def test_the_near_tie_is_one(tiny_full):
    evidence = SavedOutputs.read(tiny_full / CLASSIFIER / "2.evidence.npz")
    first, second = np.sort(evidence.oracle, axis=1)[:, :-3:-1].T
    gaps = (first - second) / evidence.oracle.std(axis=1)
    assert gaps[-1] < gaps[:-1].min() / 50


@pytest.mark.whole
def test_the_model_itself_is_left_as_it_was(tiny_full, tiny_build):
    for path in (tiny_build / CLASSIFIER / "2").rglob("*"):
        if path.is_file():
            assert (tiny_full / path.relative_to(tiny_build)).read_bytes() == path.read_bytes()


@pytest.mark.whole
@pytest.mark.parametrize("consumed_again", [False, True], ids=["no", "yes"])
def test_the_same_model_gets_the_same_report_and_the_summary_is_markdown(
    consumed_again, tiny_full, tiny_source, tmp_path, monkeypatch, capsys
):
    if not consumed_again:
        before = tuple(report_of(tiny_full, CLASSIFIER).find("consumer"))
        monkeypatch.setattr(gate, "check_consumer", lambda *_: before)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    out = Path(shutil.copytree(tiny_full, tmp_path / "again"))
    assert validate(tiny_source, out, CLASSIFIER, "--set", "full") == 0
    assert capsys.readouterr().out == summary.read_text()
    assert summary.read_text().startswith("### Parity: 1 of 1 passed\n\n| handle | origin | SavedModel to JAX |")
    for name in ("2.report.json", "2.evidence.npz"):
        assert (out / CLASSIFIER / name).read_bytes() == (tiny_full / CLASSIFIER / name).read_bytes()


@each_handle
def test_the_report_of_the_gate_set_says_what_it_did_not_look_at(handle, tiny_build):
    report = report_of(tiny_build, handle)
    assert report.inputs_set == "gate"
    assert (report.fine_tunable, report.depth) == (None, ())
    assert not {check.name for check in report.checks} & {"gradient_relative", "step_relative", "consumer"}
    assert report.not_checked == (
        "cuda, rocm, tpu: exported, not run",
        "gradients, and the ways users call a model: only `--set full` checks them",
    )
    evidence = SavedOutputs.read(tiny_build / handle / "2.evidence.npz")
    assert evidence.names == report.images
    assert np.isnan(evidence.oracle).all(axis=1).tolist() == [name not in GATE_ORACLE for name in evidence.names]


def test_another_set_is_refused(tiny_source, build, capsys):
    assert validate(tiny_source, build, CLASSIFIER, "--set", "half") == 2
    assert "half" in capsys.readouterr().err


@pytest.mark.whole
def test_the_parameters_are_not_held_while_the_consumer_runs_and_are_read_again(build, tiny_source, monkeypatch):
    """Both need so much memory that together they would not fit."""
    arrays, held, read = [], [], open_module.load_checkpoint

    def load(*arguments, **options):
        loaded = read(*arguments, **options)
        arrays.append([weakref.ref(array) for array in flatten(loaded.params).values()])
        return loaded

    def consume(*_):
        held.append(sum(array() is not None for some in arrays for array in some))
        return (consumed(),)

    monkeypatch.setattr(open_module, "load_checkpoint", load)
    monkeypatch.setattr(gate, "check_consumer", consume)
    assert validate(tiny_source, build, *TESTING_HANDLES, "--set", "full") == 0
    assert held == [0, 0]
    assert [len(some) for some in arrays] == [len(CHECKPOINT.arrays)] * 2


# --- wrong models ---


def test_a_graph_that_is_not_that_of_a_fresh_trace_fails(build, tiny_source, params):
    right = native_function(TESTING_HANDLES[CLASSIFIER])
    replace_model(build, lambda values, images: tf.identity(right(values, images)), params)
    path = build / CLASSIFIER / "2.manifest.json"
    manifest = Manifest.read(path)
    path.write_bytes(manifest.model_copy(update={"files": digest_files(build / CLASSIFIER / "2")}).to_bytes())
    assert validate(tiny_source, build, CLASSIFIER) == 1
    report = report_of(build, CLASSIFIER)
    (check,) = report.find("graph")
    assert [one.name for one in report.checks if one.problems] == ["graph"]
    assert re.fullmatch(r"saved_model\.pb has sha256 \w+, but a fresh trace gives \w+", check.problems[0])


def test_the_graph_of_other_libraries_is_not_compared_and_that_is_said(build, tiny_source):
    path = build / CLASSIFIER / "2.manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"libraries": manifest["libraries"] | {"jax": "0.9.9"}}))
    assert validate(tiny_source, build, CLASSIFIER) == 0
    report = report_of(build, CLASSIFIER)
    assert not any(report.find("graph"))
    assert "saved_model.pb against a fresh trace: other sources or libraries made the model" in report.not_checked


@pytest.fixture
def no_consumer(monkeypatch):
    """Leave out what consumers do, which has tests of its own and takes most of the time."""
    monkeypatch.setattr(gate, "check_consumer", lambda *_: (consumed(),))


@pytest.fixture
def no_gradients(monkeypatch):
    """Leave out gradients, where they do not matter."""
    monkeypatch.setattr(gate.JaxGradients, "compare", lambda *_: SimpleNamespace(checks=()))


def replace_model(build, function, params):
    """Put another SavedModel in the place of the classifier; the manifest stays."""
    directory = build / CLASSIFIER / "2"
    shutil.rmtree(directory)
    directory.mkdir()
    write_saved_model(function, params, directory, image_size=SIZE)


def test_corrupted_variables_show_at_the_block_they_belong_to(build, tiny_source, params, no_consumer, no_gradients):
    flat = {name: np.copy(value) for name, value in flatten(params).items()}
    flat["MixerBlock_1/token_mixing/Dense_1/kernel"] *= np.float32(1.01)
    replace_model(build, native_function(TESTING_HANDLES[CLASSIFIER]), nest(flat))
    assert validate(tiny_source, build, CLASSIFIER, "--set", "full") == 1
    report = report_of(build, CLASSIFIER)
    assert report.verdict == "failed"
    assert "1 variable differs: MixerBlock_1/token_mixing/Dense_1/kernel" in report.problems
    assert all(step.jax < 1e-5 for step in report.depth)
    assert [step.name for step in report.depth if step.saved_model > 1e-4] == [
        "MixerBlock_1",
        "pre_head_layer_norm",
        "features",
        "head",
    ]
    assert [step.name for step in report.depth if step.saved_model < 1e-5] == ["stem", "MixerBlock_0"]
    assert any("saved_model.pb" in problem or "variables" in problem for problem in report.problems)


def test_a_check_that_is_interrupted_leaves_the_outputs_of_the_last_report(build, tiny_source, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    outputs = build / CLASSIFIER / "2.evidence.npz"
    outputs.write_bytes(b"those of the last report")
    monkeypatch.setattr(gate, "make_report", interrupted)
    assert validate(tiny_source, build, CLASSIFIER) == 130
    assert outputs.read_bytes() == b"those of the last report"


@pytest.mark.whole
def test_a_model_without_gradients_is_not_fine_tunable(build, tiny_source, params, no_consumer):
    with without_gradients():
        replace_model(build, native_function(TESTING_HANDLES[CLASSIFIER]), params)
    assert validate(tiny_source, build, CLASSIFIER, "--set", "full") == 1
    report = report_of(build, CLASSIFIER)
    assert report.fine_tunable is False
    assert [check.measured for check in report.find("gradient_relative")] == [None]
    assert any(problem.startswith("gradients: LookupError: ") for problem in report.problems)
    assert all("\n" not in problem for problem in report.problems)
    assert report.figure("variables") == 0


def test_a_model_with_wrong_gradients_is_not_fine_tunable(build, tiny_source, params, no_consumer):
    right = native_function(TESTING_HANDLES[CLASSIFIER])

    @tf.custom_gradient
    def double(outputs):
        return outputs, lambda upstream: 2 * upstream

    replace_model(build, lambda values, images: double(right(values, images)), params)
    assert validate(tiny_source, build, CLASSIFIER, "--set", "full") == 1
    report = report_of(build, CLASSIFIER)
    assert report.fine_tunable is False
    assert report.figure("gradient_relative") == pytest.approx(1, rel=0.02)
    assert any(problem.startswith("gradient with respect to ") for problem in report.problems)
    assert all(step.saved_model < 1e-5 for step in report.depth)


def test_a_model_that_does_not_load_gets_a_report_without_extras(build, tiny_source):
    (build / CLASSIFIER / "2" / "saved_model.pb").write_bytes(b"")
    assert validate(tiny_source, build, CLASSIFIER, "--set", "full") == 1
    report = report_of(build, CLASSIFIER)
    assert (report.fine_tunable, report.depth) == (None, ())
    assert [check.name for check in report.checks] == ["files", "interface", "graph"]
    assert any(problem.startswith("does not load: ") for problem in report.problems)
    assert not (build / CLASSIFIER / "2.evidence.npz").exists()
    assert json.loads((build / CLASSIFIER / "2.report.json").read_bytes())["fine_tunable"] is None
