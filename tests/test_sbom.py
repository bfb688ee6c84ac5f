"""The SBOM: valid CycloneDX, of the lock, and only where that is what the model was made with."""

import json
import re
import shutil
from pathlib import Path

import pytest
from publishable import write_model

from export.package.archive import package_model
from export.package.provenance import Statement
from export.package.sbom import LOCKS, make_sbom
from export.package.verify import verify
from models.errors import MixerError
from models.records.manifest import Manifest


def problem_of(text):
    """Return what CycloneDX's validator says, which takes seconds to import: not in each process that collects."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def libraries(tag):
    """Return what a model says that was made with the packages of a lock."""
    lock = (LOCKS / f"py{tag}.txt").read_text()
    pins = dict(re.findall(r"^(jax|tensorflow|numpy)==(\S+)", lock, flags=re.M))
    return pins | {"python": f"{tag[0]}.{tag[1:]}.9"}


@pytest.mark.parametrize("tag", ["311", *(pytest.param(tag, marks=pytest.mark.whole) for tag in ("312", "313"))])
def test_it_is_valid_and_has_every_package_of_the_lock_with_its_hashes(tag, tmp_path):
    manifest = Manifest.read(write_model(tmp_path, libraries=libraries(tag)).manifest)
    text, lock = make_sbom(manifest).decode(), (LOCKS / f"py{tag}.txt").read_text()
    assert problem_of(text) is None
    components = json.loads(text)["components"]
    assert [one["name"] for one in components[:2]] == ["python", "mixer-jax2tf"]
    pins = set(re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==", lock, flags=re.M))
    assert sorted(one["name"] for one in components[2:]) == sorted(pins)
    said = set(re.findall('"content": "([0-9a-f]{64})"', text))
    assert said == set(re.findall("--hash=sha256:([0-9a-f]{64})", lock))
    purls = {one["purl"] for one in components}
    assert {f"pkg:pypi/jax@{libraries(tag)['jax']}", f"pkg:generic/python@{tag[0]}.{tag[1:]}.9"} <= purls
    assert make_sbom(manifest).decode() == text


def test_a_field_that_cyclonedx_does_not_know_is_noticed(tmp_path):
    """The validator of these tests can say no."""
    manifest = Manifest.read(write_model(tmp_path, libraries=libraries("311")).manifest)
    said = json.loads(make_sbom(manifest)) | {"maker": "somebody"}
    assert problem_of(json.dumps(said)) is not None


def test_it_is_beside_the_provenance_and_bound_by_it(tmp_path):
    destination = write_model(tmp_path, libraries=libraries("311"))
    packed = package_model(destination)
    assert (packed.sbom, packed.note) == (destination.sbom, "")
    assert destination.sbom.name in Statement.read(packed.provenance).bound
    assert "2.cdx.json" in verify(destination.archive).checked[-1]
    destination.sbom.write_bytes(destination.sbom.read_bytes().replace(b"jax@", b"jay@"))
    (only,) = verify(destination.archive).differences
    assert only.startswith("2.cdx.json has sha256 ")


def test_of_other_packages_than_the_locks_nothing_is_said(tmp_path):
    destination = write_model(tmp_path, libraries=libraries("311"))
    package_model(destination)
    destination = write_model(tmp_path, libraries=libraries("311") | {"jax": "0.0.1"})
    packed = package_model(destination, overwrite=True)
    assert packed.note == "the model was made with jax 0.0.1, which py311.txt does not have"
    assert (packed.sbom, destination.sbom.exists()) == (None, False)
    manifest = Manifest.read(write_model(tmp_path, libraries=libraries("311")).manifest)
    with pytest.raises(MixerError, match=r"the lock of the model's Python 3\.11\.9 cannot be read \(No such file"):
        make_sbom(manifest, tmp_path)
    shutil.copy(LOCKS / "py311.txt", tmp_path)
    assert make_sbom(manifest, Path(tmp_path)) == make_sbom(manifest)
