"""Rules of the graph flavour: each gives what its primitive does in JAX, of any dtype and shape, or names itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from convert.flavours.graph import to_graph
from convert.flavours.operand import GraphError
from convert.flavours.primitives import RULES

FLOATS = ("bfloat16", "float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *INTEGERS, "bool")
REFUSED = {
    "neg": INTEGERS[4:], "sign": INTEGERS[4:], "reduce_max": ("bool",), "reduce_min": ("bool",), "tile": ("uint16",),
    "dot_general": ("bool",), "conv_general_dilated": (*INTEGERS, "bool"),
}  # fmt: skip
"""What a rule does not cover, though JAX does."""
TOLERANCES = {"bfloat16": 2e-2, "float16": 4e-3, "float32": 2e-6, "float64": 1e-12}
ENDS = (0, -0.0, 1, 2, 0.5, -1.5, 127, -128.7, 300.7, 7e4, -3e9, 2e19, np.inf, -np.inf, np.nan)
EXAMPLES = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def wide():
    """Let JAX know 64 bits."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def unary(function):
    return lambda draw, rank: function


def binary(function):
    def halves(x):
        half = x.shape[1] // 2
        return function(lax.slice_in_dim(x, 0, half, axis=1), lax.slice_in_dim(x, half, 2 * half, axis=1))

    return unary(halves)


def axis(draw, rank):
    return draw(st.integers(1, rank - 1))


def contraction(draw, rank):
    last = draw(st.booleans())
    batched = draw(st.booleans())
    preferred = draw(st.sampled_from([None, *FLOATS, *INTEGERS]))
    right = np.arange(-6, 6).reshape((4, 3) if last else (3, 4))

    def contract(x):
        if batched:
            dimensions = (((rank - 1,), (rank - 1,)), ((0,), (0,)))
            return lax.dot_general(x, x, dimensions, preferred_element_type=widened(x, preferred))
        other = jnp.asarray(right).astype(x.dtype if preferred is None else draw_other(x))
        dimensions = (((1,), (int(other.shape[0] != x.shape[1]),)), ((), ()))
        return lax.dot_general(x, other, dimensions, preferred_element_type=widened(x, preferred))

    def draw_other(x):
        return {"bfloat16": jnp.float32, "float32": jnp.int8, "int8": jnp.int32}.get(x.dtype.name, x.dtype)

    return contract


def widened(x, preferred):
    """Return a dtype that JAX takes for results, from this one."""
    if preferred is None or np.dtype(x.dtype).kind == "b":
        return None
    is_float = x.dtype.name in FLOATS
    wide = x.dtype.itemsize <= np.dtype(jnp.dtype(preferred)).itemsize
    return preferred if is_float == (preferred in FLOATS) and wide else None


def convolution(draw, rank):
    strides, padding = draw(st.sampled_from([(1, 1), (2, 1), (2, 2)])), draw(st.sampled_from(["VALID", "SAME"]))
    around = draw(st.sampled_from([padding, ((1, 0), (0, 2))]))

    def convolve(x):
        images = x.reshape(x.shape[0], 2, -1, 1)
        kernel = jnp.asarray(np.arange(-4, 4).reshape(2, 2, 1, 2)).astype(x.dtype)
        return lax.conv_general_dilated(images, kernel, strides, around, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return convolve


def cast(draw, rank):
    dtype = draw(st.sampled_from(DTYPES))
    return lambda x: lax.convert_element_type(x, dtype)


def power(draw, rank):
    exponent = draw(st.sampled_from([-3, -1, 0, 1, 2, 5]))
    return lambda x: lax.integer_pow(x, exponent if x.dtype.name in FLOATS else abs(exponent))


def reduction(function):
    return along(lambda x, at: function(x, (at,)))


def along(function):
    """Return the case of a function along an axis that is not the batch."""

    def case(draw, rank):
        at = axis(draw, rank)
        return lambda x: function(x, at)

    return case


def transposition(draw, rank):
    order = draw(st.permutations(range(rank)))
    return lambda x: lax.transpose(x, order)


def repetition(draw, rank):
    count = draw(st.integers(1, 3))
    return lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], count, *x.shape[1:]))


def tile(draw, rank):
    if draw(st.booleans()):
        return lambda x: jnp.tile(jnp.ones((1, 2), x.dtype), (x.shape[0], 1))
    reps = (1, *draw(st.tuples(*[st.integers(1, 3)] * (rank - 1))))
    return lambda x: jnp.tile(x, reps)


def slicing(draw, rank):
    at, start, step = axis(draw, rank), draw(st.integers(0, 1)), draw(st.integers(1, 2))
    return lambda x: lax.slice_in_dim(lax.slice_in_dim(x, start, None, step, axis=at), 0, 1, axis=0)  # of the batch


UNARY = (
    "neg", "sign", "abs", "square", "sqrt", "rsqrt", "exp", "log", "tanh", "logistic", "erf", "erfc", "stop_gradient",
)  # fmt: skip
CASES = {
    **{name: binary(getattr(lax, name)) for name in ("add", "sub", "mul", "div", "max", "min")},
    **{name: unary(getattr(lax, name)) for name in UNARY},
    "integer_pow": power,
    "reduce_sum": reduction(lax.reduce_sum),
    "reduce_max": reduction(lax.reduce_max),
    "reduce_min": reduction(lax.reduce_min),
    "reshape": lambda draw, rank: lambda x: x.reshape(x.shape[0], -1),
    "squeeze": along(lambda x, at: lax.squeeze(lax.slice_in_dim(x, 1, 2, axis=at), (at,))),
    "broadcast_in_dim": repetition,
    "transpose": transposition,
    "concatenate": along(lambda x, at: lax.concatenate([x, x, x], at)),
    "slice": slicing,
    "tile": tile,
    "gather": along(lambda x, at: x[:, 1] if at == 1 else x[:, :, -1]),
    "dot_general": contraction,
    "conv_general_dilated": convolution,
    "convert_element_type": cast,
    "copy": unary(lambda x: jnp.array(x, copy=True)),
}


def test_every_rule_has_a_case():
    assert CASES.keys() == RULES.keys()


@st.composite
def values(draw, name):
    """Values `[2, 4, ...]`, the ends of their range among them; for sums and products small ones."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = (2, 4, *draw(st.sampled_from([(), (3,), (2, 3)])))
    numbers = np.random.default_rng(draw(st.integers(0, 99)))
    kind = np.dtype(jnp.dtype(dtype))
    if dtype == "bool":
        return numbers.integers(0, 2, shape).astype(bool)
    if name in {"reduce_sum", "dot_general", "conv_general_dilated"}:
        return numbers.integers(0, 5, shape).astype(kind)
    if dtype in INTEGERS:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        ends = numbers.choice(np.array([low, high, 0, 1, 2], kind), shape)
        rest = numbers.integers(low, high, shape, dtype=kind, endpoint=True)
    else:
        ends, rest = numbers.choice(ENDS, shape), numbers.normal(size=shape)
    with np.errstate(over="ignore"):
        return np.where(numbers.random(shape) < 0.5, ends, rest).astype(kind)


def in_graph(function, x, *, known_batch):
    written = to_graph(lambda _, x: function(x))
    spec = tf.TensorSpec(x.shape if known_batch else (None, *x.shape[1:]), x.dtype)
    return tf.function(lambda x: written({}, x), input_signature=[spec], autograph=False)(tf.constant(x)).numpy()


def expected_of(function, x):
    """Return JAX's result, or None where JAX takes no such values."""
    try:
        return np.asarray(function(jnp.asarray(x)))
    except TypeError:
        return None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of a cast out of range
@pytest.mark.parametrize("name", CASES)
@EXAMPLES
@given(data=st.data(), known_batch=st.booleans())
def test_a_rule_does_what_its_primitive_does_or_names_itself(name, data, known_batch):
    x = data.draw(values(name))
    function = CASES[name](data.draw, x.ndim)
    expected = expected_of(function, x)
    if expected is None:
        return
    try:
        found = in_graph(function, x, known_batch=known_batch)
    except GraphError as error:
        assert x.dtype.name in REFUSED.get(name, ()), error
        assert name in str(error)
        return
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype.name in TOLERANCES:
        limit = max(TOLERANCES[found.dtype.name], TOLERANCES.get(x.dtype.name, 0))
        found, expected = found.astype(np.float64), expected.astype(np.float64)
        np.testing.assert_allclose(found, expected, rtol=limit, atol=limit * 1e-2, equal_nan=True)
    else:
        np.testing.assert_array_equal(found, expected)


THREE = np.eye(3, dtype=np.float32)
SILENTLY_WRONG_ONCE = {
    "integer quotients": (lambda x: lax.div(x[:, 0], x[:, 1]), np.int32([[5, 2], [5, -2], [5, 0], [-7, 3]])),
    "products in another dtype": (
        lambda x: lax.dot_general(x, x, (((1,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32),
        np.full((1, 4), 1.0078125, jnp.bfloat16),
    ),
    "floats times integers": (
        lambda x: lax.dot_general(x, jnp.asarray(np.arange(4, dtype=np.int32)), (((1,), (0,)), ((), ()))),
        np.float32([[1, 2, 3, 4]]),
    ),
    "casts out of range": (lambda x: x.astype(jnp.uint8), np.float32([[-1, 300, np.nan, 254.9]])),
    "the first of a batch": (lambda x: lax.slice_in_dim(x, 0, 1, axis=0), np.float32([[1], [2]])),
}


@pytest.mark.parametrize("known_batch", [False, True])
@pytest.mark.parametrize("kind", SILENTLY_WRONG_ONCE)
def test_what_was_silently_wrong_once(kind, known_batch):
    function, x = SILENTLY_WRONG_ONCE[kind]
    expected = np.asarray(function(jnp.asarray(x)))
    found = in_graph(function, x, known_batch=known_batch)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: lax.exp(x, accuracy=lax.AccuracyMode.HIGHEST), "exp has no rule for accuracy"),
        (
            lambda x: lax.dot(x, jnp.asarray(THREE), precision="BF16_BF16_F32"),
            "dot_general has no rule for precision",
        ),
        (lambda x: x.at[:, jnp.asarray(5)].get(mode="fill"), "no rule for"),
        (lambda x: lax.slice_in_dim(x, x.shape[0] - 1, x.shape[0], axis=0), "slice has no rule for .* of the batch"),
    ],
    ids=["accuracy", "precision", "fill", "last of the batch"],
)
def test_what_a_rule_does_not_cover_is_named(function, text):
    with pytest.raises(GraphError, match=text):
        in_graph(function, np.ones((2, 3), np.float32), known_batch=False)
