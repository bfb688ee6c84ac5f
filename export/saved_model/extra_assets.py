"""Write `assets.extra/` of a SavedModel, for people and programs that have only the SavedModel.

`model.json` contains the facts that do not depend on when and where the model was made; library versions and the commit
are in the manifest instead, so that equal inputs give equal bytes. The weights' licence and citation are added where
they are known. TensorFlow keeps the folder and does not read it (https://www.tensorflow.org/guide/saved_model).

TensorFlow Serving replays `tf_serving_warmup_requests` before it accepts other requests, so that the first user need
not wait: a file of `PredictionLog` records (https://www.tensorflow.org/tfx/serving/saved_model_warmup), one for each
signature and each batch size in `BATCHES`. All elements of an input are equal, so its record contains the value once.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from models.catalog import LICENSE, Handle
from models.citations import CITATIONS
from models.flavours import FLAVOURS
from models.records.manifest import CheckpointRecord
from models.records.provenance import ROOT
from models.signatures import EXTRAS, MODEL_JSON, SERVING_DEFAULT, WARMUP, Signature

BATCHES = (1, 8)
"""Batch sizes: a single image, and a usual batch of a server. The native flavour compiles again for each batch size."""

GREY = 128


def write_extras(
    directory: Path, handle: Handle, version: int, checkpoint: CheckpointRecord, *, labels: Path | None = None
) -> None:
    """Write `assets.extra/` into the directory of a SavedModel with the class list `labels`.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = directory / EXTRAS
    folder.mkdir()
    (directory / MODEL_JSON).write_text(json.dumps(_facts(handle, version, checkpoint, labels), indent=1) + "\n")
    _write_warmup(directory / WARMUP, handle)
    training = handle.checkpoint.training
    if training.license == LICENSE:
        (folder / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
        (folder / "CITATION.bib").write_text("\n".join(CITATIONS[paper] for paper in training.papers))


def _facts(handle: Handle, version: int, checkpoint: CheckpointRecord, labels: Path | None) -> dict[str, Any]:
    """Return the contents of `model.json`: what a consumer needs to know about a model."""
    architecture, training, flavour = (
        handle.checkpoint.architecture,
        handle.checkpoint.training,
        FLAVOURS[handle.flavour],
    )
    signatures = {signature.name: signature.facts(handle) for signature in Signature.all_of(handle)}
    default = signatures[SERVING_DEFAULT]
    return {
        "schema_version": 1,
        "handle": handle.name,
        "version": version,
        "flavour": {"name": flavour.name, "what": flavour.what},
        "tensorflow": {"lowest": flavour.lowest, "highest_proven": flavour.highest, "platforms": flavour.platforms},
        "architecture": f"Mixer {architecture.name}",
        "parameters": handle.parameters,
        "trained_on": training.data,
        "method": training.method,
        "input": {**default["input"], "range": [-1, 1]},
        "output": {**default["output"], "classes": f"assets/{labels.name}" if labels else None},
        "signatures": signatures,
        "checkpoint": {"object": checkpoint.object, "sha256": checkpoint.sha256, "origin": checkpoint.origin},
        "license": training.license,
        "papers": list(training.papers),
    }


def _write_warmup(path: Path, handle: Handle) -> None:
    records = [_request(handle, signature, batch) for signature in Signature.all_of(handle) for batch in BATCHES]
    with tf.io.TFRecordWriter(str(path)) as writer:
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
