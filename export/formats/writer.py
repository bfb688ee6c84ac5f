"""Write a SavedModel of the graph flavour, read from disk, in another format.

The SavedModel checks the shape of its input with an `Assert`, which every converter drops: the runtimes reject other
sizes themselves.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from models.catalog import GRAPH_SUFFIX
from models.errors import MixerError
from models.formats import FORMATS, LABELS, FormatName, import_openvino, openvino_core
from models.signatures import EXTRAS, MODEL_JSON
from models.storage.files import naming


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
    from export.formats.litert import write_litert

    write_litert(saved_model, directory)


def _write_onnx(saved_model: Path, directory: Path) -> None:
    from export.formats.onnx import write_onnx

    (file,) = FORMATS["onnx"].models
    write_onnx(saved_model, directory / file, _describe("onnx", saved_model))


def _write_openvino(saved_model: Path, directory: Path) -> None:
    """Write it in float32, with the runtime's own reader: `convert_model` would write the model's path into the file.

    Operations are numbered in their order, because OpenVINO numbers them with a counter of the process.
    """
    (file,) = FORMATS["openvino"].models
    model = openvino_core().read_model(saved_model)
    for index, operation in enumerate(model.get_ordered_ops()):
        if operation.get_type_name() not in {"Parameter", "Result"}:
            operation.set_friendly_name(f"{operation.get_type_name()}_{index}")
    for key, value in _describe("openvino", saved_model).items():
        model.set_rt_info(value, ["model_info", key])
    try:
        import_openvino().save_model(model, directory / file, compress_to_fp16=False)
    except RuntimeError:
        _raise_if_full(directory / file, sum(one.stat().st_size for one in saved_model.rglob("*") if one.is_file()))
        raise


def _raise_if_full(path: Path, size: int) -> None:
    """Raise what keeps that many bytes from being written beside a file, if anything: OpenVINO does not say it.

    Raises:
        OSError: the disk is full, or files of that size are not allowed.
    """
    with naming(path), tempfile.TemporaryFile(dir=path.parent) as file:
        os.posix_fallocate(file.fileno(), 0, size)


WRITERS: dict[FormatName, Callable[[Path, Path], None]] = {
    "litert": _write_litert,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _describe(name: FormatName, saved_model: Path) -> dict[str, str]:
    """Return what a model file says of itself: the facts that its SavedModel contains; nothing if it has none.

    `labels` is a JSON list, as are the settings of the runtime under which the model was checked, if it needs any.
    """
    description = saved_model / MODEL_JSON
    if not description.is_file():
        return {}
    facts = json.loads(description.read_bytes())
    low, high = facts["input"]["range"]
    entries = {
        "name": facts["handle"].removesuffix(GRAPH_SUFFIX),
        "version": str(facts["version"]),
        "architecture": facts["architecture"],
        "input_range": f"{low} to {high}",
        "preprocessing": facts["input"]["preprocessing"],
        "output": facts["output"]["meaning"],
        "license": facts["license"],
        "checkpoint": facts["checkpoint"]["object"],
        "checkpoint_sha256": facts["checkpoint"]["sha256"],
        "checkpoint_origin": facts["checkpoint"]["origin"],
    }
    if (listed := facts["output"].get("classes")) is not None:
        lines = (saved_model / listed).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        entries["labels"] = json.dumps(lines, ensure_ascii=False)
    if FORMATS[name].settings:
        entries["runtime_settings"] = json.dumps(FORMATS[name].settings)
    return entries


def _copy_companions(saved_model: Path, directory: Path) -> None:
    for labels in (saved_model / "assets").glob("*"):
        shutil.copyfile(labels, directory / LABELS)
    for name in ("LICENSE", "CITATION.bib"):
        if (saved_model / EXTRAS / name).is_file():
            shutil.copyfile(saved_model / EXTRAS / name, directory / name)
