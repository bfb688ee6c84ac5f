"""The outputs themselves, saved beside the report so that a person can look at them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.storage.files import write_atomically

if TYPE_CHECKING:  # the page reads saved outputs without importing TensorFlow
    from validation.parity.check import Findings
    from validation.parity.outputs import Expected, Outputs


_ARRAYS = ("saved_model", "jax", "oracle", "scale")


@dataclass(frozen=True)
class SavedOutputs:
    """Outputs `[n, k]` for the named images: the SavedModel's and JAX's, float32, and the oracle's, float64.

    `scale` `[n]`, float64, is what the differences of an image's outputs are divided by.
    """

    names: tuple[str, ...]
    saved_model: "Outputs"
    jax: "Outputs"
    oracle: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def collect(cls, findings: "Findings", expected: "Expected") -> "SavedOutputs":
        """Collect the outputs of images that all three were run on."""
        names = tuple(name for name in expected.names if name in findings.outputs and name in expected.oracle)
        rows = [expected.names.index(name) for name in names]
        return cls(
            names,
            np.stack([findings.outputs[name] for name in names]),
            np.asarray(expected.jax[rows], np.float32),
            np.stack([expected.oracle[name] for name in names]),
            expected.scale.of[rows],
        )

    @classmethod
    def read(cls, path: Path) -> "SavedOutputs":
        """Read a file that `write` wrote; pickles are refused."""
        with np.load(path, allow_pickle=False) as arrays:
            names = tuple(str(name) for name in arrays["names"])
            return cls(names, *(arrays[name] for name in _ARRAYS))

    def write(self, path: Path) -> None:
        """Write the arrays as `.npz`, atomically."""
        content = io.BytesIO()
        np.savez(content, names=np.array(self.names), **{name: getattr(self, name) for name in _ARRAYS})
        write_atomically(path, content.getvalue())
