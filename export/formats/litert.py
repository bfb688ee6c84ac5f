"""Write a SavedModel of the graph flavour as LiteRT files: in float32, and with smaller weights.

TensorFlow's converter also writes int8 weights, but the runtime then rounds the inputs of dense layers too, so that no
oracle can tell whether it computes the right thing. ai-edge-quantizer needs one exact release of the runtime, and one
scale for each output, which is what it has, is too coarse where there are outliers. So the int8 file is made here, from
the float32 one.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.formats.litert_editor import LiteRTEditor
from models.errors import MixerError
from models.formats import FORMATS, Weights

_SENSITIVE = ("stem/", "/token_mixing/")
"""Parts of the names of kernels whose rounding to int8 costs the most, in the order in which they become float16."""

_ROOM, _ALWAYS = 0.07, 1 << 17
"""Share of all weights that may be float16, so that the file has at most 1.1 times a quarter of the float32 bytes; and
how many may be anyway, as the graph of a small model outweighs them."""


def write_litert(saved_model: Path, directory: Path) -> None:
    """Write a LiteRT file for each type of weights; all compute in float32.

    float16: TensorFlow's converter stores all weights as float16. int8: kernels are int8; those of token mixing, and of
    the patch embedding, are float16 if they are few.

    Raises:
        MixerError: a kernel of the SavedModel is not in the converted file.
    """
    files = {weights: directory / file for file, weights in FORMATS["litert"].models.items()}
    content = _convert(saved_model, "float32")
    files["float32"].write_bytes(content)
    files["int8"].write_bytes(_with_smaller_kernels(content, saved_model))
    del content
    files["float16"].write_bytes(_convert(saved_model, "float16"))


def _convert(saved_model: Path, weights: Weights) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    if weights == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def _with_smaller_kernels(content: bytes, saved_model: Path) -> bytes:
    """Return a float32 file with smaller kernels, each under the name of the checkpoint's array."""
    model = tf.saved_model.load(str(saved_model))  # kept alive while its variables are needed
    variables = {one.name.removesuffix(":0"): one for one in model.signatures["serving_default"].variables}
    left = {
        name: np.moveaxis(variable.numpy(), -1, 0)
        for name, variable in sorted(variables.items())
        if name.endswith("/kernel")
    }
    editor, precise = LiteRTEditor(content), _precise(left)
    for operation, kernel in list(editor.kernels()):
        for name, array in left.items():
            if (factor := _factor(kernel, array)) is not None:
                editor.store_smaller(operation, left.pop(name), name, factor, precise=name in precise)
                break
    if left:
        raise MixerError(f"the float32 file does not contain {', '.join(left)} as they are in the SavedModel.")
    return editor.pack()


def _precise(kernels: Mapping[str, NDArray[np.float32]]) -> frozenset[str]:
    """Return the names of the kernels that become float16."""
    chosen, room = frozenset[str](), max(_ALWAYS, _ROOM * sum(kernel.size for kernel in kernels.values()))
    for part in _SENSITIVE:
        names = frozenset(name for name in kernels if part in name)
        size = sum(kernels[name].size for name in names)
        if size <= room:
            chosen, room = chosen | names, room - size
    return chosen


def _factor(kernel: NDArray[np.float32], array: NDArray[np.float32]) -> float | None:
    """Return what the converter multiplied an array by to get a kernel; None if the kernel is another one.

    It divides the head's kernel by the number of tokens, because it writes their mean as a sum.
    """
    if kernel.shape != array.shape:
        return None
    largest = np.unravel_index(np.abs(array).argmax(), array.shape)
    factor = float(kernel[largest] / array[largest]) if array[largest] else 1.0
    return factor if np.allclose(kernel, array * factor, rtol=1e-6, atol=0) else None
