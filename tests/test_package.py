"""The archive is what TensorFlow Hub reads, the same wherever it is made; the provenance binds it to its records."""

import base64
import gzip
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from command import run
from publishable import CHECKPOINT, HANDLE, WEIGHTS, tree, write_model, write_report
from reporting import forged

from export.package import signing as signature_module
from export.package.archive import BLOCK, _Gzip, package_model
from export.package.provenance import BUILD_PAGE, LOCAL_BUILDER, Statement
from export.package.signing import signer
from models.errors import MixerError, UsageError
from models.records.contents import compare_files
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.storage import archives
from models.storage.archives import digest_archive, extract_archive
from models.storage.files import Hashes, written_whole


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch):
    for name in ("GITHUB_WORKFLOW_REF", "GITHUB_SERVER_URL", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def destination(tmp_path):
    return write_model(tmp_path / "build")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def siblings_of(destination):
    return sorted(path.name for path in destination.directory.parent.iterdir())


# --- the archive ---


def test_a_model_that_no_reader_would_unpack_is_not_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    destination = write_model(tmp_path / "zeros", more={WEIGHTS: bytes(8 << 20)})
    with pytest.raises(
        MixerError, match=r"the model has 8,388,6\d\d bytes, but an archive of .* is unpacked to 1,048,576 at most"
    ):
        package_model(destination)
    assert not destination.archive.exists()


def test_the_archive_holds_the_model_with_the_graph_at_its_root(destination, tmp_path):
    package = package_model(destination)
    assert (package.size, package.sha256) == (package.archive.stat().st_size, sha256(package.archive))
    (tmp_path / "unpacked").mkdir()
    extract_archive(package.archive, tmp_path / "unpacked")
    assert tree(tmp_path / "unpacked") == tree(destination.directory)
    assert compare_files(Manifest.read(destination.manifest).files, digest_archive(package.archive).files) == []
    with tarfile.open(package.archive) as archive:
        assert archive.getnames() == [
            "assets",
            "assets/labels.txt",
            "fingerprint.pb",
            "saved_model.pb",
            "variables",
            WEIGHTS,
            "variables/variables.index",
        ]


def test_the_archive_tells_nothing_of_the_machine(destination):
    with tarfile.open(package_model(destination).archive) as archive:
        told = {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode, bool(one.pax_headers)) for one in archive}
    assert told == {(0, 0, 0, "", "", 0o644, False), (0, 0, 0, "", "", 0o755, False)}
    header = destination.archive.read_bytes()[:10]
    assert header == b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"  # no name, no time, no system


def test_another_time_place_and_owner_give_the_same_bytes(destination, tmp_path):
    other = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "build", other)
    for path in other.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    packed = [package_model(ModelPaths.of(out, HANDLE, 2)) for out in (tmp_path / "build", other)]
    assert packed[0].sha256 == packed[1].sha256
    assert packed[0].provenance.read_bytes() == packed[1].provenance.read_bytes()


@pytest.mark.parametrize("piece", [1000, BLOCK - 1, 3 * BLOCK])
def test_how_bytes_come_in_does_not_decide_what_comes_out(piece):
    content, packed = random.Random(1).randbytes(2 * BLOCK) + bytes(2 * BLOCK + 5), []  # noqa: S311
    for size in (piece, len(content)):
        file = io.BytesIO()
        with _Gzip(file) as packer:
            for start in range(0, len(content), size):
                packer.write(content[start : start + size])
        packed.append(file.getvalue())
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == content


def test_big_files_are_told_of_as_they_are_packed(tmp_path):
    destination, seen = write_model(tmp_path, size=3 << 20), []
    package_model(destination, progress=lambda *both: seen.append(both))
    size = Manifest.read(destination.manifest).size
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 10  # in pieces
    assert seen[-1] == (size, size)


# --- the provenance ---


def test_the_provenance_binds_archive_manifest_and_report(destination):
    package = package_model(destination)
    said = json.loads(package.provenance.read_text())
    assert (said["_type"], said["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    assert said["subject"] == [
        {"name": path.name, "digest": {"sha256": sha256(path)}}
        for path in (package.archive, destination.manifest, destination.report)
    ]
    assert said["predicate"] == {
        "buildDefinition": {
            "buildType": "urn:mixer-jax2tf:export/README.md#provenance",
            "externalParameters": {
                "handle": HANDLE,
                "version": 2,
                "flavour": "native",
                "checkpoint": CHECKPOINT.object,
            },
            "internalParameters": {"pipeline": "0.1.0", "pipeline_sha256": "5" * 64},
            "resolvedDependencies": [
                {
                    "name": CHECKPOINT.object,
                    "uri": CHECKPOINT.url,
                    "digest": {"sha256": "a" * 64},
                    "annotations": {"origin": "original", "size": 12},
                },
                {"name": "mixer-jax2tf", "digest": {"gitCommit": "c" * 40}, "annotations": {"dirty": False}},
                {"uri": "pkg:pypi/jax@0.10.2"},
                {"uri": "pkg:generic/python@3.10.7"},
            ],
        },
        "runDetails": {"builder": {"id": LOCAL_BUILDER, "version": {"mixer-jax2tf": "0.1.0"}}},
    }
    assert Statement.read(package.provenance).to_bytes() == package.provenance.read_bytes()


def test_ci_is_named_as_the_builder(destination, monkeypatch):
    monkeypatch.setenv("GITHUB_WORKFLOW_REF", "owner/name/.github/workflows/convert.yml@refs/heads/main")
    said = Statement.read(package_model(destination).provenance)
    assert said.predicate.run_details.builder.id == (
        "https://github.com/owner/name/.github/workflows/convert.yml@refs/heads/main"
    )
    page = f"https://github.com/owner/name/blob/{'c' * 40}/export/README.md#provenance"
    assert said.predicate.build_definition.build_type == page


def test_the_type_of_the_build_is_a_heading_of_a_page_that_explains_its_parameters(destination):
    definition = Statement.read(package_model(destination).provenance).predicate.build_definition
    file, _, heading = BUILD_PAGE.partition("#")
    assert definition.build_type.endswith(f":{BUILD_PAGE}")
    page = (Path(__file__).parent.parent / file).read_text(encoding="utf-8")
    (section,) = (
        part for part in re.split("^#+ ", page, flags=re.MULTILINE) if part.lower().startswith(f"{heading}\n")
    )
    assert all(f"`{name}`" in section for name in (*definition.external_parameters, *definition.internal_parameters))


def test_a_path_of_this_disk_does_not_leave_it(tmp_path):
    place = {"url": "/home/somebody/secret/x.npz", "origin": "unknown"}
    destination = write_model(tmp_path, checkpoint=place, git_commit=None, git_dirty=None)
    provenance = package_model(destination).provenance
    assert b"somebody" not in provenance.read_bytes()
    assert json.loads(provenance.read_text())["predicate"]["buildDefinition"]["resolvedDependencies"] == [
        {
            "name": CHECKPOINT.object,
            "digest": {"sha256": "a" * 64},
            "annotations": {"origin": "unknown", "size": 12},
        },
        {"uri": "pkg:pypi/jax@0.10.2"},
        {"uri": "pkg:generic/python@3.10.7"},
    ]


def test_what_is_no_statement_is_told(tmp_path):
    path = tmp_path / "2.provenance.json"
    path.write_text('{"_type": "https://in-toto.io/Statement/v0.1"}')
    with pytest.raises(MixerError, match=r"2\.provenance\.json is not a readable in-toto statement"):
        Statement.read(path)


# --- what is refused ---


def test_what_differs_from_the_manifest_is_not_packed(destination):
    weights = destination.directory / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[7] ^= 1
    weights.write_bytes(content)
    (destination.directory / "strange").write_text("x")
    (destination.directory / "saved_model.pb").write_text("longer graph")
    (destination.directory / "fingerprint.pb").unlink()
    with pytest.raises(MixerError, match=r"2 differs from 2\.manifest\.json, so it was not packed") as error:
        package_model(destination)
    told = str(error.value).splitlines()
    assert told[1:4] == [
        "  fingerprint.pb is missing, but the manifest lists it",
        "  saved_model.pb has 12 bytes, but the manifest lists 5",
        "  strange is not listed in the manifest",
    ]
    assert told[4].startswith(f"  {WEIGHTS} has sha256 {hashlib.sha256(content).hexdigest()}, ")
    assert told[5] == f"Convert {HANDLE} again (--overwrite)."
    assert siblings_of(destination) == ["2", "2.manifest.json", "2.report.json"]


def test_a_model_without_manifest_or_report_is_not_packed(destination):
    destination.report.unlink()
    with pytest.raises(MixerError, match=rf"2\.report\.json is missing: .* `mixer-jax2tf validate {HANDLE}` first"):
        package_model(destination)
    destination.manifest.unlink()
    with pytest.raises(MixerError, match=r"2\.manifest\.json is missing: there is no converted model"):
        package_model(destination)


def test_a_model_that_failed_is_not_packed(destination):
    write_report(destination, Manifest.read(destination.manifest), problems=("outputs differ",))
    with pytest.raises(MixerError, match=r"2\.report\.json says that the model failed: outputs differ\."):
        package_model(destination)


def test_a_model_whose_figures_speak_against_its_verdict_is_not_packed(destination):
    write_report(destination, Manifest.read(destination.manifest), checks=forged())
    with pytest.raises(MixerError, match=r"2\.report\.json cannot be trusted: .* measured 9\.9, over its limit"):
        package_model(destination)


def test_a_report_of_another_manifest_is_not_bound(destination):
    write_report(destination, Manifest.read(destination.manifest), manifest_sha256="e" * 64)
    with pytest.raises(MixerError, match=r"2\.manifest\.json has sha256 \w+, but 2\.report\.json lists e{64}"):
        package_model(destination)


def test_a_model_under_a_foreign_name_is_not_packed(destination):
    moved = destination.out / "other"
    destination.directory.parent.rename(moved)
    with pytest.raises(MixerError, match=rf"its path says handle 'other', 2\.manifest\.json '{HANDLE}'"):
        package_model(ModelPaths.of(destination.out, "other", 2))


@pytest.mark.parametrize("left", ["archive", "provenance"])
def test_what_exists_is_replaced_only_when_told(left, destination):
    first = package_model(destination)
    (first.provenance if left == "archive" else first.archive).unlink()
    with pytest.raises(UsageError, match=r"exists already: .*2\..*\. --overwrite replaces it"):
        package_model(destination)
    package_model(destination, overwrite=True)
    assert siblings_of(destination) == ["2", "2.manifest.json", "2.provenance.json", "2.report.json", "2.tar.gz"]


def test_a_failure_leaves_what_stood_there(destination):
    package_model(destination)
    before = tree(destination.directory.parent)
    weights = destination.directory / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(b"")
    with pytest.raises(MixerError, match="was not packed"):
        package_model(destination, overwrite=True)
    weights.write_bytes(content)
    assert tree(destination.directory.parent) == before


def test_a_full_disk_is_told_and_leaves_nothing(destination, monkeypatch):
    def fill_up(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile, "copyfileobj", fill_up)
    with pytest.raises(MixerError, match=r"could not write .*2\.tar\.gz \(No space left on device: .*\): free some"):
        package_model(destination)
    assert siblings_of(destination) == ["2", "2.manifest.json", "2.report.json"]


def test_old_provenance_never_stands_beside_a_new_archive(destination, monkeypatch):
    package_model(destination)
    monkeypatch.setattr("export.package.provenance.Statement.of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        package_model(destination, overwrite=True)
    assert siblings_of(destination) == ["2", "2.manifest.json", "2.report.json", "2.tar.gz"]


def test_what_a_killed_process_left_behind_is_swept(tmp_path):
    program = f"""
import sys
from pathlib import Path
from models.storage.files import written_whole
with written_whole(Path({str(tmp_path / "file")!r})) as file:
    file.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    root = Path(signature_module.__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        with written_whole(tmp_path / "file") as file:  # beside one that is alive
            file.write(b"whole")
        assert len(list(tmp_path.iterdir())) == 2
        process.kill()
        process.wait()
    (tmp_path / ".file.partial-mine").write_text("a user's")
    with written_whole(tmp_path / "file") as file:
        file.write(b"again")
    assert tree(tmp_path) == {"file": b"again", ".file.partial-mine": b"a user's"}


def test_hashes_are_those_of_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()
    assert Hashes.of(path) == Hashes(3_000_000, sha256(path), base64.b64encode(md5).decode())


# --- the signature ---


def test_without_the_extra_the_error_tells_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"needs the package model-signing, which is not installed: .*\[sign\]"):
        signer(tmp_path / "key.pem")


@pytest.fixture
def key(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path / "key.pem"
    path.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    return path


def test_a_signature_over_the_provenance_can_be_checked(destination, key, tmp_path):
    package = package_model(destination, sign=signer(key))
    assert package.signature is not None
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "public.pem")
    config.verify(package.provenance, package.signature)
    package.provenance.write_bytes(package.provenance.read_bytes() + b" ")
    with pytest.raises(ValueError, match="mismatch"):
        config.verify(package.provenance, package.signature)
    assert package_model(destination, overwrite=True).signature is None
    assert not package.signature.exists()  # it was of other provenance


def test_what_is_no_key_is_told_before_any_work(key, tmp_path):
    with pytest.raises(UsageError, match=r"public\.pem is not a usable private key .* expected a PEM file"):
        signer(tmp_path / "public.pem")
    with pytest.raises(UsageError, match=r"nowhere\.pem is not a usable private key \(FileNotFoundError"):
        signer(tmp_path / "nowhere.pem")


# --- the command ---


def test_the_command_packs_what_it_can_and_tells_the_rest(destination, capfd):
    other = write_model(destination.out, handle=f"{HANDLE}-graph", flavour="graph")
    other.report.unlink()
    code, out, err = run(capfd, "package", HANDLE, "--flavour", "both", "--out", destination.out, "--json")
    assert code == 1
    packed, failed = json.loads(out)
    assert (packed["handle"], packed["version"], packed["problems"]) == (HANDLE, 2, [])
    assert packed["sha256"] == sha256(destination.archive)
    assert failed["handle"] == f"{HANDLE}-graph"
    advised = failed["problems"][0].replace("--flavour graph", f"--flavour graph --out {destination.out}")
    assert f"1 of 2 handles failed.\n{HANDLE}-graph: {advised}" in err
    assert "Traceback" not in err


def test_the_command_refuses_before_any_work(destination, capfd):
    assert run(capfd, "package", HANDLE, "--out", destination.out)[0] == 0
    before = tree(destination.out)
    code, _, err = run(capfd, "package", HANDLE, "--out", destination.out)
    assert code == 2
    assert err.count("2.tar.gz") == err.count("2.provenance.json") == 1
    assert tree(destination.out) == before
    assert run(capfd, "package", HANDLE, "--out", destination.out, "--overwrite")[0] == 0
    assert tree(destination.out) == before  # of the same bytes


def test_ones_own_model_is_packed_under_its_name(tmp_path, capfd):
    write_model(tmp_path, handle="my_mixer", checkpoint={"origin": "own"})
    code, out, err = run(capfd, "package", "my_mixer", "--out", tmp_path, "--json")
    assert code == 0, err
    assert [one["archive"] for one in json.loads(out)] == [str(tmp_path / "my_mixer" / "2.tar.gz")]
    code, _, err = run(capfd, "package", "your_mixer", "--out", tmp_path)
    assert (code, "unknown handle 'your_mixer'" in err) == (2, True)
