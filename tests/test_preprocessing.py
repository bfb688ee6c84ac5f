"""What stands before the Mixer: pixels scaled, files decoded as in the paper's evaluation."""

import numpy as np
import pytest
import tensorflow as tf

from export.saved_model.preprocessing import checked, decoded
from models.preprocessing import Evaluation
from models.resize import scale
from validation.parity.images import _preprocess, _read_photograph

SIZE = 224
SLACK = 0.01
"""Of 256: the shares of the pixels are summed in float32."""


def png(pixels):
    return tf.io.encode_png(pixels).numpy()


def noise(height, width, channels=3):
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)


def by_area(pixels, height, width):
    """Resize by the share of each pixel that lies under a new one: an own reckoning of the method's definition."""

    def weights(before, after):
        edges = np.arange(after + 1) * (before / after)
        starts = np.arange(before)
        return np.clip(np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts), 0, 1)

    rows, columns = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    summed = np.einsum("hr,rcx,wc->hwx", rows, pixels.astype(np.float64), columns, optimize=True)
    return summed / rows.sum(1)[:, None, None] / columns.sum(1)[None, :, None]


def test_pixels_are_scaled_to_minus_one_and_one():
    expected = np.float32([-1, -0.5 / 127.5, 0.5 / 127.5, 1])
    np.testing.assert_array_equal(scale(tf.constant([0, 127, 128, 255], tf.uint8)), expected)


def test_scaling_is_that_of_the_images_of_the_proof():
    pixels = noise(SIZE, SIZE)
    np.testing.assert_array_equal(scale(tf.constant(pixels)), _preprocess(pixels, SIZE))


@pytest.mark.parametrize("shape", [(256, 256), (256, 300), (411, 256)])
def test_an_image_of_the_evaluations_size_is_only_cropped(shape):
    pixels = noise(*shape)
    top, left = (shape[0] - SIZE) // 2, (shape[1] - SIZE) // 2
    found = decoded(tf.constant([png(pixels)]), SIZE)
    np.testing.assert_array_equal(found[0], pixels[top : top + SIZE, left : left + SIZE])


@pytest.mark.parametrize(("height", "width", "resized"), [(512, 600, (256, 300)), (333, 480, (256, 369))])
def test_other_images_are_resized_by_area_cut_off_and_cropped(height, width, resized):
    pixels = noise(height, width)
    found = decoded(tf.constant([png(pixels)]), SIZE)[0].numpy().astype(int)
    top, left = (resized[0] - SIZE) // 2, (resized[1] - SIZE) // 2
    expected = by_area(pixels, *resized)[top : top + SIZE, left : left + SIZE]
    off = found - expected
    assert off.max() <= SLACK  # cut off, never rounded up
    assert off.min() > -1 - SLACK
    assert np.abs(found - np.round(expected)).max() == 1


def test_a_photograph_comes_out_as_by_tensorflows_own_steps():
    photograph = _read_photograph("rocket.jpg")
    encoded = tf.io.encode_jpeg(photograph, quality=95)
    pixels = tf.io.decode_jpeg(encoded)
    height, width = (round(side * 256 / min(pixels.shape[:2])) for side in pixels.shape[:2])
    resized = tf.cast(tf.image.resize(pixels, (height, width), method="area"), tf.uint8)
    expected = tf.image.crop_to_bounding_box(resized, (height - SIZE) // 2, (width - SIZE) // 2, SIZE, SIZE)
    np.testing.assert_array_equal(decoded(tf.reshape(encoded, [1]), SIZE)[0], expected)


def test_images_of_many_sizes_and_kinds_make_one_batch():
    grey, alpha = noise(300, 260, 1), noise(260, 300, 4)
    found = decoded(tf.constant([png(grey), png(alpha), png(noise(1, 1)), png(alpha[..., :3])]), SIZE)
    assert found.shape == (4, SIZE, SIZE, 3)
    assert found.dtype == tf.uint8
    np.testing.assert_array_equal(found[0, ..., 0], found[0, ..., 1])
    np.testing.assert_array_equal(found[1], found[3])  # transparency is dropped
    assert len(np.unique(found[2].numpy().reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"no image at all", "Unknown image file format"),
        (png(noise(8, 8))[:60], "Invalid PNG data"),
        (tf.io.encode_jpeg(noise(8, 8)).numpy()[:200], "Invalid JPEG data"),
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG"],
)
def test_a_broken_image_fails_the_call_and_says_why(content, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        decoded(tf.constant([png(noise(8, 8)), content]), SIZE)


def test_the_smaller_side_keeps_the_papers_proportion():
    assert Evaluation(224).smaller_side == 256
    assert Evaluation(32).smaller_side == 37
    assert "resized to 256" in Evaluation(224).what


def test_a_wrong_shape_is_refused_when_it_runs():
    assert checked(tf.zeros([2, 4, 4, 3]), 4).shape == (2, 4, 4, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one, but found the shape"):
        checked(tf.zeros([0, 4, 4, 3]), 4)
