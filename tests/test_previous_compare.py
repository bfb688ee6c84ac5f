"""Two versions of a handle: the same, of other weights, of an older make, damaged; and `validate --reference`."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from mutations import without_gradients
from reporting import OF_THE_FULL_SET, check, consumed
from tensorflow.core.protobuf import saved_model_pb2
from writing import native_function, write_saved_model

from convert.checkpoints.reader import load_checkpoint
from convert.checkpoints.synthetic import write_seeded
from convert.cli import main
from models.catalog import TESTING_HANDLES
from models.params import flatten, nest
from models.records.report import Report
from validation.parity.images import Inputs
from validation.parity.reference import Reference
from validation.previous.compare import _Fingerprint, _match_variables, compare_versions
from validation.previous.open import Published

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
HANDLE = TESTING_HANDLES[CLASSIFIER]
CHECKPOINT = HANDLE.checkpoint
SIZE = CHECKPOINT.architecture.image_size
COUNT = len(HANDLE.arrays)
INPUTS = Inputs.gate(SIZE)


def loaded(path):
    return load_checkpoint(path, CHECKPOINT.architecture, num_classes=CHECKPOINT.num_classes).params


@pytest.fixture(scope="module")
def params(tiny_source):
    return loaded(tiny_source / CHECKPOINT.object)


@pytest.fixture(scope="module")
def other_params(tmp_path_factory):
    return loaded(write_seeded(replace(CHECKPOINT, name="other"), tmp_path_factory.mktemp("other")))


@pytest.fixture
def model(tiny_build):
    return tiny_build / CLASSIFIER / "2"


@pytest.fixture
def earlier(tmp_path):
    directory = tmp_path / "earlier"
    directory.mkdir()
    return directory


def write(directory, params):
    with without_gradients():
        write_saved_model(native_function(HANDLE), params, directory, image_size=SIZE)


def write_old(directory, params, *, function=None, names=("image", "logits"), batch=None, entry="serving_default"):
    """Write a model as version 1 was: unnamed variables, plain operations, other names, no class list."""
    variables = {name: tf.Variable(value) for name, value in flatten(params).items()}
    module = tf.Module()
    module.held = list(variables.values())
    spec = tf.TensorSpec([batch, SIZE, SIZE, 3], tf.float32, name=names[0])
    run = tf.function(
        lambda image: {names[1]: (function or apply_plainly)(variables, image)}, input_signature=[spec], autograph=False
    )
    tf.saved_model.save(module, str(directory), signatures={entry: run})


def apply_plainly(values, images):
    """The Mixer in TensorFlow's own operations."""

    def dense(x, name):
        return x @ values[f"{name}/kernel"] + values[f"{name}/bias"]

    def norm(x, name):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-6) * values[f"{name}/scale"] + values[f"{name}/bias"]

    def mlp(x, name):
        return dense(tf.nn.gelu(dense(x, f"{name}/Dense_0"), approximate=True), f"{name}/Dense_1")

    architecture = CHECKPOINT.architecture
    x = tf.nn.conv2d(images, values["stem/kernel"], architecture.patch_size, "VALID") + values["stem/bias"]
    x = tf.reshape(x, [-1, architecture.tokens, architecture.hidden_dim])
    for block in (f"MixerBlock_{index}" for index in range(architecture.num_blocks)):
        tokens = tf.transpose(norm(x, f"{block}/LayerNorm_0"), [0, 2, 1])
        x += tf.transpose(mlp(tokens, f"{block}/token_mixing"), [0, 2, 1])
        x += mlp(norm(x, f"{block}/LayerNorm_1"), f"{block}/channel_mixing")
    return dense(tf.reduce_mean(norm(x, "pre_head_layer_norm"), axis=1), "head")


@pytest.fixture(scope="module")
def reference(tiny_source, params):
    return Reference.compute(CHECKPOINT, tiny_source / CHECKPOINT.object, params, INPUTS, ("blank",))


@pytest.fixture
def compare(reference):
    def compare(directory, earlier, *, inputs=INPUTS, head="classification"):
        published = Published("tiny_1.tar.gz", "archive", "0" * 64, earlier)
        return compare_versions(directory, published, inputs, reference.for_head(head))

    return compare


def figure(found, name):
    (check,) = (check for check in found.outputs if check.name == name)
    return check.measured


# --- comparing ---


def test_a_model_is_the_same_as_itself(model, compare):
    found = compare(model, model)
    assert (found.verdict, found.differences, found.signatures) == ("same", (), ())
    figures = {check.name: check.measured for check in found.outputs}
    names = ("max_relative", "max_ulp", "cosine_distance", "top1_disagreement", "top5_disagreement")
    assert figures == dict.fromkeys(names, 0)
    assert {check.on for check in found.outputs} == {f"serving_default on {', '.join(INPUTS.names)} (batch 4)"}
    variables = found.variables
    assert (variables.count, variables.published, variables.same_name, variables.equal) == (COUNT,) * 4
    assert (variables.different, variables.left_over) == ((), ())
    assert (found.name, found.kind, found.sha256) == ("tiny_1.tar.gz", "archive", "0" * 64)


def test_features_are_compared_without_classes(tiny_build, compare):
    directory = tiny_build / EXTRACTOR / "2"
    found = compare(directory, directory, head="fe")
    assert found.verdict == "same"
    assert {check.name for check in found.outputs} == {"max_relative", "max_ulp", "cosine_distance"}


def test_weights_of_another_checkpoint_are_different(model, earlier, other_params, params, compare):
    write(earlier, other_params)
    found = compare(model, earlier)
    ours, theirs = flatten(params), flatten(other_params)
    changed = {name for name in ours if not np.array_equal(ours[name], theirs[name])}
    assert found.verdict == "different"
    assert figure(found, "max_relative") > 0.1
    assert found.signatures == ()
    assert set(found.variables.different) == changed
    assert (found.variables.same_name, found.variables.equal) == (COUNT, COUNT - len(changed))
    assert any(line.startswith("outputs: serving_default on noise, blank") for line in found.differences)
    assert f"variables: {len(changed)} of {COUNT} have no equal counterpart in the published" in found.differences[-1]
    assert found.differences[-1].endswith(f" and {len(changed) - 5} more")


def test_one_bit_of_one_variable_is_seen(model, earlier, params, compare):
    flat = {name: np.copy(value) for name, value in flatten(params).items()}
    flat["head/kernel"].view(np.uint32)[3, 4] ^= 1
    write(earlier, nest(flat))
    found = compare(model, earlier)
    assert found.differences == (
        f"variables: 1 of {COUNT} have no equal counterpart in the published version: head/kernel",
    )
    assert found.variables.different == ("head/kernel",)


def test_an_old_model_with_unnamed_variables_is_compared_by_their_contents(model, earlier, params, compare):
    write_old(earlier, params)
    found = compare(model, earlier)
    assert figure(found, "max_relative") < 1e-5
    assert found.variables.equal == found.variables.count == found.variables.published == COUNT
    assert (found.variables.same_name, found.variables.different, found.variables.left_over) == (0, (), ())
    assert found.differences == found.signatures
    shape = f"({', '.join(map(str, (None, SIZE, SIZE, 3)))})"
    rows = "(None, 1000)"
    assert found.signatures == (
        f"signature serving_default: takes inputs: float32 {shape}, in the published version image: float32 {shape}",
        f"signature serving_default: returns output_0: float32 {rows}, in the published version logits: float32 {rows}",
    )
    assert found.verdict == "different"


def test_an_old_model_with_todays_names_is_the_same(model, earlier, params, compare):
    write_old(earlier, params, names=("inputs", "output_0"))
    found = compare(model, earlier)
    assert (found.differences, found.verdict) == ((), "same")


def test_an_old_model_of_other_weights_is_different_by_their_contents(model, earlier, params, compare):
    flat = {name: np.copy(value) for name, value in flatten(params).items()}
    flat["stem/bias"][::2] += np.float32(0.5)
    write_old(earlier, nest(flat), names=("inputs", "output_0"))
    found = compare(model, earlier)
    assert found.variables.different == ("stem/bias",)
    (width,) = flat["stem/bias"].shape
    assert found.variables.left_over == (f"Variable float32[{width}]",)
    assert found.variables.equal == COUNT - 1
    assert figure(found, "max_relative") > 1e-3
    assert found.differences[-1] == (
        f"variables: 1 of the published version's {COUNT} have none here: Variable float32[{width}]"
    )


def test_an_old_model_that_takes_one_image_at_a_time_is_run_so(model, earlier, params, compare):
    write_old(earlier, params, names=("inputs", "output_0"), batch=1)
    found = compare(model, earlier)
    assert figure(found, "max_relative") < 1e-5
    assert [line.split(":")[0] for line in found.differences] == ["signature serving_default"] * 2


def test_another_signature_is_told(model, earlier, params, compare):
    write_old(earlier, params, entry="predict")
    found = compare(model, earlier)
    assert found.outputs is None
    assert found.variables.equal == COUNT
    assert found.differences == (
        "tiny_1.tar.gz does not run: LookupError: no signature serving_default, only predict",
        "signature predict: only in the published version",
    )


def test_another_number_of_outputs_is_told(tiny_build, model, compare):
    found = compare(model, tiny_build / EXTRACTOR / "2")
    width = CHECKPOINT.architecture.hidden_dim
    assert found.outputs is None
    assert found.differences[0] == f"outputs: shape (4, 1000), in the published version (4, {width})"
    assert found.variables.different == ("head/bias", "head/kernel")


def test_outputs_that_are_not_finite_are_told(model, earlier, params, compare):
    def broken(values, images):
        return apply_plainly(values, images) / tf.reduce_max(tf.abs(images), axis=(1, 2, 3))[:, tf.newaxis]

    write_old(earlier, params, function=broken, names=("inputs", "output_0"))
    found = compare(model, earlier)
    assert found.outputs is None
    assert "outputs: the published version's are not finite on blank" in found.differences


def test_a_model_of_plain_operations_needs_no_variables(model, earlier, compare):
    write_old(earlier, {"nothing": np.zeros(3, np.float32)}, function=lambda _, images: images[:, 0, 0, :1] * 1000.0)
    found = compare(model, earlier)
    assert found.variables.published == 1
    assert found.variables.equal == 0
    assert len(found.variables.different) == COUNT


def test_several_inputs_or_outputs_are_told(model, earlier, compare):
    module = tf.Module()
    spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)
    module.run = tf.function(lambda a, b: {"x": a, "y": b}, input_signature=[spec, spec], autograph=False)
    tf.saved_model.save(module, str(earlier), signatures=module.run)
    found = compare(model, earlier)
    assert found.outputs is None
    assert found.differences[0] == (
        "tiny_1.tar.gz does not run: LookupError: serving_default takes a, b and returns x, y; expected one of each"
    )


def test_an_input_of_another_type_is_told_in_one_short_line(model, earlier, compare):
    module = tf.Module()
    spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.uint8, name="inputs")
    run = tf.function(lambda images: {"output_0": tf.cast(images, tf.float32)}, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(earlier), signatures=run)
    found = compare(model, earlier)
    assert found.outputs is None
    assert found.differences[0].startswith("tiny_1.tar.gz does not run: ")
    assert len(found.differences[0]) < 400
    assert any("in the published version inputs: uint8" in line for line in found.differences)


def test_variables_of_any_type_are_compared_and_freed(earlier, tmp_path, compare):
    words = {"words": ["a", "b"], "counts": np.array([1, 2], np.int64), "flags": [True, False]}
    write_old(earlier, {"head": {**words}}, function=lambda _, images: images[:, 0, 0, :])
    again, other = tmp_path / "again", tmp_path / "other"
    write_old(again, {"head": {**words}}, function=lambda _, images: images[:, 0, 0, :])
    write_old(other, {"head": words | {"words": ["a", "c"]}}, function=lambda _, images: images[:, 0, 0, :])
    assert compare(again, earlier, head="fe").differences == ()
    found = compare(other, earlier, head="fe").variables
    assert (found.equal, found.different, found.left_over) == (2, ("Variable",), ("Variable string[2]",))


def test_a_model_that_does_not_load_is_a_difference_that_names_no_path(model, earlier, compare):
    shutil.copytree(model, earlier, dirs_exist_ok=True)
    (earlier / "variables" / "variables.index").unlink()
    found = compare(model, earlier)
    assert (found.outputs, found.signatures, found.variables) == (None, None, None)
    (line,) = found.differences
    assert line.startswith("tiny_1.tar.gz does not load: ")
    assert "\n" not in line
    assert str(earlier.parent) not in line


def test_an_operation_that_this_tensorflow_cannot_run_is_a_difference(model, earlier, compare):
    shutil.copytree(model, earlier, dirs_exist_ok=True)
    content = saved_model_pb2.SavedModel.FromString((earlier / "saved_model.pb").read_bytes())
    graph = content.meta_graphs[0].graph_def
    nodes = [node for function in graph.library.function for node in function.node_def]
    calls = [node for node in (*graph.node, *nodes) if node.op == "XlaCallModule"]
    assert calls
    for call in calls:
        call.attr["version"].i = 999
    (earlier / "saved_model.pb").write_bytes(content.SerializeToString())
    found = compare(model, earlier)
    assert found.outputs is None
    assert found.variables.equal == COUNT
    (line,) = found.differences
    assert line.startswith("tiny_1.tar.gz does not run: ")
    assert "999" in line
    assert len(line) < 400
    assert "\n" not in line


def test_that_todays_model_does_not_load_is_told_as_such(model, tmp_path, compare):
    found = compare(tmp_path, model)
    assert (found.outputs, found.signatures, found.variables) == (None, None, None)
    (line,) = found.differences
    assert line.startswith("this version does not load: OSError: SavedModel file does not exist")
    assert str(tmp_path) not in line


# --- variables ---


def prints(*pairs):
    return [_Fingerprint(name, ("float32", "[3]", bits)) for name, bits in pairs]


def test_names_count_only_where_they_are_one_variables_alone():
    ours = prints(("a", "1"), ("b", "2"), ("c", "3"))
    found = _match_variables(ours, prints(("Variable", "3"), ("Variable", "1"), ("b", "2")))
    assert (found.same_name, found.equal, found.different, found.left_over) == (1, 3, (), ())


def test_equal_contents_under_a_wrong_name_do_not_count():
    found = _match_variables(prints(("a", "1"), ("b", "2")), prints(("a", "2"), ("b", "1")))
    assert (found.same_name, found.equal, found.different, found.left_over) == (2, 0, ("a", "b"), ())


def test_each_counterpart_serves_once():
    found = _match_variables(prints(("a", "0"), ("b", "0")), prints(("x", "0"), ("y", "1"), ("z", "1")))
    assert (found.equal, found.different) == (1, ("b",))
    assert found.left_over == ("y float32[3]", "z float32[3]")


def test_equal_bits_of_another_shape_or_type_do_not_count():
    ours = [_Fingerprint("a", ("float32", "[4]", "0"))]
    for contents in (("float32", "[2, 2]", "0"), ("int32", "[4]", "0")):
        assert _match_variables(ours, [_Fingerprint("b", contents)]).equal == 0


# --- the command line ---


@pytest.fixture
def run(tiny_source, build, capsys, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(command, *more):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([command, *map(str, more), "--source", str(tiny_source), "--out", str(build)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err + printed.out
        return exit_.value.code or 0, printed.out, printed.err

    return call


def report_of(build, handle=CLASSIFIER):
    return Report.read(build / handle / "2.report.json")


def pack(directory, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(directory, arcname=".")
    return path


def test_the_same_model_as_an_archive_ends_with_0(run, build, model, tmp_path):
    archive = pack(model, tmp_path / "tiny_1.tar.gz")
    status, out, _ = run("validate", CLASSIFIER, "--reference", archive)
    assert status == 0
    assert f"{CLASSIFIER} against tiny_1.tar.gz" in out
    assert f"{COUNT} of {COUNT} equal one of its {COUNT}, bit for bit ({COUNT} were compared by name)" in out
    found = report_of(build).reference
    assert (found.name, found.kind, found.verdict) == ("tiny_1.tar.gz", "archive", "same")


def test_other_weights_end_with_3_and_the_model_still_passes(run, build, earlier, other_params):
    write(earlier, other_params)
    status, out, err = run("validate", CLASSIFIER, "--reference", earlier, "--json")
    assert status == 3
    assert f"mixer-jax2tf: {CLASSIFIER} differs from earlier:\n  outputs: serving_default on noise" in err
    assert "have no equal counterpart in the published version" in err
    (outcome,) = json.loads(out, parse_constant=pytest.fail)
    assert outcome["verdict"] == "passed"
    assert outcome["reference"]["verdict"] == "different"
    report = report_of(build)
    assert (report.verdict, report.problems) == ("passed", ())
    assert report.reference.differences == tuple(outcome["reference"]["differences"])
    assert str(earlier.parent) not in (build / CLASSIFIER / "2.report.json").read_text()


def test_a_reference_that_cannot_run_ends_with_3_and_no_path_is_published(run, build, model, tmp_path):
    damaged = Path(shutil.copytree(model, tmp_path / "damaged"))
    (damaged / "variables" / "variables.index").write_bytes(b"")
    status, out, err = run("validate", CLASSIFIER, "--reference", pack(damaged, tmp_path / "tiny_1.tar.gz"))
    assert status == 3
    assert "tiny_1.tar.gz does not load: " in err
    assert "not compared" in out
    written = (build / CLASSIFIER / "2.report.json").read_text()
    assert str(tmp_path) not in written
    assert "mixer-jax2tf-" not in written


def test_a_failed_model_ends_with_1_whatever_the_reference(run, build, model):
    (build / CLASSIFIER / "2" / "stray").write_text("")
    status, _, err = run("validate", CLASSIFIER, "--reference", build / EXTRACTOR / "2")
    assert status == 1
    assert "1 of 1 handles failed" in err
    assert "stray is not listed in the manifest" in err
    assert f"{CLASSIFIER} differs from 2:" in err
    assert report_of(build).reference.verdict == "different"


def test_a_report_with_a_reference_is_kept_by_convert_all(run, build, model):
    assert run("validate", CLASSIFIER, "--reference", build / EXTRACTOR / "2")[0] == 3
    before = (build / CLASSIFIER / "2.report.json").read_bytes()
    status, out, _ = run("convert-all", CLASSIFIER, "--json")
    assert (status, json.loads(out)[0]["verdict"]) == (0, "kept")
    assert (build / CLASSIFIER / "2.report.json").read_bytes() == before


def test_without_a_reference_the_report_says_none(run, build):
    assert run("validate", CLASSIFIER)[0] == 0
    assert report_of(build).reference is None


@pytest.mark.whole
def test_the_full_set_compares_all_its_images(run, build, model, monkeypatch):
    from validation import gate

    # What has tests of its own and does not matter here.
    monkeypatch.setattr(gate, "check_consumer", lambda *_: (consumed(),))
    gradients = tuple(check(name, 0.0) for name in OF_THE_FULL_SET)
    monkeypatch.setattr(gate.JaxGradients, "compare", lambda *_: SimpleNamespace(checks=gradients))
    monkeypatch.setattr(gate.Gate, "_explain", lambda *_: ())
    assert run("validate", CLASSIFIER, "--reference", model, "--set", "full")[0] == 0
    assert "near tie" in report_of(build).reference.outputs[0].on
    page = (build / "index.html").read_text()
    assert "Earlier version." in page
    assert f"{CLASSIFIER}: against 2" in page


def test_the_page_lists_the_differences(run, build):
    assert run("validate", CLASSIFIER, "--reference", build / EXTRACTOR / "2")[0] == 3
    sections = (build / "index.html").read_text().split("data-handle=")[1:]
    classifier, _, extractor, _ = sections  # each followed by its graph flavour
    assert " is different. A new version may differ on purpose" in classifier
    assert "have no equal counterpart in the published version: head/bias, head/kernel" in classifier
    assert "Earlier version." not in extractor


@pytest.mark.parametrize("handles", [(), (CLASSIFIER, EXTRACTOR)])
def test_a_reference_takes_one_handle(handles, run, build, model):
    status, _, err = run("validate", *handles, "--reference", model)
    assert status == 2
    assert "--reference takes one HANDLE in one flavour: the model that it is an earlier version of" in err


def test_a_reference_that_is_none_is_refused_before_any_work(run, build, tmp_path):
    before = (build / CLASSIFIER / "2.report.json").stat().st_mtime_ns
    for path, text in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "has no saved_model.pb")):
        status, out, err = run("validate", CLASSIFIER, "--reference", path)
        assert (status, out) == (2, "")
        assert f"mixer-jax2tf: --reference {path} {text}" in err
    assert (build / CLASSIFIER / "2.report.json").stat().st_mtime_ns == before


def test_only_validate_takes_a_reference(run, model):
    status, _, err = run("convert-all", CLASSIFIER, "--reference", model)
    assert status == 2
    assert "--reference" in err
