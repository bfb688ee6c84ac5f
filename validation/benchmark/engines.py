"""The engines that the benchmark runs a Mixer in, each as a function from images to outputs, both NumPy arrays.

All compute in float32 on the CPU, with the same number of threads. Libraries stay loaded until the process ends, so
each engine runs in its own process (`validation/benchmark/engine_worker.py`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.catalog import Handle
from models.errors import UsageError
from models.formats import FORMATS, OUTPUT_NAME, openvino_core
from models.records.layout import ModelPaths

Values = NDArray[np.float32]
Run = Callable[[Values], Values]
EngineName = Literal["jax", "native", "graph", "pytorch", "onnx", "openvino"]
Product = Callable[[int, int, int], float]
"""Returns the seconds of one product of float32 matrices `[m, k]` and `[k, n]`."""


@dataclass(frozen=True)
class OpenModel:
    """A model that an engine has loaded: takes images `[n, size, size, 3]`, returns outputs `[n, k]`."""

    run: Run
    multiply: Product | None = None
    """Times a matrix product in the engine's library; None if that is not measured."""


@dataclass(frozen=True)
class Engine:
    """An engine, its library, and the function that opens a model in it: handle, file or directory, threads."""

    name: EngineName
    title: str
    library: str
    module: str
    open: Callable[[Handle, Path, int], OpenModel]
    extra: str | None = None
    """The extra of this project that installs the library; None if it is always installed."""

    @property
    def here(self) -> bool:
        """Whether the library is installed."""
        return find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The library's version."""
        return metadata.version(self.library)

    def path(self, models: Path, handle: Handle, version: int, checkpoint: Path) -> Path:
        """Return the path that it opens: the checkpoint, or what `convert` or `export` made from it below `models`."""
        if self.name == "native" or self.name == "graph":
            return ModelPaths.of(models, handle.in_flavour(self.name).name, version).directory
        if self.name == "onnx" or self.name == "openvino":
            made = FORMATS[self.name]
            return ModelPaths.of(models, made.named(handle.name), version).directory / next(iter(made.models))
        return checkpoint

    def require(self) -> None:
        """Require that the library is installed.

        Raises:
            UsageError: it is not; names the library and the extra that installs it.
        """
        if not self.here:
            raise UsageError(f"{self.title} needs {self.library}, which this environment does not have: {self.advice}.")

    @property
    def advice(self) -> str:
        """How to install the library."""
        return (
            f"install the extra {self.extra} of this project, for instance `pip install --editable '.[{self.extra}]'`"
        )


def _read_arrays(path: Path) -> dict[str, Values]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _open_jax(handle: Handle, path: Path, _: int) -> OpenModel:
    import jax
    from flax.traverse_util import unflatten_dict

    from models.mixer import MlpMixer

    model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)
    params = jax.device_put(unflatten_dict(_read_arrays(path), sep="/"))  # type: ignore[no-untyped-call]
    apply = jax.jit(lambda params, images: model.apply({"params": params}, images))
    multiply = jax.jit(lambda a, b: a @ b)

    def product(m: int, k: int, n: int) -> float:
        a, b = jax.device_put(_matrix(m, k)), jax.device_put(_matrix(k, n))
        return _fastest(lambda: multiply(a, b).block_until_ready())

    return OpenModel(lambda images: np.asarray(apply(params, images)), product)


def _open_saved_model(_: Handle, path: Path, threads: int) -> OpenModel:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = tf.saved_model.load(str(path))

    def product(m: int, k: int, n: int) -> float:
        a, b = tf.constant(_matrix(m, k)), tf.constant(_matrix(k, n))
        return _fastest(lambda: tf.matmul(a, b))  # finished when it returns: on the CPU it is synchronous

    return OpenModel(lambda images: np.asarray(model(images)), product)


def _open_pytorch(handle: Handle, path: Path, threads: int) -> OpenModel:
    import torch

    from validation.benchmark.torch_mixer import make_torch_mixer

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as the others do by default
    model = make_torch_mixer(handle.checkpoint.architecture, handle.outputs, _read_arrays(path))

    def run(images: Values) -> Values:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(images)).numpy())

    def product(m: int, k: int, n: int) -> float:
        a, b = torch.from_numpy(_matrix(m, k)), torch.from_numpy(_matrix(k, n))
        return _fastest(lambda: a @ b)

    return OpenModel(run, product)


def _open_onnx(_: Handle, path: Path, threads: int) -> OpenModel:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return OpenModel(lambda images: np.asarray(session.run([OUTPUT_NAME], {name: images})[0]))


def _open_openvino(_: Handle, path: Path, threads: int) -> OpenModel:
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # by default it uses bfloat16 if the processor supports it
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino_core().compile_model(path, "CPU", settings)
    return OpenModel(lambda images: np.array(model(images)[OUTPUT_NAME]))


def _matrix(rows: int, columns: int) -> Values:
    return np.random.default_rng(rows).standard_normal((rows, columns), np.float32)


def _fastest(call: Callable[[], Any], times: int = 5) -> float:
    """Return the seconds of the fastest call, except the first, which may compile."""
    call()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


ENGINES: dict[EngineName, Engine] = {
    row.name: row
    for row in (
        Engine("jax", "JAX, `jit`", "jax", "jax", _open_jax),
        Engine("native", "SavedModel, native", "tensorflow", "tensorflow", _open_saved_model),
        Engine("graph", "SavedModel, graph", "tensorflow", "tensorflow", _open_saved_model),
        Engine("pytorch", "PyTorch", "torch", "torch", _open_pytorch, "bench"),
        Engine("onnx", "ONNX Runtime", "onnxruntime", "onnxruntime", _open_onnx, "onnx"),
        Engine("openvino", "OpenVINO", "openvino", "openvino", _open_openvino, "openvino"),
    )
}
"""JAX, which the others are compared with, comes first."""
