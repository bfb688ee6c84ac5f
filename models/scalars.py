"""Write scalars for TensorBoard, without TensorBoard: TensorFlow's own `tf.summary.scalar` needs it to be installed."""

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf


class ScalarLog:
    """An events file in a directory that TensorBoard shows (`tensorboard --logdir DIR`)."""

    def __init__(self, directory: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(directory))
        self._metadata = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"})

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write one value for each name, at a step."""
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=self._metadata)
        self._writer.flush()
