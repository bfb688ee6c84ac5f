"""Write a SavedModel of the graph flavour as LiteRT files: in float32, and with smaller weights.

TensorFlow's converter also writes int8 weights, but the runtime then rounds the inputs of dense layers too, so that no
oracle can tell whether it computes the right thing. ai-edge-quantizer needs one exact release of the runtime, and one
scale for each output, which is what it has, is too coarse where there are outliers. So the int8 file is made here, from
the float32 one.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.formats.litert_editor import LiteRTEditor
from models.errors import MixerError
from models.formats import FORMATS, Weights


def write_litert(saved_model: Path, directory: Path) -> None:
    """Write a LiteRT file for each type of weights; all compute in float32.

    float16: TensorFlow's converter stores all weights as float16. int8: kernels are int8 or float16, see
    `LiteRTEditor`.

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
    editor = LiteRTEditor(content)
    for operation, kernel in list(editor.kernels()):
        for name, array in left.items():
            if (factor := _factor(kernel, array)) is not None:
                editor.store_smaller(operation, left.pop(name), name, factor)
                break
    if left:
        raise MixerError(f"the float32 file does not contain {', '.join(left)} as they are in the SavedModel.")
    return editor.pack()


def _factor(kernel: NDArray[np.float32], array: NDArray[np.float32]) -> float | None:
    """Return what the converter multiplied an array by to get a kernel; None if the kernel is another one.

    It divides the head's kernel by the number of tokens, because it writes their mean as a sum.
    """
    if kernel.shape != array.shape:
        return None
    largest = np.unravel_index(np.abs(array).argmax(), array.shape)
    factor = float(kernel[largest] / array[largest]) if array[largest] else 1.0
    return factor if np.allclose(kernel, array * factor, rtol=1e-6, atol=0) else None
