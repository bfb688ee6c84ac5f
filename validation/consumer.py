"""Call a Mixer's SavedModel in every way its users do, in a process where importing JAX or Flax is an error.

    python consumer.py DIRECTORY [--inputs IN.npy] [--expected OUT.npy] [--scale S.npy] [--limit 5e-5] [--json FILE]
                                 [--own]

A single file for any TensorFlow environment: it needs the standard library, NumPy and Python 3.8 or later. The outputs
of every way are compared with `serving_default` image by image and, with `--expected`, with those outputs. Differences
are divided by the scale of an image's outputs: `--scale`, or else the largest output of all images. A check has
`passed`, has `failed`, or is `absent` (a package or signature is missing); a bad input is `refused` or `accepted`, as
it should be. Exit status: 1 if any check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Sequence  # noqa: UP035 (Python 3.8)

import numpy as np

BLOCKED = ("jax", "jaxlib", "flax")
LIMIT = 5e-5  # of the largest difference over the scale of the image's outputs, as in the parity check


class Outcome(NamedTuple):
    """The result of a check; `worst` is the largest difference over the scale of the image's outputs."""

    detail: str
    worst: float | None = None
    status: str = "passed"


class _Blocker:
    """An import hook (`sys.meta_path`) that blocks the packages that the model must run without."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise `ImportError` for JAX and Flax."""
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked: the model must run without it", name=name)


def distance(outputs: object, expected: np.ndarray[Any, Any], scale: Any) -> float:  # noqa: ANN401
    """Return the largest difference of outputs `[n, k]`, over the scale: one number, or `[n]`."""
    found, wanted = np.asarray(outputs, np.float64), np.asarray(expected, np.float64)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise AssertionError(f"outputs of shape {found.shape}, expected finite ones of {wanted.shape}")
    return float(np.max(np.abs(found - wanted).max(axis=1) / scale, initial=0))


def judged(right: bool, detail: str, worst: float | None = None) -> Outcome:
    """Return that a check has passed or failed."""
    return Outcome(detail, worst, "passed" if right else "failed")


def digests(layer: Any) -> list[bytes]:  # noqa: ANN401
    """Return a digest of each weight of a layer."""
    return [hashlib.sha256(np.asarray(weight).tobytes()).digest() for weight in layer.weights]


_SHAPE = r"(batch|None|\?|-1), ?SIZE, ?SIZE, ?3\b"
BAD_INPUTS: dict[str, tuple[Callable[[Any], Any], str, bool]] = {
    # How to make it from good images; a pattern that a readable error contains; whether correct outputs pass too.
    "batch 0": (lambda x: x[:0], "at least one", False),
    "wrong height": (lambda x: np.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)], "edge"), _SHAPE, False),
    "wrong width": (lambda x: np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 0)], "edge"), _SHAPE, False),
    "wrong rank": (lambda x: x[0], _SHAPE, False),
    "float64": (lambda x: x[:1].astype("f8"), "float", True),
    "uint8": (lambda x: (x[:1] * 127 + 128).astype("u1"), "float", True),
    "NaN": (lambda x: np.where(np.arange(x.size).reshape(x.shape), x, np.float32("nan")), "(?!)", True),
}
BROKEN_FILE = (lambda _: [b"no image"], "image file format", False)
BAD_WAYS = ("__call__", "__call__ of an array", "signature")


class _Subject(argparse.Namespace):
    """The options, the model under test, and its input images `[n, height, width, 3]`, float32."""

    spent: list[Any] = []  # noqa: RUF012 (a process has only one subject)
    scale: Any = None

    def open(self) -> Outcome:
        """Load the model, read its signature, make noise unless there are images, and run them one by one."""
        self.model = self.tf.saved_model.load(self.directory)
        self.entry = min(self.model.signatures, key=lambda name: (name != "serving_default", name))
        ((self.input, self.spec),) = self.model.signatures[self.entry].structured_input_signature[1].items()
        shape = self.spec.shape.as_list()
        noise = np.random.RandomState(0).uniform(-1, 1, [3, *shape[1:]]).astype(np.float32)
        self.images = noise if self.inputs is None else self.inputs
        reference = np.concatenate([self.serve(self.tf.constant(image[None])) for image in self.images])
        self.sides = [side for side in (reference, self.expected) if side is not None]
        self.outputs = reference.shape[1]
        alone = np.full(len(reference), np.abs(reference).max(), np.float64)
        self.scale = np.maximum(alone if self.scale is None else self.scale, np.finfo(np.float64).tiny)
        return Outcome(f"{self.entry} takes {self.input} {shape}; {len(self.images)} images served one by one")

    def serve(self, images: object, entry: str | None = None) -> np.ndarray[Any, Any]:
        """Return the only output of a signature."""
        signature = self.model.signatures[entry or self.entry]
        (given,) = signature.structured_input_signature[1]
        (outputs,) = signature(**{given: images}).values()
        return np.asarray(outputs)

    def worst(self, call: Callable[[Any], object]) -> float:
        """Return the largest difference from the reference and expected outputs, for one image and for all of them."""
        batches = [np.arange(count) % len(self.images) for count in (1, max(2, len(self.images)))]
        found = [(rows, call(self.tf.constant(self.images[rows]))) for rows in batches]
        return max(distance(outputs, side[rows], self.scale[rows]) for rows, outputs in found for side in self.sides)

    def given(self, dtype: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Return two inputs of that dtype, and the same as float32 images."""
        tf, random = self.tf, np.random.RandomState(2)
        pixels = [random.randint(256, size=sides).astype("u1") for sides in ((300, 400, 3), (500, 333, 3))]
        given = tf.stack([tf.io.encode_jpeg(pixels[0]), tf.io.encode_png(pixels[1])])
        pixels = [self.evaluated(tf.io.decode_image(file, channels=3)) for file in given]
        images = (tf.cast(tf.stack(pixels), tf.float32) - 127.5) / 127.5
        return {"string": given, "uint8": tf.stack(pixels)}.get(dtype.name, images), images

    def evaluated(self, pixels: Any) -> Any:  # noqa: ANN401
        """Return pixels as in the paper's evaluation: the smaller side resized (to 256 for 224), the centre cropped."""
        size = self.spec.shape[1]
        sides = [round(side * round(size * 256 / 224) / min(pixels.shape[:2])) for side in pixels.shape[:2]]
        top, left = ((side - size) // 2 for side in sides)
        resized = self.tf.image.resize(pixels, sides, "area")
        return self.tf.cast(resized[top : top + size, left : left + size], self.tf.uint8)

    def _signatures(self) -> Outcome:
        worst, expected = {self.entry: self.worst(self.serve)}, None
        for name in {*self.model.signatures} - {self.entry}:
            (spec,) = self.model.signatures[name].structured_input_signature[1].values()
            given, images = self.given(spec.dtype)  # the images are the same each time
            expected = self.serve(images) if expected is None else expected
            found = self.serve(given, name)  # of each token, or of each image
            found = found.mean(axis=1) if found.ndim == 3 else found
            worst[name] = distance(found, expected, self.scale.max())  # the images have no own scale
        furthest, names = max(worst, key=lambda name: worst[name]), ", ".join(sorted(worst))
        far = worst[furthest] > self.limit
        return Outcome(f"{furthest} differs most, of {names}" if far else names, worst[furthest])

    def _labels(self) -> Outcome:
        if not hasattr(self.model, "labels"):
            return Outcome("no class list, as in a feature extractor")
        names = self.tf.io.read_file(self.model.labels.asset_path).numpy().decode().splitlines()
        return judged(len(names) == self.outputs, f"{len(names)} names, {self.outputs} outputs")

    def _variables(self) -> Outcome:
        count, losses = len(self.model.variables), len(self.model.regularization_losses)
        trainable = sum(variable.trainable for variable in self.model.trainable_variables)
        return judged(0 < count == trainable and not losses, f"{trainable} of {count} trainable, {losses} losses")

    def brief(self, model: Any) -> Any:  # noqa: ANN401
        """Return a model that is not used after this check: `free` will empty its variables."""
        self.spent.append(model)
        return model

    def free(self) -> None:
        """Free the memory of `spent`: TensorFlow keeps what a custom gradient refers to until the process ends."""
        for variable in (variable for model in self.spent for variable in model.variables):
            resource = variable.handle if hasattr(variable, "handle") else variable.value.handle  # Keras 3
            self.tf.raw_ops.AssignVariableOp(resource=resource, value=self.tf.zeros([0], variable.dtype))
        if self.spent:
            self.spent.clear()
            gc.collect()

    def _gradients(self) -> Outcome:
        tf, images, model = self.tf, self.images[:1], self.brief(self.model)
        variables = list(model.trainable_variables)
        with tf.GradientTape() as tape:
            before = model(images)
            loss = tf.reduce_sum(before * np.random.RandomState(1).normal(size=before.shape).astype(np.float32))
        gradients = tape.gradient(loss, variables)
        without = [variables[index].name for index, gradient in enumerate(gradients) if gradient is None]
        if without or not variables:
            raise AssertionError(f"no gradient for {len(without)} of {len(variables)}: {', '.join(without[:3])}")
        rate = 1e-4 * tf.linalg.global_norm(variables) / tf.linalg.global_norm(gradients)  # far more than rounding
        for index, variable in enumerate(variables):
            variable.assign_sub(rate * gradients[index])
        moved = distance(model(images), before, self.scale[: len(images)])
        detail = f"{len(variables)} gradients, none missing; an SGD step moved outputs by {moved:.1e} of their scale"
        return judged(moved > self.limit, detail)

    def _saved_again(self) -> float:
        own = self.tf.train.Checkpoint(mixer=self.model)
        own.embed = self.tf.function(lambda x: own.mixer(x), input_signature=[self.spec])
        with tempfile.TemporaryDirectory() as folder:
            self.tf.saved_model.save(own, folder)
            self.brief((again := self.tf.saved_model.load(folder)).mixer)
            return self.worst(again.embed)

    def _keras(self, *, trainable: bool, hub: bool = True) -> Outcome:
        keras = importlib.import_module("keras")
        if hub:
            keras = importlib.import_module("tf_keras") if keras.__version__.startswith("3.") else keras
            layer = importlib.import_module("tensorflow_hub").KerasLayer(self.directory, trainable=trainable)
        elif keras.__version__.startswith("3."):
            layer = keras.layers.TFSMLayer(self.directory, call_endpoint=self.entry)
        else:
            raise ModuleNotFoundError(f"Keras 3 is needed, but {keras.__version__} is installed")
        self.brief(layer)
        inputs = keras.Input(self.spec.shape[1:])
        outputs = layer(inputs) if hub else next(iter(layer(inputs).values()))
        worst = self.worst(partial(keras.Model(inputs, outputs).predict, verbose=0))
        if not trainable:
            return judged(not layer.trainable_weights, f"Keras {keras.__version__}, nothing trainable", worst)
        head = keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(seed=0))  # the same each time
        model, before = keras.Model(inputs, head(outputs)), digests(layer)
        # Without slots, as large as the weights: of tf_keras's optimizers, only the older ones have none.
        sgd = getattr(getattr(keras.optimizers, "legacy", None) if hub else None, "SGD", lambda: "sgd")()
        model.compile(sgd, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(self.images[:1], np.zeros(1), epochs=1, verbose=0)
        changed = sum(digest != before[index] for index, digest in enumerate(digests(layer)))
        detail = f"Keras {keras.__version__}, a fit step changed {changed} of {len(before)} weights"
        return judged(changed > 0 and all(np.isfinite(weight).all() for weight in layer.weights), detail, worst)

    def _command_line(self) -> Outcome:
        module = "tensorflow.python.tools.saved_model_cli"
        start = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); from {module} import main; main()"
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/images.npy", self.images)
            options = f"run --tag_set serve --signature_def {self.entry} --inputs {self.input}=images.npy --outdir out"
            command = [sys.executable, *["-I"] * sys.flags.isolated, "-c", start, *options.split()]
            command += ["--dir", self.directory]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise AssertionError(f"exit status {done.returncode}: {done.stderr.strip()[-200:]}")
            (found,) = Path(folder, "out").glob("*.npy")
            worst = max(distance(np.load(str(found)), side, self.scale) for side in self.sides)
            return Outcome(f"wrote {found.name}", worst)

    def _bad_input(self, *, bad: tuple[Callable[[Any], Any], str, bool], way: str) -> Outcome:
        make, words, may_pass = bad
        if way == "serving_bytes" and way not in self.model.signatures:
            return Outcome("no such signature", status="absent")
        call: Any = {"signature": self.serve, "serving_bytes": partial(self.serve, entry=way)}.get(way, self.model)
        given = make(self.images)
        try:
            outputs = np.asarray(call(given if way.endswith("array") else self.tf.constant(given)))
        except (TypeError, ValueError, self.tf.errors.InvalidArgumentError) as error:
            if re.search(words.replace("SIZE", str(self.spec.shape[1])), str(error)):
                return Outcome(gist(error), None, "refused")
            raise AssertionError(f"refused, but with an unclear message: {gist(error)}") from error
        if not may_pass or outputs.shape != (len(given), self.outputs):
            raise AssertionError(f"accepted without an error, with outputs {outputs.shape}; expected an error")
        numbers = given.astype(np.float32)
        broken = np.isnan(numbers).any(axis=(1, 2, 3))
        status = "accepted" if np.isnan(outputs[broken]).all() else "failed"
        expected = self.sides[0][~broken] if broken.any() else self.serve(self.tf.constant(numbers))
        detail = f"outputs {outputs.shape}; NaN for the {broken.sum()} images with NaN, the others as from float32"
        return Outcome(detail, distance(outputs[~broken], expected, self.scale[: len(broken)][~broken]), status)


Checks = Dict[str, Callable[[_Subject], Any]]  # noqa: UP006 (Python 3.8)
"""By name, what returns an `Outcome`, or the largest difference over the scale."""

CHECKS: Checks = {
    "load": _Subject.open,
    "signatures": _Subject._signatures,
    "__call__": lambda on: on.worst(on.model),
    "tf.function": lambda on: on.worst(on.tf.function(lambda x: on.model(x), input_signature=[on.spec])),
    "class list": _Subject._labels,
    "variables": _Subject._variables,
    "saved again": _Subject._saved_again,
    **{
        f"{name}, {way}": partial(_Subject._bad_input, bad=BAD_INPUTS[name], way=way)
        for name in BAD_INPUTS
        for way in BAD_WAYS
    },
    "broken file, serving_bytes": partial(_Subject._bad_input, bad=BROKEN_FILE, way="serving_bytes"),
    "gradients": _Subject._gradients,  # frees the model: the checks after it load it again
    "hub.load": lambda on: on.worst(on.brief(importlib.import_module("tensorflow_hub").load(on.directory))),
    "hub.KerasLayer, frozen": partial(_Subject._keras, trainable=False),
    "hub.KerasLayer, trainable": partial(_Subject._keras, trainable=True),
    "Keras 3 TFSMLayer": partial(_Subject._keras, trainable=True, hub=False),
    "saved_model_cli run": _Subject._command_line,
    "no JAX, no Flax": lambda _: judged({*BLOCKED}.isdisjoint(sys.modules), f"{', '.join(BLOCKED)}: not allowed"),
}
OWN = ("load", "signatures", "class list", "variables", "no JAX, no Flax")
"""Checks of a model's own variables and assets; the others depend on its `saved_model.pb` alone."""


def _attempt(name: str, on: _Subject, checks: Checks | None = None) -> dict[str, Any]:
    try:
        found = (checks or CHECKS)[name](on)
        outcome = found if isinstance(found, Outcome) else Outcome("batches of 1 and more", found)
    except ModuleNotFoundError as error:
        outcome = Outcome(str(error), status="absent")
    except Exception as error:  # TensorFlow and Keras raise any of a dozen types
        outcome = Outcome(gist(error).replace(on.directory, "."), status="failed")
    on.free()
    if outcome.worst is not None and not outcome.worst <= on.limit:
        outcome = Outcome(f"over the limit of {on.limit:g}: {outcome.detail}", outcome.worst, "failed")
    return {"name": name, **outcome._asdict()}


def gist(error: Exception) -> str:
    """Return an error's type and message, short and without locations."""
    # TensorFlow puts the location first, then the error itself; and it shows the values of arrays.
    text = str(error).split("<stack traces unavailable>")[-1].split(" Received args:")[0]
    return ("" if isinstance(error, AssertionError) else f"{type(error).__name__}: ") + " ".join(text.split())[:240]


def _shown(text: str) -> str:
    """Return foreign text made safe for a terminal: cut short, with unprintable characters escaped."""
    cut = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:1000])
    return cut if len(text) <= 1000 else f"{cut}... ({len(text):,} characters)"


def _tensorflow(devices: int = 1) -> Any:  # noqa: ANN401
    sys.meta_path.insert(0, _Blocker())
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")
    os.environ.update(TF_ONEDNN_USE_SYSTEM_ALLOCATOR="1")  # oneDNN's own keeps gigabytes of freed memory
    warnings.simplefilter("ignore")
    kept = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hide what is logged at start whatever the level
    try:
        tf = importlib.import_module("tensorflow")
        if devices > 1:
            (cpu,) = tf.config.list_physical_devices("CPU")
            one = tf.config.LogicalDeviceConfiguration()
            tf.config.set_logical_device_configuration(cpu, [one] * devices)
        with contextlib.suppress(Exception):  # XLA may be missing
            tf.function(tf.abs, jit_compile=True)(tf.constant(0.0))
    finally:
        os.dup2(kept, 2)
    tf.get_logger().setLevel("ERROR")
    return tf


def main(arguments: Sequence[str] | None = None, checks: Checks | None = None, *, devices: int = 1) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: the command line's.
        checks: what is checked instead of `CHECKS`.
        devices: how many logical devices the CPU is divided into.
    """
    parser = argparse.ArgumentParser(description="Check the ways in which users call a Mixer's SavedModel.")
    parser.add_argument("directory", type=os.path.abspath, help="the SavedModel")
    parser.add_argument("--inputs", help=".npy, float32 [n, height, width, 3]; default: noise")
    parser.add_argument("--expected", help=".npy, [n, outputs]; default: only compare the ways with each other")
    parser.add_argument("--scale", help=".npy, [n]: what differences are divided by; default: the largest output")
    parser.add_argument("--limit", type=float, default=LIMIT, help="default: %(default)s of the scale")
    parser.add_argument("--own", action="store_true", help="only the checks of the model's own variables and assets")
    parser.add_argument("--json", default=os.devnull, help="where to write the result, again after each check")
    on = parser.parse_args(arguments, namespace=_Subject())
    try:
        on.inputs, on.expected, on.scale = (path and np.load(path) for path in (on.inputs, on.expected, on.scale))
        Path(on.directory, "saved_model.pb").open("rb").close()
        on.tf = _tensorflow(devices)
    except (OSError, ValueError, ImportError) as error:
        parser.error(_shown(str(error)))
    installed = {str(it.metadata["Name"]).replace("-", "_"): it.version for it in importlib.metadata.distributions()}
    report: dict[str, Any] = {"tensorflow": on.tf.__version__, "python": sys.version.split()[0]}
    report.update({name: installed.get(name) for name in ("numpy", "keras", "tf_keras", "tensorflow_hub")}, checks=[])
    for name in OWN if on.own else checks or CHECKS:
        report["checks"].append({"name": name, **Outcome("the process ended", status="failed")._asdict()})
        Path(on.json).write_text(json.dumps(report))
        report["checks"][-1] = found = _attempt(name, on, checks)
        sys.stdout.write("{status:9}{name:36}{detail}\n".format(**{**found, "detail": _shown(found["detail"])}))
        if name == "load" and found["status"] == "failed":
            break
    Path(on.json).write_text(json.dumps(report))
    return int(any(found["status"] == "failed" for found in report["checks"]))


if __name__ == "__main__":
    sys.exit(main())
