"""The scale that differences are measured by: the outputs' own spread, or what keeps it from vanishing."""

import numpy as np
import pytest

from validation.parity.scale import Scale

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((3, 64))
KERNEL = RANDOM.standard_normal((64, 200)).astype(np.float32) / 8


def scale_of(kernel, bias=None, features=FEATURES):
    head = {"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32) if bias is None else bias}
    outputs = features @ head["kernel"] + head["bias"]
    return outputs, Scale.measure(outputs, features, head)


def test_of_a_usual_head_it_is_the_spread_of_the_outputs():
    outputs, scale = scale_of(KERNEL)
    np.testing.assert_allclose(scale.of, outputs.std(axis=1))
    assert (scale.power == 1).all()
    assert scale.turns.all()
    np.testing.assert_array_equal(scale.unit, np.spacing(np.abs(outputs).max(axis=1).astype(np.float32)))


def test_of_features_it_is_their_spread():
    scale = Scale.measure(FEATURES, FEATURES, None)
    np.testing.assert_allclose(scale.of, FEATURES.std(axis=1))
    assert (scale.power == 1).all()


def test_of_one_output_it_is_half_of_what_the_head_makes_of_such_features():
    _, scale = scale_of(KERNEL[:, :1])
    np.testing.assert_allclose(scale.of, FEATURES.std(axis=1) * np.linalg.norm(KERNEL[:, 0]) / 2, rtol=1e-6)
    assert (scale.power == 1).all()
    assert not scale.turns.any()


def test_outputs_that_are_nearly_the_same_do_not_make_it_vanish():
    pair = KERNEL[:, :1] * np.array([1, 1.01], np.float32)
    outputs, scale = scale_of(pair)
    norm = np.sqrt(np.square(pair).sum() / 2)
    np.testing.assert_allclose(scale.of, FEATURES.std(axis=1) * norm / 2, rtol=1e-6)
    assert (scale.of > 10 * outputs.std(axis=1)).any()
    assert not scale.turns.any()


@pytest.mark.parametrize("bias", [1e3, 1e6])
def test_a_shared_bias_takes_the_power(bias):
    _, scale = scale_of(KERNEL, np.full(200, bias, np.float32))
    np.testing.assert_allclose(scale.of, bias / 10)
    assert (scale.power < 0.02).all()


@pytest.mark.parametrize("bias", [(0, -1e4), (3e3, -3e3)], ids=["a masked class", "biases far apart"])
def test_biases_that_differ_take_the_power(bias):
    """The outputs' spread is theirs, whatever the image."""
    outputs, scale = scale_of(KERNEL[:, :2], np.array(bias, np.float32))
    assert (scale.of >= outputs.std(axis=1)).all()
    assert (scale.power < 0.02).all()


def test_terms_that_cancel_take_the_power():
    features = np.tile([1e4, -1e4], (3, 32)) + FEATURES
    kernel = np.repeat(KERNEL[::2], 2, axis=0)
    outputs, scale = scale_of(kernel, features=features)
    assert (scale.of > 100 * outputs.std(axis=1)).all()
    sums = np.abs(features) @ np.abs(kernel.astype(np.float64))
    assert (scale.of >= 0.01 * sums.max(axis=1)).all()


def test_it_follows_the_size_of_the_head():
    _, scale = scale_of(KERNEL)
    _, tiny = scale_of(KERNEL * np.float32(1e-12))
    np.testing.assert_allclose(tiny.of, scale.of * 1e-12, rtol=1e-6)
    np.testing.assert_allclose(tiny.power, scale.power)


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_a_head_of_zeros_has_no_power_and_allows_nothing(bias):
    _, scale = scale_of(np.zeros((64, 2), np.float32), np.array([bias, 1], np.float32))
    assert (scale.power == 0).all()
    assert (scale.of == np.finfo(np.float64).tiny).all()


def test_a_head_of_zeros_allows_the_rounding_of_its_bias_where_weights_are_rounded():
    head = {"kernel": np.zeros((64, 2), np.float32), "bias": np.array([-3, 1], np.float32)}
    scale = Scale.measure(np.tile(head["bias"], (3, 1)), FEATURES, head, exact=False)
    assert (scale.power == 0).all()
    np.testing.assert_allclose(scale.of, 0.3)


def test_outputs_that_are_the_same_for_all_images_have_no_power():
    same = np.repeat(FEATURES[:1], 3, axis=0)
    assert (Scale.measure(same, same, None).power < 1e-4).all()
    assert (Scale.measure(same + 1e-5 * FEATURES, same, None).power < 1e-4).all()
    assert (Scale.measure(same + 1e-2 * FEATURES, same, None).power == 1).all()
    assert (Scale.measure(same[:1], same[:1], None).power == 1).all(), "of one image alone nothing is known"


def test_what_is_no_number_has_no_power():
    features = FEATURES.copy()
    features[1, 2] = np.nan
    scale = Scale.measure(features, features, None)
    assert scale.power[1] == 0
    assert np.isnan(scale.of[1])


def test_rows_are_taken_together():
    _, scale = scale_of(KERNEL)
    some = scale[np.array([2, 0])]
    np.testing.assert_array_equal(some.of, scale.of[[2, 0]])
    np.testing.assert_array_equal(some.turns, scale.turns[[2, 0]])


def test_a_large_head_is_reckoned_in_parts():
    """21,843 columns in float64 would take as much memory as the model."""
    wide = np.tile(KERNEL, (1, 50))[:, :9000]
    _, scale = scale_of(wide)
    _, narrow = scale_of(KERNEL)
    np.testing.assert_allclose(scale.of, narrow.of)
