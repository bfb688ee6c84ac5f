"""The graph flavour: plain operations that compute and train as JAX does, or an error that names what they cannot."""

from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from writing import graph_function

from convert.flavours import graph as module
from convert.flavours.graph import to_graph
from convert.flavours.operand import GraphError
from convert.flavours.primitives import RULES
from models.catalog import HANDLES, TESTING_HANDLES
from models.params import nest

SIZE = 16
RNG = np.random.default_rng(0)
MIXER_PRIMITIVES = {
    "add", "broadcast_in_dim", "conv_general_dilated", "div", "dot_general", "integer_pow", "max", "mul", "reduce_sum",
    "reshape", "rsqrt", "square", "sub", "tanh", "transpose",
}  # fmt: skip


def normal(*shape, scale=1.0):
    return (scale * RNG.normal(size=shape)).astype(np.float32)


def as_variables(params):
    return jax.tree.map(tf.Variable, params)


def in_graph(apply, params, images, *, known_batch=False):
    """Run what was written for images of any batch, or of just theirs."""
    variables, function = as_variables(params), to_graph(apply)
    spec = tf.TensorSpec(images.shape if known_batch else (None, *images.shape[1:]), images.dtype)
    return tf.function(lambda x: function(variables, x), input_signature=[spec], autograph=False)(images)


def operations(function, *arguments):
    """Count the operations, those of a function once for each of its calls."""
    definition = tf.function(function, autograph=False).get_concrete_function(*arguments).graph.as_graph_def()
    functions = {one.signature.name: one.node_def for one in definition.library.function}
    nodes = list(definition.node)
    for node in nodes:  # which grows
        nodes += functions[node.attr["f"].func.name] if node.op == "PartitionedCall" else []
    return Counter(node.op for node in nodes)


class Attention(nn.Module):
    """Softmax attention with several heads, as in ViT."""

    @nn.compact
    def __call__(self, x):
        def heads(name):
            return nn.DenseGeneral((4, 8), name=name)(x)

        scores = jnp.einsum("bqhd,bkhd->bhqk", heads("query"), heads("key")) / jnp.sqrt(8.0)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), heads("value"))
        return nn.DenseGeneral(x.shape[-1], axis=(-2, -1), name="out")(mixed)


class TransformerBlock(nn.Module):
    """A block of ViT on patches of images, with a class token and learned positions."""

    approximate: bool

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(24, (4, 4), strides=(4, 4), padding="SAME", name="embedding")(images)
        x = x.reshape(x.shape[0], -1, 24)
        token = self.param("cls", nn.initializers.normal(1.0), (1, 1, 24))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 24)), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(1.0), (1, x.shape[1], 24))
        x = x + Attention()(nn.LayerNorm()(x))
        y = nn.Dense(48)(nn.LayerNorm()(x))
        x = x + nn.Dense(24)(nn.gelu(y, approximate=self.approximate))
        return nn.Dense(5)(x[:, 0])


each_batch = pytest.mark.parametrize("known_batch", [False, pytest.param(True, marks=pytest.mark.whole)])


@each_batch
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(TransformerBlock(True), id="tanh"),
        pytest.param(TransformerBlock(False), id="erf", marks=pytest.mark.whole),
    ],
)
def test_a_transformer_block_computes_and_trains_as_in_jax(model, known_batch):
    assert_computes_and_trains_as_in_jax(model, known_batch=known_batch)


@each_batch
def test_a_plain_vit_computes_and_trains_as_in_jax(known_batch):
    assert_computes_and_trains_as_in_jax(VisionTransformer(), known_batch=known_batch)


def assert_computes_and_trains_as_in_jax(model, *, known_batch):
    images = normal(3, SIZE, SIZE, 3)
    made = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda leaf: normal(*leaf.shape, scale=leaf.size**-0.25), made)

    def apply(params, images):
        return model.apply({"params": params}, images)

    found = in_graph(apply, params, images, known_batch=known_batch).numpy()

    @jax.jit
    def reference(params):
        def loss(params):
            outputs = apply(params, images)
            return jnp.sum(outputs**2), outputs

        return jax.grad(loss, has_aux=True)(params)

    wanted, expected = jax.tree.map(np.asarray, reference(params))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())

    variables, function = as_variables(params), to_graph(apply)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(function(variables, tf.constant(images))))
    gradients = tape.gradient(loss, jax.tree.leaves(variables))
    largest = max(np.abs(one).max() for one in jax.tree.leaves(wanted))
    for gradient, want in zip(gradients, jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(gradient.numpy(), want, rtol=0, atol=2e-5 * largest)


class VisionTransformer(nn.Module):
    """A plain ViT, written as in the original repository: its class token is repeated by `tile`."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(24, (4, 4), strides=(4, 4), padding="VALID", name="embedding")(images)
        x = x.reshape(x.shape[0], -1, 24)
        token = self.param("cls", nn.initializers.normal(1.0), (1, 1, 24))
        x = jnp.concatenate([jnp.tile(token, [x.shape[0], 1, 1]), x], axis=1)
        x = x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, x.shape[1], 24))
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(4, deterministic=True)(nn.LayerNorm()(x))
            x = x + nn.Dense(24)(nn.gelu(nn.Dense(48)(nn.LayerNorm()(x))))
        return nn.Dense(5, name="head")(nn.LayerNorm(name="encoder_norm")(x)[:, 0])


def weigh(params, x):
    return x * params["w"]


ONE = {"w": np.float32(2.0)}
FUNCTIONS = {
    "add": lambda p, x: x + p["w"],
    "sub": lambda p, x: p["w"] - x,
    "mul": weigh,
    "div": lambda p, x: x / p["w"],
    "neg": lambda p, x: -x,
    "sign": lambda p, x: jnp.sign(x),
    "abs": lambda p, x: jnp.abs(x),
    "max": lambda p, x: jnp.maximum(x, 0.25),
    "min": lambda p, x: jnp.minimum(x, 0.25),
    "square": lambda p, x: jax.lax.square(x),
    "sqrt": lambda p, x: jnp.sqrt(jnp.abs(x)),
    "rsqrt": lambda p, x: jax.lax.rsqrt(jnp.abs(x) + 1),
    "exp": lambda p, x: jnp.exp(x),
    "log": lambda p, x: jnp.log(jnp.abs(x) + 1),
    "tanh": lambda p, x: jnp.tanh(x),
    "logistic": lambda p, x: jax.lax.logistic(x),
    "erf": lambda p, x: jax.lax.erf(x),
    "erfc": lambda p, x: jax.lax.erfc(x),
    "integer_pow": lambda p, x: x**7,
    "reduce_sum": lambda p, x: x.sum(axis=(1, 3)),
    "reduce_max": lambda p, x: jax.lax.reduce_max(x, (2,)),
    "reduce_min": lambda p, x: jax.lax.reduce_min(x, (2,)),
    "reshape": lambda p, x: x.reshape(x.shape[0], 6, -1),
    "squeeze": lambda p, x: jax.lax.squeeze(x.sum(axis=2, keepdims=True), (2,)),
    "broadcast_in_dim": lambda p, x: jnp.broadcast_to(x[:, None], (x.shape[0], 5, *x.shape[1:])),
    "transpose": lambda p, x: x.transpose(3, 0, 2, 1),
    "tile": lambda p, x: jnp.tile(x, (1, 2, 1, 3)),
    "concatenate": lambda p, x: jnp.concatenate([x, 2 * x], axis=2),
    "slice": lambda p, x: jax.lax.slice_in_dim(jax.lax.slice_in_dim(x, 1, 3, axis=1), 0, 6, 2, axis=2),
    "gather": lambda p, x: x[:, 2],
    "dot_general": lambda p, x: jnp.einsum("bhwc,bhvc->bhwv", x, 3 * x),
    "conv_general_dilated": lambda p, x: nn.Conv(2, (2, 2), strides=(1, 2)).apply(
        {"params": {"kernel": jnp.ones((2, 2, 3, 2)) * p["w"], "bias": jnp.zeros(2)}}, x
    ),
    "convert_element_type": lambda p, x: x.astype(jnp.int32).astype(jnp.float32),
    "stop_gradient": lambda p, x: x + jax.lax.stop_gradient(x),
    "copy": lambda p, x: jnp.array(x, copy=True),
}


def test_every_rule_has_a_test():
    assert FUNCTIONS.keys() == RULES.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_primitive_computes_what_jax_computes(name, monkeypatch):
    images, used = normal(2, 4, 6, 3), []
    rules = {key: (lambda *a, key=key, rule=rule: used.append(key) or rule(*a)) for key, rule in RULES.items()}
    monkeypatch.setattr(module, "RULES", rules)
    found = in_graph(FUNCTIONS[name], ONE, images).numpy()
    assert name in used
    expected = np.asarray(FUNCTIONS[name](ONE, images))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("exponent", [-3, -1, 0, 1, 2, 3, 5, 8])
def test_integer_powers(exponent):
    images = normal(2, 3) + 3
    found = in_graph(lambda _, x: jax.lax.integer_pow(x, exponent), ONE, images).numpy()
    np.testing.assert_allclose(found, images.astype(np.float64) ** exponent, rtol=1e-6)


def test_results_may_be_any_tree():
    found = in_graph(lambda p, x: {"twice": (x * 2, [x]), "weighed": weigh(p, x)}, ONE, normal(2, 3))
    assert found["twice"][0].shape == (2, 3)
    np.testing.assert_array_equal(found["weighed"], found["twice"][0])


CONTRACTIONS = {
    "bi,ij->bj": (4, 6), "bi,ji->bj": (5, 4), "bij,jk->bik": (4, 6), "bij,ikl->bjkl": (3, 2, 5),
    "bij,ijk->bk": (3, 4, 2), "bij,jik->bk": (4, 3, 2), "bij,i->bj": (3,), "bij,kj->kbi": (2, 4), "bij,j->bi": (4,),
}  # fmt: skip


@pytest.mark.parametrize("formula", CONTRACTIONS)
def test_contractions_of_every_kind(formula):
    images = normal(*((2, 4) if formula.startswith("bi,") else (2, 3, 4)))
    params = {"w": normal(*CONTRACTIONS[formula])}
    found = in_graph(lambda p, x: jnp.einsum(formula, x, p["w"]), params, images).numpy()
    np.testing.assert_allclose(found, np.einsum(formula, images, params["w"]), rtol=0, atol=2e-6)


def test_an_unknown_primitive_is_named():
    with pytest.raises(
        GraphError, match=r"no rule for the primitive sin .*: add one to convert/flavours/primitives\.py"
    ):
        in_graph(lambda _, x: jnp.sin(x), ONE, normal(2, 3))


def test_a_gradient_of_ones_own_is_refused():
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (g,))
    with pytest.raises(GraphError, match=r"no rule for the primitive custom_vjp_call"):
        in_graph(lambda _, x: doubled(x), ONE, normal(2, 3))


@pytest.mark.parametrize(
    "function",
    [lambda _, x: x.reshape(-1), lambda _, x: x @ x.T, lambda _, x: jnp.concatenate([x, x], axis=0)],
    ids=["folded", "twice", "doubled"],
)
def test_a_size_that_is_not_the_batch_is_refused(function):
    with pytest.raises(GraphError, match=r"expected constant sizes except for one axis, the batch"):
        in_graph(function, ONE, normal(2, 3))


def test_effects_are_refused():
    def shouting(_, x):
        jax.debug.print("{}", x.sum())
        return x

    with pytest.raises(GraphError, match=r"has effects .*: write a pure function"):
        in_graph(shouting, ONE, normal(2, 3))


def test_a_convolution_of_another_layout_is_refused():
    def channels_first(_, x):
        return jax.lax.conv_general_dilated(x, jnp.ones((2, 4, 1, 1)), (1, 1), "VALID")

    with pytest.raises(GraphError, match=r"no rule for lhs_spec .*rhs_spec .*out_spec .*: only for images"):
        in_graph(channels_first, ONE, normal(2, 4, 6, 3))


def mixer_graph(name):
    """The operations of a Mixer, with variables of its arrays' shapes, and their number."""
    handle = TESTING_HANDLES.get(name) or HANDLES[name]
    params = jax.tree.map(tf.Variable, nest({key: np.zeros(shape, np.float32) for key, shape in handle.arrays.items()}))
    size = handle.checkpoint.architecture.image_size
    function = graph_function(handle)
    found = operations(lambda x: function(params, x), tf.TensorSpec([None, size, size, 3]))
    return found, handle.checkpoint.architecture.num_blocks


@pytest.mark.parametrize("name", TESTING_HANDLES)
def test_a_mixer_is_written_as_optimisers_like_it(name):
    found, blocks = mixer_graph(name)
    head = name.endswith("classification")
    assert found["MatMul"] == 4 * blocks + head
    assert found["BiasAdd"] == 4 * blocks + head + 1
    assert found["Conv2D"] == 1
    assert found["Transpose"] == 2 * blocks
    assert not {"XlaCallModule", "Einsum", "BatchMatMulV2", "BroadcastTo", "Pow", "Transpose:"} & found.keys()


@pytest.mark.parametrize("name", TESTING_HANDLES)
def test_the_mixers_primitives_are_those_known(name, monkeypatch):
    used = set()
    rules = {key: (lambda *a, key=key, rule=rule: used.add(key) or rule(*a)) for key, rule in RULES.items()}
    monkeypatch.setattr(module, "RULES", rules)
    mixer_graph(name)
    assert used == MIXER_PRIMITIVES


def test_gelu_ends_as_tensorflows_own_does():
    """That is, `(0.5 x) (1 + tanh(...))` right after the bias: what TensorFlow fuses with the product before it."""
    params = {"kernel": normal(6, 8), "bias": normal(8)}

    def apply(params, x):
        return nn.gelu(x @ params["kernel"] + params["bias"], approximate=True)

    variables, function = as_variables(params), to_graph(apply)
    graph = tf.function(lambda x: function(variables, x), autograph=False)
    definition = graph.get_concrete_function(tf.TensorSpec([None, 5, 6])).graph.as_graph_def()
    nodes = {node.name: node for node in definition.node}

    def sources(name):
        return [nodes[source.split(":")[0]] for source in nodes[name].input]

    products = [node.name for node in definition.node if node.op == "Mul"]
    kinds = {name: sorted(one.op for one in sources(name)) for name in products}
    (last,) = [name for name in products if kinds[name] == ["AddV2", "Mul"] and kinds.get(sources(name)[0].name)]
    halved = next(one.name for one in sources(last) if one.op == "Mul")
    one_more = next(one.name for one in sources(last) if one.op == "AddV2")
    assert kinds[halved] == ["BiasAdd", "Const"]
    assert sorted(one.op for one in sources(one_more)) == ["Const", "Tanh"]
