"""Use a Mixer's SavedModel as engineers do who train, distribute and convert it, where importing JAX is an error.

    python uses.py DIRECTORY [options of consumer.py]

It needs `consumer.py` beside it, and nothing else of the project. A use that fails as it is, for reasons of others, is
tried again with a remedy: it is then `remedied`, and the detail says what the remedy is and what was said without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Sequence  # noqa: UP035 (Python 3.8)

import numpy as np

if TYPE_CHECKING:
    from validation import consumer
else:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    consumer = importlib.import_module("consumer")
    del sys.path[0]

REMEDIES = {
    "Adam, exported again": "w._path = w.path.removesuffix(':0') for each weight of the layer, before compile",
    "MirroredStrategy": "drop_remainder=True, so that no replica is left without an image",
    "mixed_float16": 'dtype="float32" on the layer of the model',
    "mixed_bfloat16": 'dtype="float32" on the layer of the model',
    "LiteRT": 'signature_keys=["serving_default"]',
    "tf2onnx": "convert the graph flavour, which has plain operations alone",
}
"""What helps where a use fails as it is."""


class _Model(NamedTuple):
    """A Keras model that ends in a Dense layer, the SavedModel's layer in it, and the same up to that layer."""

    whole: Any
    layer: Any
    features: Any


def _remedied(plain: Callable[[], Any], cured: Callable[[], Any], remedy: str) -> tuple[Any, str]:
    """Return what a use gives and, if it fails as it is, its remedy and what was said without it."""
    try:
        return plain(), ""
    except Exception as error:  # TensorFlow and Keras raise any of a dozen types
        said = consumer.gist(error)
    try:
        return cured(), f"with {remedy}; without: {said}"
    except Exception as error:
        raise AssertionError(f"with {remedy}: {consumer.gist(error)}; without: {said}") from error


def _outcome(detail: str, remedy: str, worst: float | None = None, *, right: bool = True) -> Any:  # noqa: ANN401
    status = "failed" if not right else "remedied" if remedy else "passed"
    return consumer.Outcome("; ".join(filter(None, (detail, remedy))), worst, status)


def _build(on: Any, **options: Any) -> _Model:  # noqa: ANN401
    """Return a Keras model of the SavedModel and two classes, with these options of its layer."""
    keras = importlib.import_module("keras")
    if keras.__version__.startswith("3."):
        layer = keras.layers.TFSMLayer(on.directory, call_endpoint=on.entry, **options)
    else:
        layer = _layer_of_keras_2(on, keras, **options)
    inputs = keras.Input(on.spec.shape[1:])
    outputs = layer(inputs)
    outputs = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs
    head = keras.layers.Dense(2, dtype="float32", kernel_initializer=keras.initializers.RandomNormal(seed=0))
    return _Model(keras.Model(inputs, head(outputs)), layer, keras.Model(inputs, outputs))


def _layer_of_keras_2(on: Any, keras: Any, **options: Any) -> Any:  # noqa: ANN401
    class Mixer(keras.layers.Layer):  # type: ignore[misc]
        """What TensorFlow Hub's layer is, which need not be installed."""

        def __init__(self, **options: Any) -> None:  # noqa: ANN401
            super().__init__(**options)
            self.mixer = on.tf.saved_model.load(on.directory)
            self.variables_of_the_mixer = list(self.mixer.trainable_variables)

        def call(self, images: Any) -> Any:  # noqa: ANN401
            return self.mixer(images)

    return Mixer(**options)


def _fit(model: _Model, optimizer: str, *data: Any) -> str:  # noqa: ANN401
    """Train for one epoch, and return how many of the SavedModel's weights have changed.

    Raises:
        AssertionError: none has, or a weight is not finite any more.
    """
    losses = importlib.import_module("keras").losses
    before = consumer.digests(model.layer)
    model.whole.compile(optimizer, losses.SparseCategoricalCrossentropy(from_logits=True))
    model.whole.fit(*data, epochs=1, verbose=0)
    changed = sum(digest != before[index] for index, digest in enumerate(consumer.digests(model.layer)))
    if not changed or not all(np.isfinite(np.asarray(weight)).all() for weight in model.layer.weights):
        raise AssertionError(f"{changed} of {len(before)} weights changed, and all are to be finite")
    return f"changed {changed} of {len(before)} weights"


def _adam(on: Any) -> Any:  # noqa: ANN401
    """Train with an optimizer that has slots, export, load again, and compare with what was trained."""

    def train(*, cured: bool) -> tuple[_Model, str]:
        model = _build(on)
        for weight in model.layer.weights if cured else ():
            weight._path = re.sub(":0$", "", weight.path)
        return model, _fit(model, "adam", on.images[:2], np.arange(2))

    (model, detail), remedy = _remedied(
        partial(train, cured=False), partial(train, cured=True), REMEDIES["Adam, exported again"]
    )
    trained = model.whole.predict(on.images, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        if hasattr(importlib.import_module("keras"), "ops"):  # Keras 3
            model.whole.export(folder, verbose=False)
        else:
            on.tf.saved_model.save(model.whole, folder)
        again = on.tf.saved_model.load(folder)
        serve = again.signatures["serving_default"]
        (given,) = serve.structured_input_signature[1]
        (found,) = serve(**{given: on.tf.constant(on.images)}).values()
        worst = consumer.distance(found, trained, np.abs(trained).max())
    return _outcome(f"{detail}; exported and loaded again", remedy, worst)


def _mirrored(on: Any) -> Any:  # noqa: ANN401
    """Train under MirroredStrategy on two devices, and compare with training on one."""
    tf = on.tf
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]

    def train(strategy: Any, *, cured: bool) -> tuple[Any, str]:  # noqa: ANN401
        with strategy.scope():
            model = _build(on)
        data = tf.data.Dataset.from_tensor_slices((np.resize(on.images, [3, *on.images.shape[1:]]), [0, 1, 0]))
        detail = _fit(model, "sgd", data.batch(2, drop_remainder=cured))
        return model.whole.predict(on.images[:2], batch_size=2, verbose=0), detail

    strategy = tf.distribute.MirroredStrategy(devices)
    plain, cured = (partial(train, strategy, cured=cured) for cured in (False, True))
    (found, detail), remedy = _remedied(plain, cured, REMEDIES["MirroredStrategy"])
    expected, _ = train(tf.distribute.get_strategy(), cured=bool(remedy))
    worst = consumer.distance(found, expected, np.abs(expected).max())
    return _outcome(f"{detail}, on {len(devices)} devices as on one", remedy, worst, right=len(devices) == 2)


def _mixed_precision(on: Any, *, policy: str) -> Any:  # noqa: ANN401
    """Train under a policy of mixed precision; the SavedModel's own outputs must stay in full precision."""
    mixed_precision = on.tf.keras.mixed_precision  # that of the package keras lacks policies in 2.8

    def train(**options: Any) -> tuple[_Model, str]:  # noqa: ANN401
        model = _build(on, **options)
        worst = on.worst(partial(model.features.predict, verbose=0))
        return worst, _fit(model, "sgd", on.images[:2], np.arange(2))

    mixed_precision.set_global_policy(policy)
    try:
        (worst, detail), remedy = _remedied(train, partial(train, dtype="float32"), REMEDIES[policy])
    finally:
        mixed_precision.set_global_policy("float32")
    return _outcome(detail, remedy, worst)


def _needs_plain_operations(on: Any, error: Exception) -> Any:  # noqa: ANN401
    """Return that a converter refuses a model of the native flavour; raise its error on the other, which it must take.

    Raises:
        Exception: the error.
    """
    if b"XlaCallModule" in Path(on.directory, "saved_model.pb").read_bytes():
        return consumer.Outcome(f"{REMEDIES['tf2onnx']}: {consumer.gist(error)}", None, "refused")
    raise error


def _run_alone(program: str, *arguments: str) -> None:
    """Run a program in a process without JAX: a converter may end its process (LiteRT's of TensorFlow 2.16 does).

    Raises:
        AssertionError: it failed.
    """
    start = f"import sys; sys.modules.update(dict.fromkeys({consumer.BLOCKED})); {program}"
    command = [sys.executable, *["-I"] * sys.flags.isolated, "-c", start, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = " ".join(done.stderr.strip().splitlines()[-1:])
        raise AssertionError(f"exit status {done.returncode}: {said[:200]}")


def _litert(on: Any) -> Any:  # noqa: ANN401
    """Convert with TensorFlow's own converter, and run the result."""
    lite = on.tf.lite

    def convert(**options: Any) -> bytes:  # noqa: ANN401
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.tflite")
            converter = f"tf.lite.TFLiteConverter.from_saved_model({on.directory!r}, **{options!r})"
            _run_alone(f"import tensorflow as tf; open({str(file)!r}, 'wb').write({converter}.convert())")
            return file.read_bytes()

    try:
        content, remedy = _remedied(convert, partial(convert, signature_keys=[on.entry]), REMEDIES["LiteRT"])
    except AssertionError as error:
        return _needs_plain_operations(on, error)
    interpreter = lite.Interpreter(model_content=content)
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Any) -> Any:  # noqa: ANN401
        interpreter.resize_tensor_input(given["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images.numpy())
        interpreter.invoke()
        return interpreter.get_tensor(gives["index"])

    return _outcome(f"{len(content):,} bytes", remedy, on.worst(run))


def _onnx(on: Any) -> Any:  # noqa: ANN401
    """Convert with tf2onnx's command line, and run the result in ONNX Runtime."""
    for package in ("tf2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "model.onnx"))
        try:
            _run_alone("from tf2onnx.convert import main; main()", "--saved-model", on.directory, "--output", file)
        except AssertionError as error:
            return _needs_plain_operations(on, error)
        session = importlib.import_module("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    worst = on.worst(lambda images: session.run(None, {given.name: images.numpy()})[0])
    return _outcome("run in ONNX Runtime", "", worst)


USES: consumer.Checks = {
    "load": consumer.CHECKS["load"],
    "Adam, exported again": _adam,
    "MirroredStrategy": _mirrored,
    **{policy: partial(_mixed_precision, policy=policy) for policy in ("mixed_float16", "mixed_bfloat16")},
    "LiteRT": _litert,
    "tf2onnx": _onnx,
    "no JAX, no Flax": consumer.CHECKS["no JAX, no Flax"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return consumer.main(arguments, USES, devices=2)


if __name__ == "__main__":
    sys.exit(main())
