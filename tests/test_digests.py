"""The table of known checkpoint files."""

from dataclasses import replace

import pytest

from models.digests import DIGESTS_FILE, Digest, DigestTable
from models.errors import MixerError

ORIGINAL = Digest("sam/Mixer-B_16.npz", "original", 10, "bWQ1", "Y3Jj", "a" * 64)
SEEDED = replace(ORIGINAL, origin="seeded", sha256="b" * 64)
OTHER = replace(ORIGINAL, object="imagenet1k/Mixer-B_16.npz", sha256="c" * 64)
TABLE = DigestTable((ORIGINAL, SEEDED, OTHER))


def test_table_survives_writing_and_reading(tmp_path):
    path = tmp_path / "digests.json"
    TABLE.write(path)
    read = DigestTable.read(path)
    assert set(read.entries) == set(TABLE.entries)
    assert len(read.entries) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["digests.json"]


def test_written_table_depends_on_its_entries_not_on_their_order(tmp_path):
    TABLE.write(tmp_path / "one.json")
    DigestTable(TABLE.entries[::-1]).write(tmp_path / "two.json")
    one, two = ((tmp_path / name).read_bytes() for name in ("one.json", "two.json"))
    assert one == two
    assert one.endswith(b"]\n")


def test_empty_table_survives(tmp_path):
    DigestTable(()).write(tmp_path / "digests.json")
    assert DigestTable.read(tmp_path / "digests.json") == DigestTable(())


ROW = b'{"object": "a", "origin": "seeded", "size": 1, "md5": "", "crc32c": "", "sha256": ""}'


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b"{}", "should be a valid array"),
        (b"[1]", "0: Input should be an object"),
        (b'[{"object": "a"}]', r"0\.origin: Field required \(and 4 more\)"),
        (b"[%b]" % ROW.replace(b"seeded", b"own"), r"0\.origin: Input should be 'original' or 'seeded'"),
        (b"[%b]" % ROW.replace(b"1", b'"1"'), r"0\.size: Input should be a valid integer"),
        (b"[%b]" % ROW.replace(b"md5", b"sha1"), r"0\.md5: Field required"),
        (b"[]" + b" " * (1 << 20), "has more than 1,048,576 bytes, the most"),
    ],
)
def test_a_malformed_table_is_refused_in_words(content, text, tmp_path):
    path = tmp_path / "digests.json"
    path.write_bytes(content)
    with pytest.raises(MixerError, match=rf"digests\.json .*{text}"):
        DigestTable.read(path)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MixerError, match=r"digests\.json cannot be read \(No such file or directory\)\. Restore it"):
        DigestTable.read(tmp_path / "digests.json")


def test_new_entry_takes_the_place_of_the_old_one():
    new = replace(ORIGINAL, sha256="d" * 64, size=11)
    table = TABLE.with_entry(new)
    assert set(table.entries) == {new, SEEDED, OTHER}
    assert TABLE.find(ORIGINAL.object, "original") == ORIGINAL


def test_entry_of_another_object_or_origin_is_added():
    table = DigestTable((ORIGINAL,)).with_entry(SEEDED).with_entry(OTHER)
    assert table == TABLE


@pytest.mark.parametrize("entry", TABLE.entries, ids=lambda entry: f"{entry.origin}-{entry.object}")
def test_entry_is_found_by_object_and_origin(entry):
    assert TABLE.find(entry.object, entry.origin) is entry


@pytest.mark.parametrize(
    ("name", "origin"), [("gsam/Mixer-S_8.npz", "original"), (OTHER.object, "seeded"), (ORIGINAL.object, "own")]
)
def test_no_entry_is_none(name, origin):
    assert TABLE.find(name, origin) is None


@pytest.mark.parametrize(
    ("name", "sha256", "origin"),
    [
        (ORIGINAL.object, "a" * 64, "original"),
        (SEEDED.object, "b" * 64, "seeded"),
        (OTHER.object, "c" * 64, "original"),
        (ORIGINAL.object, "c" * 64, "unknown"),  # the contents of another object
        (ORIGINAL.object, "d" * 64, "unknown"),
        ("gsam/Mixer-S_8.npz", "a" * 64, "unknown"),
    ],
)
def test_origin_of_a_file(name, sha256, origin):
    assert TABLE.origin_of(name, sha256) == origin


def test_table_of_the_repository_is_read_and_written_as_it_stands(tmp_path):
    table = DigestTable.read()
    keys = [(entry.object, entry.origin) for entry in table.entries]
    assert len(set(keys)) == len(keys)
    table.write(tmp_path / "digests.json")
    assert (tmp_path / "digests.json").read_bytes() == DIGESTS_FILE.read_bytes()
