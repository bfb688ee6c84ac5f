"""Opening what somebody published: a directory or an archive, and everything that is neither."""

import hashlib
import math
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from reporting import check

from models.catalog import TESTING_HANDLES
from models.errors import UsageError
from models.records.report import PublishedComparison, PublishedVariables
from validation.previous import open as published_module
from validation.previous.open import SAVED_MODEL, Published, summarise

CLASSIFIER, _ = TESTING_HANDLES


@pytest.fixture
def model(tiny_build):
    return tiny_build / CLASSIFIER / "2"


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where temporary directories are made."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    return scratch


def pack(model, path, *, below="."):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(model, arcname=below)
    return path


def digests(directory):
    return {
        path.relative_to(directory): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_directory_is_used_in_place(model, scratch):
    with Published.opened(model) as published:
        assert (published.name, published.kind, published.directory) == ("2", "directory", model)
        assert published.sha256 == hashlib.sha256((model / SAVED_MODEL).read_bytes()).hexdigest()
        assert list(scratch.iterdir()) == []


def test_a_directory_has_a_name_however_it_is_given(model, monkeypatch):
    monkeypatch.chdir(model)
    with Published.opened(Path()) as published:
        assert published.name == "2"


def test_an_archive_is_unpacked_for_as_long_as_it_is_open(model, tmp_path, scratch):
    path = pack(model, tmp_path / "tiny_1.tar.gz")
    with Published.opened(path) as published:
        assert (published.name, published.kind) == ("tiny_1.tar.gz", "archive")
        assert published.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert digests(published.directory) == digests(model)
        assert scratch in published.directory.parents
    assert list(scratch.iterdir()) == []


def test_nothing_is_left_when_the_work_fails(model, tmp_path, scratch):
    with pytest.raises(OSError, match="of the work"), Published.opened(pack(model, tmp_path / "tiny_1.tar.gz")):
        raise OSError("of the work")  # and it is not taken for one of the archive
    assert list(scratch.iterdir()) == []


def nothing(model, path):
    pass


def empty_directory(model, path):
    path.mkdir()


def directory_of_versions(model, path):
    shutil.copytree(model.parent, path)


def text(model, path):
    path.write_text("<html>404</html>")


def empty_file(model, path):
    path.write_bytes(b"")


def plain_tar(model, path):
    with tarfile.open(path, "w") as archive:
        archive.add(model, arcname=".")


def one_level_too_deep(model, path):
    pack(model, path, below="tiny")


def truncated(model, path):
    content = pack(model, path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def hostile(model, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(model, arcname="../model")


BAD = {
    nothing: r"--reference .*given does not exist: expected a SavedModel's directory, or its \.tar\.gz",
    empty_directory: r"--reference .*given has no saved_model\.pb \(it contains nothing\): expected .* at its root",
    directory_of_versions: r"--reference .*given has no saved_model\.pb \(it contains 2, 2\.evidence\.npz, 2\.manifest",
    text: r"--reference .*given is refused:\n  it is not a \.tar\.gz, or damaged: .*Not a gzipped file",
    empty_file: r"--reference .*given is refused:\n  it is not a \.tar\.gz",
    plain_tar: r"--reference .*given is refused:\n  it is not a \.tar\.gz",
    one_level_too_deep: r"--reference .*given has no saved_model\.pb \(it contains tiny\): expected .* not in a sub",
    truncated: r"--reference .*given is refused:\n  it is cut off or damaged in or after '.*': EOFError",
    hostile: r"(?s)--reference .*given is refused:\n  '\.\./model' leads out of .*saved_model\.pb' leads out",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_what_is_no_published_model_is_refused(make, model, tmp_path, scratch):
    make(model, tmp_path / "given")
    with pytest.raises(UsageError, match=BAD[make]), Published.opened(tmp_path / "given"):
        pytest.fail("opened")
    assert list(scratch.iterdir()) == []


def test_one_that_cannot_be_read_is_refused(model, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(published_module, "sha256_of", refuse)
    with (
        pytest.raises(UsageError, match=r"--reference .* cannot be read \(Permission denied\)"),
        Published.opened(model),
    ):
        pytest.fail("opened")


def test_the_summary_says_what_was_compared():
    outputs = (check("max_relative", math.inf, on="serving_default on noise, blank (batch 2)"), check("max_ulp", 1.0))
    variables = PublishedVariables(
        count=30, published=31, same_name=2, equal=29, different=("a",), left_over=("b", "c")
    )
    found = PublishedComparison(
        name="1",
        kind="directory",
        sha256="0",
        outputs=outputs,
        signatures=(),
        variables=variables,
        differences=("some",),
        verdict="different",
    )
    assert summarise(found) == (
        ("outputs", "differ by inf of their scale, serving_default on noise, blank (batch 2)"),
        ("signatures", "the same"),
        ("variables", "29 of 30 equal one of its 31, bit for bit (2 were compared by name)"),
    )
    unknown = found.model_copy(update={"outputs": None, "signatures": None, "variables": None})
    assert {outcome for _, outcome in summarise(unknown)} == {"not compared"}
    without = found.outputs[0].model_copy(update={"measured": None})
    assert dict(summarise(found.model_copy(update={"outputs": (without,)})))["outputs"] == "not compared"
    assert dict(summarise(found.model_copy(update={"signatures": ("x",)})))["signatures"] == "differ"
