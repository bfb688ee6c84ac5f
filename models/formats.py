"""The formats beyond TensorFlow that a model is exported to: what is in them and what they need."""

import importlib
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal

from models.errors import UsageError

FormatName = Literal["litert", "onnx", "openvino"]

Weights = Literal["float32", "float16", "int8"]
"""How the weights are stored; inputs and outputs are float32 always."""

INPUT_NAME, OUTPUT_NAME = "inputs", "output_0"
"""As in the SavedModel's `serving_default`."""


@dataclass(frozen=True)
class Format:
    """A format, the files that a model is in it, and the libraries that write and run it.

    The libraries are in the extra of the format's name in `pyproject.toml`.
    """

    name: FormatName
    title: str
    models: dict[str, Weights]
    """By file name; each is the whole model."""
    companions: tuple[str, ...]
    """Files that belong to these."""
    libraries: dict[str, str]
    """Name of the distribution, by the name that it is imported under."""

    def require(self) -> None:
        """Refuse to go on where a library is missing.

        Raises:
            UsageError: names the libraries, and the extra that brings them.
        """
        missing = [name for module, name in self.libraries.items() if find_spec(module) is None]
        if missing:
            raise UsageError(
                f"{self.title} needs {', '.join(missing)}, which this environment does not have: install the extra "
                f"{self.name} of this project, for instance `pip install --editable '.[{self.name}]'`."
            )

    def versions(self) -> dict[str, str]:
        """Return the versions of its libraries."""
        return {name: metadata.version(name) for name in self.libraries.values()}

    def named(self, handle: str) -> str:
        """Return the name that a handle's export goes by: it has a folder and a page of its own."""
        return f"{handle}-{self.name}"


FORMATS: dict[FormatName, Format] = {
    "litert": Format(
        "litert",
        "LiteRT",
        {"model_float32.tflite": "float32", "model_float16.tflite": "float16", "model_int8.tflite": "int8"},
        (),
        {"ai_edge_litert": "ai-edge-litert"},
    ),
    "onnx": Format(
        "onnx",
        "ONNX",
        {"model.onnx": "float32"},
        (),
        {"onnx": "onnx", "onnxruntime": "onnxruntime", "tf2onnx": "tf2onnx"},
    ),
    "openvino": Format("openvino", "OpenVINO IR", {"model.xml": "float32"}, ("model.bin",), {"openvino": "openvino"}),
}


def import_openvino() -> Any:  # noqa: ANN401 (a module)
    """Return OpenVINO, imported without its telemetry; everybody here imports it through this.

    Its import alone reports to Google Analytics that it was used, unasked, and does so from a forked copy of this
    process, which the threads of JAX do not stand. Without the package openvino-telemetry it takes a stub of its own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: cannot be imported
    return importlib.import_module("openvino")
