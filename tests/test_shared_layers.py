"""A layer of the graph flavour: one function, called for each, which TensorFlow keeps as one and converters do not."""

from collections import Counter
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from convert.flavours.graph import to_graph
from convert.flavours.shared_layers import IMPLEMENTS
from models.params import flatten, nest

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (3, 5, 6, 8)).astype(np.float32)


class Layer(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        y = nn.gelu(nn.Dense(self.width)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(y)


class Network(nn.Module):
    depth: int
    layer: type[nn.Module] = Layer
    widths: tuple[int, ...] = (16,)

    @nn.compact
    def __call__(self, x):
        for index in range(self.depth):
            x = self.layer(self.widths[index % len(self.widths)], name=f"layer_{index}")(x)
        return x.mean(axis=(1, 2))


def network(depth, *, once=True, widths=(16,)):
    """An apply function, whose layers JAX traces once or one by one, and its parameters."""
    model = Network(depth, nn.jit(Layer) if once else Layer, widths)
    made = jax.eval_shape(Network(depth, widths=widths).init, jax.random.key(0), IMAGES)["params"]
    params = nest({name: RNG.normal(size=value.shape).astype(np.float32) for name, value in flatten(made).items()})
    return (lambda params, images: model.apply({"params": params}, images)), params


def traced(apply, params, batch=None):
    variables, function = jax.tree.map(tf.Variable, params), to_graph(apply)
    spec = tf.TensorSpec((batch, *IMAGES.shape[1:]), tf.float32)
    concrete = tf.function(lambda x: function(variables, x), autograph=False).get_concrete_function(spec)
    return concrete, variables


def layers_of(concrete):
    return [one for one in concrete.graph.as_graph_def().library.function if IMPLEMENTS in one.attr]


def calls_in(definition):
    return Counter(node.op for node in definition.node)["PartitionedCall"]


def calls_left(concrete):
    """How many calls TensorFlow has left when it runs a function."""
    with context.collect_graphs(optimized=True) as graphs:
        concrete(tf.constant(IMAGES))
    return max(map(calls_in, graphs))


@pytest.mark.parametrize("depth", [2, 5])
def test_a_layer_is_written_once_however_many_there_are(depth):
    concrete, _ = traced(*network(depth))
    definition = concrete.graph.as_graph_def()
    assert len(definition.library.function) == 1
    assert calls_in(definition) == depth
    shallow, _ = traced(*network(1))
    assert layers_of(shallow)[0].node_def == layers_of(concrete)[0].node_def


def test_layers_of_other_shapes_are_other_functions_and_implement_other_things():
    concrete, _ = traced(*network(4, widths=(16, 24)))
    names = [one.attr[IMPLEMENTS].s for one in layers_of(concrete)]
    assert len(names) == len(set(names)) == 2
    assert b"(None, 5, 6, 8)" in names[0]


def test_small_functions_of_jax_are_written_into_their_place():
    small = jax.jit(lambda x: x * 2 + 1)
    concrete, _ = traced(lambda _, x: small(small(x)).mean(axis=(1, 2)), {"w": np.float32(1)})
    assert not concrete.graph.as_graph_def().library.function


@pytest.mark.parametrize("batch", [None, 3])
def test_what_layers_compute_and_their_gradients_are_those_of_one_graph(batch):
    once, params = network(3)
    apart, _ = network(3, once=False)
    found = []
    for apply in (once, apart):
        concrete, variables = traced(apply, params, batch)
        leaves = jax.tree.leaves(variables)
        with tf.GradientTape() as tape:
            outputs = concrete(tf.constant(IMAGES))
            loss = tf.reduce_sum(tf.square(outputs))
        found.append((outputs.numpy(), [gradient.numpy() for gradient in tape.gradient(loss, leaves)]))
    (outputs, gradients), (plain_outputs, plain_gradients) = found
    np.testing.assert_array_equal(outputs, plain_outputs)
    largest = max(np.abs(gradient).max() for gradient in plain_gradients)
    for gradient, plain in zip(gradients, plain_gradients, strict=True):
        np.testing.assert_allclose(gradient, plain, rtol=0, atol=1e-5 * largest)
    expected = jax.jit(jax.grad(lambda params: jnp.sum(apart(params, IMAGES) ** 2)))(params)
    for gradient, wanted in zip(gradients, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-5 * largest)


def test_tensorflow_keeps_the_calls_when_it_runs():
    concrete, variables = traced(*network(4))
    assert variables  # which have to live as long as they are read
    assert calls_left(concrete) == 4


def test_without_the_mark_tensorflow_would_write_layers_out_again(monkeypatch):
    def unmarked(function, **_):
        return tf.function(function, autograph=False)

    plain = SimpleNamespace(**(vars(tf) | {"function": unmarked}))
    monkeypatch.setattr("convert.flavours.shared_layers.tf", plain)
    concrete, variables = traced(*network(4))
    assert variables
    assert calls_in(concrete.graph.as_graph_def()) == 4
    assert calls_left(concrete) == 0


def test_converters_do_not_keep_the_calls():
    """Freezing and inlining, as tf2onnx does it; TensorFlow Lite and OpenVINO are in the tests of the formats."""
    concrete, variables = traced(*network(4))
    assert variables  # which have to live as long as they are read
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True)
    assert calls_in(frozen.graph.as_graph_def()) == 0
    assert Counter(node.op for node in frozen.graph.as_graph_def().node)["MatMul"] == 8


def test_the_threshold_is_that_of_equations(monkeypatch):
    monkeypatch.setattr("convert.flavours.shared_layers.WORTH_A_FUNCTION", 1000)
    concrete, _ = traced(*network(3))
    assert not layers_of(concrete)
