"""Write a SavedModel of the graph flavour, read from disk, in another format.

The SavedModel checks the shape of its input with an `Assert`, which every converter drops: the runtimes reject other
sizes themselves.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from models.errors import MixerError
from models.formats import FORMATS, LABELS, FormatName, Weights, import_openvino


def write_format(name: FormatName, saved_model: Path, directory: Path) -> None:
    """Write a model, with its class list and its weights' licence, into an existing, empty directory.

    Args:
        name: the format; its libraries must be installed.
        saved_model: the directory of a SavedModel of the graph flavour.
        directory: where to write; this is not atomic, see `export.install.staged`.

    Raises:
        MixerError: the converter does not accept the model.
        OSError: the directory cannot be written, for example because the disk is full.
    """
    try:
        WRITERS[name](saved_model, directory)
    except OSError:
        raise
    except Exception as error:  # each converter raises its own types
        raise MixerError(
            f"{saved_model} cannot be written as {FORMATS[name].title}: {type(error).__name__}: {error}"
        ) from error
    _copy_companions(saved_model, directory)


def _write_litert(saved_model: Path, directory: Path) -> None:
    """Write a LiteRT file for each type of weights, with TensorFlow's own converter.

    float16: weights are stored as float16, and computation is in float32. int8: kernels of dense layers are stored as
    int8, with a scale for each output; the runtime also rounds their inputs to int8, for each image (dynamic-range
    quantisation, https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization).
    """
    for file, weights in FORMATS["litert"].models.items():
        (directory / file).write_bytes(_convert_to_litert(saved_model, weights))


def _convert_to_litert(saved_model: Path, weights: Weights) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def _write_onnx(saved_model: Path, directory: Path) -> None:
    from export.formats.onnx import write_onnx

    (file,) = FORMATS["onnx"].models
    write_onnx(saved_model, directory / file)


def _write_openvino(saved_model: Path, directory: Path) -> None:
    """Write it in float32, with the runtime's own reader: `convert_model` would write the model's path into the file.

    Operations are numbered in their order, because OpenVINO numbers them with a counter of the process.
    """
    openvino = import_openvino()
    (file,) = FORMATS["openvino"].models
    model = openvino.Core().read_model(saved_model)
    for index, operation in enumerate(model.get_ordered_ops()):
        if operation.get_type_name() not in {"Parameter", "Result"}:
            operation.set_friendly_name(f"{operation.get_type_name()}_{index}")
    openvino.save_model(model, directory / file, compress_to_fp16=False)


WRITERS: dict[FormatName, Callable[[Path, Path], None]] = {
    "litert": _write_litert,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _copy_companions(saved_model: Path, directory: Path) -> None:
    for labels in (saved_model / "assets").glob("*"):
        shutil.copyfile(labels, directory / LABELS)
    for name in ("LICENSE", "CITATION.bib"):
        if (saved_model / "assets.extra" / name).is_file():
            shutil.copyfile(saved_model / "assets.extra" / name, directory / name)
