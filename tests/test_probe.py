"""Probing heads and stems: what they are made of, and that every feature is seen."""

import numpy as np
import pytest
import tensorflow as tf

from validation.parity.probe import BIAS, COLUMNS, ProbingHead, assign, probing_stem_bias

FEATURES = np.random.default_rng(0).standard_normal((2, 48)).astype(np.float32)


@pytest.mark.parametrize(
    ("outputs", "rounds"), [(1, 32), (2, 16), (10, 4), (31, 2), (32, 1), (47, 1), (48, 1), (1000, 1)]
)
def test_enough_columns_are_seen_through_heads_of_the_models_size(outputs, rounds):
    probe = ProbingHead.of(48, outputs)
    assert len(probe.heads) == rounds
    assert {(head["kernel"].shape, head["bias"].shape) for head in probe.heads} == {((48, outputs), (outputs,))}
    assert probe.whole["bias"].size == rounds * outputs >= COLUMNS
    assert {array.dtype for head in probe.heads for array in head.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("outputs", [1, 10, 47])
def test_few_outputs_are_sums_of_all_features_with_signs_of_their_own(outputs):
    kernel = ProbingHead.of(48, outputs).whole["kernel"]
    np.testing.assert_allclose(np.abs(kernel), 1 / np.sqrt(48), rtol=1e-6)
    assert len({column.tobytes() for column in kernel.T}) == kernel.shape[1]


@pytest.mark.parametrize("outputs", [48, 100])
def test_many_outputs_are_each_a_feature_or_its_negative(outputs):
    kernel = ProbingHead.of(48, outputs).whole["kernel"]
    assert (np.abs(kernel).sum(axis=0) == 1).all()
    assert (np.abs(kernel).sum(axis=1) >= 1).all(), "every feature is seen"
    assert {*kernel[kernel != 0]} == {-1, 1}


@pytest.mark.parametrize("outputs", [1, 10, 100])
def test_what_comes_out_is_what_the_heads_make_of_features(outputs):
    probe = ProbingHead.of(48, outputs)
    each = [FEATURES.astype(np.float64) @ head["kernel"] + BIAS for head in probe.heads]
    np.testing.assert_allclose(probe.outputs(FEATURES), np.concatenate(each, axis=1), rtol=1e-12)
    assert probe.outputs(FEATURES).dtype == np.float64


def test_they_are_always_the_same():
    first, second = (ProbingHead.of(48, 10).whole["kernel"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "bias", [FEATURES[0], FEATURES[0] * 1e4 + 1e5, np.zeros(48, np.float32)], ids=["usual", "large", "0"]
)
def test_a_probing_stem_has_tokens_of_the_variance_of_epsilon(bias):
    probing = probing_stem_bias(bias)
    assert probing.dtype == np.float32
    assert probing.shape == bias.shape
    assert probing.astype(np.float64).var() == pytest.approx(1e-6, rel=1e-3)


def test_variables_are_changed_by_their_names():
    model = tf.train.Checkpoint()
    model.variables = [tf.Variable([1.0, 2.0], name="head/bias"), tf.Variable([3.0], name="stem/bias")]
    assign(model, {"bias": np.array([5, 6], np.float32)}, group="head")
    assert [variable.numpy().tolist() for variable in model.variables] == [[5, 6], [3]]
    with pytest.raises(KeyError, match="head/kernel"):
        assign(model, {"kernel": np.zeros(1, np.float32)}, group="head")
