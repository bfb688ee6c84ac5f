"""The outputs of an image may not depend on the others of its batch."""

import numpy as np
import pytest

from models.records.tolerances import TOLERANCES
from validation.parity.outputs import Expected
from validation.parity.scale import Scale

NAMES = ("a", "b", "c")
OUTPUTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
LIMIT = TOLERANCES["batch_relative"].limit


def expected(power=1.0):
    ones = np.ones(3)
    return Expected(NAMES, OUTPUTS, {}, True, Scale(2 * ones, power * ones, ones, ones > 0))


def batches(*added):
    rows = [(("a", "b", "c"), OUTPUTS), (("b",), OUTPUTS[1:2]), (("c", "a"), OUTPUTS[[2, 0]])]
    return [(names, outputs + np.float32(more)) for (names, outputs), more in zip(rows, added, strict=True)]


def test_equal_outputs_pass():
    (check,) = expected().check_batching(batches(0, 0, 0))
    assert (check.name, check.measured, check.limit, check.problems) == ("batch_relative", 0, LIMIT, ())
    assert check.on == "a, b, c in different batches"


def test_the_worst_image_counts_over_its_scale():
    (check,) = expected().check_batching(batches(0, 1, 0))
    assert check.measured == pytest.approx(0.5)
    assert check.problems == (f"a, b, c in different batches: batch_relative 0.5 is over {LIMIT:g}",)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_infinitely_far(value):
    (check,) = expected().check_batching(batches(0, value, 0))
    assert check.measured == np.inf
    assert check.problems


def test_images_of_one_batch_only_say_nothing():
    assert list(expected().check_batching([(NAMES, OUTPUTS)])) == []


def test_without_power_it_counts_for_nothing():
    (check,) = expected(power=0.1).check_batching(batches(0, 0, 0))
    assert not check.has_power
