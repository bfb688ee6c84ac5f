"""The outputs themselves, saved beside the report so that a person can look at them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:  # the page reads saved outputs without importing TensorFlow
    from validation.parity.check import Findings
    from validation.parity.images import Inputs
    from validation.parity.outputs import Expected, Outputs


_ARRAYS = ("saved_model", "jax", "oracle", "scale", "images")
_LARGEST = 112
"""Most pixels of a side of an image; larger ones are reduced."""


@dataclass(frozen=True)
class SavedOutputs:
    """Outputs `[n, k]` for the named images: the SavedModel's and JAX's, float32, and the oracle's, float64.

    The oracle's are NaN for an image that it was not run on. `scale` `[n]`, float64, is what the differences of an
    image's outputs are divided by. `images` `[n, side, side, 3]`, uint8, are the images, reduced for display.
    """

    names: tuple[str, ...]
    saved_model: "Outputs"
    jax: "Outputs"
    oracle: NDArray[np.float64]
    scale: NDArray[np.float64]
    images: NDArray[np.uint8]

    @classmethod
    def collect(cls, findings: "Findings", expected: "Expected", inputs: "Inputs") -> "SavedOutputs":
        """Collect the outputs of images that the SavedModel was run on."""
        names = tuple(name for name in expected.names if name in findings.outputs)
        rows = [expected.names.index(name) for name in names]
        unknown = np.full(expected.jax.shape[1:], np.nan)
        return cls(
            names,
            np.stack([findings.outputs[name] for name in names]),
            np.asarray(expected.jax[rows], np.float32),
            np.stack([expected.oracle.get(name, unknown) for name in names]),
            expected.scale.of[rows],
            np.stack([_reduced(inputs.images[inputs.names.index(name)]) for name in names]),
        )

    @classmethod
    def read(cls, path: Path) -> "SavedOutputs":
        """Read a file with the contents that `to_bytes` returns; pickles are refused."""
        with np.load(path, allow_pickle=False) as arrays:
            names = tuple(str(name) for name in arrays["names"])
            return cls(names, *(arrays[name] for name in _ARRAYS))

    def to_bytes(self) -> bytes:
        """Return the arrays as the contents of an `.npz` file."""
        content = io.BytesIO()
        np.savez(content, names=np.array(self.names), **{name: getattr(self, name) for name in _ARRAYS})
        return content.getvalue()


def _reduced(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image in [-1, 1] as RGB, its sides at the most `_LARGEST` pixels."""
    pixels = Image.fromarray(np.rint(image * 127.5 + 127.5).clip(0, 255).astype(np.uint8))
    side = min(pixels.width, _LARGEST)
    return np.asarray(pixels.resize((side, side), Image.Resampling.BOX))
