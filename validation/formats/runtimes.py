"""Load a model file of a format other than TensorFlow's in its own runtime, ready to run.

All compute on the CPU in float32. OpenVINO must be told so: by default it uses bfloat16 if the processor supports it.
That is what most users of the file get, so it can be run this way too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.formats import FORMATS, OUTPUT_NAME, FormatName, openvino_core
from validation.parity.images import Images
from validation.parity.outputs import Outputs

Tensor = tuple[str, str, tuple[int | None, ...]]
"""Name, dtype and shape, with None for a free dimension."""

Settings = dict[str, str]
"""Of a runtime, by its own names; empty for its defaults."""


@dataclass(frozen=True)
class RunnableModel:
    """A model that a runtime has loaded.

    Attributes:
        takes: its inputs.
        gives: its outputs.
        run: takes images `[n, size, size, 3]` for any n, returns outputs `[n, k]`.
        detail: the dtype and the processor that it computes with, where the runtime says so.
    """

    takes: tuple[Tensor, ...]
    gives: tuple[Tensor, ...]
    run: Callable[[Images], Outputs]
    detail: str = ""

    @classmethod
    def open(cls, name: FormatName, path: Path, *, default_settings: bool = False) -> "RunnableModel":
        """Load a model file in the runtime of its format, with the format's settings or the runtime's own.

        Errors are of the runtime's own types.
        """
        return OPENERS[name](path, {} if default_settings else FORMATS[name].settings)


def _open_litert(path: Path, _: Settings) -> RunnableModel:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner("serving_default")

    def run(images: Images) -> Outputs:
        return np.array(runner(inputs=images)[OUTPUT_NAME])  # a copy: the runtime reuses its buffer

    def tensors(details: dict[str, Any]) -> tuple[Tensor, ...]:
        return tuple(
            (name, np.dtype(one["dtype"]).name, _sizes(one["shape_signature"])) for name, one in details.items()
        )

    return RunnableModel(tensors(runner.get_input_details()), tensors(runner.get_output_details()), run)


def _open_onnx(path: Path, _: Settings) -> RunnableModel:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Images) -> Outputs:
        (outputs,) = session.run([OUTPUT_NAME], {session.get_inputs()[0].name: images})
        return np.asarray(outputs)

    def tensors(nodes: Any) -> tuple[Tensor, ...]:  # noqa: ANN401 (of the runtime)
        types = {"tensor(float)": "float32"}
        return tuple((node.name, types.get(node.type, node.type), _sizes(node.shape)) for node in nodes)

    return RunnableModel(tensors(session.get_inputs()), tensors(session.get_outputs()), run)


def _open_openvino(path: Path, settings: Settings) -> RunnableModel:
    core = openvino_core()
    model = core.compile_model(path, "CPU", settings)
    dtype = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    def run(images: Images) -> Outputs:
        return np.array(model(images)[OUTPUT_NAME])

    def tensors(ports: Any) -> tuple[Tensor, ...]:  # noqa: ANN401 (of the runtime)
        types = {"f32": "float32"}
        return tuple(
            (
                port.any_name,
                types.get(kind := port.element_type.get_type_name(), kind),
                _sizes(-1 if size.is_dynamic else size.get_length() for size in port.partial_shape),
            )
            for port in ports
        )

    detail = f"{dtype} on {core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}"
    return RunnableModel(tensors(model.inputs), tensors(model.outputs), run, detail)


def _sizes(shape: Any) -> tuple[int | None, ...]:  # noqa: ANN401 (sizes, or names of free dimensions)
    return tuple(None if isinstance(size, str) or size is None or size < 0 else int(size) for size in shape)


OPENERS: dict[FormatName, Callable[[Path, Settings], RunnableModel]] = {
    "litert": _open_litert,
    "onnx": _open_onnx,
    "openvino": _open_openvino,
}
