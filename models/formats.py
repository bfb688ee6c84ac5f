"""The formats beyond TensorFlow that a model is exported to: their files and the libraries they need."""

import importlib
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal, get_args

from models.catalog import Flavour
from models.errors import UsageError

FormatName = Literal["litert", "onnx", "openvino"]

Backend = Literal["jax"] | Flavour | FormatName
"""Where a model runs: JAX, TensorFlow in a flavour, or the runtime of a format."""

BACKENDS: tuple[str, ...] = ("jax", *get_args(Flavour), *get_args(FormatName))

Weights = Literal["float32", "float16", "int8"]
"""How the weights are stored; inputs and outputs are always float32."""

LABELS = "labels.txt"
"""The class list beside an exported classifier."""

INPUT_NAME, OUTPUT_NAME = "inputs", "output_0"
"""As in the SavedModel's `serving_default`."""


@dataclass(frozen=True)
class Format:
    """A format: the files of a model in it, and the libraries that write and run them.

    The libraries are in the extra with the format's name in `pyproject.toml`.
    """

    name: FormatName
    title: str
    models: dict[str, Weights]
    """File name -> how its weights are stored; each file is the whole model."""
    companions: tuple[str, ...]
    """Further files that belong to the model files."""
    libraries: dict[str, str]
    """Import name -> name of the distribution."""
    runtime: str
    """The distribution among them that runs a model."""
    lowest: str
    """Its lowest release in which all files gave the right outputs (export/FORMATS.md), as all later ones tried."""
    settings: dict[str, str] = field(default_factory=dict)
    """Settings of the runtime that make it compute in float32."""

    def require(self) -> None:
        """Check that the libraries are installed.

        Raises:
            UsageError: libraries are missing; the message names them, and the extra that installs them.
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
        """Return the name of a handle's export, which has its own folder and page."""
        return f"{handle}-{self.name}"


FORMATS: dict[FormatName, Format] = {
    "litert": Format(
        "litert",
        "LiteRT",
        {"model_float32.tflite": "float32", "model_float16.tflite": "float16", "model_int8.tflite": "int8"},
        (),
        {"ai_edge_litert": "ai-edge-litert"},
        "ai-edge-litert",
        "1.4.0",
    ),
    "onnx": Format(
        "onnx",
        "ONNX",
        {"model.onnx": "float32"},
        (),
        {"onnx": "onnx", "onnxruntime": "onnxruntime", "tf2onnx": "tf2onnx"},
        "onnxruntime",
        "1.15.0",
    ),
    "openvino": Format(
        "openvino",
        "OpenVINO IR",
        {"model.xml": "float32"},
        ("model.bin",),
        {"openvino": "openvino"},
        "openvino",
        "2023.0.0",
        {"INFERENCE_PRECISION_HINT": "f32"},
    ),
}


def import_openvino() -> Any:  # noqa: ANN401 (a module)
    """Import OpenVINO without its telemetry and return it; the only way to import it here.

    Importing it reports its use to Google Analytics without asking, from a fork of this process, which is unsafe with
    JAX's threads. Without the package openvino-telemetry it uses a stub of its own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: cannot be imported
    return importlib.import_module("openvino")


@cache
def openvino_core() -> Any:  # noqa: ANN401 (of OpenVINO)
    """Return OpenVINO's `Core`: always the same one, which lives as long as the process.

    The CPU plugin of each core installs an alternate signal stack, and restores the previous one when the core is
    destroyed. If that one belonged to a core destroyed earlier, it is unmapped, and the next signal that Python handles
    is a segmentation fault (seen in 2026.4).
    """
    return import_openvino().Core()
