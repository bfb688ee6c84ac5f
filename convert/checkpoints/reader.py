"""Read a Mixer checkpoint strictly: `.npz` -> nested float32 arrays, or one error that lists all problems.

The file is read once, front to back, and hashed on the way. Stored members are read directly into their arrays,
deflated ones through `zipfile`; each is checked by its CRC-32, and for NaN and infinity chunk by chunk. Arrays that do
not fit the architecture take no memory, and after the first problem none is kept.
"""

import io
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from convert.checkpoints.buffer import ALIGNMENT, ReusableBuffer
from convert.checkpoints.forms import Form, Header
from convert.checkpoints.npz import CHUNK, UNREADABLE, CheckpointError, Reader, StoredMember, opened, read_contents
from models.catalog import CHECKPOINTS, Architecture, Head, Shape
from models.errors import MOST_SHOWN, MixerError, counted, shown
from models.params import Params, nest
from models.progress import Progress

_LISTED = 8  # problems of one kind that are spelled out
_KINDS = ("missing", "unexpected", "misshapen", "mistyped", "non-finite", "damaged")
_STREAMED, _DESCRIPTORS = 0x8, (12, 16, 20, 24)  # flag of a member with a descriptor after it, and its sizes in bytes
_RATIOS = {ZIP_STORED: 1, ZIP_DEFLATED: 1032}  # most bytes that one byte of the file can unpack to
_HEADERS = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
}
"""By version: the bytes of the header's length, and the function that reads the length and the header."""
_LONGEST_HEADER = 10_000  # NumPy's own limit, which it checks only after reading the stated length
_MOST_CLASSES = 1 << 20
_HEAD = frozenset({"head/kernel", "head/bias"})
_STAND_IN_CLASSES = 2  # of the head of zeros that a file without one gets
_DENSE, _MOST_FROM_LITTLE = 100, 1 << 27  # most inflation by factor, or to this size: a zero head of 30,000 classes


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint in memory, with the digest and the size in bytes of the file that it came from."""

    params: Params
    """With a head of zeros if the file has none."""
    num_classes: int
    sha256: str
    size: int

    def for_head(self, head: Head) -> Params:
        """Return the params for this head, without copying arrays: all, or for `fe` all but `head`."""
        return {name: value for name, value in self.params.items() if head == "classification" or name != "head"}


def load_checkpoint(
    path: Path,
    architecture: Architecture,
    *,
    num_classes: int | None,
    needs_head: bool = True,
    strip_prefix: str = "",
    progress: Progress | None = None,
    room: ReusableBuffer | None = None,
) -> LoadedCheckpoint:
    """Read a checkpoint of `architecture`; if `num_classes` is None (a custom checkpoint), its head decides it.

    Args:
        path: the file.
        architecture: the expected architecture.
        num_classes: the expected number of classes.
        needs_head: whether a file without a head is refused; else it is read with a head of zeros.
        strip_prefix: what all names begin with; arrays of other names are ignored.
        progress: called after each piece that was read.
        room: memory to read it into; without, each array gets its own.

    Raises:
        CheckpointError: the file cannot be read, is not an archive, or has other contents than finite float32 arrays of
            exactly the expected names and shapes; one error lists all problems.
    """
    with opened(path) as file:
        before = os.fstat(file.fileno())
        content = _Content(architecture, num_classes, room or ReusableBuffer(), strip_prefix, needs_head)
        try:
            archive = read_contents(file, before.st_size)
            if room is not None:
                room.reserve(_most(architecture, num_classes))
            reader = Reader(file, before.st_size, progress)
            content.add_all(archive, reader, before.st_size)
        except CheckpointError as error:
            raise CheckpointError(
                f"{path}: {error}\nExpected an archive written by np.savez, of {_named(architecture, num_classes)}: at "
                f"least {4 * architecture.parameters(num_classes):,} bytes; found {before.st_size:,}. "
                "Fetch or copy the file again."
            ) from None
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise CheckpointError(f"{path} changed while it was read. Wait until it is written, then try again.")
    params, num_classes = content.finish(path)
    return LoadedCheckpoint(params, num_classes, reader.sha256.hexdigest(), before.st_size)


class _Content:
    """The arrays read so far or, after the first problem, only the problems."""

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int | None,
        room: ReusableBuffer,
        prefix: str,
        needs_head: bool,
    ) -> None:
        self._room = room
        self._prefix, self._needs_head = prefix, needs_head
        self._headers: dict[str, Header] = {}
        self._architecture, self._classes = architecture, num_classes
        self._wanted = _wanted(architecture, num_classes)
        self._arrays: dict[str, NDArray[np.float32]] = {}
        self._names: set[str] = set()
        self._problems: dict[str, list[str]] = {kind: [] for kind in _KINDS}

    def add_all(self, archive: ZipFile, reader: Reader, size: int) -> None:
        """Read all members of a file of `size` bytes."""
        archive.fp = cast(IO[bytes], reader)
        members = sorted(archive.infolist(), key=lambda info: info.header_offset)
        limits = [*(info.header_offset for info in members[1:]), archive.start_dir]
        for info, limit in zip(members, limits, strict=False):  # an empty archive has a limit and no member
            self._add(archive, info, limit, reader)
        if members:
            reader.skip_to(size)

    def _add(self, archive: ZipFile, info: ZipInfo, limit: int, reader: Reader) -> None:
        """Read one member, which must end at offset `limit`."""
        name = info.filename.removesuffix(".npy")
        if not name.startswith(self._prefix):
            self._headers[name] = Header((), np.dtype(np.float32))
            reader.skip_to(limit)
            return
        name = name.removeprefix(self._prefix)
        try:
            if name in self._names:
                raise BadZipFile("its name appears twice")
            self._names.add(name)
            if gap := info.header_offset - reader.position:
                raise BadZipFile(f"{gap:,} bytes before it belong to no member")
            if info.compress_type not in _RATIOS:
                raise BadZipFile(f"compression method {info.compress_type}; expected stored or deflated data")
            with archive.open(info) as stream:
                stored = info.compress_type == ZIP_STORED
                whole = self._read(
                    name, info, StoredMember(reader, info) if stored else cast(io.BufferedIOBase, stream)
                )
            rest = limit - reader.position
            if whole and rest and not (info.flag_bits & _STREAMED and rest in _DESCRIPTORS):
                raise BadZipFile(f"{rest:,} bytes after it belong to no member")
        except UNREADABLE as error:
            self._note("damaged", name, str(error))
        reader.refused = any(self._problems.values())
        reader.skip_to(limit)

    def _read(self, name: str, info: ZipInfo, stream: StoredMember | io.BufferedIOBase) -> bool:
        """Load a member that fits, note what does not, and return whether all of it was read."""
        if not info.filename.endswith(".npy"):
            self._note("unexpected", name, "a member that is not an array")
            return False
        shape, fortran, dtype = _header(stream)
        self._headers[self._prefix + name] = Header(shape, dtype)
        if not self._fits(name, shape, dtype):
            return False  # its data are not needed
        left, size = info.file_size - stream.tell(), 4 * math.prod(shape)
        if left != size or size > info.compress_size * _RATIOS[info.compress_type]:
            raise BadZipFile(f"{info.compress_size:,} bytes ({left:,} inflated) cannot be the {size:,} of its shape")
        if size > max(_MOST_FROM_LITTLE, info.compress_size * _DENSE):
            raise BadZipFile(f"{info.compress_size:,} bytes would inflate to {size:,}: save it with np.savez")
        self._load(name, shape[::-1] if fortran else shape, stream)
        if fortran and name in self._arrays:
            self._arrays[name] = np.ascontiguousarray(self._arrays[name].T)
        return True

    def _fits(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> bool:
        """Note what is wrong with the array that a header describes, and return whether it fits."""
        head = {"head/kernel": (self._architecture.hidden_dim,), "head/bias": ()}.get(name)
        if self._classes is None and shape and shape[-1] > 0 and shape[:-1] == head:
            if shape[-1] > _MOST_CLASSES:
                self._note("misshapen", name, f"found {shape}, expected at most {_MOST_CLASSES:,} classes")
                return False
            self._classes, self._wanted = shape[-1], _wanted(self._architecture, shape[-1])
        wanted = self._wanted.get(name)
        if wanted is None:
            self._note("unexpected", name, f"found {dtype} {shape}")
            return False
        if dtype.hasobject:
            self._note("mistyped", name, "found Python objects, expected float32; pickled objects are never loaded")
        elif dtype != np.float32:
            self._note("mistyped", name, f"found {dtype} ({dtype.str}), expected float32")
        if shape != wanted:
            self._note("misshapen", name, f"found {shape}, expected {wanted}".replace("'", ""))
        return dtype == np.float32 and shape == wanted

    def _load(self, name: str, shape: Shape, stream: StoredMember | io.BufferedIOBase) -> None:
        """Fill an array chunk by chunk or, after the first problem, only check the chunks."""
        count, step, nans, infinities = math.prod(shape), CHUNK // 4, 0, 0
        keep = not any(self._problems.values())
        array = self._room.array(count) if keep else np.empty(min(count, step), np.float32)
        for start in range(0, count, step):
            part = array[start : start + step] if keep else array[: count - start]
            if stream.readinto(part.view(np.uint8).data) != part.nbytes:
                raise BadZipFile("its data end early")
            if not (math.isfinite(part.max()) and math.isfinite(part.min())):  # NaN if any value is NaN
                nans += int(np.isnan(part).sum())
                infinities += int(np.isinf(part).sum())
        if nans or infinities:
            self._note("non-finite", name, f"found {nans:,} NaN and {infinities:,} infinite of {count:,} values")
        elif keep:
            self._arrays[name] = array.reshape(shape)

    def _note(self, kind: str, name: str, text: str) -> None:
        self._problems[kind].append(f"{shown(name)}: {shown(text, 4 * MOST_SHOWN)}")
        self._arrays.clear()

    def finish(self, path: Path) -> tuple[Params, int]:
        """Return the nested arrays and the number of classes, or raise one error that lists all problems."""
        if not (self._needs_head or self._names & _HEAD):
            hidden = self._architecture.hidden_dim
            head = {"head/kernel": (hidden, _STAND_IN_CLASSES), "head/bias": (_STAND_IN_CLASSES,)}
            self._arrays |= {name: np.zeros(shape, np.float32) for name, shape in head.items()}
            self._names |= _HEAD
            self._classes = _STAND_IN_CLASSES
        for name in self._wanted.keys() - self._names:
            self._note("missing", name, f"expected float32 {self._wanted[name]}".replace("'", ""))
        if self._classes is not None and not any(self._problems.values()):
            return nest({name: self._arrays[name] for name in self._wanted}), self._classes
        form = Form.of(path, self._headers, self._architecture, strip_prefix=self._prefix)
        damaged = {kind for kind, found in self._problems.items() if found} == {"damaged"}
        what = "damaged" if damaged else f"not a checkpoint of {_named(self._architecture, self._classes)}"
        lines = [f"{path} is {what}.", *([] if damaged else self._resemblance())]
        for kind, found in self._problems.items():
            if form.explains_names and kind in {"missing", "unexpected"}:
                continue
            lines += [f"{kind} ({len(found)}):"] if found else []
            lines += [f"  {line}" for line in sorted(found)[:_LISTED]]
            lines += [f"  and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
        raise CheckpointError("\n".join([*lines, *(form.lines or [self._advice()])]))

    def _advice(self) -> str:
        if not self._names & _HEAD and sum(map(len, self._problems.values())) == len(self._problems["missing"]) == 2:
            return "The file has no head, which a classifier needs: give the handle that ends in _fe, for its features."
        return "Give the file that belongs to this handle, or the handle of this file; fetch a damaged one again."

    def _resemblance(self) -> list[str]:
        """Name the architecture and the classes that these shapes belong to, if they are not the expected ones."""
        shapes = {name.removeprefix(self._prefix): header.shape for name, header in self._headers.items()}
        classes = (shapes.get("head/bias") or (None,))[0]
        wanted = _named(self._architecture, self._classes)
        for architecture in (
            self._architecture,
            *(row.architecture for rows in CHECKPOINTS.values() for row in rows.values()),
        ):
            if architecture.arrays(classes) == shapes and _named(architecture, classes) != wanted:
                return [f"This looks like {_named(architecture, classes)}; the handle expects {wanted}."]
        return []


def _header(stream: StoredMember | io.BufferedIOBase) -> tuple[Shape, bool, np.dtype[Any]]:
    """Return the shape, the Fortran order and the dtype in an array header; nothing is unpickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            version = np.lib.format.read_magic(stream)
            if version not in _HEADERS:
                raise BadZipFile(f"its array header has version {version}; expected 1.0 or 2.0")
            width, read = _HEADERS[version]
            stated = stream.read(width)
            length = int.from_bytes(stated, "little")
            if length > _LONGEST_HEADER:
                raise BadZipFile(f"its array header claims {length:,} bytes, more than {_LONGEST_HEADER:,}")
            return read(io.BytesIO(stated + stream.read(length)))
        except (MixerError, OSError, BadZipFile):
            raise
        except Exception as error:  # the header is evaluated as a Python literal: a damaged one may raise anything
            said = str(error).partition("\n")[0] or type(error).__name__
            raise BadZipFile(f"its array header cannot be read ({said})") from error


def _wanted(architecture: Architecture, num_classes: int | None) -> dict[str, tuple[int | str, ...]]:
    head = {"head/kernel": (architecture.hidden_dim, "classes"), "head/bias": ("classes",)}
    return architecture.arrays(num_classes) | (head if num_classes is None else {})


def _most(architecture: Architecture, num_classes: int | None) -> int:
    """Return the most bytes that the arrays take, with the gaps between them."""
    return 4 * architecture.parameters(num_classes) + ALIGNMENT * (len(architecture.arrays(num_classes)) + 1)


def _named(architecture: Architecture, num_classes: int | None) -> str:
    return architecture.name if num_classes is None else f"{architecture.name} with {counted(num_classes, 'class')}"
