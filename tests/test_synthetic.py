"""Seeded checkpoints: the originals' form, the recorded bytes, and never another file overwritten."""

import hashlib
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from convert.checkpoints import synthetic
from convert.checkpoints.synthetic import _seeded_arrays, _SeedError, write_seeded
from models.catalog import CHECKPOINTS, SQUARE_HANDLES, TESTING_HANDLES
from models.digests import DigestTable

TINY = next(iter(TESTING_HANDLES.values())).checkpoint
SQUARE = next(iter(SQUARE_HANDLES.values())).checkpoint


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tiny_with(classes, **sizes):
    training = replace(TINY.training, num_classes=classes)
    return replace(TINY, training=training, architecture=replace(TINY.architecture, **sizes))


@pytest.mark.parametrize(
    "checkpoint",
    [*(row for rows in CHECKPOINTS.values() for row in rows.values()), TINY, SQUARE],
    ids=lambda row: row.name,
)
def test_every_row_has_a_seeded_entry_of_the_originals_size(checkpoint):
    entry = DigestTable.read().find(checkpoint.object, "seeded")
    assert entry is not None
    assert checkpoint.size in (None, entry.size)


@pytest.mark.parametrize("checkpoint", [TINY, SQUARE], ids=lambda row: row.name)
def test_testing_rows_are_written_as_recorded(checkpoint, tmp_path):
    path = write_seeded(checkpoint, tmp_path)
    entry = DigestTable.read().find(checkpoint.object, "seeded")
    assert path == tmp_path / checkpoint.object
    assert (path.stat().st_size, sha256(path)) == (entry.size, entry.sha256)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.whole
def test_b32_is_written_as_recorded(tmp_path):
    checkpoint = CHECKPOINTS["mixer"]["b32_sam"]
    path = write_seeded(checkpoint, tmp_path)
    assert sha256(path) == DigestTable.read().find(checkpoint.object, "seeded").sha256


def test_numpy_reads_the_file_as_the_arrays_that_were_made(tmp_path):
    made = dict(_seeded_arrays(TINY))
    with np.load(write_seeded(TINY, tmp_path), allow_pickle=False) as archive:
        assert archive.files == list(TINY.arrays) == list(made)
        for name, shape in TINY.arrays.items():
            assert archive[name].dtype == np.float32
            assert archive[name].shape == shape
            np.testing.assert_array_equal(archive[name], made[name])


def test_header_and_layout_are_those_that_savez_writes(tmp_path):
    row = tiny_with(7)
    path = write_seeded(row, tmp_path)
    np.savez(tmp_path / "numpy.npz", **dict(_seeded_arrays(row)))
    with zipfile.ZipFile(path) as ours, zipfile.ZipFile(tmp_path / "numpy.npz") as numpys:
        assert ours.namelist() == numpys.namelist()
        assert all(ours.read(name) == numpys.read(name) for name in ours.namelist())
        assert {info.compress_type for info in ours.infolist()} == {zipfile.ZIP_STORED}


def test_room_for_64_bit_sizes_only_where_the_originals_have_it(tmp_path):
    plain = tiny_with(7)
    sam = replace(plain, training=replace(plain.training, name="sam"))
    sizes = [write_seeded(row, tmp_path / row.training.name).stat().st_size for row in (plain, sam)]
    assert sizes[1] - sizes[0] == 20 * len(plain.arrays)


def test_values_are_hard_rather_than_tame():
    arrays = dict(_seeded_arrays(TINY))
    assert all(np.isfinite(array).all() and array.any() for array in arrays.values())
    scales = np.concatenate([array for name, array in arrays.items() if name.endswith("scale")])
    assert np.abs(scales).min() < 0.22
    assert np.abs(scales).max() > 2
    assert (scales < 0).any()
    kernel = arrays["head/kernel"]
    assert np.abs(kernel).max() > 8 * kernel.std()
    assert abs(kernel.mean()) < kernel.std() / 50
    assert 1e-7 < arrays["stem/bias"].var() < 1e-5


def test_every_array_has_a_stream_of_its_own():
    arrays = dict(_seeded_arrays(TINY))
    other = dict(_seeded_arrays(replace(TINY, name="another")))
    assert len({array.tobytes() for array in arrays.values()}) == len(arrays)
    assert all(not np.array_equal(arrays[name], other[name]) for name in arrays)


def test_a_large_array_is_the_same_in_one_piece_or_many(monkeypatch):
    row = tiny_with(5000)
    whole = dict(_seeded_arrays(row))["head/kernel"]
    monkeypatch.setattr("convert.checkpoints.synthetic._CHUNK", 1 << 10)
    np.testing.assert_array_equal(dict(_seeded_arrays(row))["head/kernel"], whole)


@pytest.mark.parametrize("sizes", [{}, {"hidden_dim": 24, "num_blocks": 3}])
def test_other_sizes_and_classes_work(tmp_path, sizes):
    row = tiny_with(3, **sizes)
    with np.load(write_seeded(row, tmp_path)) as archive:
        assert {name: archive[name].shape for name in archive.files} == row.arrays


def test_the_recorded_file_is_kept(tmp_path):
    path = write_seeded(TINY, tmp_path)
    before = path.stat().st_mtime_ns
    assert write_seeded(TINY, tmp_path) == path
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"precious", b""])
def test_another_file_is_never_overwritten(tmp_path, content):
    path = tmp_path / TINY.object
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(_SeedError, match=r"exists, and differs from the synthetic checkpoint.*move it away"):
        write_seeded(TINY, tmp_path)
    assert path.read_bytes() == content


def test_a_file_without_record_is_never_overwritten(tmp_path):
    row = tiny_with(3)
    write_seeded(row, tmp_path)
    with pytest.raises(_SeedError, match="exists, and differs from the synthetic checkpoint"):
        write_seeded(row, tmp_path)


def test_other_bytes_than_recorded_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic._GAINS, "stem/bias", 1.0)
    with pytest.raises(_SeedError, match=r"models/digests.json records [0-9a-f]{64}"):
        write_seeded(TINY, tmp_path)
    assert not list((tmp_path / TINY.object).parent.iterdir())


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(_SeedError, match=r"cannot be written: .*Choose another directory"):
        write_seeded(TINY, tmp_path / "file")


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    write_seeded(TINY, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4 * TINY.parameters,) * 2
    assert seen == sorted(seen)
