"""Write warm-up requests, which TensorFlow Serving runs before it accepts others, so that the first user need not wait.

TensorFlow Serving replays `assets.extra/tf_serving_warmup_requests`, a file of `PredictionLog` records
(https://www.tensorflow.org/tfx/serving/saved_model_warmup): one for each signature and each batch size in `BATCHES`.
All elements of an input are equal, so its record contains the value once.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from models.catalog import Handle
from models.signatures import Signature, signatures_of

FILE = "tf_serving_warmup_requests"

BATCHES = (1, 8)
"""Batch sizes: a single image, and a usual batch of a server. The native flavour compiles again for each batch size."""

GREY = 128


def write_warmup(folder: Path, handle: Handle) -> None:
    """Write the requests for a handle's signatures into the folder `assets.extra`.

    Raises:
        OSError: the file cannot be written.
    """
    records = [_request(handle, signature, batch) for signature in signatures_of(handle) for batch in BATCHES]
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for record in records:
            writer.write(record.SerializeToString(deterministic=True))


def _request(handle: Handle, signature: Signature, batch: int) -> Any:  # noqa: ANN401 (its package has no types)
    size = handle.checkpoint.architecture.image_size
    record = PredictionLog()
    request = record.predict_log.request
    request.model_spec.name = handle.name
    request.model_spec.signature_name = signature.name
    tensor = request.inputs[signature.input_name]
    tensor.CopyFrom(tf.make_tensor_proto(_value(signature, size), shape=()))
    for length in (batch, *signature.input_shape(size)[1:]):
        tensor.tensor_shape.dim.add().size = length
    return record


@cache
def _value(signature: Signature, image_size: int) -> Any:  # noqa: ANN401 (a number, or the bytes of an image)
    """Return the value of every element of the input: grey, or a grey image encoded as PNG."""
    if signature.dtype == "string":
        return tf.io.encode_png(np.full((image_size, image_size, 3), GREY, np.uint8)).numpy()
    return np.asarray(GREY if signature.dtype == "uint8" else 0, signature.dtype)
