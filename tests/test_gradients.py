"""Gradients through the SavedModel against JAX's: what is right passes, and each way to be wrong is named."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import tensorflow as tf
from mutations import Bench
from writing import write_saved_model

from models.catalog import TESTING_HANDLES
from models.records.tolerances import TOLERANCES
from validation.memory import release
from validation.parity.gradients import JaxGradients
from validation.parity.images import Inputs

HANDLE, FEATURES = TESTING_HANDLES.values()
SIZE = HANDLE.checkpoint.architecture.image_size
INPUTS = Inputs.gate(SIZE)
LIMIT = TOLERANCES["gradient_relative"].limit


@pytest.fixture(scope="module")
def benches(tiny_source):
    return {handle: Bench.of(handle, tiny_source / handle.checkpoint.object) for handle in (HANDLE, FEATURES)}


@pytest.fixture
def bench(benches):
    return benches[HANDLE]


@pytest.fixture
def check(bench, tmp_path):
    """Write a function of the right parameters as a SavedModel, load it, let it be changed, and check its gradients."""

    def write_and_check(function, change=lambda model: None):
        write_saved_model(function, bench.params, tmp_path, image_size=SIZE)
        return examine(tmp_path, bench, change)

    return write_and_check


@pytest.fixture(scope="module")
def right(benches, tiny_build):
    """What the check finds in the right classifier."""
    return examine(tiny_build / HANDLE.name / "2", benches[HANDLE]).found


@dataclass
class Result:
    found: object
    problems: list


def examine(directory, bench, change=lambda model: None):
    model = tf.saved_model.load(str(directory))
    change(model)
    try:
        expected = JaxGradients.compute(bench.handle, bench.params, INPUTS, bench.reference.features)
        found = expected.compare(model, bench.handle)
    finally:
        release(model)
    return Result(found, problems_of(found))


def problems_of(found):
    return [problem for check in found.checks for problem in check.problems]


@pytest.mark.parametrize(
    "handle",
    [
        pytest.param(handle, id=name, marks=[pytest.mark.whole] if handle.head == "fe" else [])
        for name, handle in TESTING_HANDLES.items()
    ],
)
def test_the_right_model_has_jaxs_gradients(handle, benches, tiny_build):
    result = examine(tiny_build / handle.name / "2", benches[handle])
    assert result.problems == []
    found = result.found
    assert found.inputs == INPUTS.names
    assert found.compared == len(handle.arrays)
    assert found.missing == ()
    assert found.worst_variable in handle.arrays
    assert 0 < found.worst_relative < LIMIT / 5
    assert 0 < found.input_relative < LIMIT / 5
    assert found.step_change > 1e-3
    assert 0 < found.step_relative < TOLERANCES["step_relative"].limit / 3


def test_a_model_saved_without_gradients_cannot_be_checked(bench, tmp_path):
    bench.write(tmp_path)
    with pytest.raises(LookupError, match="explicitly"):
        examine(tmp_path, bench)


@pytest.mark.parametrize(
    "factor", [*(pytest.param(factor, marks=pytest.mark.whole) for factor in (2.0, -1.0)), 1.001, 0.0]
)
def test_a_gradient_that_is_off_by_a_factor_is_noticed(factor, bench, check):
    @tf.custom_gradient
    def scale(outputs):
        return outputs, lambda upstream: upstream * factor

    result = check(lambda params, images: scale(bench.right(params, images)))
    assert result.found.worst_relative == pytest.approx(abs(1 - factor), rel=0.02)
    assert result.found.input_relative == pytest.approx(abs(1 - factor), rel=0.02)
    assert result.problems[0] == (
        f"gradient with respect to {result.found.worst_variable} differs by {result.found.worst_relative:.3g}, "
        "allowed 0.0001"
    )
    assert result.problems[1].startswith("gradient with respect to the images differs by ")
    assert any("outputs after an SGD step differ" in problem for problem in result.problems)


@pytest.mark.parametrize("name", ["MixerBlock_1/channel_mixing/Dense_0/kernel", "stem/bias"])
def test_the_variable_whose_gradient_is_off_is_named(name, bench, check):
    @tf.custom_gradient
    def halve(value):
        return tf.identity(value), lambda upstream: upstream / 2

    def function(params, images):
        return bench.right(changed(params, name, halve), images)

    result = check(function)
    assert result.found.worst_variable == name
    assert result.found.worst_relative == pytest.approx(0.5, rel=1e-3)
    assert result.found.input_relative < LIMIT
    assert result.problems[0].startswith(f"gradient with respect to {name} differs by 0.5, allowed ")


def changed(params, name, change):
    """Return nested parameters with one of them changed."""
    head, _, rest = name.partition("/")
    return {**params, head: changed(params[head], rest, change) if rest else change(params[head])}


def test_a_gradient_by_the_images_that_is_off_is_named(bench, check):
    result = check(lambda params, images: bench.right(params, tf.stop_gradient(images) + images * 0))
    assert result.found.worst_relative < LIMIT
    assert result.problems == ["gradient with respect to the images differs by 1, allowed 0.0001"]


def test_a_gradient_that_is_not_finite_is_infinitely_far(bench, check):
    @tf.custom_gradient
    def spoil(outputs):
        return outputs, lambda upstream: upstream * np.nan

    result = check(lambda params, images: spoil(bench.right(params, images)))
    assert (result.found.worst_relative, result.found.input_relative) == (np.inf, np.inf)
    assert result.found.step_relative == np.inf
    assert any("by inf, allowed 0.0001" in problem for problem in result.problems)


def test_a_variable_without_a_gradient_is_named(bench, check):
    def function(params, images):
        return bench.right(changed(params, "head/bias", tf.stop_gradient), images)

    result = check(function)
    assert result.found.missing == ("head/bias",)
    assert result.problems == ["no gradient for 1 variable: head/bias", "29 gradients compared, expected 30"]


def test_a_variable_that_nothing_depends_on_is_named(bench, tiny_build):
    def add_a_variable(model):
        model.trainable_variables = [*model.trainable_variables, tf.Variable(1.0, name="idle")]

    result = examine(tiny_build / HANDLE.name / "2", bench, add_a_variable)
    assert result.found.missing == ("idle",)
    assert result.problems == ["no gradient for 1 variable: idle"]


def test_many_variables_without_a_gradient_are_counted(bench, tiny_build):
    def add_variables(model):
        model.trainable_variables = [*model.trainable_variables, *(tf.Variable(1.0, name=f"v{i}") for i in range(7))]

    assert examine(tiny_build / HANDLE.name / "2", bench, add_variables).problems == [
        "no gradient for 7 variables: v0, v1, v2, v3, v4"
    ]


def test_frozen_variables_are_not_all(bench, tiny_build):
    def freeze(model):
        model.trainable_variables = list(model.trainable_variables)[-2:]

    result = examine(tiny_build / HANDLE.name / "2", bench, freeze)
    assert result.found.compared == 2
    assert result.problems[0] == "2 gradients compared, expected 30"
    assert any(problem.startswith("outputs after an SGD step differ") for problem in result.problems)


def test_a_model_with_nothing_to_train_is_no_match(bench, tiny_build):
    def freeze(model):
        model.trainable_variables = []

    result = examine(tiny_build / HANDLE.name / "2", bench, freeze)
    assert (result.found.worst_variable, result.found.worst_relative) == (None, np.inf)
    assert result.problems[0] == "0 gradients compared, expected 30"
    assert "gradient with respect to None differs by inf, allowed 0.0001" in result.problems


def test_a_step_that_moves_nothing_proves_nothing(right):
    still = replace(right, step_change=1e-6)
    assert not still.checks[-1].has_power
    assert problems_of(still) == ["an SGD step moves the outputs only by 1e-06: nothing was trained"]


@pytest.mark.parametrize("name", ["worst_relative", "input_relative", "step_relative"])
@pytest.mark.parametrize("value", [np.inf, np.nan, 2e-4])
def test_each_figure_has_its_limit(name, value, right):
    (problem,) = problems_of(replace(right, **{name: value}))
    assert f" by {value:.3g}, allowed 0.0001" in problem
