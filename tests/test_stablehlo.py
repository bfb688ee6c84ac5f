"""Lowered artifacts: what stands in the file, what is refused, and that nothing else changed."""

import itertools
import logging
import shutil
import sysconfig
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from jax import export
from jax.experimental import jax2tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from writing import write_saved_model

from convert.flavours.native import PLATFORMS
from export.saved_model import writer as saved_model_module
from export.saved_model.canonical import rewrite_saved_model
from export.saved_model.settings import CALLING_CONVENTION
from export.saved_model.stablehlo import _lower_artifact
from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from models.errors import MixerError

ROOT = Path(__file__).parent.parent
MAGIC = b"ML\xefR"
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 2, 2, 3)).astype(np.float32)
PARAMS = {
    "kernel": np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32),
    "bias": np.random.default_rng(2).normal(size=5).astype(np.float32),
}
UNSAVED = "unsaved custom gradients"

jax_newer = tuple(int(part) for part in jax.__version__.split(".")[:2]) > (0, 10)
runs_unlowered = pytest.mark.skipif(
    jax_newer, reason="TensorFlow 2.21 does not run what JAX after 0.10 writes before it is lowered"
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small function as a SavedModel, converted as `convert.flavours.native` does and not lowered."""
    function = jax2tf.convert(
        lambda params, images: jnp.tanh(images.reshape(images.shape[0], -1) @ params["kernel"] + params["bias"]),
        polymorphic_shapes=(None, "(batch, ...)"),
        with_gradient=True,
        native_serialization_platforms=PLATFORMS,
    )
    directory = tmp_path_factory.mktemp("raw") / "model"
    directory.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model_module, "rewrite_saved_model", lambda _: 0)
        write_saved_model(function, PARAMS, directory, image_size=2)
    return directory


@pytest.fixture(scope="module")
def lowered(raw, tmp_path_factory):
    """The same, lowered, and the number of artifacts in it."""
    directory = shutil.copytree(raw, tmp_path_factory.mktemp("lowered") / "model")
    return directory, rewrite_saved_model(directory)


def artifacts(directory):
    model = SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    graphs = [meta_graph.graph_def for meta_graph in model.meta_graphs]
    nodes = itertools.chain(
        *(graph.node for graph in graphs),
        *(function.node_def for graph in graphs for function in graph.library.function),
    )
    return [node for node in nodes if node.op == "XlaCallModule"]


def tiny(build, name):
    return build / name / str(DEFAULT_VERSION)


def assert_lowered(nodes):
    assert nodes
    for node in nodes:
        assert node.attr["module"].s.startswith(MAGIC)
        assert node.attr["module"].s[4:].startswith(b"\x01StableHLO_v0.9.0\0")
        assert node.attr["version"].i == 5
        assert set(node.attr["platforms"].list.s) == {b"CPU", b"CUDA", b"ROCM", b"TPU"}


def test_artifacts_are_stablehlo_0_9_0(lowered):
    directory, _ = lowered
    assert_lowered(artifacts(directory))


@pytest.mark.parametrize("name", TESTING_HANDLES)
def test_artifacts_of_a_mixer_are_stablehlo_0_9_0(tiny_build, name):
    assert_lowered(artifacts(tiny(tiny_build, name)))


def test_artifacts_were_not_so_before(raw):
    nodes = artifacts(raw)
    assert nodes
    assert not any(b"StableHLO_v0.9.0" in node.attr["module"].s[:32] for node in nodes)
    assert {node.attr["version"].i for node in nodes} == {CALLING_CONVENTION}


def test_every_artifact_is_counted_forward_and_gradient(raw, lowered):
    directory, count = lowered
    assert count == len(artifacts(directory)) == len(artifacts(raw))
    assert len({node.attr["module"].s for node in artifacts(directory)}) == 2
    assert any("jax2tf_vjp" in node.name for node in artifacts(directory))


def test_lowering_again_changes_nothing(lowered, tmp_path):
    directory, count = lowered
    again = shutil.copytree(directory, tmp_path / "again")
    assert rewrite_saved_model(again) == count
    assert (again / "saved_model.pb").read_bytes() == (directory / "saved_model.pb").read_bytes()


def test_fingerprint_is_dropped(tmp_path, tiny_build):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    assert (tmp_path / "fingerprint.pb").is_file()
    rewrite_saved_model(tmp_path)
    assert not (tmp_path / "fingerprint.pb").exists()
    assert list(tiny_build.rglob("fingerprint.pb")) == []


def paths_of_this_machine():
    return [str(ROOT), sysconfig.get_path("purelib"), tempfile.gettempdir() + "/", "site-packages", ".py"]


@pytest.mark.parametrize("name", TESTING_HANDLES)
def test_file_names_no_path_of_this_machine(tiny_build, name):
    content = (tiny(tiny_build, name) / "saved_model.pb").read_bytes()
    assert [path for path in paths_of_this_machine() if path.encode() in content] == []


def test_file_named_such_paths_before(raw, lowered):
    before, after = ((directory / "saved_model.pb").read_bytes() for directory in (raw, lowered[0]))
    assert [path for path in paths_of_this_machine() if path.encode() in before] != []
    assert [path for path in paths_of_this_machine() if path.encode() in after] == []


@runs_unlowered
def test_outputs_and_gradients_are_the_same_bits_as_before(raw, lowered):
    results = []
    for directory in (raw, lowered[0]):
        model = tf.saved_model.load(str(directory))
        images = tf.constant(IMAGES)
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images)
            loss = tf.reduce_sum(outputs**2)
        gradients = tape.gradient(loss, [images, *model.trainable_variables])
        served = model.signatures["serving_default"](inputs=images)["output_0"]
        results.append([value.numpy() for value in (outputs, served, *gradients)])
    for before, after in zip(*results, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_lowered_model_computes_the_function(lowered):
    found = tf.saved_model.load(str(lowered[0]))(tf.constant(IMAGES)).numpy()
    expected = np.tanh(np.float64(IMAGES).reshape(3, -1) @ np.float64(PARAMS["kernel"]) + PARAMS["bias"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.fixture
def absl_log(caplog):
    """What absl says, even where the command line has told it to keep quiet."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


@pytest.mark.parametrize("name", TESTING_HANDLES)
def test_loading_warns_of_nothing(tiny_build, name, absl_log):
    tf.saved_model.load(str(tiny(tiny_build, name)))
    assert [record.getMessage() for record in absl_log.records if record.levelno >= logging.WARNING] == []


def test_loading_warned_before(raw, absl_log):
    tf.saved_model.load(str(raw))
    assert UNSAVED in absl_log.text


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "tf.function"])
def test_second_derivative_is_refused(lowered, compiled):
    model = tf.saved_model.load(str(lowered[0]))

    def second_derivative(images):
        with tf.GradientTape() as outer:
            outer.watch(images)
            with tf.GradientTape() as inner:
                inner.watch(images)
                loss = tf.reduce_sum(model(images))
            first = inner.gradient(loss, images)
        return outer.gradient(first, images)

    run = tf.function(second_derivative, autograph=False) if compiled else second_derivative
    with pytest.raises(LookupError, match=r"(?i)no gradient defined for operation.*XlaCallModule"):
        run(tf.constant(IMAGES))


def artifact_of(function, *, allowed=(), platforms=("cpu", "tpu"), batch=3):
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in allowed]
    exported = export.export(jax.jit(function), platforms=platforms, disabled_checks=checks)(
        jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    )
    return exported.mlir_module_serialized


def call(name):
    return lambda x: jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(x.shape, x.dtype))(x)


def test_plain_artifact_is_lowered_and_smaller():
    artifact = artifact_of(jnp.tanh)
    lowered = _lower_artifact(artifact)
    assert artifact.startswith(MAGIC)
    assert lowered.startswith(MAGIC + b"\x01StableHLO_v0.9.0\0")
    assert _lower_artifact(lowered) == lowered


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (call("somewhere"), "somewhere"),
        (lambda x: call("beyond")(call("above")(call("beyond")(x))), "above, beyond"),
        (lambda x: jax.lax.cond(x[0, 0] > 0, call("hidden"), jnp.tanh, x), "hidden"),
    ],
    ids=["one", "several", "inside a branch"],
)
def test_unknown_calls_are_refused_by_name(function, names):
    artifact = artifact_of(function, allowed=names.split(", "))
    with pytest.raises(MixerError, match=rf"function calls {names}, and on which platforms that runs is unknown"):
        _lower_artifact(artifact)


@pytest.mark.parametrize(
    "function",
    [lambda x: x.astype(jnp.float8_e4m3), lambda x: x.astype(jnp.float4_e2m1fn)],
    ids=["float8_e4m3 (1.7)", "float4_e2m1fn (1.8)"],
)
def test_what_came_after_0_9_0_is_refused(function):
    artifact = artifact_of(function)
    with pytest.raises(MixerError, match=r"cannot be written as StableHLO 0\.9\.0, which TensorFlow 2\.13 reads"):
        _lower_artifact(artifact)


@pytest.mark.parametrize(
    "function",
    [jax.lax.erf, jnp.arcsin, jax.lax.tan, lambda x: jax.lax.top_k(x, 2)[0]],
    ids=["erf", "asin", "tan", "top_k"],
)
def test_composites_and_later_operations_are_replaced_by_what_they_are_made_of(function, tmp_path):
    def flat(_, images):
        return function(images.reshape(images.shape[0], -1))

    converted = jax2tf.convert(
        flat, polymorphic_shapes=(None, "(batch, ...)"), with_gradient=False, native_serialization_platforms=PLATFORMS
    )
    write_saved_model(converted, {"unused": np.zeros(1, np.float32)}, tmp_path, image_size=2)
    assert_lowered(artifacts(tmp_path))
    found = tf.saved_model.load(str(tmp_path))(tf.constant(IMAGES)).numpy()
    np.testing.assert_allclose(found, np.asarray(flat(None, IMAGES)), rtol=0, atol=3e-7)


def test_the_gradient_of_top_k_in_a_symbolic_batch_is_refused_in_words(capfd):
    def gradient(x):
        top, pull_back = jax.vjp(lambda x: jax.lax.top_k(x, 2)[0], x)
        return pull_back(top)[0]

    with pytest.raises(MixerError, match=r"reads: that version has no such scatter\. .* gradient of top_k"):
        _lower_artifact(artifact_of(gradient, batch=export.symbolic_shape("batch")[0]))
    assert "vhlo" not in capfd.readouterr().err


def test_library_function_with_calls_of_one_platform_is_refused():
    artifact = artifact_of(lambda x: jnp.linalg.qr(x)[0], platforms=("cpu", "cuda"))
    with pytest.raises(MixerError, match=r"cannot be read back|function calls .*geqrf"):
        _lower_artifact(artifact)


def test_what_is_no_artifact_is_refused():
    with pytest.raises(MixerError, match=r"cannot be read back .*: it is not an artifact, or contains more than"):
        _lower_artifact(b"garbage")


def test_the_check_of_the_shape_is_dropped(raw, lowered):
    assert any(b"shape_assertion" in node.attr["module"].s for node in artifacts(raw))
    assert not any(b"shape_assertion" in node.attr["module"].s for node in artifacts(lowered[0]))


def test_refusal_leaves_the_file_alone(raw, tmp_path, monkeypatch):
    directory = shutil.copytree(raw, tmp_path / "model")
    before = (directory / "saved_model.pb").read_bytes()
    monkeypatch.setattr("export.saved_model.stablehlo.SHAPE_ASSERTION", "something")
    with pytest.raises(MixerError, match="calls shape_assertion"):
        rewrite_saved_model(directory)
    assert (directory / "saved_model.pb").read_bytes() == before
