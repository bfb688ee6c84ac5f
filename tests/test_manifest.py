"""The manifest: what it says of a model, and when a model is still what would be made now."""

import hashlib
import shutil

import pytest

from convert.flavours.native import PLATFORMS
from export.saved_model.manifest import describe, is_current
from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from models.errors import MixerError
from models.records import contents
from models.records.contents import compare_files, digest_files, refuse_changed
from models.records.layout import ModelPaths
from models.records.manifest import FileDigest, Manifest
from models.records.provenance import library_versions, pipeline_version
from models.storage.files import sha256_of

EXTRAS = ("model.json", "LICENSE", "CITATION.bib", "tf_serving_warmup_requests")
NAMES = sorted(TESTING_HANDLES)
WEIGHTS = "variables/variables.data-00000-of-00001"

each_handle = pytest.mark.parametrize("name", NAMES)


def made(build, name):
    destination = ModelPaths.of(build, name, DEFAULT_VERSION)
    return destination, Manifest.read(destination.manifest)


def expected_now(name, manifest):
    return describe(
        TESTING_HANDLES[name],
        manifest.checkpoint,
        version=DEFAULT_VERSION,
        platforms=PLATFORMS,
    )


@each_handle
def test_manifest_says_what_the_model_is(tiny_build, tiny_source, name):
    handle = TESTING_HANDLES[name]
    _, manifest = made(tiny_build, name)
    source = tiny_source / handle.checkpoint.object
    assert (manifest.handle, manifest.version, manifest.flavour) == (name, DEFAULT_VERSION, "native")
    assert (manifest.head, manifest.num_classes) == (handle.head, handle.num_classes)
    assert (manifest.architecture, manifest.image_size) == ("Ti/8", 32)
    assert manifest.parameters == handle.parameters
    assert set(manifest.platforms) == {"cpu", "cuda", "rocm", "tpu"}
    assert manifest.libraries == library_versions()
    assert manifest.pipeline == pipeline_version()
    assert manifest.checkpoint.name == handle.checkpoint.name
    assert manifest.checkpoint.object == handle.checkpoint.object
    assert manifest.checkpoint.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest.checkpoint.size == source.stat().st_size


@each_handle
def test_manifest_lists_every_file_with_its_digest(tiny_build, name):
    destination, manifest = made(tiny_build, name)
    expected = {"saved_model.pb", "variables/variables.index", WEIGHTS}
    expected |= {f"assets.extra/{file}" for file in EXTRAS}
    labels = TESTING_HANDLES[name].labels
    assert manifest.files.keys() == expected | ({f"assets/{labels.file}"} if labels else set())
    for file, digest in manifest.files.items():
        content = (destination.directory / file).read_bytes()
        assert digest == FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    assert manifest.size == sum(path.stat().st_size for path in destination.directory.rglob("*") if path.is_file())
    assert manifest.size > 4 * manifest.parameters


@each_handle
def test_description_with_a_directory_is_the_manifest_that_was_written(tiny_build, name):
    destination, manifest = made(tiny_build, name)
    described = expected_now(name, manifest).model_copy(update={"files": digest_files(destination.directory)})
    # Somebody may commit, or edit a text, while the tests run.
    circumstances = {"git_commit": None, "git_dirty": None}
    assert described.model_copy(update=circumstances) == manifest.model_copy(update=circumstances)


def test_digests_are_by_relative_path_in_order(tmp_path):
    for file in ("b", "a/z", "a/b/c", ".hidden"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    digests = digest_files(tmp_path)
    assert list(digests) == [".hidden", "a/b/c", "a/z", "b"]
    assert digests["a/z"] == FileDigest(sha256=hashlib.sha256(b"a/z").hexdigest(), size=3)
    assert digest_files(tmp_path / "empty") == {}


def test_differences_are_told_apart_and_sorted(build):
    destination, manifest = made(build, NAMES[0])
    assert compare_files(manifest.files, digest_files(destination.directory)) == []
    (destination.directory / "variables/variables.index").unlink()
    (destination.directory / "notes.txt").write_text("mine", encoding="utf-8")
    flip_a_byte(destination.directory / "saved_model.pb")
    found, said = digest_files(destination.directory), manifest.files["saved_model.pb"].sha256
    assert compare_files(manifest.files, found) == [
        "notes.txt is not listed in the manifest",
        f"saved_model.pb has sha256 {found['saved_model.pb'].sha256}, but the manifest lists {said}",
        "variables/variables.index is missing, but the manifest lists it",
    ]


def test_missing_directory_differs_in_all_files(build):
    destination, manifest = made(build, NAMES[0])
    shutil.rmtree(destination.directory)
    differences = compare_files(manifest.files, digest_files(destination.directory))
    assert differences == sorted(f"{name} is missing, but the manifest lists it" for name in manifest.files)


def test_a_model_that_is_removed_while_it_is_read_is_told(build, monkeypatch):
    destination, manifest = made(build, NAMES[0])

    def read(path):  # another command is quicker
        shutil.rmtree(destination.directory)
        return sha256_of(path)

    monkeypatch.setattr(contents, "sha256_of", read)
    with pytest.raises(MixerError, match="was removed while it was read: is another command replacing"):
        refuse_changed(destination.directory, manifest.files, destination.manifest, "Again.")


def flip_a_byte(path, position=-1):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@each_handle
def test_what_was_just_made_is_current(tiny_build, name):
    destination, manifest = made(tiny_build, name)
    assert is_current(destination, expected_now(name, manifest))


@pytest.mark.parametrize("position", [0, 5000, -1])
@pytest.mark.parametrize("file", ["saved_model.pb", WEIGHTS])
def test_one_changed_byte_is_not_current(build, file, position):
    destination, manifest = made(build, NAMES[0])
    flip_a_byte(destination.directory / file, position)
    assert not is_current(destination, expected_now(NAMES[0], manifest))


@pytest.mark.parametrize("loss", ["file", "directory", "manifest", "damaged manifest"])
def test_incomplete_model_is_not_current(build, loss):
    destination, manifest = made(build, NAMES[0])
    if loss == "file":
        (destination.directory / "saved_model.pb").unlink()
    elif loss == "directory":
        shutil.rmtree(destination.directory)
    elif loss == "manifest":
        destination.manifest.unlink()
    else:
        destination.manifest.write_bytes(destination.manifest.read_bytes()[:-20])
    assert not is_current(destination, expected_now(NAMES[0], manifest))


DECISIVE = {
    "checkpoint": lambda manifest: {"checkpoint": manifest.checkpoint.model_copy(update={"sha256": "0" * 64})},
    "origin": lambda manifest: {"checkpoint": manifest.checkpoint.model_copy(update={"origin": "original"})},
    "library": lambda manifest: {"libraries": manifest.libraries | {"jax": "0.0.1"}},
    "pipeline": lambda _: {"pipeline_sha256": "0" * 64},
    "pipeline version": lambda _: {"pipeline": "0.0.0"},
    "flavour": lambda _: {"flavour": "graph"},
    "version": lambda _: {"version": 3},
    "handle": lambda _: {"handle": NAMES[1]},
    "platforms": lambda _: {"platforms": ("cpu",)},
    "classes": lambda _: {"num_classes": 10},
}
CIRCUMSTANCES = {
    "commit": lambda _: {"git_commit": "0" * 40},
    "no git": lambda _: {"git_commit": None, "git_dirty": None},
    "clean": lambda _: {"git_dirty": False},
    "dirty": lambda _: {"git_dirty": True},
    "source": lambda manifest: {"checkpoint": manifest.checkpoint.model_copy(update={"url": "gs://elsewhere/x.npz"})},
}


@pytest.mark.parametrize("change", DECISIVE)
def test_model_of_other_material_is_not_current(tiny_build, change):
    destination, manifest = made(tiny_build, NAMES[0])
    expected = expected_now(NAMES[0], manifest).model_copy(update=DECISIVE[change](manifest))
    assert not is_current(destination, expected)


@pytest.mark.parametrize("change", CIRCUMSTANCES)
def test_circumstances_do_not_decide(tiny_build, change):
    destination, manifest = made(tiny_build, NAMES[0])
    expected = expected_now(NAMES[0], manifest).model_copy(update=CIRCUMSTANCES[change](manifest))
    assert is_current(destination, expected)


def test_every_field_is_decisive_or_not_on_purpose(tiny_build):
    _, manifest = made(tiny_build, NAMES[0])
    tried = {field for change in (*DECISIVE.values(), *CIRCUMSTANCES.values()) for field in change(manifest)}
    follow_from_the_handle = {"architecture", "image_size", "head", "parameters"}
    assert tried | follow_from_the_handle | {"files", "schema_version"} == set(Manifest.model_fields)
