"""What a consumer does with a model, in a process of its own; and that a broken model is noticed there."""

import ast
import importlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from jax.experimental import jax2tf
from writing import directory_of, write_saved_model

from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from models.records.check import MadeOn
from models.records.layout import ModelPaths
from models.records.report import Report
from models.records.tolerances import TOLERANCES
from models.signatures import Signature
from validation import consumer
from validation.compatibility import run_consumer as consumption
from validation.compatibility.run_consumer import LARGE, check_consumer, run_consumer
from validation.consumer import LIMIT
from validation.parity.images import Inputs
from validation.parity.outputs import Expected
from validation.parity.scale import Scale

FILE = Path(consumer.__file__)
SIZE = 32
WAYS_IN = [
    "signatures",
    "__call__",
    "tf.function",
    "saved again",
    "hub.load",
    "hub.KerasLayer, frozen",
    "hub.KerasLayer, trainable",
    "Keras 3 TFSMLayer",
    "saved_model_cli run",
]
OTHERS = ["load", "class list", "variables", "gradients", "no JAX, no Flax"]
REFUSED = ["batch 0", "wrong height", "wrong width", "wrong rank"]
CONVERTED_IF_AN_ARRAY = ["float64", "uint8"]

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
each_handle = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.whole) for name in TESTING_HANDLES])


def as_written(check):
    """Return what the consumer wrote of a check, of its record in the report."""
    status, detail = check.detail.split(": ", 1)
    assert bool(check.problems) == (status == "failed")
    return {"name": check.on, "status": status, "detail": detail, "worst": check.measured}


@pytest.fixture
def checks(name, request):
    """What the model's report tells of the consumer, compared with JAX: its checks by name."""
    build = request.getfixturevalue("tiny_full" if name == CLASSIFIER else "extractor_full")
    report = Report.read(ModelPaths.of(build, name, DEFAULT_VERSION).report)
    return by_name(map(as_written, report.find("consumer")))


def by_name(checks):
    return {check["name"]: check for check in checks}


@each_handle
def test_every_check_is_there_and_none_fails_or_is_absent(checks, name):
    assert list(checks) == list(consumer.CHECKS)
    assert {
        check["name"]: check["detail"] for check in checks.values() if check["status"] in ("failed", "absent")
    } == {}
    assert {checks[check]["status"] for check in WAYS_IN + OTHERS} == {"passed"}
    assert len(checks) == len(WAYS_IN + OTHERS) + 3 * len(consumer.BAD_INPUTS) + 1
    assert all(set(check) == {"name", "status", "detail", "worst"} for check in checks.values())


@each_handle
def test_every_way_in_computes_what_jax_computes(checks, name):
    assert TOLERANCES["max_relative"].limit == LIMIT
    for way in WAYS_IN:
        assert checks[way]["worst"] <= LIMIT, way
    assert max(checks[way]["worst"] for way in WAYS_IN) > 0, "never bit for bit: JAX compiles otherwise"


@each_handle
def test_training_changes_the_weights(checks, name):
    variables = len(TESTING_HANDLES[name].arrays)
    assert checks["gradients"]["detail"].startswith(f"{variables} gradients, none missing")
    for way in ("hub.KerasLayer, trainable", "Keras 3 TFSMLayer"):
        changed, of = checks[way]["detail"].rpartition("changed ")[2].removesuffix(" weights").split(" of ")
        # A bias that the next LayerNorm takes away has a gradient of rounding only; there is one a block.
        assert (int(of), int(changed) >= variables - 2) == (variables, True), checks[way]


@each_handle
def test_class_list_is_read_where_there_is_one(checks, name):
    detail = checks["class list"]["detail"]
    classes = TESTING_HANDLES[name].num_classes
    assert detail == (f"{classes} names, {classes} outputs" if classes else "no class list, as in a feature extractor")


@each_handle
def test_bad_inputs_are_refused_in_words_or_do_no_harm(checks, name):
    outputs = TESTING_HANDLES[name].outputs
    for bad in REFUSED:
        for way in consumer.BAD_WAYS:
            assert checks[f"{bad}, {way}"]["status"] == "refused", (bad, way)
    for bad in CONVERTED_IF_AN_ARRAY:
        for way in ("__call__", "signature"):
            assert checks[f"{bad}, {way}"]["status"] == "refused", (bad, way)
        array = checks[f"{bad}, __call__ of an array"]
        assert (array["status"], array["worst"]) == ("accepted", 0)
    for way in consumer.BAD_WAYS:
        assert checks[f"NaN, {way}"]["status"] == "accepted"
        shape = (len(consumption.IMAGES), outputs)
        assert checks[f"NaN, {way}"]["detail"].startswith(f"outputs {shape}; NaN for the 1 images with NaN")
    broken = checks["broken file, serving_bytes"]
    assert (broken["status"], "Unknown image file format" in broken["detail"]) == ("refused", True)
    said = checks["batch 0, signature"]["detail"]
    assert f"[batch, {SIZE}, {SIZE}, 3], at least one, but found the shape] [0 " in said
    assert f"shape=(None, {SIZE}, {SIZE}, 3)" in checks["wrong height, __call__"]["detail"]
    assert f"found the shape] [{SIZE} {SIZE} 3]" in checks["wrong rank, signature"]["detail"]
    assert "expected to be a float tensor but is a double tensor" in checks["float64, signature"]["detail"]


def attempted(directory, *names, expected=None, images=None):
    """Load a model, make these checks on it in this process, and return them by name."""
    on = consumer._Subject(directory=str(directory), inputs=images, expected=expected, limit=LIMIT, tf=tf)
    return by_name([consumer._attempt(name, on) for name in ("load", *names)])


def test_wrong_outputs_are_noticed(tiny_build):
    images = np.zeros((1, SIZE, SIZE, 3), np.float32)
    expected = np.arange(TESTING_HANDLES[EXTRACTOR].outputs, dtype=np.float32)[None]
    ways = ("signatures", "__call__", "tf.function", "saved again")
    checks = attempted(directory_of(tiny_build, EXTRACTOR), *ways, expected=expected, images=images)
    assert checks["load"]["status"] == "passed"
    for way in ways:
        assert checks[way]["status"] == "failed"
        assert checks[way]["worst"] > 100 * LIMIT
        assert checks[way]["detail"].startswith("over the limit of 5e-05: ")


@pytest.mark.whole
def test_wrong_outputs_are_noticed_by_the_file_alone(tiny_build, tmp_path):
    shutil.copy(FILE, tmp_path / "alone.py")
    name = "mixer_ti8_seeded_fe"
    np.save(tmp_path / "inputs.npy", np.zeros((1, SIZE, SIZE, 3), np.float32))
    np.save(tmp_path / "expected.npy", np.arange(TESTING_HANDLES[name].outputs, dtype=np.float32)[None])
    command = [sys.executable, "alone.py", directory_of(tiny_build, name), "--inputs", "inputs.npy"]
    command += ["--expected", "expected.npy", "--json", "result.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    checks = by_name(result.pop("checks"))
    assert {check for check in checks if checks[check]["status"] == "failed"} == set(WAYS_IN)
    for way in WAYS_IN:
        assert checks[way]["worst"] > 100 * LIMIT
        assert checks[way]["detail"].startswith("over the limit of 5e-05: ")
    lines = done.stdout.splitlines()
    assert [line[:9].rstrip() for line in lines] == [check["status"] for check in checks.values()]
    assert all(check in line for check, line in zip(checks, lines, strict=True))
    packages = ("tensorflow", "numpy", "keras", "tf-keras", "tensorflow-hub")
    assert result == {
        "python": sys.version.split()[0],
        **{package.replace("-", "_"): version(package) for package in packages},
    }


def test_differences_are_measured_by_the_scale_that_is_given(tiny_build, tmp_path):
    subject = consumer._Subject(
        directory=directory_of(tiny_build, "mixer_ti8_seeded_fe"), tf=tf, inputs=None, expected=None
    )
    subject.open()
    reference = subject.sides[0]
    largest = np.abs(reference).max()
    np.testing.assert_array_equal(subject.scale, np.full(len(reference), largest, np.float64))
    subject.sides = [reference + np.float32(1)]
    assert subject.worst(subject.serve) == pytest.approx(1 / largest, rel=1e-3)
    subject.scale = np.full(len(reference), 1e6)
    assert subject.worst(subject.serve) < LIMIT


def colours(params, images):
    return jnp.mean(images, (1, 2)) @ params["kernel"]


def without_gradient(params, images):
    convert = jax2tf.convert(colours, polymorphic_shapes=[None, "(batch, ...)"], with_gradient=False)
    return convert(params, images)


def test_a_model_without_gradients_fails_the_check_of_gradients_alone(tmp_path):
    write_saved_model(without_gradient, {"kernel": np.eye(3, 4, dtype=np.float32)}, tmp_path, image_size=8)
    checks = attempted(tmp_path, "__call__", "gradients")
    assert [check["status"] for check in checks.values()] == ["passed", "passed", "failed"]
    assert "gradient" in checks["gradients"]["detail"]


@pytest.mark.whole
def test_model_without_gradients_is_noticed(tmp_path):
    write_saved_model(without_gradient, {"kernel": np.eye(3, 4, dtype=np.float32)}, tmp_path, image_size=8)
    checks = by_name(run_consumer(tmp_path)["checks"])
    failed = {name for name, check in checks.items() if check["status"] == "failed"}
    assert failed == {"gradients", "hub.KerasLayer, trainable", "Keras 3 TFSMLayer"}
    assert "kernel" in checks["gradients"]["detail"] or "gradient" in checks["gradients"]["detail"]


def never(params, images):
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_sum(images) > 1e9, ["out of order"])]):
        return tf.reduce_mean(images, (1, 2)) @ params["kernel"]


def test_a_model_that_does_not_run_does_not_load(tmp_path):
    write_saved_model(never, {"kernel": np.eye(3, 4, dtype=np.float32)}, tmp_path, image_size=8)
    (found,) = attempted(tmp_path).values()
    assert found["status"] == "failed"
    assert "out of order" in found["detail"]


@pytest.mark.whole
def test_model_that_does_not_run_is_noticed(tmp_path):
    write_saved_model(never, {"kernel": np.eye(3, 4, dtype=np.float32)}, tmp_path, image_size=8)
    done = subprocess.run([sys.executable, FILE, tmp_path], capture_output=True, text=True, timeout=120)
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
    assert done.stdout.startswith("failed   load ")
    assert "out of order" in done.stdout
    assert "Traceback" not in done.stderr


def test_careless_graph_fails_on_bad_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr("export.saved_model.writer.checked", lambda images, image_size: images)

    def careless(params, images):
        return tf.reduce_mean(images[:, ::4, ::4], (1, 2)) @ params["kernel"]

    write_saved_model(careless, {"kernel": np.eye(3, 4, dtype=np.float32)}, tmp_path, image_size=8)
    on = consumer._Subject(directory=str(tmp_path), inputs=None, expected=None, limit=LIMIT, tf=tf)
    on.open()
    for name in ("wrong height, signature", "wrong width, signature", "batch 0, __call__"):
        found = consumer._attempt(name, on)
        assert (found["status"], found["detail"][:25]) == ("failed", "accepted without an error")
    assert consumer._attempt("wrong rank, signature", on)["detail"].startswith("refused, but with an unclear message")
    assert consumer._attempt("NaN, __call__", on)["status"] == "accepted"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda outputs: outputs + 0 * tf.reduce_sum(outputs, axis=0, keepdims=True),
        lambda outputs: tf.where(tf.math.is_nan(outputs), tf.zeros_like(outputs), outputs),
    ],
    ids=["spread to the other images", "hidden"],
)
@pytest.mark.parametrize("way", consumer.BAD_WAYS)
def test_nan_that_is_spread_or_hidden_fails(wrong, way, tmp_path):
    def model(params, images):
        return wrong(tf.reduce_mean(images, (1, 2)) @ params["kernel"])

    write_saved_model(model, {"kernel": np.eye(3, 4, dtype=np.float32)}, tmp_path, image_size=8)
    on = consumer._Subject(directory=str(tmp_path), inputs=None, expected=None, limit=LIMIT, tf=tf)
    on.open()
    assert consumer._attempt("__call__", on)["status"] == "passed"
    assert consumer._attempt(f"NaN, {way}", on)["status"] == "failed"


# --- signatures ---


@each_handle
def test_each_signature_is_called_with_what_it_takes(checks, name):
    expected = ", ".join(sorted(signature.name for signature in Signature.all_of(TESTING_HANDLES[name])))
    assert checks["signatures"]["detail"] == expected


class Averages(tf.Module):
    """A model of 8 x 8 images whose outputs are means of colours; each signature can be made wrong."""

    def __init__(self, wrong):
        super().__init__()
        self.scale = tf.Variable([1.0, 2.0, 4.0])
        self.half = 128.0 if wrong == "serving_uint8" else 127.5
        self.method = "bilinear" if wrong == "serving_bytes" else "area"
        self.share = 1.01 if wrong == "token_features" else 1.0
        self.forgives = wrong == "broken file"

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="inputs")])
    def serving_default(self, inputs):
        return tf.reduce_mean(inputs, (1, 2)) * self.scale

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.uint8, name="images")])
    def serving_uint8(self, images):
        return self.serving_default((tf.cast(images, tf.float32) - self.half) / 127.5)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_bytes(self, image_bytes):
        pixels = tf.map_fn(self.read, image_bytes, fn_output_signature=tf.TensorSpec([8, 8, 3], tf.uint8))
        return self.serving_default((tf.cast(pixels, tf.float32) - 127.5) / 127.5)

    def read(self, file):
        if self.forgives:
            blank = tf.io.encode_png(tf.zeros([9, 9, 3], tf.uint8))
            file = tf.cond(tf.strings.regex_full_match(file, "no image"), lambda: blank, lambda: file)
        pixels = tf.io.decode_image(file, channels=3, expand_animations=False)
        sides = tf.cast(tf.shape(pixels)[:2], tf.float32)
        sides = tf.cast(tf.round(sides * 9 / tf.reduce_min(sides)), tf.int32)
        corner = (sides - 8) // 2
        resized = tf.image.resize(tf.ensure_shape(pixels, [None, None, 3]), sides, self.method)
        return tf.cast(tf.slice(resized, [corner[0], corner[1], 0], [8, 8, 3]), tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="inputs")])
    def token_features(self, inputs):
        return tf.reshape(inputs, [-1, 64, 3]) * self.scale * self.share


def attempt_on(directory, *names, signatures=("serving_uint8", "serving_bytes", "token_features"), wrong=None):
    """Save a model with these signatures, one of them wrong, and make these checks on it."""
    model = Averages(wrong)
    chosen = {name: getattr(model, name) for name in ("serving_default", *signatures)}
    tf.saved_model.save(model, str(directory), signatures=chosen)
    on = consumer._Subject(directory=str(directory), inputs=None, expected=None, limit=LIMIT, tf=tf)
    return [consumer._attempt(name, on) for name in ("load", *names)][1:]


def test_right_signatures_pass(tmp_path):
    signatures, broken = attempt_on(tmp_path, "signatures", "broken file, serving_bytes")
    assert (signatures["status"], broken["status"]) == ("passed", "refused")
    assert signatures["detail"] == "serving_bytes, serving_default, serving_uint8, token_features"


@pytest.mark.parametrize("wrong", ["serving_uint8", "serving_bytes", "token_features"])
def test_a_wrong_signature_is_noticed(tmp_path, wrong):
    (found,) = attempt_on(tmp_path, "signatures", wrong=wrong)
    assert found["status"] == "failed"
    assert found["worst"] > 10 * LIMIT
    assert found["detail"].startswith(f"over the limit of 5e-05: {wrong} differs most, of ")


def test_a_broken_file_that_is_accepted_is_noticed(tmp_path):
    found = attempt_on(tmp_path, "signatures", "broken file, serving_bytes", wrong="broken file")
    assert [check["status"] for check in found] == ["passed", "failed"]
    assert found[1]["detail"] == "accepted without an error, with outputs (1, 3); expected an error"


def test_a_model_of_before_has_one_signature(tmp_path):
    found = attempt_on(tmp_path, "signatures", "broken file, serving_bytes", signatures=())
    assert [(check["status"], check["detail"]) for check in found] == [
        ("passed", "serving_default"),
        ("absent", "no such signature"),
    ]


# --- processes that end badly ---

STAND_IN = """\
import importlib.util, os, sys, time, types
spec = importlib.util.spec_from_file_location("consumer", sys.argv[2])
consumer = importlib.util.module_from_spec(spec)
sys.modules["consumer"] = consumer
spec.loader.exec_module(consumer)
consumer._tensorflow = lambda devices: types.SimpleNamespace(__version__="0")
consumer.CHECKS = {"load": lambda on: consumer.Outcome("fine"), "next": lambda on: CRASH}
sys.exit(consumer.main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("crash", "timeout"), [("os.abort()", 60.0), pytest.param("time.sleep(600)", 10.0, marks=pytest.mark.whole)]
)
def test_process_that_dies_or_hangs_is_a_failed_check(tmp_path, crash, timeout):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "stand_in.py").write_text(STAND_IN.replace("CRASH", crash))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/stand_in.py" "$@"\n')
    python.chmod(0o755)
    result = run_consumer(tmp_path, python=str(python), timeout=timeout)
    assert [(check["name"], check["status"]) for check in result["checks"]] == [("load", "passed"), ("next", "failed")]
    assert result["checks"][1]["detail"] == "the process ended"


def test_large_blocks_are_given_back_to_the_system(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$MALLOC_MMAP_THRESHOLD_" > "{tmp_path}/told"\n')
    python.chmod(0o755)
    run_consumer(tmp_path, python=str(python))
    assert (tmp_path / "told").read_text() == f"{LARGE}\n"


def test_a_model_is_emptied_after_its_check(tiny_build):
    on = consumer._Subject(
        directory=str(directory_of(tiny_build, "mixer_ti8_seeded_fe")), inputs=None, expected=None, limit=LIMIT, tf=tf
    )
    on.open()
    model = on.brief(tf.saved_model.load(on.directory))
    assert min(variable.numpy().size for variable in model.variables) > 0
    on.free()
    assert max(variable.numpy().size for variable in model.variables) == 0
    assert on.spent == []


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore:pkg_resources")  # as tensorflow_hub imports it
@pytest.mark.parametrize("way", ["hub.KerasLayer, trainable", "Keras 3 TFSMLayer"])
def test_training_makes_no_slots(tiny_build, way, monkeypatch):
    keras, optimizers = tf_keras if way.startswith("hub") else importlib.import_module("keras"), []
    usual = keras.Model.compile

    def compiled(model, optimizer, loss):
        usual(model, optimizer, loss)
        optimizers.append(model.optimizer)

    monkeypatch.setattr(keras.Model, "compile", compiled)
    assert attempted(directory_of(tiny_build, EXTRACTOR), way)[way]["status"] == "passed"
    (optimizer,) = optimizers
    variables = optimizer.variables
    sizes = {int(np.prod(variable.shape)) for variable in (variables() if callable(variables) else variables)}
    assert sizes <= {1}  # the step and the rate


def test_no_result_says_why(tmp_path):
    (check,) = run_consumer(tmp_path / "nowhere")["checks"]
    assert (check["name"], check["status"]) == ("start", "failed")
    assert "No such file or directory" in check["detail"]
    assert "nowhere/saved_model.pb" in check["detail"]


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["nowhere", "--limit", "much"], [".", "--inputs", "none.npy"]])
def test_bad_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        consumer.main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*consumer.BLOCKED, "jax.numpy", "flax.linen"])
def test_importing_jax_or_flax_is_an_error_there(name):
    start = f"import sys; sys.path.insert(0, {str(FILE.parent)!r}); import consumer; "
    start += "sys.meta_path.insert(0, consumer._Blocker()); "
    done = subprocess.run([sys.executable, "-c", f"{start} import {name}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"ImportError: {name.partition('.')[0]} is blocked: the model must run without it" in done.stderr


NEWER_THAN_3_8 = {"removeprefix", "removesuffix", "cache", "pairwise", "batched", "is_relative_to", "readlink"}


def test_file_keeps_to_python_3_8():
    tree = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 8))
    assert {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & NEWER_THAN_3_8 == set()
    assert "strict" not in {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    # What Python 3.8 cannot evaluate stands in annotations alone, which it leaves alone.
    annotations = [
        getattr(node, field) for node in ast.walk(tree) for field in ("annotation", "returns") if hasattr(node, field)
    ]
    spared = {id(part) for found in annotations if found is not None for part in ast.walk(found)}
    for node in (node for node in ast.walk(tree) if id(node) not in spared):
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)), node.lineno
        assert not (isinstance(node, ast.Subscript) and getattr(node.value, "id", "") in {"dict", "list", "tuple"})


def test_file_imports_nothing_but_the_standard_library_and_numpy():
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    named = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    named |= {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert named - set(sys.stdlib_module_names) == {"numpy"}


def test_foreign_names_are_escaped_and_cut_where_a_person_reads_them(tmp_path, monkeypatch, capsys):
    hostile = "\x1b]0;title\x07\x1b[31mred\u202eevil\udcff" + "n" * 60_000

    def fail(_):
        raise AssertionError(hostile)

    monkeypatch.setattr(consumer, "CHECKS", {"load": fail})
    monkeypatch.setattr(consumer, "_tensorflow", lambda devices: tf)
    monkeypatch.setattr(consumer, "gist", str)
    (tmp_path / "saved_model.pb").touch()
    assert consumer.main([str(tmp_path), f"--json={tmp_path / 'result'}"]) == 1
    said = capsys.readouterr().out
    assert all(line.isprintable() and len(line) < 1200 for line in said.split("\n"))
    assert r"\x1b]0;title\x07\x1b[31mred\u202eevil\udcff" in said
    with pytest.raises(SystemExit):
        consumer.main([f"{tmp_path}/\x1b[2J"])
    assert r"\x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_comparison_has_the_power_of_the_outputs_and_is_judged_without_too(power, tmp_path, monkeypatch):
    """What is not compared has none to speak of."""
    outcomes = {
        "hub.load": consumer.Outcome("as it should", 1e-7),
        "a layer": consumer.Outcome("far off", 1e-3, "failed"),
        "labels": consumer.Outcome("10 names, 10 outputs"),
        "keras": consumer.Outcome("not installed", status="absent"),
    }
    written = [{"name": name, **one._asdict()} for name, one in outcomes.items()]
    monkeypatch.setattr(consumption, "run_consumer", lambda *_, **__: {"checks": written})
    inputs = Inputs.gate(32)
    count = len(inputs.names)
    scale = Scale(np.ones(count), np.array([power, *np.ones(count - 1)]), np.ones(count), np.ones(count, bool))
    expected = Expected(inputs.names, np.zeros((count, 3), np.float32), {}, classes=True, scale=scale)
    model = ModelPaths.of(tmp_path, "model", DEFAULT_VERSION)
    model.directory.mkdir(parents=True)
    made_on = MadeOn(handle="model", saved_model_sha256="0" * 64)
    found = {check.on: check for check in check_consumer(model, inputs, expected, made_on)}
    assert {name: check.power for name, check in found.items()} == {
        "hub.load": power,
        "a layer": power,
        "labels": None,
        "keras": 0,
    }
    assert [name for name, check in found.items() if check.is_over] == ["a layer"]
    assert [name for name, check in found.items() if check.problems] == ["a layer"]
