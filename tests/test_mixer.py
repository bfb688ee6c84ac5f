"""The Flax model: the catalog's arrays, the paper's arithmetic."""

import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.catalog import CHECKPOINTS, HANDLES, TESTING_HANDLES
from models.mixer import LAYER_NORM_EPSILON, MixerBlock, MlpMixer
from models.params import nest

ALL = {**HANDLES, **TESTING_HANDLES}
TINY = next(handle.checkpoint for handle in TESTING_HANDLES.values())
PRIMITIVES = {
    "add",
    "sub",
    "mul",
    "div",
    "max",
    "square",
    "integer_pow",
    "rsqrt",
    "tanh",
    "reduce_sum",
    "reshape",
    "transpose",
    "broadcast_in_dim",
    "dot_general",
    "conv_general_dilated",
}


def images_of(architecture, batch=1):
    size = architecture.image_size
    return jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)


def random_params(model, seed):
    """Parameters far from Flax's initial ones, where biases are 0 and scales are 1."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images_of(TINY.architecture))["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 3, shapes)


def random_images(seed, batch=2):
    return np.random.default_rng(seed).uniform(-1, 1, images_of(TINY.architecture, batch).shape).astype(np.float32)


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_the_arrays_of_the_catalog_and_the_output_is_one_vector_an_image(name):
    handle = ALL[name]
    model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)
    images = images_of(handle.checkpoint.architecture, batch=3)
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    assert {path: leaf.shape for path, leaf in flat.items()} == handle.arrays
    assert {leaf.dtype for leaf in (*flat.values(), output)} == {np.dtype(np.float32)}
    assert output.shape == (3, handle.outputs)


def test_features_are_the_feature_extractors_and_the_head_makes_the_logits():
    classifier, extractor = MlpMixer(TINY.architecture, TINY.num_classes), MlpMixer(TINY.architecture, None)
    params, images = random_params(classifier, 1), random_images(2)
    logits, sown = classifier.apply({"params": params}, images, mutable=["intermediates"])
    (features,) = sown["intermediates"]["features"]
    body = {name: value for name, value in params.items() if name != "head"}
    np.testing.assert_array_equal(extractor.apply({"params": body}, images), features)
    expected = np.float64(features) @ np.float64(params["head"]["kernel"]) + np.float64(params["head"]["bias"])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * expected.std())
    np.testing.assert_array_equal(classifier.apply({"params": params}, images), logits)


def test_images_of_a_batch_do_not_see_each_other():
    model = MlpMixer(TINY.architecture, TINY.num_classes)
    params, images = random_params(model, 3), random_images(4, batch=3)
    apply = jax.jit(model.apply)
    together = apply({"params": params}, images)
    alone = jnp.concatenate([apply({"params": params}, image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * float(together.std()))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def block_in_float64(params, x, *, gelu=gelu_tanh, epsilon=1e-6):
    """Equation 1 of the paper, written again."""
    params = jax.tree.map(np.float64, params)

    def norm(name, y):
        centred = y - y.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return centred / spread * params[name]["scale"] + params[name]["bias"]

    def mlp(name, y):
        first, second = params[name]["Dense_0"], params[name]["Dense_1"]
        return gelu(y @ first["kernel"] + first["bias"]) @ second["kernel"] + second["bias"]

    x = x + mlp("token_mixing", norm("LayerNorm_0", x).transpose(0, 2, 1)).transpose(0, 2, 1)
    return x + mlp("channel_mixing", norm("LayerNorm_1", x))


@pytest.fixture(scope="module")
def block():
    """A mixer layer's parameters, tokens whose variance is about epsilon, and what Flax makes of them."""
    sizes = TINY.architecture
    model = MixerBlock(sizes.tokens_mlp_dim, sizes.channels_mlp_dim)
    rng = np.random.default_rng(5)
    tokens = (1e-3 * rng.normal(size=(2, sizes.tokens, sizes.hidden_dim))).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 3, shapes)
    return params, tokens, np.asarray(model.apply({"params": params}, tokens))


def difference(found, expected):
    return np.abs(found - expected).max() / expected.std()


def test_block_computes_equation_1(block):
    params, tokens, found = block
    assert difference(found, block_in_float64(params, np.float64(tokens))) < 5e-6


@pytest.mark.parametrize(
    "mistake",
    [{"gelu": gelu_erf}, {"epsilon": 1e-5}, {"epsilon": 0.0}, {"epsilon": 1e-7}],
    ids=["erf", "epsilon 1e-5", "no epsilon", "epsilon 1e-7"],
)
def test_another_gelu_or_epsilon_would_be_seen(block, mistake):
    params, tokens, found = block
    assert difference(found, block_in_float64(params, np.float64(tokens), **mistake)) > 1e-4


def test_epsilon_is_the_papers():
    assert LAYER_NORM_EPSILON == 1e-6


@pytest.mark.parametrize("num_classes", [TINY.num_classes, None])
def test_function_is_made_of_fifteen_primitives(num_classes):
    model = MlpMixer(TINY.architecture, num_classes)
    params = random_params(model, 6)
    jaxpr = jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x))(params, images_of(TINY.architecture))
    assert {equation.primitive.name for equation in jaxpr.eqns} == PRIMITIVES


@pytest.mark.parametrize("name", CHECKPOINTS["mixer"])
def test_full_size_models_need_no_other_primitive(name):
    row = CHECKPOINTS["mixer"][name]
    model = MlpMixer(row.architecture, row.num_classes)
    images = images_of(row.architecture)
    params = nest({name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in row.arrays.items()})
    jaxpr = jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x))(params, images)
    assert {equation.primitive.name for equation in jaxpr.eqns} == PRIMITIVES
