"""Preprocess the inputs of each signature: check the shape, decode image files.

All operations exist in TensorFlow 2.6.
"""

import tensorflow as tf

from models.resize import crop_as_evaluated


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
    return crop_as_evaluated(pixels, image_size)
