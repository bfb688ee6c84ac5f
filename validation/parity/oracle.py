"""An independent Mixer in NumPy, float64, written from the paper: it decides when TensorFlow and JAX differ.

It follows section 2, figure 1 and equation 1 of https://arxiv.org/abs/2105.01601 and reads the checkpoint itself; it
shares no code with the rest of the project, so that no mistake is made twice. Sizes are taken from the arrays.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Values = NDArray[np.float64]

EPSILON = 1e-6
"""Epsilon of the layer norms: Flax's default, with which the checkpoints were trained."""


@dataclass(frozen=True)
class OracleOutputs:
    """Outputs of a Mixer for images: logits `[n, num_classes]` and features `[n, hidden_dim]`, float64."""

    logits: Values
    features: Values

    @classmethod
    def compute(
        cls,
        checkpoint: Path,
        images: NDArray[np.float32],
        *,
        replaced: Mapping[str, NDArray[np.floating]] | None = None,
        prefix: str = "",
    ) -> "OracleOutputs":
        """Return the outputs for images `[n, size, size, 3]`, in [-1, 1], of an original `.npz` checkpoint.

        `replaced` has arrays, by name, to use instead of the checkpoint's, whose names begin with `prefix`. Of a file
        without a head, the logits are two zeros.
        """
        steps = dict(trace_oracle(checkpoint, images, replaced=replaced, prefix=prefix))
        return cls(steps["head"], steps["features"])


def trace_oracle(
    checkpoint: Path,
    images: NDArray[np.float32],
    *,
    replaced: Mapping[str, NDArray[np.floating]] | None = None,
    prefix: str = "",
) -> Iterator[tuple[str, Values]]:
    """Yield the name and the activations after each step: the stem, each block, the last norm, the mean, the head.

    Tokens are `[n, tokens, hidden_dim]`. Images are processed in parallel by a thread pool. `replaced` has arrays, by
    name, to use instead of the checkpoint's, whose names begin with `prefix`.
    """
    others = replaced or {}
    blas = ThreadpoolController()
    with np.load(checkpoint, allow_pickle=False) as arrays, ThreadPoolExecutor(os.cpu_count()) as pool:
        named = {name.removeprefix(prefix): name for name in arrays.files if name.startswith(prefix)}

        def group(part: str) -> dict[str, Values]:
            return {
                name.removeprefix(f"{part}/"): (others[name] if name in others else arrays[stored]).astype(np.float64)
                for name, stored in named.items()
                if name.startswith(f"{part}/")
            }

        def each(step: Callable[[Values, Mapping[str, Values]], Values], values: Values, part: str) -> Values:
            with blas.limit(limits=1, user_api="blas"):  # the pool has a thread for each core
                return np.stack(list(pool.map(step, values, [group(part)] * len(values))))

        tokens = each(_embed_patches, images.astype(np.float64), "stem")
        yield "stem", tokens
        for index in range(len({name.split("/")[0] for name in named if name.startswith("MixerBlock_")})):
            tokens = each(_mixer_layer, tokens, f"MixerBlock_{index}")
            yield f"MixerBlock_{index}", tokens
        tokens = each(_layer_norm, tokens, "pre_head_layer_norm")
        yield "pre_head_layer_norm", tokens
        features = tokens.mean(axis=1)
        yield "features", features
        yield "head", each(_dense, features, "head") if "head/kernel" in named else np.zeros((len(images), 2))


def _embed_patches(image: Values, stem: Mapping[str, Values]) -> Values:
    """Cut an image `[size, size, 3]` into patches, row by row, and project each linearly: `[tokens, hidden]`."""
    height, width, channels = image.shape
    patch, _, _, hidden = stem["kernel"].shape
    rows, columns = height // patch, width // patch
    patches = image.reshape(rows, patch, columns, patch, channels).transpose(0, 2, 1, 3, 4)
    flat = patches.reshape(rows * columns, patch * patch * channels)
    return flat @ stem["kernel"].reshape(-1, hidden) + stem["bias"]


def _mixer_layer(x: Values, block: Mapping[str, Values]) -> Values:
    """Equation 1: U = X + W2 gelu(W1 norm(X)) over the tokens, then Y = U + W4 gelu(W3 norm(U)) over the channels."""
    x = x + _mlp(_layer_norm(x, _part(block, "LayerNorm_0")).T, _part(block, "token_mixing")).T
    return x + _mlp(_layer_norm(x, _part(block, "LayerNorm_1")), _part(block, "channel_mixing"))


def _mlp(x: Values, mlp: Mapping[str, Values]) -> Values:
    return _dense(_gelu(_dense(x, _part(mlp, "Dense_0"))), _part(mlp, "Dense_1"))


def _dense(x: Values, layer: Mapping[str, Values]) -> Values:
    y: Values = x @ layer["kernel"]
    y += layer["bias"]
    return y


def _layer_norm(x: Values, norm: Mapping[str, Values]) -> Values:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + EPSILON) * norm["scale"] + norm["bias"])


def _gelu(x: Values) -> Values:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): GELU as in https://arxiv.org/abs/1606.08415, section 2."""
    inner = x * x
    inner *= 0.044715
    inner += 1
    inner *= x
    inner *= np.sqrt(2 / np.pi)
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= 0.5
    return inner


def _part(arrays: Mapping[str, Values], name: str) -> dict[str, Values]:
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
