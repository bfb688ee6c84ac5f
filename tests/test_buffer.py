"""Memory that checkpoints share, one after the other: never while somebody still reads it."""

import gc

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from convert.checkpoints import buffer as module
from convert.checkpoints.buffer import ALIGNMENT, ReusableBuffer


def filled(room, count, value):
    array = room.array(count)
    array[:] = value
    return array


def address(array):
    return array.ctypes.data


def test_the_same_memory_is_given_again_once_nobody_holds_it():
    room = ReusableBuffer(1 << 12)
    room.reserve(400)
    first = filled(room, 100, 1)
    before = address(first)
    del first
    room.reserve(400)
    assert address(room.array(100)) == before


@pytest.mark.parametrize(
    "hold",
    [
        lambda array: array,
        lambda array: array[3:5],
        lambda array: array.reshape(10, 10).T,
        lambda array: memoryview(array),
        lambda array: tf.experimental.dlpack.from_dlpack(array.__dlpack__()),
        lambda array: jnp.from_dlpack(array),
    ],
    ids=["itself", "a part", "another shape", "its bytes", "TensorFlow's", "JAX's"],
)
def test_memory_that_somebody_holds_is_left_alone(hold):
    room = ReusableBuffer(1 << 12)
    room.reserve(400)
    held = hold(filled(room, 100, 7))
    gc.collect()
    room.reserve(400)
    filled(room, 100, 9)
    assert set(np.asarray(held).reshape(-1).tolist()) == {7.0}


def test_without_counting_who_holds_it_the_next_would_overwrite_it(monkeypatch):
    """Shown to fail."""
    monkeypatch.setattr(module, "_UNUSED", 99)
    room = ReusableBuffer(1 << 12)
    room.reserve(400)
    held = filled(room, 100, 7)
    room.reserve(400)
    filled(room, 100, 9)
    assert set(held.tolist()) == {9.0}


def test_arrays_are_apart_and_aligned():
    room = ReusableBuffer()
    room.reserve(4096)
    arrays = [filled(room, count, count) for count in (1, 17, 5, 100)]
    assert [set(array.tolist()) for array in arrays] == [{1.0}, {17.0}, {5.0}, {100.0}]
    assert all(address(array) % ALIGNMENT == 0 for array in arrays)
    assert all(array.flags.writeable and array.dtype == np.float32 for array in arrays)


def test_what_does_not_fit_gets_memory_of_its_own():
    room = ReusableBuffer()
    room.reserve(64)
    arrays = [filled(room, 16, value) for value in range(8)]
    assert [set(array.tolist()) for array in arrays] == [{float(value)} for value in range(8)]


def test_a_block_that_is_too_small_is_gone_before_the_next_one_comes(monkeypatch):
    room = ReusableBuffer(100)
    alive = []
    real = np.empty

    def empty(size, *arguments):
        alive.append(room._block.size)
        return real(size, *arguments)

    monkeypatch.setattr(module.np, "empty", empty)
    room.reserve(1000)
    assert alive == [100, 0]


@pytest.mark.parametrize("size", [0, 400])
def test_arrays_are_aligned_inside_the_block_and_outside(size):
    room = ReusableBuffer(size)
    room.reserve(size)
    assert [address(room.array(count)) % ALIGNMENT for count in (3, 33, 100)] == [0, 0, 0]
