"""What needs a new version is told with its reason, and nothing is downloaded to find out."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass

import pytest
from command import run
from publishable import CHECKPOINT, HANDLE, write_model

from convert.checkpoints import fetch
from export.package.archive import package_model
from export.publish.outdated import PublishedState
from export.publish.policy import PublishPolicy
from export.publish.publish import publish
from export.publish.store import Mirror
from models.catalog import BUCKET, DEFAULT_VERSION
from models.digests import Digest, DigestTable
from models.errors import MixerError
from models.records.provenance import library_versions, pipeline_version

CONTENT = b"a checkpoint"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = base64.b64encode(hashlib.md5(CONTENT, usedforsecurity=False).digest()).decode()
RECORDED = DigestTable((Digest(CHECKPOINT.object, "original", len(CONTENT), MD5, "", SHA256),))
NOW = {"libraries": dict(library_versions()), "pipeline": pipeline_version()}


@dataclass(frozen=True)
class Source:
    size: int = len(CONTENT)
    md5: str | None = MD5
    sha256: str | None = None


@pytest.fixture
def mirror(tmp_path):
    return published(tmp_path)


def published(folder, **fields):
    """Publish a model that would be made the same now, but for its Python and these fields of its manifest."""
    fields = NOW | {"libraries": NOW["libraries"] | {"python": "3.0.0"}} | fields
    destination = write_model(folder / "build", checkpoint={"sha256": SHA256, "size": len(CONTENT)}, **fields)
    package_model(destination)
    mirror = Mirror(folder / "mirror")
    publish(destination, mirror, PublishPolicy(RECORDED, needs_card=False))
    return mirror


def test_what_would_be_made_the_same_is_up_to_date(mirror):
    found = PublishedState.compare(HANDLE, mirror, Source(), RECORDED)
    assert (found.handle, found.published, found.next, found.reasons, found.unknown) == (HANDLE, 2, 3, (), ())
    assert PublishedState.compare(HANDLE, mirror, Source(md5=None, sha256=SHA256), RECORDED) == found


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (Source(size=13), "size 12 is now 13"),
        (Source(md5="other"), f"md5 {MD5} is now other"),
        (Source(sha256="f" * 64), f"sha256 {SHA256} is now {'f' * 64}"),
    ],
)
def test_a_changed_checkpoint_is_a_reason(source, reason, mirror):
    found = PublishedState.compare(HANDLE, mirror, source, RECORDED)
    assert found.reasons == (f"the checkpoint {CHECKPOINT.object} changed: {reason}",)


def test_other_libraries_and_another_pipeline_are_reasons(tmp_path):
    libraries = {name: version for name, version in NOW["libraries"].items() if name != "numpy"} | {"jax": "0.0.1"}
    mirror = published(tmp_path, libraries=libraries, pipeline="0.0.1")
    assert PublishedState.compare(HANDLE, mirror, Source(), RECORDED).reasons == (
        f"mixer-jax2tf 0.0.1 is now {pipeline_version()}",
        f"jax 0.0.1 is now {library_versions()['jax']}",
        f"numpy (none) is now {library_versions()['numpy']}",
    )


def test_the_highest_published_version_is_compared(mirror, tmp_path):
    published(tmp_path, version=11, pipeline="0.0.9")
    found = PublishedState.compare(HANDLE, mirror, Source(), RECORDED)
    assert (found.published, found.next) == (11, 12)
    assert found.reasons == (f"mixer-jax2tf 0.0.9 is now {pipeline_version()}",)


def test_what_was_never_published_needs_a_version(tmp_path):
    found = PublishedState.compare(HANDLE, Mirror(tmp_path / "nowhere"), Source(), RECORDED)
    assert (found.published, found.next, found.reasons) == (None, DEFAULT_VERSION, ("it was never published",))


def test_what_cannot_be_compared_is_said(mirror):
    found = PublishedState.compare(HANDLE, mirror, Source(), DigestTable(()))
    assert found.reasons == ()
    assert len(found.unknown) == 1
    assert "its digests cannot be compared: models/digests.json has no entry of sha256" in found.unknown[0]
    assert PublishedState.compare(HANDLE, mirror, Source(size=1), RECORDED).unknown == ()


def test_a_new_digest_that_was_recorded_in_place_of_the_published_one_is_a_reason(mirror):
    """A bucket tells no sha256, and of the same size is the new file: the table knows it by its md5."""
    new = Digest(CHECKPOINT.object, "original", len(CONTENT), "bmV3", "", "e" * 64)
    found = PublishedState.compare(HANDLE, mirror, Source(md5="bmV3"), RECORDED.with_entry(new))
    assert found.reasons == (f"the checkpoint {CHECKPOINT.object} changed: sha256 {SHA256} is now {'e' * 64}",)
    assert found.unknown == ()


# --- what the source has ---


def test_looking_at_a_bucket_downloads_nothing(store, tmp_path):
    store.put("mixer_models", CHECKPOINT.object, CONTENT)
    found = fetch.Source(BUCKET, tmp_path, DigestTable(())).probe(CHECKPOINT)
    assert (found.url, found.size, found.md5, found.sha256) == (CHECKPOINT.url, len(CONTENT), MD5, None)
    assert store.served == 0


def test_looking_at_a_directory_reads_the_file(tmp_path):
    path = tmp_path / CHECKPOINT.object
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    found = fetch.Source(str(tmp_path), None, DigestTable(())).probe(CHECKPOINT)
    assert (found.size, found.md5, found.sha256) == (len(CONTENT), MD5, SHA256)
    path.unlink()
    with pytest.raises(MixerError, match="is missing in"):
        fetch.Source(str(tmp_path), None, DigestTable(())).probe(CHECKPOINT)


# --- the command ---


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source" / CHECKPOINT.object
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return tmp_path / "source"


def test_the_command_exits_with_3_where_one_is_out_of_date(tmp_path, source, capfd):
    mirror = published(tmp_path)
    command = ("outdated", HANDLE, "--published", mirror.root, "--source", source)
    code, out, err = run(capfd, *command)
    assert code == 0, err
    assert re.search(rf"{HANDLE}\W+2\W+up to date", out)
    code, out, err = run(capfd, *command, "--flavour", "both", "--json")
    assert code == 3
    assert [(one["published"], one["reasons"]) for one in json.loads(out)] == [
        (2, []),
        (None, ["it was never published"]),
    ]
    assert f"1 of 2 handles are out of date: {HANDLE}-graph." in err
    (source / CHECKPOINT.object).write_bytes(CONTENT[::-1])
    code, out, err = run(capfd, *command)
    assert (code, "changed: sha256" in out) == (3, True)


def test_the_command_tells_a_place_that_cannot_be_read(tmp_path, source, capfd):
    mirror = published(tmp_path)
    (mirror.root / HANDLE / "index.json").write_text("{")
    code, _, err = run(capfd, "outdated", HANDLE, "--published", mirror.root, "--source", source)
    assert (code, "is not a readable index" in err) == (1, True)
    code, _, err = run(capfd, "outdated", HANDLE, "--published", mirror.root / "mistyped", "--source", source)
    assert (code, "mistyped does not exist" in err) == (2, True), err
    code, _, err = run(capfd, "outdated", HANDLE, "--published", "s3://x", "--source", source)
    assert (code, "s3 is not supported" in err) == (2, True)


def test_a_custom_model_is_compared_but_for_its_checkpoint(tmp_path, capfd):
    model = write_model(tmp_path / "out", handle="flowers", checkpoint={"origin": "own", "object": "flowers.npz"})
    package_model(model)
    publish(model, Mirror(tmp_path / "mirror"), PublishPolicy(RECORDED, needs_card=False))
    options = ("--published", tmp_path / "mirror", "--source", tmp_path, "--json")
    status, out, err = run(capfd, "outdated", "flowers", "trees", *options)
    found, missing = json.loads(out)
    assert (status, found["handle"], found["published"]) == (1, "flowers", 2)
    assert [reason for reason in found["reasons"] if reason.startswith("flax (none) is now ")]
    assert "not compared: flowers.npz is a custom checkpoint" in err
    assert missing["problems"] == ["it is neither a handle of the catalog nor published there (`mixer-jax2tf list`)."]
