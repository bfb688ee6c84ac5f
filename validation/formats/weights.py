"""Read the weights of a LiteRT file as it stores them, to know what it should compute from them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import MixerError
from models.rotation import ROTATED, rotation, unrotate


def read_kernels(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return the kernels of a LiteRT file with smaller weights, dequantised, as the checkpoint shapes them.

    Args:
        path: the file.
        names: of the checkpoint's kernels.

    Raises:
        MixerError: a kernel is not in the file under its name, as it is in files that an earlier version wrote.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    stored = {one["name"].partition(ROTATED)[0]: one for one in interpreter.get_tensor_details()}
    if missing := sorted(set(names) - stored.keys()):
        raise MixerError(
            f"it does not store {', '.join(missing)} under the name of the checkpoint's array: it was not written by "
            "this version. Export it again (--overwrite)."
        )
    return {name: _dequantise(interpreter.get_tensor(stored[name]["index"]), stored[name]) for name in names}


def _dequantise(values: NDArray[Any], details: dict[str, Any]) -> NDArray[Any]:
    """Return a kernel with its outputs last: in float64, of the float32 products that the runtime computes."""
    kernel: NDArray[Any] = values.astype(np.float32)
    scales = details["quantization_parameters"]["scales"]
    if len(scales):
        kernel *= scales.reshape(-1, *[1] * (kernel.ndim - 1))
    if details["name"].rpartition(ROTATED)[1]:
        kernel = unrotate(kernel, rotation(kernel.shape[1]))
    return np.moveaxis(kernel, 0, -1)
