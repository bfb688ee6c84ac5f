"""Preprocess the inputs of each signature: check the shape, scale pixels, decode image files.

All operations exist in TensorFlow 2.6.
"""

import tensorflow as tf

from models.preprocessing import HALF_RANGE, Evaluation


def checked(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Return images after checking their shape when the model runs.

    TensorFlow itself accepts any height and width for a signature, and neither flavour rejects an empty batch.
    """
    shape = (image_size, image_size, 3)
    found = tf.shape(images)
    sizes = tf.concat([found, [0] * 5], 0)[:5]  # five entries for every rank
    right = tf.logical_and(tf.reduce_all(tf.equal(sizes[1:], [*shape, 0])), sizes[0] > 0)
    expected = f"expected images of shape [batch, {', '.join(map(str, shape))}], at least one, but found the shape"
    with tf.control_dependencies([tf.debugging.Assert(right, [expected, found], summarize=8)]):
        return tf.identity(images)


def scaled(pixels: tf.Tensor) -> tf.Tensor:
    """Return pixels from 0 to 255, of any numeric dtype, as float32 from -1 to 1."""
    return (tf.cast(pixels, tf.float32) - HALF_RANGE) / HALF_RANGE


def decoded(image_bytes: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode images `[batch]` to pixels `[batch, image_size, image_size, 3]`, uint8, RGB, as in the paper's evaluation.

    A file that is not an image fails the whole call, with TensorFlow's own error.
    """
    return tf.map_fn(
        lambda one: _decode(one, image_size),
        image_bytes,
        fn_output_signature=tf.TensorSpec([image_size, image_size, 3], tf.uint8),
    )


def _decode(one: tf.Tensor, image_size: int) -> tf.Tensor:
    pixels = tf.io.decode_image(one, channels=3, expand_animations=False)
    pixels.set_shape([None, None, 3])
    resized = tf.image.resize(pixels, _evaluation_size(tf.shape(pixels), image_size), method="area", antialias=False)
    return tf.cast(_middle(resized, image_size), tf.uint8)


def _evaluation_size(shape: tf.Tensor, image_size: int) -> tf.Tensor:
    """Return height and width after resizing for the evaluation; halves are rounded to the nearest even number."""
    sides = tf.cast(shape[:2], tf.float32)
    ratio = Evaluation(image_size).smaller_side / tf.reduce_min(sides)
    return tf.cast(tf.round(sides * ratio), tf.int32)


def _middle(pixels: tf.Tensor, image_size: int) -> tf.Tensor:
    corner = (tf.shape(pixels)[:2] - image_size) // 2
    return tf.slice(pixels, [corner[0], corner[1], 0], [image_size, image_size, 3])
