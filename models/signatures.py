"""The signatures of a SavedModel: the input and the output of each, as one table.

`serving_default` is that of version 1. The others save a client the preprocessing, or return the features of each
token. All compute with the same weights, and their only output is `output_0`, float32. The files of a SavedModel that
describe and replay them are named here too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from models.catalog import HEADS, Handle, Head
from models.preprocessing import SCALING, Evaluation

EXTRAS = "assets.extra"
"""The folder in a SavedModel for files that TensorFlow does not load."""

MODEL_JSON = f"{EXTRAS}/model.json"
"""What a model says of itself."""

WARMUP = f"{EXTRAS}/tf_serving_warmup_requests"
"""The requests that TensorFlow Serving replays before it accepts others."""

SERVING_DEFAULT = "serving_default"
OUTPUT = "output_0"
TOKEN_FEATURES = "token_features"  # noqa: S105 (no password)

Dtype = str
"""The name of a dtype in NumPy and TensorFlow (`float32`, `uint8`), or TensorFlow's `string`."""


@dataclass(frozen=True)
class Signature:
    """One signature of a SavedModel; `input_name` is the name of its only input."""

    name: str
    input_name: str
    dtype: Dtype
    heads: tuple[Head, ...] = HEADS

    @classmethod
    def all_of(cls, handle: Handle) -> Iterator["Signature"]:
        """Yield the signatures of a handle's SavedModel."""
        return (signature for signature in SIGNATURES.values() if handle.head in signature.heads)

    def input_shape(self, image_size: int) -> tuple[int | None, ...]:
        """Return the shape of the input, with None for the batch."""
        return (None,) if self.dtype == "string" else (None, image_size, image_size, 3)

    def output_shape(self, handle: Handle) -> tuple[int | None, ...]:
        """Return the shape of the output, with None for the batch."""
        architecture = handle.checkpoint.architecture
        if self.name == TOKEN_FEATURES:
            return None, architecture.tokens, architecture.hidden_dim
        return None, handle.outputs

    def preprocessing(self, image_size: int) -> str:
        """Describe the input that is expected, or the preprocessing that the signature applies to it."""
        if self.dtype == "string":
            return f"encoded JPEG or PNG; {Evaluation(image_size).what}"
        return "RGB, 0 to 255" if self.dtype == "uint8" else SCALING

    def meaning(self, handle: Handle) -> str:
        """Describe the output."""
        if self.name == TOKEN_FEATURES:
            return "features of each token: after the last norm, before the mean"
        return "logits" if handle.head == "classification" else "features: the mean of the tokens after the last norm"

    def facts(self, handle: Handle) -> dict[str, Any]:
        """Return the signature's facts for one handle, as written to `model.json`."""
        size = handle.checkpoint.architecture.image_size
        return {
            "input": {
                "name": self.input_name,
                "shape": self.input_shape(size),
                "dtype": self.dtype,
                "preprocessing": self.preprocessing(size),
            },
            "output": {
                "name": OUTPUT,
                "shape": self.output_shape(handle),
                "dtype": "float32",
                "meaning": self.meaning(handle),
            },
        }


SIGNATURES = {
    signature.name: signature
    for signature in (
        Signature(SERVING_DEFAULT, "inputs", "float32"),
        Signature("serving_uint8", "images", "uint8"),
        Signature("serving_bytes", "image_bytes", "string"),
        Signature(TOKEN_FEATURES, "inputs", "float32", heads=("fe",)),
    )
}
"""All signatures, by name."""
