"""The SavedModels: version 1's interface, JAX's numbers, and training."""

import contextlib
import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops
from writing import write_saved_model

from convert.checkpoints.reader import load_checkpoint
from convert.flavours.native import mixer_apply, to_tensorflow
from convert.pipeline.tracing import _to_flavour
from export.saved_model import writer as module
from export.saved_model.settings import fixed_settings
from models.catalog import DEFAULT_VERSION, TESTING_HANDLES, TINY
from models.mixer import MlpMixer
from models.params import flatten

SIZE = 32
MODELS = {
    model.name: model
    for handle in TESTING_HANDLES.values()
    for model in (handle.in_flavour("native"), handle.in_flavour("graph"))
}
GRADIENT_TOLERANCE = 1e-4
"""Of an array's largest gradient: float32 sums in another order, through a deep chain."""
OF_NO_EFFECT = ("token_mixing/Dense_1/bias", "token_mixing/Dense_1/kernel")
"""This bias shifts all channels of a token alike, which every LayerNorm after it takes away: its gradient is zero but
for rounding, and is held against that of the kernel beside it."""
OUTPUT_TOLERANCE = 2e-5
"""Of the outputs' spread: the gate's own limit is for the real images, these are noise."""

each_handle = pytest.mark.parametrize("name", MODELS)


def images_of(batch, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (batch, SIZE, SIZE, 3)).astype(np.float32)


def load(build, name):
    return tf.saved_model.load(str(build / name / str(DEFAULT_VERSION)))


@pytest.fixture(scope="module")
def models(tiny_build):
    """Both models, for reading only."""
    return {name: load(tiny_build, name) for name in MODELS}


@pytest.fixture(scope="module")
def params(tiny_source):
    """The parameters of both."""
    found = {}
    for name, handle in MODELS.items():
        row = handle.checkpoint
        loaded = load_checkpoint(tiny_source / row.object, row.architecture, num_classes=row.num_classes)
        found[name] = loaded.for_head(handle.head)
    return found


def in_jax(name):
    """Return JAX's apply function, compiled once for both flavours."""
    return _in_jax(MODELS[name].in_flavour("native"))


def gradients_in_jax(name):
    """Return the function of params, images and weights to the gradients of a loss with respect to the first two."""
    return _gradients_in_jax(MODELS[name].in_flavour("native"))


@functools.cache
def _in_jax(handle):
    model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)
    return jax.jit(lambda params, images: model.apply({"params": params}, images))


@functools.cache
def _gradients_in_jax(handle):
    forward = _in_jax(handle)
    return jax.jit(jax.grad(lambda p, x, weights: jnp.sum(forward(p, x) * weights), argnums=(0, 1)))


def direction(name, batch):
    """Fixed weights of the outputs in a loss."""
    return np.random.default_rng(7).normal(size=(batch, MODELS[name].outputs)).astype(np.float32)


@each_handle
def test_signature_takes_inputs_and_gives_output_0(models, name):
    serve = models[name].signatures["serving_default"]
    (takes,) = serve.structured_input_signature[1].values()
    assert list(serve.structured_input_signature[1]) == ["inputs"]
    assert (takes.dtype, takes.shape.as_list()) == (tf.float32, [None, SIZE, SIZE, 3])
    served = serve(inputs=tf.constant(images_of(2)))
    assert list(served) == ["output_0"]
    assert served["output_0"].shape == (2, MODELS[name].outputs)
    assert served["output_0"].dtype == tf.float32


@each_handle
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_both_entries_compute_what_jax_computes_for_any_batch(models, params, name, batch):
    model, images = models[name], images_of(batch)
    called = model(tf.constant(images)).numpy()
    served = model.signatures["serving_default"](inputs=tf.constant(images))["output_0"].numpy()
    np.testing.assert_array_equal(called, served)
    expected = np.asarray(in_jax(name)(params[name], images))
    assert called.shape == expected.shape == (batch, MODELS[name].outputs)
    np.testing.assert_allclose(called, expected, rtol=0, atol=OUTPUT_TOLERANCE * expected.std())


@each_handle
def test_call_works_inside_a_function_of_unknown_batch(models, name):
    model = models[name]
    function = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)])
    assert function.get_concrete_function().output_shapes.as_list() == [None, MODELS[name].outputs]
    images = tf.constant(images_of(3))
    np.testing.assert_array_equal(function(images), model(images))
    np.testing.assert_array_equal(function(images[:1]), model(images[:1]))


@each_handle
def test_arrays_and_uncommitted_values_are_taken_too(models, name):
    images = images_of(2)
    np.testing.assert_array_equal(models[name](images), models[name](tf.constant(images)))


@each_handle
def test_variables_are_the_checkpoints_arrays_bit_for_bit(models, params, name):
    model = models[name]
    expected = flatten(params[name])
    found = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}
    assert list(found) == list(expected) == list(MODELS[name].arrays)
    assert len(model.variables) == len(expected)
    for path, value in found.items():
        assert value.dtype == np.float32
        assert value.shape == expected[path].shape
        assert value.tobytes() == expected[path].tobytes(), path


@each_handle
def test_interface_of_a_reusable_saved_model(models, name):
    model = models[name]
    assert all(variable.trainable for variable in model.variables)
    assert [id(variable) for variable in model.trainable_variables] == [id(variable) for variable in model.variables]
    assert list(model.regularization_losses) == []


@each_handle
@pytest.mark.parametrize("entry", ["__call__", "serving_default"])
def test_gradients_are_jaxs(models, params, name, entry):
    model, images, weights = models[name], images_of(2, seed=3), direction(name, 2)
    given = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs = model(given) if entry == "__call__" else model.signatures[entry](inputs=given)["output_0"]
        loss = tf.reduce_sum(outputs * weights)
    found = tape.gradient(loss, [given, *model.trainable_variables])
    by_params, by_images = gradients_in_jax(name)(params[name], images, weights)
    expected = {"inputs": by_images, **flatten(by_params)}
    # JAX sorts the names; the model has them in the checkpoint's order.
    names = ["inputs", *MODELS[name].arrays]
    assert expected.keys() == set(names)
    for path, gradient in zip(names, found, strict=True):
        wanted = expected[path]
        assert gradient is not None, path
        largest = float(np.abs(expected[path.replace(*OF_NO_EFFECT)]).max())
        assert largest > 1e-6, path
        assert OF_NO_EFFECT[0] in path or float(np.abs(gradient).max()) > largest / 2, path
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=GRADIENT_TOLERANCE * largest, err_msg=path)


@each_handle
def test_one_training_step_changes_the_outputs_as_in_jax(tiny_build, params, name):
    model, images, weights, rate = load(tiny_build, name), images_of(2, seed=4), direction(name, 2), 1e-4
    before = model(tf.constant(images)).numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(tf.constant(images)) * weights)
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        variable.assign_sub(rate * gradient)
    after = model(tf.constant(images)).numpy()

    forward = in_jax(name)
    gradients, _ = gradients_in_jax(name)(params[name], images, weights)
    stepped = jax.tree.map(lambda value, gradient: value - rate * gradient, params[name], gradients)
    expected = np.asarray(forward(stepped, images))
    change = np.abs(expected - np.asarray(forward(params[name], images))).max()
    assert change > 100 * OUTPUT_TOLERANCE * expected.std()
    assert np.sum(after * weights) < np.sum(before * weights)
    np.testing.assert_allclose(after, expected, rtol=0, atol=10 * OUTPUT_TOLERANCE * expected.std())
    served = model.signatures["serving_default"](inputs=tf.constant(images))["output_0"]
    np.testing.assert_array_equal(served, after)


@each_handle
def test_class_list_is_an_asset_of_the_classifier_alone(models, tiny_build, name):
    handle = MODELS[name]
    directory = tiny_build / name / str(DEFAULT_VERSION)
    if handle.labels is None:
        assert not hasattr(models[name], "labels")
        assert list(directory.rglob("assets/*")) == []
        return
    path = models[name].labels.asset_path.numpy().decode()
    assert tf.io.read_file(path).numpy() == handle.labels.path.read_bytes()
    assert (directory / "assets" / handle.labels.file).read_bytes() == handle.labels.path.read_bytes()


WRONG_INPUTS = {
    "height": ((1, SIZE - 1, SIZE, 3), np.float32),
    "width": ((1, SIZE, 224, 3), np.float32),
    "channels": ((1, SIZE, SIZE, 4), np.float32),
    "rank": ((SIZE, SIZE, 3), np.float32),
    "float64": ((1, SIZE, SIZE, 3), np.float64),
    "uint8": ((1, SIZE, SIZE, 3), np.uint8),
}


@pytest.mark.parametrize("wrong", WRONG_INPUTS)
@each_handle
def test_call_says_what_it_got_and_what_it_expects(models, name, wrong):
    shape, dtype = WRONG_INPUTS[wrong]
    got = rf"shape=\({', '.join(map(str, shape))}\), dtype=tf\.{np.dtype(dtype).name}"
    expects = rf"shape=\(None, {SIZE}, {SIZE}, 3\), dtype=tf\.float32, name='inputs'"
    with pytest.raises(TypeError, match=rf"Can not cast TensorSpec\({got}.* to TensorSpec\({expects}"):
        models[name](tf.constant(np.zeros(shape, dtype)))


def said_of(shape):
    found = " ".join(map(str, shape))
    return rf"expected images of shape \[batch, {SIZE}, {SIZE}, 3\], at least one, but found the shape\] \[{found}\]"


@pytest.mark.parametrize("wrong", WRONG_INPUTS)
def test_signature_says_what_it_got_and_what_it_expects(models, wrong):
    shape, dtype = WRONG_INPUTS[wrong]
    if dtype == np.float32:
        message = said_of(shape)
    else:
        found = {np.float64: "double", np.uint8: "uint8"}[dtype]
        message = f"was expected to be a float tensor but is a {found} tensor"
    for model in models.values():
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            model.signatures["serving_default"](inputs=tf.constant(np.zeros(shape, dtype)))


@each_handle
def test_empty_batch_is_refused_in_words(models, name):
    nothing = tf.zeros((0, SIZE, SIZE, 3))
    for entry in (models[name], lambda x: models[name].signatures["serving_default"](inputs=x)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=said_of(nothing.shape)):
            entry(nothing)


PARAMS = {"head": {"kernel": np.eye(3, 4, dtype=np.float32), "bias": np.arange(4, dtype=np.float32)}}


def mean_colours(params, images):
    return tf.reduce_mean(images, (1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]


def test_model_without_labels_has_no_asset(tmp_path):
    write_saved_model(mean_colours, PARAMS, tmp_path, image_size=4)
    assert list(tmp_path.rglob("assets/*")) == []
    model = tf.saved_model.load(str(tmp_path))
    assert not hasattr(model, "labels")
    assert [variable.name for variable in model.variables] == ["head/kernel:0", "head/bias:0"]
    images = np.full((2, 4, 4, 3), 0.5, np.float32)
    np.testing.assert_array_equal(model(images), [[0.5, 1.5, 2.5, 3.0]] * 2)


def test_ones_own_labels_travel_under_their_name(tmp_path):
    labels = tmp_path / "flowers.txt"
    labels.write_text("rose\ntulip\nlily\ndaisy\n", encoding="utf-8")
    (tmp_path / "model").mkdir()
    write_saved_model(mean_colours, PARAMS, tmp_path / "model", image_size=4, labels=labels)
    labels.unlink()
    moved = (tmp_path / "model").rename(tmp_path / "moved")
    path = tf.saved_model.load(str(moved)).labels.asset_path.numpy().decode()
    assert path == str(moved / "assets" / "flowers.txt")
    assert tf.io.read_file(path).numpy() == b"rose\ntulip\nlily\ndaisy\n"


def test_place_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "variables").write_text("in the way", encoding="utf-8")
    with pytest.raises(OSError, match=r"variables|directory"):
        write_saved_model(mean_colours, PARAMS, tmp_path, image_size=4)


def test_tracing_leaves_no_weights_in_memory(tmp_path, monkeypatch):
    made = []
    real = module._reusable_model
    monkeypatch.setattr(module, "_reusable_model", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    write_saved_model(mean_colours, PARAMS, tmp_path, image_size=4)
    variables = made[0][0].variables
    assert [variable.value().numpy().size for variable in variables] == [0] * len(PARAMS["head"])
    assert all(variable.numpy().size > 0 for variable in tf.saved_model.load(str(tmp_path)).variables)


@each_handle
def test_a_graph_with_weights_is_what_tensorflow_saves_with_variables(params, tmp_path, name):
    handle = MODELS[name]
    architecture = handle.checkpoint.architecture
    function = _to_flavour(handle.flavour)(mixer_apply(architecture, handle.num_classes))
    arrays = flatten(params[name])

    with fixed_settings():
        model, signatures = module._reusable_model(function, handle.arrays, image_size=SIZE, labels=None)
        for variable in model.variables:
            value = tf.constant(arrays[variable.name.removesuffix(":0")])
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
        module._save(model, signatures, tmp_path / "slow")

    (tmp_path / "fast").mkdir()
    module.Graph.trace(function, handle.arrays, image_size=SIZE).write(arrays, tmp_path / "fast")
    assert contents(tmp_path / "fast") == contents(tmp_path / "slow")
    assert len(contents(tmp_path / "fast")) == 3


def contents(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_looking_tensors_up_by_identity_ends_with_the_tracing():
    with module._tensors_by_identity():
        assert tf.constant(1) is not None
        assert isinstance(tf.constant(1) == tf.constant(1), bool)
    assert isinstance(tf.constant(1) == tf.constant(1), tf.Tensor)


@pytest.mark.whole
def test_looking_up_grows_with_the_number_of_parameters_not_with_its_square(monkeypatch):
    def lookups(blocks):
        architecture, made = replace(TINY, num_blocks=blocks), []
        function = to_tensorflow(mixer_apply(architecture, None))
        with monkeypatch.context() as patch:
            # Asked by every comparison by value.
            patch.setattr(tf_ops, "executing_eagerly_outside_functions", lambda: made.append(1) or real())
            module.Graph.trace(function, architecture.arrays(None), image_size=SIZE)
        return len(made)

    real = tf_ops.executing_eagerly_outside_functions
    assert lookups(8) < 2.5 * lookups(4)
    monkeypatch.setattr(module, "_tensors_by_identity", contextlib.nullcontext)
    assert lookups(8) > 3 * lookups(4)
