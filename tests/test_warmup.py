"""The requests for TensorFlow Serving, replayed as it does."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from export.saved_model.extra_assets import BATCHES
from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from models.signatures import Signature

MODULES = {
    module.name: module
    for handle in TESTING_HANDLES.values()
    for module in (handle.in_flavour("native"), handle.in_flavour("graph"))
}
each_module = pytest.mark.parametrize("name", MODULES)


FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for them."""


def requests_of(directory):
    for record in tf.data.TFRecordDataset(str(directory / FILE)):
        yield PredictionLog.FromString(record.numpy()).predict_log.request


@each_module
def test_each_request_runs_through_the_loaded_signature(tiny_build, name):
    directory = tiny_build / name / str(DEFAULT_VERSION)
    model, handle = tf.saved_model.load(str(directory)), MODULES[name]
    replayed = []
    for request in requests_of(directory):
        assert request.model_spec.name == name
        serve = model.signatures[request.model_spec.signature_name]
        inputs = {key: tf.constant(tf.make_ndarray(tensor)) for key, tensor in request.inputs.items()}
        (batch,) = {tensor.shape[0] for tensor in inputs.values()}
        (outputs,) = serve(**inputs).values()
        assert np.isfinite(outputs).all()
        np.testing.assert_allclose(outputs, np.repeat(outputs[:1], batch, axis=0), atol=1e-5)
        assert outputs.shape[0] == batch
        replayed.append((request.model_spec.signature_name, batch))
    assert replayed == [(signature.name, batch) for signature in Signature.all_of(handle) for batch in BATCHES]


@each_module
def test_the_file_is_small(tiny_build, name):
    size = (tiny_build / name / str(DEFAULT_VERSION) / FILE).stat().st_size
    assert 0 < size < 4096


def test_a_request_with_another_name_of_the_input_would_fail(tiny_build):
    directory = tiny_build / next(iter(MODULES)) / str(DEFAULT_VERSION)
    request = next(requests_of(directory))
    serve = tf.saved_model.load(str(directory)).signatures[request.model_spec.signature_name]
    with pytest.raises(TypeError, match="inputs"):
        serve(pixels=tf.constant(tf.make_ndarray(request.inputs["inputs"])))
