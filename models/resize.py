"""Resize, crop and scale decoded pictures, in operations that exist in TensorFlow 2.6.

The paper's evaluation is that of `big_vision/configs/mlp_mixer_i1k.py`, see `models.preprocessing`.
"""

import tensorflow as tf

from models.preprocessing import HALF_RANGE, Evaluation


def scale(pixels: tf.Tensor) -> tf.Tensor:
    """Return pixels from 0 to 255, of any numeric dtype, as float32 from -1 to 1."""
    return (tf.cast(pixels, tf.float32) - HALF_RANGE) / HALF_RANGE


def crop_as_evaluated(pixels: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resize `[height, width, 3]`, uint8, and crop the middle `[image_size, image_size, 3]`, as the paper evaluates."""
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
