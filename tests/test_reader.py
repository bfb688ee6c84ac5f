"""Strict loading: what is good comes whole and once, what is bad is listed in one error that says what to do."""

import hashlib
import io
import os
import pickle
import random
import re
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.checkpoints import reader
from convert.checkpoints.buffer import ReusableBuffer
from convert.checkpoints.npz import CHUNK
from convert.checkpoints.reader import CheckpointError, load_checkpoint
from models.catalog import B16, L16, TINY
from models.params import flatten

SMALL = replace(TINY, name="small", hidden_dim=8, tokens_mlp_dim=4, channels_mlp_dim=6, image_size=16)
CLASSES = 5
PROPERTY = settings(derandomize=True, deadline=None, max_examples=150)


@cache
def arrays(architecture=SMALL, classes=CLASSES):
    draw = np.random.default_rng(1)
    return {name: draw.normal(size=shape).astype("f4") for name, shape in architecture.arrays(classes).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


def saved(path, changes=(), *, save=np.savez, without=()):
    save(path, **{name: array for name, array in {**arrays(), **dict(changes)}.items() if name not in without})
    return path


def load(path, classes=CLASSES, architecture=SMALL, **options):
    return load_checkpoint(path, architecture, num_classes=classes, **options)


def refused(path, match, classes=CLASSES, architecture=SMALL, **options):
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path, classes, architecture, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def assert_equal_to_saved(loaded, path):
    flat = flatten(loaded.params)
    assert list(flat) == list(arrays())
    for name, array in arrays().items():
        assert flat[name].dtype == np.float32
        assert flat[name].flags.c_contiguous
        np.testing.assert_array_equal(flat[name], array, strict=True)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.size == path.stat().st_size


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("classes", [CLASSES, None])
def test_all_arrays_come_back_nested_and_the_file_hashed(path, save, classes):
    loaded = load(saved(path, save=save), classes)
    assert_equal_to_saved(loaded, path)
    assert loaded.num_classes == CLASSES
    assert loaded.params["MixerBlock_1"]["token_mixing"]["Dense_0"]["kernel"].shape == (4, 4)


def test_arrays_in_any_order_and_in_fortran_order(path):
    np.savez(path, **{name: np.asfortranarray(array) for name, array in reversed(arrays().items())})
    assert_equal_to_saved(load(path), path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_streamed_archive_loads(path, method):
    class Pipe(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            out.write(data)
            return len(data)

    with path.open("wb") as out, zipfile.ZipFile(Pipe(), "w", method) as archive:
        for name, array in arrays().items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    assert_equal_to_saved(load(path), path)


def test_fe_drops_head_by_name_and_nothing_else(path):
    loaded = load(saved(path))
    kept = flatten(loaded.for_head("fe"))
    assert arrays().keys() - kept.keys() == {"head/kernel", "head/bias"}
    assert all(kept[name] is array for name, array in flatten(loaded.params).items() if name in kept)
    assert flatten(loaded.for_head("classification")).keys() == arrays().keys()
    assert "head" in loaded.params


def test_progress_counts_every_byte(path):
    seen = []
    load(saved(path), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size,) * 2


def test_no_array_is_held_twice(path):
    wide = replace(SMALL, hidden_dim=512, channels_mlp_dim=4096)
    np.savez(path, **arrays(wide))
    total = 4 * wide.parameters(CLASSES)
    tracemalloc.start()
    loaded = load(path, CLASSES, wide)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(array.nbytes for array in flatten(loaded.params).values()) == total > 30e6
    assert peak < total + 3 * CHUNK < 1.5 * total


def test_a_wrong_architecture_takes_no_memory(path):
    wide = replace(SMALL, hidden_dim=512, channels_mlp_dim=4096)
    np.savez(path, **arrays(wide))
    tracemalloc.start()
    refused(path, r"misshapen \(\d+\)", CLASSES, replace(SMALL, hidden_dim=256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * CHUNK < 2 * wide.parameters(CLASSES)


def headers_only(path, shapes):
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in shapes.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})


def test_l16_in_place_of_b16_is_recognised_and_counted(path):
    headers_only(path, L16.arrays(21843))
    text = refused(
        path, "This looks like L/16 with 21,843 classes; the handle expects B/16 with 1,000 classes", 1000, B16
    )
    assert "unexpected (144):" in text
    assert "and 136 more" in text
    changed = sum(shape != L16.arrays(21843)[name] for name, shape in B16.arrays(1000).items())
    assert f"misshapen ({changed}):" in text
    assert len(text.splitlines()) < 40


def test_21843_classes_in_place_of_1000_are_recognised(path):
    np.savez(path, **arrays(SMALL, 21843))
    text = refused(path, "looks like small with 21,843 classes; the handle expects small with 1,000 classes", 1000)
    assert "head/bias: found (21843,), expected (1000,)" in text
    assert "head/kernel: found (8, 21843), expected (8, 1000)" in text
    assert "misshapen (2)" in text


def test_a_checkpoint_without_a_head_is_recognised(path):
    saved(path, without=("head/kernel", "head/bias"))
    assert "missing (2)" in refused(path, "This looks like small; the handle expects small with 5 classes")
    assert "head/kernel: expected float32 (8, classes)" in refused(path, r"missing \(2\)", None)


def test_the_two_arrays_of_ones_own_head_must_agree(path):
    saved(path, {"head/kernel": np.zeros((8, 6), "f4")})
    refused(path, r"head/(bias: found \(5,\), expected \(6,\)|kernel: found \(8, 6\), expected \(8, 5\))", None)
    saved(path, {"head/kernel": np.zeros((8, 0), "f4"), "head/bias": np.zeros(0, "f4")})
    refused(path, r"head/kernel: found \(8, 0\), expected \(8, classes\)", None)


@pytest.mark.parametrize(
    ("dtype", "found"), [("f2", "float16"), ("f8", "float64"), (">f4", ">f4"), ("i4", "int32"), ("V4", "|V4")]
)
def test_other_types_are_refused(path, dtype, found):
    saved(path, {"stem/bias": arrays()["stem/bias"].astype("f4").astype(dtype if dtype != "V4" else "f4").view(dtype)})
    refused(path, rf"mistyped \(1\):\n  stem/bias: found {re.escape(found)}.*expected float32")


def test_non_finite_values_are_counted(path):
    bad = np.zeros((8, CLASSES), "f4")
    bad[0, :3] = np.nan
    bad[1, :2] = np.inf, -np.inf
    refused(saved(path, {"head/kernel": bad}), r"non-finite \(1\):\n  head/kernel: found 3 NaN and 2 infinite of 40")


def test_one_nan_in_the_last_value_of_a_large_array_is_found(path):
    wide = replace(SMALL, channels_mlp_dim=50_000)
    name = "MixerBlock_1/channel_mixing/Dense_1/kernel"
    bad = arrays(wide)[name].copy()
    bad[-1, -1] = np.nan
    np.savez(path, **{**arrays(wide), name: bad})
    refused(path, rf"{name}: found 1 NaN and 0 infinite of 400,000", CLASSES, wide)


def test_pickled_objects_are_never_loaded(path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(path) + ".pwned",))

    objects = np.empty(8, object)
    objects[:] = Bomb()
    text = refused(
        saved(path, {"stem/bias": objects}), "stem/bias: found Python objects.*pickled objects are never loaded"
    )
    assert "misshapen" not in text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it is empty"),
        (pickle.dumps({"stem": 1}), "it is a pickle, which is never loaded"),
        (b"\x93NUMPY\x01\x00", r"it is a single array \(.npy\)"),
        (b"<!DOCTYPE html><html>Not found</html>", "it is a web page or a server's answer.*Not found"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is text, not an archive: 'version https://git-lfs"),
        (b"\x1f\x8b\x08\x00" + bytes(range(128, 256)), "it starts with the bytes 1f 8b 08 00"),
        (bytes(100), "it starts with the bytes 00 00 00 00"),
        (b"PK\3\4" + bytes(1000), "its end is missing: the file is truncated"),
    ],
)
def test_what_is_no_archive_is_named(path, content, match):
    path.write_bytes(content)
    text = refused(path, match)
    least = 4 * SMALL.parameters(CLASSES)
    assert f"at least {least:,} bytes; found {len(content):,}" in text
    assert "Fetch or copy the file again" in text


def test_an_empty_archive_lacks_everything(path):
    zipfile.ZipFile(path, "w").close()
    refused(path, rf"missing \({len(arrays())}\)")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99, 0.9999])
def test_a_truncated_file_is_refused(path, share):
    content = saved(path).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "the file is truncated")


def test_what_follows_the_archive_is_refused(path):
    path.write_bytes(saved(path).read_bytes() + b"trailer")
    refused(path, "7 bytes follow the end of the archive")


def test_what_precedes_the_archive_is_refused(path):
    path.write_bytes(b"PK some stub" + saved(path).read_bytes())
    refused(path, "12 bytes before it belong to no member")


def test_missing_file_directory_and_permissions_have_words_of_their_own(tmp_path, monkeypatch):
    refused(tmp_path / "none.npz", "does not exist.*fetch it first")
    refused(tmp_path, "is a directory; expected a checkpoint")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a regular file")
    path = saved(tmp_path / "some.npz")

    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)
    refused(path, "may not be read by this user. Check the path and its permissions")


def archive_of(path, members):
    """Write members (name, bytes, options) as they are, duplicates included."""
    with zipfile.ZipFile(path, "w") as archive, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **options: None)
        for name, data, options in members:
            archive.writestr(name, data, **options)
    return path


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def members(**changes):
    return [(f"{name}.npy", changes.get(name, npy(array)), {}) for name, array in arrays().items()]


def test_a_name_twice_is_refused(path):
    twice = [*members(), ("stem/bias.npy", npy(arrays()["stem/bias"]), {})]
    refused(archive_of(path, twice), r"is damaged\.\ndamaged \(1\):\n  stem/bias: its name appears twice")


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, 12), (zipfile.ZIP_LZMA, 14)])
def test_other_compressions_are_refused(path, method, name):
    rows = [(file, data, {"compress_type": method} if file == "stem/bias.npy" else {}) for file, data, _ in members()]
    refused(archive_of(path, rows), f"stem/bias: compression method {name}; expected stored or deflated")


def test_a_member_that_is_no_array_is_unexpected(path):
    refused(archive_of(path, [*members(), ("notes.txt", b"hello", {})]), "notes.txt: a member that is not an array")


def test_encrypted_members_are_refused(path):
    content = bytearray(saved(path).read_bytes())
    for sign, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(sign) + flags] |= 1
    path.write_bytes(content)
    refused(path, r"damaged \(1\):\n  stem/kernel: .*encrypted")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "its array header cannot be read"),
        (b"no array", "its array header cannot be read"),
        (npy(np.zeros(8, "f4"))[:-4], "cannot be the 32 of its shape"),
        (npy(np.zeros(8, "f4")) + b"more", "cannot be the 32 of its shape"),
        (npy(np.zeros(8, "f4")).replace(b"(8,)", b"(8L)"), "its array header cannot be read"),
        (npy(np.zeros(8, "f4")).replace(b"'<f4'", b"  0or"), "its array header cannot be read"),
        (b"\x93NUMPY\x03\x00" + npy(np.zeros(8, "f4"))[8:], r"version \(3, 0\); expected 1.0 or 2.0"),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
            "its array header claims 4,294,967,295 bytes, more than 10,000",
        ),
    ],
)
def test_damaged_arrays_are_named(path, data, match):
    rows = [(name, data if name == "stem/bias.npy" else old, options) for name, old, options in members()]
    refused(archive_of(path, rows), rf"damaged \(1\):\n  stem/bias: .*{match}")


def test_a_bomb_is_neither_inflated_nor_given_memory(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data, _ in members():
            archive.writestr(name, data)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
        archive.writestr("bomb.npy", header.getvalue() + bytes(50_000_000))
    tracemalloc.start()
    refused(path, r"unexpected \(1\):\n  bomb: found float32 \(1099511627776,\)")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_a_head_that_claims_more_than_its_bytes_is_refused(path):
    huge = npy(arrays()["head/bias"]).replace(b"(5,), }   ", b"(500000,),}")
    rows = [(name, huge if name == "head/bias.npy" else old, options) for name, old, options in members()]
    rows.sort(key=lambda row: row[0])
    refused(archive_of(path, rows), r"head/bias: .* cannot be the 2,000,000 of its shape", None)


def test_overlapping_members_are_refused(path):
    content = bytearray(saved(path).read_bytes())
    entries = [match.start() for match in re.finditer(b"PK\1\2", bytes(content))]
    offset = content[entries[3] + 42 : entries[3] + 46]
    struct.pack_into("<4s", content, entries[4] + 42, bytes(offset))
    path.write_bytes(content)
    refused(path, "damaged")


def test_a_file_that_changes_while_it_is_read_is_refused(path):
    saved(path)
    size = path.stat().st_size

    def shorten(done, total):
        if done > total // 2 and path.stat().st_size == size:
            os.truncate(path, done + 10)

    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        load(path, progress=shorten)
    saved(path)
    with pytest.raises(CheckpointError, match=r"changed while it was read\. Wait until it is written"):
        load(path, progress=lambda done, total: os.utime(path, ns=(1, 1)))


DAMAGE = {
    "missing": None,
    "mistyped": lambda array: array.astype("f2"),
    "misshapen": lambda array: array[None],
    "non-finite": lambda array: np.full_like(array, np.nan),
}


@PROPERTY
@given(
    st.dictionaries(st.sampled_from(sorted(arrays())), st.sampled_from(sorted(DAMAGE)), max_size=7),
    st.booleans(),
    st.sampled_from([np.savez, np.savez_compressed]),
)
def test_all_damage_is_listed_at_once(folder, damage, extra, save):
    changes = {name: DAMAGE[kind](arrays()[name]) for name, kind in damage.items() if kind != "missing"}
    changes |= {"extra": np.zeros(3, "f4")} if extra else {}
    path = saved(folder / "damage.npz", changes, save=save, without=damage.keys() - changes.keys())
    if not damage and not extra:
        assert_equal_to_saved(load(path), path)
        return
    text = refused(path, "is not a checkpoint of small with 5 classes")
    listed = {
        (kind, line.split(":")[0].strip())
        for kind, lines in re.findall(r"^([a-z-]+) \(\d+\):\n((?:  .*\n)+)", text, re.MULTILINE)
        for line in lines.splitlines()
    }
    assert listed == {(kind, name) for name, kind in damage.items()} | ({("unexpected", "extra")} if extra else set())


@pytest.mark.parametrize("save", [np.savez, pytest.param(np.savez_compressed, marks=pytest.mark.whole)])
@settings(PROPERTY, max_examples=400)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_flipped_bytes_never_pass_as_other_values(folder, save, seed, count):
    content = bytearray(saved(folder / "whole.npz", save=save).read_bytes())
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice
    # Half of the flips go to the table of contents and the headers, where most of the rules are.
    places = [match.start() + draw.randrange(60) for match in re.finditer(rb"PK[\1\3\5]|NUMPY", bytes(content))]
    for _ in range(count):
        place = draw.choice(places) if draw.random() < 0.5 else draw.randrange(len(content))
        content[place % len(content)] ^= draw.randrange(1, 256)
    path = folder / "flipped.npz"
    path.write_bytes(content)
    try:
        loaded = load(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:  # dates, versions and attributes say nothing of the arrays
        assert_equal_to_saved(loaded, path)


@settings(PROPERTY, max_examples=60)
@given(
    st.sampled_from(["stem/kernel", "head/kernel", "stem/bias"]),
    st.lists(st.tuples(st.integers(0, 127), st.integers(1, 255)), min_size=1, max_size=4),
    st.none()
    | st.tuples(st.integers(0, 127), st.integers(0, 60), st.text("0123456789(),[]{}'<>fjxe-_*: ", max_size=40)),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_a_mutated_array_header_is_read_or_refused(folder, name, flips, splice, method):
    path, rows = folder / "header.npz", []
    for member, data, _ in members():
        content = bytearray(data)
        if member == f"{name}.npy":
            for place, change in flips if splice is None else ():
                content[place] ^= change
            if splice is not None:
                place, gone, come = splice
                content[place : place + gone] = come.encode()
        rows.append((member, bytes(content)))
    with zipfile.ZipFile(path, "w", method) as archive:  # of right sums, so that what it says is believed
        for row in rows:
            archive.writestr(*row)
    with memory_below(8 << 20):
        try:
            loaded = load(path, classes=None)
        except CheckpointError as error:
            assert all(line.isprintable() and len(line) < 1000 for line in str(error).split("\n"))
            return
    flat = flatten(loaded.params)
    assert {each: array.shape for each, array in flat.items()} == {each: a.shape for each, a in arrays().items()}
    for each in arrays().keys() - {name}:
        np.testing.assert_array_equal(flat[each], arrays()[each], strict=True)
    assert np.sort(flat[name], axis=None).tobytes() == np.sort(arrays()[name], axis=None).tobytes()  # Fortran's order


def test_a_file_system_may_give_fewer_bytes_than_were_asked_for(path, monkeypatch):
    real = io.FileIO.readinto

    class Slow(io.FileIO):
        def readinto(self, buffer):
            return real(self, memoryview(buffer)[:100])

    @contextmanager
    def opened(path):
        with Slow(path) as file:
            yield file

    monkeypatch.setattr(reader, "opened", opened)
    saved(path)
    assert_equal_to_saved(load(path), path)


def test_a_large_file_that_is_no_checkpoint_takes_no_memory(tmp_path):
    path = tmp_path / "large.npz"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    refused(path, "it is not an archive: it starts with the bytes 00 00 00 00", room=ReusableBuffer(1 << 20))


def test_checkpoints_read_into_the_same_memory_are_each_right_and_never_hold_it_together(path):
    room, seen = ReusableBuffer(1 << 20), []
    for change in range(3):
        saved(path, {"stem/bias": arrays()["stem/bias"] + change})
        flat = flatten(load(path, room=room).params)
        np.testing.assert_array_equal(flat["stem/bias"], arrays()["stem/bias"] + change)
        np.testing.assert_array_equal(flat["head/kernel"], arrays()["head/kernel"])
        seen.append(min(array.ctypes.data for array in flat.values()))
        del flat
    assert len(set(seen)) == 1


# --- what is made to do harm ---

HOSTILE = "\x1b]0;title\x07\x1b[31mred\u202eevil\r\n\x9b2J"


def deflated(path, name, header, zeros):
    """Write an archive of one array, of a header and zeros, and of right ones after it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(name, "w") as member:
            member.write(header)
            for _ in range(zeros >> 20):
                member.write(bytes(1 << 20))
        for other, data, _ in members():
            if other != name:
                archive.writestr(other, data)
    return path


def head(classes):
    header = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (SMALL.hidden_dim, classes)}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


@contextmanager
def memory_below(most):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_a_header_of_any_length_is_not_read(path):
    deflated(path, "stem/bias.npy", b"\x93NUMPY\2\0" + struct.pack("<L", 64 << 20), 64 << 20)
    with memory_below(8 << 20):
        refused(path, r"stem/bias: its array header claims 67,108,864 bytes, more than 10,000")


@pytest.mark.parametrize(
    ("name", "classes", "match"),
    [
        ("head/kernel.npy", (1 << 20) + 1, r"found \(8, 1048577\), expected at most 1,048,576 classes"),
        ("head/kernel.npy", 6_000_000, r"found \(8, 6000000\), expected at most 1,048,576 classes"),
        ("head/kernel.npy", 1 << 20, r"bytes would inflate to 33,554,432: save it with np\.savez"),
    ],
)
def test_classes_without_end_take_no_memory(name, classes, match, path, monkeypatch):
    monkeypatch.setattr(reader, "_MOST_FROM_LITTLE", 1 << 20)
    with memory_below(8 << 20):
        refused(deflated(path, name, head(classes), 4 * SMALL.hidden_dim * classes), match, classes=None)


def test_a_zero_head_may_be_deflated(path):
    zeros = {name: np.zeros_like(array) for name, array in arrays(classes=30_000).items() if name.startswith("head")}
    loaded = load(saved(path, zeros, save=np.savez_compressed), classes=None)
    assert loaded.num_classes == 30_000
    assert not flatten(loaded.params)["head/kernel"].any()


@pytest.mark.parametrize(("name", "shown"), [(HOSTILE, ascii(HOSTILE)[1:-1]), ("n" * 60_000, "n" * 100 + r"\.\.\.")])
def test_names_are_escaped_and_cut(name, shown, path):
    rows = [*members(), (f"{name}.npy", npy(np.zeros(2, "f4")), {})]
    said = refused(archive_of(path, rows), r"unexpected \(1\)")
    assert re.search(f"  {shown if name[0] == 'n' else re.escape(shown)}", said)
    assert all(line.isprintable() and len(line) < 1000 for line in said.split("\n"))


def test_a_table_of_contents_of_any_length_is_not_read(path):
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(1 << 30)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, (1 << 30) - 4, 4, 0))
    with memory_below(1 << 20):
        refused(path, r"its table of contents claims 1,073,741,820 bytes, where a checkpoint's has at most 1,048,576")


def test_members_without_end_are_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number}.npy", b"")
    refused(path, r"its table of contents claims 1,\d{3},\d{3} bytes")


def test_what_nobody_wants_is_passed_over(path):
    size, name = 3 << 30, b"a.npy"  # of a sparse file: it takes no disk, but reading it would take a while
    data = npy(np.zeros(1, "f4"))
    with path.open("wb") as file:
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, size, size, len(name), 0)
        file.write(local + name + data)
        file.seek(len(local + name) + size)
        start = file.tell()
        file.write(
            struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, size, size, len(name), 0, 0, 0, 0, 0, 0)
            + name
        )
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, file.tell() - start, start, 0))
    seen = []
    refused(path, r"unexpected \(1\):\n  a: found float32 \(1,\)", progress=lambda done, _: seen.append(done))
    assert len(seen) < 20
