"""Input that is made to break its reader: checkpoints, archives, records, class lists, pictures, data sets.

Good input is mutated: its bytes, or its structure (members and headers of archives, values of JSON, names of a folder).
Whoever reads it must refuse it with an error of this project, or read from it what was good in it. Failed: any other
exception, more than a second of the processor, more than 200 MB of memory, or other values than the independent reader
finds. Inputs that once failed are in `tests/hostile`, which `tests/test_withstand.py` reads again.
"""

import copy
import gzip
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from colours import write_colours
from PIL import Image
from publishable import write_card, write_model

from convert.checkpoints.open import CustomCheckpoint
from convert.checkpoints.reader import load_checkpoint
from convert.checkpoints.synthetic import write_seeded
from convert.pipeline.tfds_data import _find
from export.package.archive import package_model
from export.package.verify import verify
from models.catalog import TESTING_HANDLES
from models.digests import DigestTable
from models.errors import MixerError
from models.params import flatten
from models.pictures import decode
from models.records.about import About
from models.records.layout import ModelPaths
from validation import verify as alone
from validation.accuracy.dataset import Dataset
from withstand.guided import failing_inputs
from withstand.rows import Row

CASES = 20_000
MOST_SECONDS, MOST_BYTES = 1.0, 200 << 20
FOUND = Path(__file__).parent.parent / "hostile"

TITLE = "Hostile input"
REMARK = (
    "Mutations are drawn from a seed that is the case's number, so each can be made again. Those that coverage guides "
    "are drawn by atheris and in the same ways, from what reached new code of the project, zipfile or tarfile; what "
    "failed is read again without instruments, and judged. Time is the processor's."
)

Mutate = Callable[[bytes, random.Random], bytes]
HANDLE = next(iter(TESTING_HANDLES.values()))
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)


@dataclass(frozen=True)
class Target:
    """A kind of input: good examples, ways to mutate them, and its reader, which returns what is wrong or None."""

    name: str
    good: tuple[bytes, ...]
    ways: tuple[Mutate, ...]
    read: Callable[[bytes, bytes], str | None]
    """Takes the mutated input and the good one."""


# --- mutations ---


def of_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, insert, repeat, and write numbers that are often limits."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place, size = chance.randrange(len(data) + 1), chance.choice((1, 2, 4, 8, 64))
        kind = chance.randrange(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[place : place + size]
        elif kind == 2:
            data[place:place] = chance.randbytes(size)
        elif kind == 3:
            data[place:place] = data[max(0, place - size) : place]
        else:
            width = chance.choice((2, 4, 8))
            data[place : place + width] = (chance.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(data[: chance.randrange(len(data))] if data and chance.random() < 0.1 else data)


def of_json(content: bytes, chance: random.Random) -> bytes:
    """Replace, remove or add values."""
    value = json.loads(content)
    for _ in range(chance.randint(1, 3)):
        inner = chance.choice(list(_containers(value)))
        key = chance.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if chance.random() < 0.2:
            del inner[key]
        else:
            inner[key] = copy.deepcopy(chance.choice(VALUES))
        if not list(_containers(value)):
            break
    text = json.dumps(value, indent=chance.choice((None, 1)))
    return (text.replace(": ", ": " + "[" * 5000, 1) if chance.random() < 0.02 else text).encode()


VALUES = (
    *(None, True, -1, 0, 1 << 70, 1e999, "", "\x00", "../../x", "x" * 100_000, "\ud800", "a" * 64, "0" * 64),
    *([], {}, [[]] * 100, {"": 1}, {"__proto__": {}}),
)


def _containers(value: object) -> Iterator[dict | list]:
    if isinstance(value, dict | list):
        if value:
            yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def of_npz(content: bytes, chance: random.Random) -> bytes:
    """Change names, headers and sizes of the arrays."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(members))
        name, array = members[place]
        kind = chance.randrange(5)
        if kind == 0:
            members[place] = (chance.choice(("../x.npy", "/x.npy", "", "head", "a/" * 200, members[0][0])), array)
        elif kind == 1:
            members[place] = (name, of_header(array, chance))
        elif kind == 2:
            members.insert(place, (name, array))
        elif kind == 3:
            members[place] = (name, of_bytes(array, chance))
        else:
            del members[place]
        members = members or [("x.npy", b"")]
    packed = io.BytesIO()
    how = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(packed, "w", how, allowZip64=chance.random() < 0.9) as archive:
        for name, array in members:
            archive.writestr(zipfile.ZipInfo(name or "\u202e"), array, compress_type=how)
    return packed.getvalue() if chance.random() < 0.7 else of_bytes(packed.getvalue(), chance)


def of_header(array: bytes, chance: random.Random) -> bytes:
    """Give an array another type, order, shape or length of header."""
    length = int.from_bytes(array[8:10], "little")
    header = array[10 : 10 + length].decode("latin1")
    for old, new in (
        ("'<f4'", chance.choice(("'|O'", "'<f8'", "'>f4'", "'<f2'", "'<U9'", "[('a','<f4')]", "'<m8[ns]'"))),
        ("False", "True"),
        ("(", chance.choice(("(0, ", "(-1, ", "(1000000000000, ", "(1, " * 40, "(2**70, ", "(1.0, "))),
    ):
        header = header.replace(old, new) if chance.random() < 0.5 else header
    text = header.strip().ljust(length - 1).encode("latin1") + b"\n"
    stated = chance.choice((len(text), len(text), 0, 65535))
    return array[:6] + bytes(chance.choice(((1, 0), (2, 0), (3, 0), (9, 9)))) + struct.pack("<H", stated) + text


def of_archive(content: bytes, chance: random.Random) -> bytes:
    """Change names, kinds and sizes of a package's members, or the bytes within the compression."""
    plain = gzip.decompress(content)
    if chance.random() < 0.3:
        return gzip.compress(of_bytes(plain, chance), 1)
    packed = io.BytesIO()
    new = partial(tarfile.open, fileobj=packed, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(plain)) as found, new() as archive:
        for member in found.getmembers():
            data = found.extractfile(member)
            inner = b"" if data is None else data.read()
            if chance.random() < 0.3:
                member.name = chance.choice(("../x", "/x", member.name + "/..", "a/" * 300, "x\x00y", "saved_model.pb"))
            if chance.random() < 0.2:
                member.type = chance.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S"))
                member.linkname = chance.choice(("/etc/passwd", "../..", member.name))
            if chance.random() < 0.2:
                member.pax_headers = {"size": chance.choice(("-1", "1e9", "9" * 30)), "x" * 500: "y" * 5000}
            if chance.random() < 0.2:
                inner = of_bytes(inner, chance) if inner else b"x"
            member.size = len(inner)
            archive.addfile(member, io.BytesIO(inner))
    return packed.getvalue()


def of_lines(content: bytes, chance: random.Random) -> bytes:
    """Repeat, remove, lengthen and exchange lines."""
    lines = content.split(b"\n")
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(lines))
        new = chance.choice((b"", lines[0], b"x" * 100_000, b"\xff\xfe", b"\x00", b"\r", b'a = """', b"[[accuracy]]"))
        lines[place : place + chance.randrange(2)] = [new] * chance.choice((0, 1, 1, 50))
        lines = lines or [b""]
    return b"\n".join(lines)


# --- readers ---


def reads_checkpoint(folder: Path, content: bytes, _: bytes) -> str | None:
    """Read a custom checkpoint; what is accepted must be what NumPy reads from it."""
    path = folder / "mine.npz"
    path.write_bytes(content)
    loaded = load_checkpoint(path, HANDLE.checkpoint.architecture, num_classes=None)
    with np.load(path, allow_pickle=False) as arrays:
        other = {name: arrays[name] for name in arrays.files}
    ours = flatten(loaded.params)
    same = ours.keys() == other.keys() and all(np.array_equal(ours[name], other[name]) for name in ours)
    return None if same else "accepted with other values than NumPy reads"


def reads_class_list(folder: Path, checkpoint: Path, content: bytes, _: bytes) -> str | None:
    path = folder / "labels.txt"
    path.write_bytes(content)
    handle, _ = CustomCheckpoint(checkpoint, "mine", path).open(HANDLE, DigestTable(()))
    lines = content.decode().removesuffix("\n").split("\n")
    return None if len(lines) == handle.num_classes else f"accepted with {len(lines)} lines"


def reads_published(paths: ModelPaths, file: Path, content: bytes, good: bytes) -> str | None:
    """Verify a package one of whose files was replaced, which both verifiers must notice."""
    known = _said_of(paths)
    with _replaced(file, content, good):
        found = _said_of(paths)
    silent = [who for who in found if found[who] == known[who]]
    return None if not silent or _is_same(content, good) else f"not noticed by {', '.join(silent)}"


@contextmanager
def _replaced(file: Path, content: bytes, good: bytes) -> Iterator[None]:
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(good)


def _said_of(paths: ModelPaths) -> dict[str, tuple[list[str], list[str]]]:
    """Return what each verifier finds different, and what it could not check."""
    ours, theirs = verify(paths.archive), alone.verify(str(paths.archive))
    return {
        "verify": (list(ours.differences), list(ours.not_checked)),
        "verify.py": (list(theirs["differences"]), list(theirs["not_checked"])),
    }


def _is_same(content: bytes, good: bytes) -> bool:
    """Return whether an input has the bytes of the good one, or its values in JSON: nothing binds a provenance."""
    with suppress(ValueError, RecursionError):
        return json.loads(content) == json.loads(good)
    return content == good


def reads_about(folder: Path, content: bytes, _: bytes) -> str | None:
    (folder / "about.toml").write_bytes(content)
    about = About.from_toml(folder / "about.toml")
    return None if about.description.strip() else "accepted without a description"


def reads_picture(content: bytes, _: bytes) -> str | None:
    pixels = decode(content)
    return None if pixels.dtype == np.uint8 and pixels.shape[2:] == (3,) else f"{pixels.dtype} {pixels.shape}"


def reads_folder(folder: Path, content: bytes, _: bytes) -> str | None:
    """Find classes and pictures in a folder that the bytes describe: a line is a name and what it is."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    (folder / "data").mkdir()
    for line in content.split(b"\n")[:60]:
        _place(folder / "data", line[:-1], line[-1:])
    failures = []
    for find in (Dataset.find_classes, partial(Dataset.find, classes=("red", "green", "blue"), is_imagenet=False)):
        try:
            found = find(folder / "data")
        except MixerError:
            continue
        pictures = (found[1] if isinstance(found, tuple) else found).pictures
        failures += [str(one.path) for one in pictures if not os.path.lexists(one.path)]
    return f"pictures that do not exist: {failures[:2]}" if failures else None


def _place(folder: Path, name: bytes, kind: bytes) -> None:
    """Make an entry of a folder; names that no file system takes, or that lead out of it, are left out."""
    path = folder / name.decode("utf-8", "surrogateescape").replace("..", "_").lstrip("/")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make = {b"d": path.mkdir, b"l": partial(path.symlink_to, path), b"f": partial(os.mkfifo, path)}
        make.get(kind, partial(path.write_bytes, b"no picture"))()
    except (OSError, ValueError):
        return


def reads_data_set(file: Path, cache: Path, known: list[list[bytes]], content: bytes, good: bytes) -> str | None:
    """Unpack a data set of tensorflow-datasets one of whose files was replaced; each class must keep its pictures."""
    with _replaced(file, content, good):
        found = _classes_of(cache)
    return None if found == known else "accepted with other pictures"


def _classes_of(cache: Path) -> list[list[bytes]]:
    """Return the pictures of each class that has some."""
    shutil.rmtree(cache, ignore_errors=True)
    place, names = _find("colours", ("train",), cache, None)
    return [sorted(path.read_bytes() for path in (place / name).iterdir()) for name in names if (place / name).exists()]


def data_set_targets(folder: Path) -> Iterator[Target]:
    """Prepare a data set, and yield a target for each of its files; only once in a process, which keeps its place."""
    import tensorflow_datasets as tfds

    (folder / "pictures").mkdir()
    program = Path(__file__).parent.parent / "prepare_colours.py"
    words = [sys.executable, program, write_colours(folder / "pictures"), folder / "tfds"]
    subprocess.run(words, check=True, capture_output=True)
    tfds.core.add_data_dir(folder / "tfds")
    (place,) = folder.glob("tfds/colours/*")
    known = _classes_of(folder / "cache")
    for name, ways in (
        ("colours-train.tfrecord-00000-of-00001", (of_bytes,)),
        ("dataset_info.json", (of_bytes, of_json, of_json)),
        ("features.json", (of_bytes, of_json, of_json)),
        ("label.labels.txt", (of_bytes, of_lines)),
    ):
        read = partial(reads_data_set, place / name, folder / "cache", known)
        yield Target(f"tfds: `{name.partition('-')[2] or name}`", ((place / name).read_bytes(),), ways, read)


# --- trials ---


def targets(folder: Path) -> list[Target]:
    """Make good input, and return all kinds."""
    checkpoint = write_seeded(HANDLE.checkpoint, folder)
    paths = write_model(folder / "build", size=3000)
    write_card(paths)
    package_model(paths)
    labels = "\n".join(f"class {number}" for number in range(HANDLE.checkpoint.num_classes)).encode()
    about = b'license = "MIT"\ntraining_data = "digits"\ndescription = "A Mixer."\n[[accuracy]]\ntop1 = 98.0\n'
    about += b'data = "360 digits"\nsource = "here"\n'
    layout = b"\n".join(b"%s/%d.jpg-" % (name, number) for name in (b"red", b"green", b"blue") for number in range(3))
    found = [
        Target(
            "custom checkpoint",
            (checkpoint.read_bytes(),),
            (of_bytes, of_npz, of_npz),
            partial(reads_checkpoint, folder),
        ),
        Target("class list", (labels,), (of_bytes, of_lines), partial(reads_class_list, folder, checkpoint)),
        Target("`--about`", (about,), (of_bytes, of_lines), partial(reads_about, folder)),
        Target("picture", tuple(pictures()), (of_bytes,), reads_picture),
        Target("folder of pictures", (layout,), (of_bytes, of_lines), partial(reads_folder, folder)),
    ]
    for file in (paths.archive, paths.manifest, paths.report, paths.provenance):
        ways = (of_bytes, of_archive, of_archive) if file == paths.archive else (of_bytes, of_json, of_json)
        found.append(
            Target(f"published `{file.name}`", (file.read_bytes(),), ways, partial(reads_published, paths, file))
        )
    return found


def pictures() -> Iterator[bytes]:
    """Yield a small picture in each of several formats."""
    pixels = np.random.default_rng(0).integers(256, size=(24, 32, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        written = io.BytesIO()
        Image.fromarray(pixels).save(written, kind)
        yield written.getvalue()


def case(target: Target, number: int) -> tuple[bytes, bytes]:
    """Return a case's input, and the good one that it was made from."""
    chance = random.Random(f"{target.name} {number}")  # noqa: S311
    good = chance.choice(target.good)
    return chance.choice(target.ways)(good, chance), good


def attempt(target: Target, content: bytes, good: bytes) -> str | None:
    """Read an input, and return what went wrong, if anything."""
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        said = target.read(content, good)
    except MixerError:
        said = None
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:200]
    took = time.process_time() - began
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) << 10
    if said is None and took > MOST_SECONDS:
        said = f"it took {took:.1f} s"
    return f"it took {more >> 20} MB" if said is None and more > MOST_BYTES else said


def name_of(target: Target) -> str:
    """Return the name of a target's files in `tests/hostile`."""
    return re.sub("[^a-z0-9.]+", "-", target.name).strip("-")


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table; inputs that failed are written to `tests/hostile`."""
    rows, every = [], [*targets(folder), *data_set_targets(folder)]
    cases = round(CASES * share / len(every))
    for target in every:
        for good in target.good:
            attempt(target, good, good)  # what is imported and compiled once is not counted
        rows.append(Row("mutated input", target.name, "bytes and structure; its reader was asked"))
        for number in range(cases):
            content, good = case(target, number)
            _judge(rows[-1], target, str(number), content, good)
    if find_spec("atheris") is None:
        sys.stderr.write("coverage guides no input: atheris, which has wheels for Linux on x86-64, is not installed\n")
        return rows
    for number, target in enumerate(every):
        began = time.monotonic()
        tried, failing = failing_inputs(target.name, cases, folder / f"guided {number}")
        right = tried - len(failing)
        rows.append(
            Row("mutated input, guided by coverage", target.name, "by atheris; its reader was asked", right, right)
        )
        for content in failing:
            _judge(rows[-1], target, hashlib.sha256(content).hexdigest()[:8], content, target.good[0])
        sys.stderr.write(f"{target.name}: {tried:,} guided by coverage in {time.monotonic() - began:.0f} s\n")
    return rows


def _judge(row: Row, target: Target, name: str, content: bytes, good: bytes) -> None:
    """Count a case, and keep its input if it failed."""
    failure = attempt(target, content, good)
    row.count(failure and f"case {name}: {failure}")
    if failure:
        FOUND.mkdir(exist_ok=True)
        (FOUND / f"{name_of(target)}.{name}").write_bytes(content)
