"""Name the form of a checkpoint that other tools wrote, and how it becomes one that can be read here.

The lines of Python that are given as repairs run in this environment (`tests/test_forms.py` runs each of them).
"""

import math
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from models.catalog import Architecture, Shape

_STEM = "stem/kernel"
_SAVE = "import sys, numpy as np; {reading}; np.savez(sys.argv[2], **{arrays})"
_MSGPACK = _SAVE.format(
    reading="from flax import serialization, traverse_util; "
    "tree = serialization.msgpack_restore(open(sys.argv[1], 'rb').read())",
    arrays="{k: np.asarray(v, 'float32') for k, v in traverse_util.flatten_dict(tree, sep='/').items()}",
)
_PICKLED = _SAVE.format(
    reading="from flax.traverse_util import flatten_dict; "
    "tree = {k: v.item() if v.dtype == object else v for k, v in np.load(sys.argv[1], allow_pickle=True).items()}",
    arrays="flatten_dict(tree.get('arr_0', tree), sep='/')",
)
_BFLOAT16 = "(f[k].view(ml_dtypes.bfloat16) if f[k].dtype.str == '|V2' else f[k]).astype('float32')"


@dataclass(frozen=True)
class Header:
    """The shape and dtype of an array in a checkpoint."""

    shape: Shape
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Form:
    """What a checkpoint is instead, and what to do."""

    lines: tuple[str, ...]
    explains_names: bool
    """Whether the missing and unexpected names need no further explanation."""

    @classmethod
    def of(cls, path: Path, arrays: Mapping[str, Header], architecture: Architecture, *, strip_prefix: str) -> Self:
        """Return what is known about the form of a checkpoint with these arrays, which is not as it should be.

        Args:
            path: the checkpoint.
            arrays: of the file, by their names in it.
            architecture: the expected architecture.
            strip_prefix: what was stripped from the names.
        """
        if any(header.dtype.hasobject for header in arrays.values()):
            said = (
                "It contains Python objects, as np.savez(file, params) writes a nested dict: a pickle, which is never "
                "loaded here, as that would run the code inside it. If you trust the file, write its arrays by name:"
            )
            return cls((said, f"  {_line(path, _PICKLED)}"), explains_names=True)
        if {name: header.dtype.kind for name, header in arrays.items()} == {"arr_0": "U"}:
            said = (
                "It contains only names, as np.savez(file, params) writes a FrozenDict: the weights are not in it. "
                "Save them with np.savez(file, **flax.traverse_util.flatten_dict(params, sep='/'))."
            )
            return cls((said,), explains_names=True)
        stem = next((name for name in arrays if f"/{name.replace('.', '/')}".endswith(f"/{_STEM}")), None)
        if stem is None:
            return cls((), explains_names=False)
        prefix = stem.replace(".", "/").removesuffix(_STEM)
        named = {name.replace(".", "/").removeprefix(prefix): header for name, header in arrays.items()}
        lines = [
            *_of_values(path, arrays, named, architecture, dotted="." in stem),
            *_of_prefix(prefix, strip_prefix),
            *_of_tokens(named, architecture),
        ]
        return cls(tuple(lines), explains_names="." in stem or prefix != strip_prefix)


def describe_msgpack(path: Path, start: bytes) -> str | None:
    """Return what a file of flax is, and how to convert it; None for a file that does not start like one.

    It starts like a map of MessagePack whose first key is a string.
    """
    sizes = {0xDE: 3, 0xDF: 5}
    if not start or (start[0] not in sizes and not 0x81 <= start[0] <= 0x8F):
        return None
    key = start[sizes.get(start[0], 1) :][:1]
    if not key or not (0xA0 <= key[0] <= 0xBF or key[0] == 0xD9):
        return None
    return (
        "it is a checkpoint of flax (MessagePack, as flax.training.checkpoints writes checkpoint_N). Write its arrays "
        f"with np.savez, then give that file:\n  {_line(path, _MSGPACK)}"
    )


def _of_values(
    path: Path, arrays: Mapping[str, Header], named: Mapping[str, Header], architecture: Architecture, *, dotted: bool
) -> Iterator[str]:
    """Yield how to rewrite names with dots, and values of another dtype."""
    wanted = architecture.arrays(1)
    others = {header.dtype for name, header in named.items() if name in wanted and header.dtype != np.float32}
    if dotted:
        yield "Its names have '.' where '/' is expected."
    for dtype in sorted(others, key=str):
        said = "bfloat16, which NumPy reads as |V2" if dtype.str == "|V2" else f"{dtype} ({dtype.str})"
        yield f"It stores {said}; expected float32."
    if dotted or others:
        key = "k.replace('.', '/')" if dotted else "k"
        value = _BFLOAT16 if others else "f[k]"
        reading = f"{'import ml_dtypes; ' if others else ''}f = np.load(sys.argv[1])"
        yield "Write it again, then give the new file:"
        yield f"  {_line(path, _SAVE.format(reading=reading, arrays='{' + f'{key}: {value} for k in f' + '}'))}"


def _of_prefix(prefix: str, strip_prefix: str) -> Iterator[str]:
    if prefix != strip_prefix:
        stripped = f", not with {strip_prefix!r}" if strip_prefix else ""
        option = f"give --strip-prefix {shlex.quote(prefix)}" if prefix else "leave --strip-prefix out"
        yield f"The names of its arrays begin with {prefix!r}{stripped}: {option}."


def _of_tokens(named: Mapping[str, Header], architecture: Architecture) -> Iterator[str]:
    mixing, stem = (named.get(name) for name in ("MixerBlock_0/token_mixing/Dense_0/kernel", _STEM))
    if mixing is None or stem is None or len(mixing.shape) != 2 or len(stem.shape) != 4:
        return
    side = math.isqrt(mixing.shape[0])
    size = side * stem.shape[0]
    if side * side == mixing.shape[0] and size != architecture.image_size:
        yield (
            f"It mixes {mixing.shape[0]:,} tokens, so it is for images of {size} x {size} pixels; {architecture.name} "
            f"has {architecture.tokens:,} tokens, of {architecture.image_size} x {architecture.image_size} pixels. "
            "Token mixing cannot be resized: fine-tune it at that size."
        )


def _line(path: Path, program: str) -> str:
    fixed = path.with_name(f"{path.name.removesuffix('.npz')}.fixed.npz")
    return shlex.join([sys.executable, "-c", program, str(path), str(fixed)])
