"""The image whose first two classes are as close as can be."""

import numpy as np
import pytest

from convert.checkpoints.reader import load_checkpoint
from models.catalog import TESTING_HANDLES
from validation.parity.images import Inputs
from validation.parity.near_tie import POINTS, ROUNDS, find_near_tie
from validation.parity.reference import apply_both

CHECKPOINT = next(iter(TESTING_HANDLES.values())).checkpoint
SIZE = CHECKPOINT.architecture.image_size


@pytest.fixture(scope="module")
def logits_of(tiny_source):
    path = tiny_source / CHECKPOINT.object
    params = load_checkpoint(path, CHECKPOINT.architecture, num_classes=CHECKPOINT.num_classes).params
    return lambda images: apply_both(CHECKPOINT, params, images)[0]


def gaps(logits):
    first, second = np.sort(logits, axis=1)[:, :-3:-1].T
    return (first - second) / logits.std(axis=1)


@pytest.mark.parametrize("inputs", [Inputs.gate(SIZE), Inputs.full(SIZE)], ids=["gate", "full"])
def test_the_two_largest_logits_are_far_closer_than_those_of_the_inputs(inputs, logits_of):
    found = find_near_tie(logits_of, inputs)
    gap = gaps(logits_of(found.images))[0]
    assert gap < gaps(logits_of(inputs.images)).min() / 50
    assert gap < 1e-3


def test_it_is_one_image_of_the_kind_of_the_others(logits_of):
    inputs = Inputs.full(SIZE)
    found = find_near_tie(logits_of, inputs)
    assert found.names == ("near tie",)
    assert found.images.shape == (1, SIZE, SIZE, 3)
    assert found.images.dtype == np.float32
    assert np.abs(found.images).max() <= 1
    together = inputs + found
    assert together.names == (*inputs.names, "near tie")
    assert together.images.shape == (len(inputs.names) + 1, SIZE, SIZE, 3)


def test_it_is_the_same_each_time(logits_of):
    first, second = (find_near_tie(logits_of, Inputs.full(SIZE)) for _ in range(2))
    assert first.sha256 == second.sha256


def test_the_model_is_called_with_as_many_images_each_time(logits_of):
    """One compilation is enough."""
    seen = []

    def count(images):
        seen.append(images.shape)
        return logits_of(images)

    find_near_tie(count, Inputs.gate(SIZE))
    assert set(seen) == {(POINTS, SIZE, SIZE, 3)}
    assert len(seen) == ROUNDS


def test_the_best_point_of_a_line_is_found():
    """Between two images whose first classes differ, where both logits are equal."""
    ends = np.stack([np.full((1, 1, 3), -1), np.full((1, 1, 3), 1)]).astype(np.float32)

    def logits_of(images):
        value = images[:, 0, 0, 0]
        return np.stack([0.37 - value, value - 0.37, np.full(len(value), -9)], axis=1).astype(np.float32)

    found = find_near_tie(logits_of, Inputs(("left", "right"), ends)).images
    assert abs(float(found[0, 0, 0, 0]) - 0.37) < 1e-5


@pytest.mark.parametrize("tie", [0.001, 0.5, 0.9999])
def test_logits_that_bend_are_no_hindrance(tie):
    ends = np.stack([np.zeros((1, 1, 3)), np.ones((1, 1, 3))]).astype(np.float32)

    def logits_of(images):
        value = images[:, 0, 0, 0].astype(np.float64)
        return np.stack([np.exp(5 * tie) - np.exp(5 * value), np.zeros(len(value))], axis=1).astype(np.float32)

    found = find_near_tie(logits_of, Inputs(("left", "right"), ends)).images
    assert found[0, 0, 0, 0] == pytest.approx(tie, abs=2e-4)


def test_a_line_without_a_change_of_class_is_left_for_the_next():
    images = np.stack([np.full((1, 1, 3), value) for value in (0.0, 0.5, -1.0, 1.0)]).astype(np.float32)
    ends = []

    def logits_of(batch):
        ends.append(float(batch[-1, 0, 0, 0]))
        value = batch[:, 0, 0, 0]
        return np.stack([value + np.float32(0.25), np.zeros(len(value))], axis=1).astype(np.float32)

    found = find_near_tie(logits_of, Inputs(tuple("abcd"), images)).images
    assert found[0, 0, 0, 0] == pytest.approx(-0.25, abs=1e-5)
    assert ends[:2] == [1.0, -1.0]
    assert len(ends) == 1 + ROUNDS


def test_without_any_change_of_class_the_smallest_gap_is_taken():
    ends = np.stack([np.zeros((1, 1, 3)), np.ones((1, 1, 3)), -np.ones((1, 1, 3))]).astype(np.float32)
    shares = np.linspace(0, 1, POINTS)

    def logits_of(images):
        gap = 0.1 + np.abs(images[:, 0, 0, 0] - shares[3])
        return np.stack([gap, np.zeros(len(gap))], axis=1).astype(np.float32)

    found = find_near_tie(logits_of, Inputs(("middle", "right", "left"), ends)).images
    assert found[0, 0, 0, 0] == pytest.approx(shares[3], abs=1e-6)
