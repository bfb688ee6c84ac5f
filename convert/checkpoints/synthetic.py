"""Synthetic checkpoints (`seeded` in records): the originals' exact format, with generated weights.

They replace the originals where these are not available, and test a converter harder: heavy tails, LayerNorm scales
far from 1, and a stem bias so small that the tokens of a blank image have about epsilon's variance. Every value is
computed from raw bits of a counter-based generator by single, correctly rounded operations, so that the bytes are the
same on every machine, NumPy and Python; `models/digests.json` records their digests.
"""

import hashlib
import math
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from models.catalog import ALL_HANDLES, Checkpoint, Shape
from models.digests import Digest, DigestTable
from models.errors import MixerError
from models.progress import Progress
from models.storage.files import sha256_of, written_whole

_CHUNK = 1 << 18  # values made at a time: with their raw bits and tails they fit into a level-2 cache
_THREADS = 4  # at most; drawing and arithmetic release the interpreter lock

# A value is an odd 24-bit integer times an entry of this table, chosen by 8 further bits: of 256 equally likely
# multipliers the k-th is 1/sqrt((k + 1/2) / 256), which gives a density that falls with the third power, cut off at
# 14 standard deviations. `math.sqrt` is correctly rounded everywhere; `**`, `exp` and `log` are not.
_TAILS = [math.sqrt(256 / (k + 0.5)) for k in range(256)]
_SPREAD = math.sqrt(math.fsum(tail * tail for tail in _TAILS) / 256 / 3) * 2.0**23

_GAINS = {
    "stem/kernel": 2.0,
    "stem/bias": 1e-3,  # variance 1e-6, like LayerNorm's epsilon
    "LayerNorm/bias": 0.1,
    "Dense_0/kernel": 1.0,  # puts GELU's inputs where its two forms differ most
    "Dense_0/bias": 0.1,
    "Dense_1/kernel": 1.5,
    "Dense_1/bias": 0.05,  # shifts all channels of a token alike, which makes LayerNorm's fast variance less accurate
    "head/kernel": 2.5,
    "head/bias": 0.1,
}
"""Standard deviation of a bias, and of a kernel times the square root of its fan-in."""

_ZIP64_TRAININGS = ("sam",)
"""Those whose originals reserve 20 bytes per member for 64-bit sizes, as NumPy does since 1.12 (by their sizes)."""


class _SeedError(MixerError):
    """A synthetic checkpoint that cannot be written."""


def write_seeded(checkpoint: Checkpoint, directory: Path, *, progress: Progress | None = None) -> Path:
    """Write the synthetic `checkpoint` to its place under `directory` (the bucket's layout) and return its path.

    An existing file is kept if it is the recorded one.

    Raises:
        MixerError: another file exists, writing failed, or this machine makes other bytes than recorded.
    """
    path = directory / checkpoint.object
    recorded = _recorded(checkpoint)
    try:
        if path.exists():
            return _keep(path, recorded)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            _write(checkpoint, file, progress)
            file.flush()
            found = sha256_of(Path(file.name))
            if recorded and found != recorded.sha256:
                raise _SeedError(
                    f"the synthetic {checkpoint.name} has sha256 {found} here, but models/digests.json records "
                    f"{recorded.sha256}: NumPy {np.__version__} computes other values. Report this; use another NumPy."
                )
    except OSError as error:
        raise _SeedError(f"{path} cannot be written: {error.strerror or error}. Choose another directory.") from error
    return path


def _seeded_arrays(checkpoint: Checkpoint) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield name and values of every array of the synthetic checkpoint, one array at a time."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for name, shape in checkpoint.arrays.items():
            key = int.from_bytes(hashlib.sha256(f"{checkpoint.name}/{name}".encode()).digest()[:16], "little")
            array = np.empty(math.prod(shape), np.float32)
            if name.endswith("/scale"):
                array[:] = _norm_scale(key, array.size)
            else:
                table = _table(name, shape)
                starts = range(0, array.size, _CHUNK)
                for _ in pool.map(
                    lambda start, a=array, k=key, t=table: _fill(a[start : start + _CHUNK], k, start, t), starts
                ):
                    pass
            yield name, array.reshape(shape)


def _bits(key: int, start: int, count: int) -> NDArray[np.uint32]:
    """Return `count` words of the stream of `key` from index `start`, a multiple of 8 (the words of a Philox block)."""
    raw = np.random.Philox(key=key, counter=start // 8).random_raw((count + 1) // 2)
    return raw.astype("<u8", copy=False).view("<u4")[:count].astype(np.uint32, copy=False)


def _fill(values: NDArray[np.float32], key: int, start: int, table: NDArray[np.float32]) -> None:
    words = _bits(key, start, values.size)
    tails = table[words.astype(np.uint8)]
    integers = words.view(np.int32)
    integers >>= 8
    integers |= 1
    values[:] = integers
    values *= tails


def _table(name: str, shape: Shape) -> NDArray[np.float32]:
    """Return the 256 multipliers of an array, rounded to float32 once."""
    layer, leaf = name.split("/")[-2:]
    gain = _GAINS[f"{'LayerNorm' if 'norm' in layer.lower() else layer}/{leaf}"]
    fan_in = math.prod(shape[:-1])  # 1 for a bias
    return np.array([gain * tail / (_SPREAD * math.sqrt(fan_in)) for tail in _TAILS], np.float32)


def _norm_scale(key: int, count: int) -> NDArray[np.float32]:
    """Return scales between 0.2 and 4.2 (half of them below 0.4), about one in eight negative."""
    words = _bits(key, 0, count)
    uniform = (words >> 8).astype(np.float64) * 2.0**-24
    sign = np.where(words & 7, 1.0, -1.0)
    return (sign * 0.21 / (uniform + 0.05)).astype(np.float32)


def _write(checkpoint: Checkpoint, file: BinaryIO, progress: Progress | None) -> None:
    """Write the archive in the layout of `np.savez`, without anything that depends on a version or the time."""
    done, total = 0, 4 * checkpoint.parameters
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in _seeded_arrays(checkpoint):
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o600 << 16
            with archive.open(member, "w", force_zip64=checkpoint.training.name in _ZIP64_TRAININGS) as stream:
                stream.write(_npy_header(array.shape))
                stream.write(array.reshape(-1).view(np.uint8).data)
            done += array.nbytes
            if progress:
                progress(done, total)


def _npy_header(shape: Shape) -> bytes:
    """Return the header of a float32 array in the form that NumPy writes: format 1.0, padded to 64 bytes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(10 + len(text) + 1) // 64) * 64 - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode("ascii") + b"\n"


def _recorded(checkpoint: Checkpoint) -> Digest | None:
    """Return the recorded digest of a checkpoint of the catalog; None for any other."""
    known = {handle.checkpoint for handle in ALL_HANDLES.values()}
    return DigestTable.read().find(checkpoint.object, "seeded") if checkpoint in known else None


def _keep(path: Path, recorded: Digest | None) -> Path:
    if recorded and path.is_file() and path.stat().st_size == recorded.size and sha256_of(path) == recorded.sha256:
        return path
    raise _SeedError(
        f"{path} exists, and differs from the synthetic checkpoint that would be written there, so it is not replaced: "
        "move it away, or give another directory."
    )
