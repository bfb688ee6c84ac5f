"""Read the weights that a LiteRT file stores: how far they are from the checkpoint's, and what it should compute."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import MixerError
from models.rotation import ROTATED, Rotation


@dataclass(frozen=True)
class _StoredKernel:
    """A kernel with its outputs first.

    Attributes:
        values: as stored, int8 or float16.
        scales: of each output, float32; None for float16.
        rotated: whether it is for inputs that a rotation has changed.
    """

    values: NDArray[Any]
    scales: NDArray[np.float32] | None
    rotated: bool

    def dequantise(self) -> NDArray[np.float32]:
        """Return it as the checkpoint shapes it, outputs last, for inputs that are not rotated."""
        kernel = self.values.astype(np.float32)
        if self.scales is not None:
            kernel *= self.scales.reshape(-1, *[1] * (kernel.ndim - 1))
        if self.rotated:
            kernel = Rotation.of(kernel.shape[1]).unrotate(kernel).astype(np.float32)
        return np.moveaxis(kernel, 0, -1)

    def steps_from(self, array: NDArray[np.float32]) -> float:
        """Return its largest distance from the checkpoint's array, in steps between its values.

        Rounding costs half a step. Float16 values are equal to the rounded array, or infinitely far.
        """
        kernel: NDArray[Any] = np.moveaxis(array, -1, 0)
        if kernel.shape != self.values.shape:
            return float("inf")
        if self.scales is None:
            return 0.0 if np.array_equal(kernel.astype(self.values.dtype), self.values) else float("inf")
        if self.rotated:
            kernel = Rotation.of(kernel.shape[1]).rotate(kernel)
        scales = self.scales.reshape(-1, *[1] * (kernel.ndim - 1))
        return float(np.abs(kernel / scales - self.values).max())


def read_kernels(path: Path, names: Iterable[str]) -> dict[str, _StoredKernel]:
    """Return the kernels of a LiteRT file of int8 weights, by name.

    Args:
        path: the file.
        names: of the checkpoint's kernels.

    Raises:
        MixerError: a kernel is not in the file under its name, as in files that an earlier version wrote.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    stored = {one["name"].partition(ROTATED)[0]: one for one in interpreter.get_tensor_details()}
    if missing := sorted(set(names) - stored.keys()):
        raise MixerError(
            f"it does not store {', '.join(missing)} under the name of the checkpoint's array: it was not written by "
            "this version. Export it again (--overwrite)."
        )
    return {name: _read(interpreter.get_tensor(stored[name]["index"]), stored[name]) for name in names}


def _read(values: NDArray[Any], details: dict[str, Any]) -> _StoredKernel:
    scales = details["quantization_parameters"]["scales"]
    return _StoredKernel(values, scales if len(scales) else None, ROTATED in details["name"])
