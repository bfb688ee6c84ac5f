"""Archives from elsewhere: an honest one is unpacked, anything else is refused by name and nothing bad is written."""

import gzip
import hashlib
import io
import os
import random
import tarfile
import tracemalloc
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import MixerError
from models.storage import archives
from models.storage.archives import (
    MOST_AT_ONCE,
    MOST_BYTES,
    MOST_MEMBERS,
    digest_archive,
    extract_archive,
    most_unpacked,
    read_file,
)
from models.storage.files import Hashes

CONTENT = random.Random(7).randbytes(3000)  # noqa: S311 (content of a test: as incompressible as weights)


def member(name, *, content=b"", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def pack(path, *members, file_format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w:gz", format=file_format) as archive:
        for info, content in members:
            archive.addfile(info, content)
    return path


def raw(path, content):
    """Write a tar as it is, packed."""
    path.write_bytes(gzip.compress(content, mtime=0))
    return path


HONEST = (
    member("saved_model.pb", content=CONTENT),
    member("variables", type=tarfile.DIRTYPE, mode=0),
    member("variables/variables.index", content=b"x" * 513, mode=0o4777),
    member(f"assets/{'long' * 40} ü.txt", content=b""),
)


def honest():
    return [(info, io.BytesIO(content.getvalue())) for info, content in HONEST]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tar.gz"


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "unpacked"
    directory.mkdir()
    return directory


def files(directory):
    return {
        entry.relative_to(directory).as_posix(): entry.read_bytes() for entry in directory.rglob("*") if entry.is_file()
    }


@pytest.mark.parametrize("file_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_honest_archive_is_unpacked(file_format, path, directory):
    extract_archive(pack(path, *honest(), file_format=file_format), directory)
    assert files(directory) == {info.name: content.getvalue() for info, content in HONEST if info.isfile()}


def test_one_made_of_a_directory_by_its_dot_is_unpacked(path, directory, tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "saved_model.pb").write_bytes(CONTENT)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "model", arcname=".")
    extract_archive(path, directory)
    assert files(directory) == {"saved_model.pb": CONTENT}
    assert (directory / "variables").is_dir()


def test_rights_of_others_and_the_owners_change_of_user_are_dropped(path, directory):
    extract_archive(pack(path, *honest()), directory)
    assert (directory / "variables" / "variables.index").stat().st_mode & 0o7022 == 0
    assert os.access(directory / "variables", os.W_OK | os.X_OK)


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
BAD_MEMBERS = {
    "absolute": (member("/etc/evil", content=b"x"), r"'/etc/evil' is an absolute path"),
    "upwards": (member("../evil", content=b"x"), r"'\.\./evil' leads out of the directory"),
    "upwards inside": (member("a/../../evil", content=b"x"), r"'a/\.\./\.\./evil' leads out of the directory"),
    "symbolic link": (member("link", **LINK), r"'link' is a link \(to '/etc/passwd'\)"),
    "link within": (member("link", type=tarfile.SYMTYPE, linkname="saved_model.pb"), r"'link' is a link"),
    "hard link": (member("link", type=tarfile.LNKTYPE, linkname="saved_model.pb"), r"'link' is a link"),
    "device": (member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), r"'null' is neither a plain file nor"),
    "disk": (member("sda", type=tarfile.BLKTYPE), r"'sda' is neither a plain file nor a directory"),
    "pipe": (member("pipe", type=tarfile.FIFOTYPE), r"'pipe' is neither a plain file nor a directory"),
    "unknown type": (member("odd", type=b"Z"), r"'odd' is neither a plain file nor a directory"),
    "twice": (member("./saved_model.pb", content=b"x"), r"'\./saved_model\.pb' appears twice"),
    "line break": (member("a\nb", content=b"x"), r"'a\\nb' has characters in its name that are not printable"),
    "not UTF-8": (member("a\udcff", content=b"x"), r"'a\\udcff' has characters in its name that are not printable"),
}


def test_an_honest_archive_is_digested_where_it_is(path, tmp_path):
    pack(path, *honest())
    found = digest_archive(path)
    assert found.whole == Hashes.of(path)
    assert {name: (one.sha256, one.size) for name, one in found.files.items()} == {
        info.name: (hashlib.sha256(content.getvalue()).hexdigest(), info.size)
        for info, content in HONEST
        if info.isfile()
    }
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad", BAD_MEMBERS)
def test_an_archive_that_could_do_harm_is_not_digested(bad, path):
    (info, content), text = BAD_MEMBERS[bad]
    pack(path, *honest(), (info, io.BytesIO(content.getvalue())))
    with pytest.raises(MixerError, match=rf"model\.tar\.gz is refused:\n  {text}"):
        digest_archive(path)


def test_an_archive_that_is_not_there_is_not_digested(path):
    with pytest.raises(MixerError, match=r"model\.tar\.gz cannot be read \(No such file or directory\)"):
        digest_archive(path)


@pytest.mark.parametrize("bad", BAD_MEMBERS)
def test_a_member_that_could_do_harm_is_refused_and_not_written(bad, path, directory, tmp_path):
    (info, content), text = BAD_MEMBERS[bad]
    pack(path, *honest(), (info, io.BytesIO(content.getvalue())), member("after", content=b"x"))
    with pytest.raises(MixerError, match=rf"model\.tar\.gz is refused:\n  {text}"):
        extract_archive(path, directory)
    assert files(directory) == {info.name: content.getvalue() for info, content in HONEST if info.isfile()}
    assert not any(entry.is_symlink() for entry in directory.rglob("*"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"model.tar.gz", "unpacked"}


def test_all_bad_members_are_told_at_once(path, directory):
    pack(path, member("../a"), *honest(), member("/b"), member("/../c", **LINK))
    with pytest.raises(MixerError, match="is refused") as error:
        extract_archive(path, directory)
    assert str(error.value).splitlines()[1:-1] == [
        "  '../a' leads out of the directory it is unpacked into",
        "  '/b' is an absolute path",
        "  '/../c' is an absolute path",
        "  '/../c' leads out of the directory it is unpacked into",
        "  '/../c' is a link (to '/etc/passwd')",
    ]
    assert "Get it again from its publisher" in str(error.value)
    assert files(directory) == {}


def test_a_sparse_file_is_refused(path, directory):
    info, _ = member("holes", content=b"")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = b"00000000000\0"
    header[398:410] = b"00000000000\0"
    header[483:495] = b"10000000000\0"  # says that it is of 1 GiB
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(MixerError, match=r"'holes' is neither a plain file nor a directory, but .* a sparse file"):
        extract_archive(raw(path, bytes(header) + bytes(1024)), directory)
    assert files(directory) == {}


def test_a_sparse_file_in_the_dress_of_a_plain_one_is_refused(path, directory):
    holes = {"GNU.sparse.map": "0,5", "GNU.sparse.size": "1073741824", "GNU.sparse.name": "holes"}
    with pytest.raises(MixerError, match=r"'holes' is neither a plain file nor a directory, but .* a sparse file"):
        extract_archive(pack(path, member("plain", content=b"12345", pax_headers=holes)), directory)
    assert files(directory) == {}


def test_a_file_is_read_alone_and_nothing_after_it(path):
    evil = member("../evil")
    assert read_file(pack(path, *honest(), evil), "variables/variables.index", 513) == b"x" * 513
    assert read_file(path, "saved_model.pb", 1 << 20) == CONTENT
    for name, most in (("saved_model.pb", 2999), ("variables", 99), ("other", 99)):
        assert read_file(pack(path, *honest()), name, most) is None
    for members in ([evil, *honest()], [*honest(), evil]):
        with pytest.raises(MixerError, match="leads out of the directory"):
            read_file(pack(path, *members), "saved_model.pb" if members[0] is evil else "other", 1 << 20)


def test_a_file_of_many_blocks_is_read_whole(path):
    content = CONTENT * 1000
    assert read_file(pack(path, member("large", content=content)), "large", len(content)) == content


# --- bombs ---


def test_a_member_that_claims_too_much_is_refused_before_it_is_read(path, directory):
    info, _ = member("bomb")
    info.size = MOST_BYTES
    with pytest.raises(
        MixerError, match=r"with 'bomb' it unpacks to more than 134,217,728 bytes, too many for an archive of its size"
    ):
        extract_archive(raw(path, info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), directory)
    assert files(directory) == {}


def test_members_are_counted_together(path, directory, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 10_000)
    pack(path, *(member(f"file {index}", content=CONTENT) for index in range(4)))
    with pytest.raises(
        MixerError, match=r"with 'file 2' it unpacks to more than 10,000 bytes, too many for an archive of its size"
    ):
        extract_archive(path, directory)
    assert len(files(directory)) == 2


def test_zeros_without_end_are_refused(path, directory, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 4 << 20)
    with pytest.raises(MixerError, match="it unpacks to more than 4,194,304 bytes"):
        extract_archive(raw(path, bytes(10 << 20)), directory)


def test_a_flood_of_empty_files_is_refused(path, directory):
    pack(path, *(member(f"{index}") for index in range(MOST_MEMBERS + 1)))
    with pytest.raises(MixerError, match="it has more than 1,000 members; a model has about ten"):
        extract_archive(path, directory)
    assert len(files(directory)) == MOST_MEMBERS


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_too_much_is_refused_before_it_is_read(kind, path, directory):
    info, _ = member("header", type=kind)
    info.size = MOST_AT_ONCE + 1
    with pytest.raises(MixerError, match=r"a header claims 1,049,088 bytes, more than 1,048,576"):
        extract_archive(raw(path, info.tobuf(tarfile.GNU_FORMAT) + bytes(2 << 20)), directory)


def test_headers_within_headers_do_not_end_the_program(path, directory):
    info, _ = member("header", type=tarfile.GNUTYPE_LONGNAME)
    info.size = 5
    header = info.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    with pytest.raises(MixerError, match=r"is refused:\n  it is not a \.tar\.gz, or damaged: RecursionError"):
        extract_archive(raw(path, header * 3000), directory)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_headers_after_headers_are_counted_together(kind, path, directory):
    info, _ = member("header", type=kind)
    info.size = MOST_AT_ONCE
    record = b"%d a=" % MOST_AT_ONCE
    header = info.tobuf(tarfile.GNU_FORMAT) + record + b"x" * (MOST_AT_ONCE - len(record) - 1) + b"\n"
    with pytest.raises(MixerError, match=r"its headers take more than 4,194,304 bytes"):
        extract_archive(raw(path, header * 5), directory)


def test_a_sparse_file_of_holes_without_end_is_not_read(path, directory):
    info, _ = member("holes", content=b"")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[482] = tarfile.GNUTYPE_SPARSE, 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    holes = (b"00000000000\0" * 42).ljust(504, b"\0") + b"\1" + bytes(7)  # and more of them follow
    with pytest.raises(MixerError, match=r"its headers take more than 4,194,304 bytes"):
        extract_archive(raw(path, bytes(header) + holes * (6 << 11)), directory)


def test_an_archive_unpacks_to_what_is_expected_at_most(path):
    pack(path, *honest())
    with pytest.raises(MixerError, match=r"with 'saved_model\.pb' it unpacks to more than 3,000 bytes"):
        digest_archive(path, 3000)


def test_an_archive_unpacks_to_so_many_bytes_more_than_it_has(path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL", 1000)
    pack(path, member("noise", content=CONTENT * 5), member("zeros", content=bytes(5000)))
    assert most_unpacked(path.stat().st_size) > 25_000
    monkeypatch.setattr(archives, "MOST_MORE", 18_000)
    with pytest.raises(MixerError, match=r"with 'zeros' it unpacks to more than 2[12],\d{3} bytes"):
        digest_archive(path)


@pytest.mark.parametrize(
    ("size", "unpacked"),
    [
        (430_000_000, 918_324_860),  # the largest model of the collection, of numbers in bfloat16
        (216_000_000, 240_000_000 + 67_000_000),  # heads of zeros
        (1_000_000, 120_000_000),
    ],
)
def test_what_good_models_shrink_by_is_allowed(size, unpacked):
    assert most_unpacked(size) >= unpacked


def test_what_would_keep_a_reader_busy_is_not():
    assert max(most_unpacked(size) - size for size in (1, 1 << 20, 100 << 20, 1 << 30, 1 << 34)) <= 1 << 29


def pax(kind, content):
    info, _ = member("header", type=kind)
    info.size = len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content.ljust(-len(content) // 512 * -512, b"\0")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_digits_without_end_are_refused_before_tarfile_counts_them(kind, path, directory):
    with pytest.raises(MixerError, match="a header has more digits in a row than any number or name of a model"):
        extract_archive(raw(path, pax(kind, b"1" * 20_000) + honest_header() + bytes(1024)), directory)


def test_attributes_of_all_members_are_counted_together(path, directory):
    attributes = b"".join(b"%d %05d=\n" % (10, index) for index in range(1000))
    content = pax(tarfile.XGLTYPE, attributes) + b"".join(honest_header(f"{index}") for index in range(20))
    with pytest.raises(MixerError, match="its members have more than 10,000 attributes; those of a model have a few"):
        extract_archive(raw(path, content + bytes(1024)), directory)
    assert len(files(directory)) == 10


def honest_header(name="empty"):
    return member(name)[0].tobuf(tarfile.GNU_FORMAT)


def test_a_negative_size_is_refused(path, directory):
    info, _ = member("back")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(MixerError, match=r"is refused:\n  .back. claims a size of -512 bytes"):
        extract_archive(raw(path, bytes(header) + bytes(1024)), directory)
    assert files(directory) == {}


# --- what is no archive, or not whole ---


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_refused(share, path, directory):
    pack(path, *honest())
    cut(path, int(path.stat().st_size * share))
    with pytest.raises(MixerError, match=r"model\.tar\.gz is refused:\n  it is (cut off|not a \.tar\.gz, or damaged)"):
        extract_archive(path, directory)


@pytest.mark.parametrize("lost", [1, 8])
def test_even_the_last_bytes_are_missed(lost, path, directory):
    pack(path, *honest())
    cut(path, path.stat().st_size - lost)
    with pytest.raises(MixerError, match="Compressed file ended before the end-of-stream marker"):
        extract_archive(path, directory)


def plain(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, content)
    return file.getvalue()


END_OF_MEMBERS = 512 + 3072 + 512 + 512 + 1024
"""Of the first three honest ones: a header each, and the contents in blocks."""


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        (END_OF_MEMBERS, r"its end is missing: it was cut off after 'variables/variables\.index'"),
        (END_OF_MEMBERS + 100, r"its end is missing: it was cut off after"),
        (
            END_OF_MEMBERS - 1000,
            "cut off or damaged in or after 'variables/variables.index': ReadError: unexpected end",
        ),
        (512 + 1000, "cut off or damaged in or after 'saved_model.pb': ReadError: unexpected end of data"),
        (100, "it is not a .tar.gz, or damaged: ReadError: truncated header"),
        (0, "it is not a .tar.gz, or damaged: ReadError: empty file"),
    ],
)
def test_a_tar_that_was_cut_before_it_was_packed_is_refused(keep, text, path, directory):
    whole = plain(honest()[:3])
    assert whole[END_OF_MEMBERS:].count(0) == len(whole) - END_OF_MEMBERS
    with pytest.raises(MixerError, match=text.replace(".tar", r"\.tar")):
        extract_archive(raw(path, whole[:keep]), directory)


def test_what_follows_in_the_place_of_a_member_is_noticed(path, directory):
    whole = bytearray(plain(honest()))
    whole[END_OF_MEMBERS - 1536 - 512 + 148] ^= 1  # the checksum of the third one's header, where tarfile just ends
    with pytest.raises(MixerError, match=r"the bytes after 'saved_model\.pb' are neither a member nor the end"):
        extract_archive(raw(path, bytes(whole)), directory)


def test_what_follows_the_end_is_noticed(path, directory):
    whole = plain(honest())
    with pytest.raises(MixerError, match="are neither a member nor the end of an archive"):
        extract_archive(raw(path, whole + plain([member("hidden", content=b"x")])), directory)


def test_a_flipped_bit_is_noticed(path, directory):
    pack(path, *honest())
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum: only who reads to the end compares it
    path.write_bytes(content)
    with pytest.raises(MixerError, match="CRC check failed"):
        extract_archive(path, directory)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is not a .tar.gz, or damaged: ReadError: empty file"),
        (b"<html>not found</html>", r"Not a gzipped file \(b'<h'\)"),
        (b"\x1f\x8b", "Compressed file ended"),
        (b"\x1f\x8b\x08\0" + bytes(6) + b"\xff" * 99, "Invalid deflate block found"),
        (gzip.compress(b"\x89PNG" * 999, mtime=0), "it is not a .tar.gz, or damaged: ReadError"),
    ],
    ids=["empty", "HTML", "cut short", "damaged", "another kind of file"],
)
def test_what_is_no_such_archive_is_refused(content, text, path, directory):
    path.write_bytes(content)
    with pytest.raises(MixerError, match=rf"model\.tar\.gz is refused:\n  .*{text}"):
        extract_archive(path, directory)


def test_a_file_that_is_not_there_or_a_directory_is_named(path, directory):
    with pytest.raises(MixerError, match=r"model\.tar\.gz cannot be unpacked \(No such file or directory\)"):
        extract_archive(path, directory)
    with pytest.raises(MixerError, match=r"unpacked cannot be unpacked \(Is a directory\): expected a readable \.tar"):
        extract_archive(directory, directory)


def test_a_full_disk_is_told(path, directory, monkeypatch):
    def fill_up(*_, **__):
        raise OSError(28, "No space left on device")

    pack(path, *honest())
    monkeypatch.setattr(tarfile, "copyfileobj", fill_up)
    with pytest.raises(MixerError, match=r"\(No space left on device\): .* room for its contents in"):
        extract_archive(path, directory)


def test_a_file_in_the_place_of_a_directory_is_told(path, directory):
    pack(path, member("a", content=b"x"), member("a/b", content=b"x"))
    with pytest.raises(MixerError, match=r"cannot be unpacked \((File exists|Not a directory)\)"):
        extract_archive(path, directory)


# --- mutated archives ---

FUZZ = settings(derandomize=True, deadline=None, max_examples=60)
FLIPS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4)
SPLICES = st.none() | st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.binary(max_size=40))
"""A place, how many bytes go there, and what comes instead."""


def mutated(content, flips, splice):
    content = bytearray(content)
    for place, change in flips:
        content[place % len(content)] ^= change
    if splice:
        place, gone, come = splice
        content[place % len(content) : place % len(content) + gone % 1024] = come
    return bytes(content)


@cache
def whole():
    """Tars in both forms, of members with short and long names."""
    files = [io.BytesIO(), io.BytesIO()]
    for file, file_format in zip(files, (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT), strict=True):
        with tarfile.open(fileobj=file, mode="w", format=file_format) as archive:
            for info, content in honest():
                archive.addfile(info, content)
    return [file.getvalue() for file in files]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


def digests_or_refusal(path):
    """Return what an archive holds; None where it is refused in words, having taken little memory."""
    tracemalloc.start()
    try:
        return digest_archive(path).files
    except MixerError as error:
        assert all(line.isprintable() and len(line) < 1000 for line in str(error).split("\n"))
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20


@FUZZ
@given(FLIPS, SPLICES, st.booleans())
def test_a_mutated_archive_reads_as_before_or_is_refused(folder, flips, splice, form):
    path = raw(folder / "mutated.tar.gz", whole()[form])
    before = digests_or_refusal(path)
    path.write_bytes(mutated(path.read_bytes(), flips, splice))
    assert digests_or_refusal(path) in (before, None)


@FUZZ
@given(FLIPS, SPLICES, st.booleans(), st.booleans())
def test_a_mutated_tar_is_read_or_refused(folder, flips, splice, form, in_headers):
    content = whole()[form]
    if in_headers:  # where the rules are
        starts = [place for place in range(0, len(content), 512) if content[place + 257 : place + 262] == b"ustar"]
        flips = [(starts[place % len(starts)] + place % 512, change) for place, change in flips]
        splice = None
    content = bytearray(mutated(content, flips, splice))
    for start in range(0, len(content) - 511, 512) if in_headers else ():
        if content[start + 257 : start + 262] == b"ustar":  # signed again, so that it is believed
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    found = digests_or_refusal(raw(folder / "tar.tar.gz", bytes(content)))
    assert found is None or sum(file.size for file in found.values()) <= len(content)
