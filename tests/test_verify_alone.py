"""The single file that strangers copy: it runs alone, and finds what `mixer-jax2tf verify` finds."""

import ast
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import cryptography
import pytest
from publishable import HANDLE, WEIGHTS, change, write_card, write_model
from test_verify import flip, repack

from convert.cli import main
from export.package.archive import package_model
from export.package.signing import signer
from export.package.verify import verify
from models.records.about import About, AboutRecord
from models.records.layout import ModelPaths
from models.records.published_index import INDEX, Index, ListedFile
from models.storage.files import Hashes
from validation import verify as alone

FILE = Path(alone.__file__)


def write_index(paths):
    files = {
        path.name: ListedFile(**vars(Hashes.of(path)))
        for path in (*paths.required, paths.signature, *paths.described)
        if path.is_file()
    }
    (paths.folder / INDEX).write_bytes(Index(handle=paths.handle).with_version(paths.version, files).to_bytes())


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Two packed models with cards; for reading only."""
    made = [write_model(tmp_path_factory.mktemp("one")), write_model(tmp_path_factory.mktemp("other"), seed=1)]
    for paths in made:
        write_card(paths)
        package_model(paths)
        write_index(paths)
    return made


@pytest.fixture
def model(packed, tmp_path):
    return ModelPaths.of(shutil.copytree(packed[0].out, tmp_path / "build"), HANDLE, 2)


def named(differences, folder):
    """Return what differences are about: the file that each names first."""
    return {re.split(r"[\s:]", one.replace(f"{folder}/", ""), maxsplit=1)[0] for one in differences}


def both(path):
    """Return the verdict and the files that both verifiers name, which must be the same ones."""
    ours, theirs = verify(path), alone.verify(str(path))
    assert theirs["verdict"] == ours.verdict, (ours.differences, theirs["differences"])
    found = named(ours.differences, path.parent), named(theirs["differences"], path.parent)
    assert found[0] == found[1], (ours.differences, theirs["differences"])
    assert len(theirs["not_checked"]) == len(ours.not_checked)
    return ours.verdict, found[0]


@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_a_whole_model_is_the_same(kind, model):
    assert both(getattr(model, kind)) == ("same", set())
    for path in (model.folder / INDEX, model.card, model.report, model.provenance):
        path.unlink()
        both(getattr(model, kind))
    assert both(getattr(model, kind)) == ("same", set())


KINDS = {  # of files, with the flipped bits of each; `make withstand` flips more
    "2.manifest.json": 25,
    "2.report.json": 15,
    "2.provenance.json": 40,
    "2.md": 4,
    "index.json": 20,
    "2.tar.gz": 10,
    f"2/{WEIGHTS}": 2,
    "2/saved_model.pb": 2,
    "2/assets/labels.txt": 2,
}


@pytest.mark.parametrize("file", KINDS)
def test_one_flipped_bit_is_noticed_and_named_by_both(file, model):
    place, chance = model.folder / file, random.Random(file)  # noqa: S311
    content = place.read_bytes()
    path = model.directory if file.startswith("2/") else model.archive
    for _ in range(KINDS[file]):
        changed = bytearray(content)
        where = chance.randrange(len(content))
        changed[where] ^= 1 << chance.randrange(8)
        place.write_bytes(changed)
        verdict, _ = both(path)
        said = " ".join(verify(path).differences)
        assert (verdict, file.removeprefix("2/") in said) == ("different", True), (where, said)


def test_files_exchanged_between_two_models_are_noticed_by_both(model, packed):
    other = packed[1].folder
    for file in KINDS:
        content = (model.folder / file).read_bytes()
        if content != (other / file).read_bytes():
            shutil.copy(other / file, model.folder / file)
            verdict, names = both(model.directory if file.startswith("2/") else model.archive)
            assert (verdict, len(names) > 0) == ("different", True), file
            (model.folder / file).write_bytes(content)
    assert both(model.archive)[0] == "same"


@pytest.mark.parametrize("kind", ["link", "device", "outside", "twice", "cut", "bomb", "tail", "no archive"])
def test_a_hostile_archive_is_refused_by_both(kind, model, tmp_path):
    if kind in {"cut", "no archive"}:
        model.archive.write_bytes(model.archive.read_bytes()[:-100] if kind == "cut" else b"PK" * 100)
    elif kind == "tail":
        repack(model.archive, lambda _, content: content)
        model.archive.write_bytes(gzip.compress(gzip.decompress(model.archive.read_bytes()) + b"x" * 512))
    else:
        with tarfile.open(model.archive, "w:gz") as archive:
            member = tarfile.TarInfo("../evil" if kind == "outside" else "evil")
            member.type = {"link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}.get(kind, tarfile.REGTYPE)
            member.linkname = "/etc/passwd" if kind == "link" else ""
            for _ in range(2 if kind == "twice" else 1):
                archive.addfile(member)
        if kind == "bomb":
            member.size = 1 << 40
            model.archive.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    verdict, names = both(model.archive)
    assert (verdict, "2.tar.gz" in names) == ("different", True)


def test_a_record_that_speaks_against_the_model_is_noticed_by_both(model):
    for path in (model.provenance, model.folder / INDEX):
        path.unlink()
    before = model.report.read_bytes()
    other = "0" * 64
    of_others = ({"manifest_sha256": other}, {"saved_model_sha256": other})
    for changes in ({"verdict": "failed"}, {"handle": "other"}, {"origin": "seeded"}, *of_others):
        change(model.report, **changes)
        named_file = "2.manifest.json" if "manifest_sha256" in changes else "2.report.json"
        assert both(model.archive) == ("different", {named_file})
        model.report.write_bytes(before)
    checks = json.loads(before)["checks"]
    worst = next(check for check in checks if check["limit"] is not None)
    made_on = {"handle": "another", "saved_model_sha256": other}
    for changes in ({"measured": 9.9}, {"made_on": made_on}):
        change(model.report, checks=[{**one, **changes} if one is worst else one for one in checks])
        assert both(model.archive) == ("different", {"2.report.json"})


def test_a_report_that_nothing_binds_is_read_with_its_own_digest_by_both(model):
    for path in (model.provenance, model.folder / INDEX):
        path.unlink()
    before = model.report.read_bytes()
    for word in (b'"reason"', b'"libraries"', b'"record_sha256"', b'"inputs_sha256"'):
        place = before.index(word) + len(word) + 8
        model.report.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        assert both(model.archive) == ("different", {"2.report.json"})
    model.report.write_text(json.dumps(json.loads(before)))
    assert both(model.archive) == ("different", {"2.report.json"})


def test_what_is_said_of_another_make_is_noticed_by_both(model):
    for path in (model.provenance, model.folder / INDEX):
        path.unlink()
    sha256 = hashlib.sha256(model.manifest.read_bytes()).hexdigest()
    about = About(license="MIT", training_data="pictures", description="Trained here.")
    record = AboutRecord(handle=HANDLE, version=2, manifest_sha256=sha256, about=about)
    model.about.write_bytes(record.to_bytes())
    assert both(model.archive) == ("same", set())
    change(model.about, manifest_sha256="0" * 64)
    assert both(model.archive) == ("different", {"2.manifest.json"})
    change(model.about, manifest_sha256=sha256, version=3)
    assert both(model.archive) == ("different", {"2.about.json"})


@pytest.fixture
def run(tmp_path):
    """Run a copy of the file with nothing but the standard library."""
    file = shutil.copy(FILE, tmp_path / "verify.py")

    def run(*arguments, packages=""):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [sys.executable, "-S", file, *map(str, arguments)]
        return subprocess.run(command, env=kept | {"PYTHONPATH": packages}, capture_output=True, text=True)

    return run


def test_the_file_runs_alone(run, model, tmp_path):
    done = run(model.archive)
    assert (done.returncode, done.stderr) == (0, "")
    assert "same: 2.provenance.json binds 2.tar.gz, 2.manifest.json, 2.report.json, 2.md" in done.stdout
    flip(model.report)
    done = run(model.directory, "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (3, "different")
    assert json.loads(done.stdout).keys() == {*vars(verify(model.directory)), "verdict"}
    model.manifest.unlink()
    for path in (model.directory, tmp_path / "nowhere"):
        done = run(path)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"error: .*\n", done.stderr)


def test_the_file_is_of_python_3_8_and_imports_the_standard_library_alone():
    parsed = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(parsed) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"cryptography"}
    for newer in ("removeprefix", "removesuffix", "is_relative_to", "zip(strict"):
        assert newer not in FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["archive", "directory"])
def test_what_the_provenance_does_not_bind_is_said(kind, model):
    (model.folder / INDEX).unlink()
    model.accuracy.write_bytes(b"{}")
    model.about.write_bytes(b"{}")
    model.card.unlink()
    assert verify(getattr(model, kind)).not_checked == (
        "2.about.json is not bound by 2.provenance.json, so who wrote it is unknown",
        "2.accuracy.json is not bound by 2.provenance.json, so who wrote it is unknown",
        "2.provenance.json binds 2.md, missing here",
    )


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A signed model, the public key beside it and that of somebody else."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    out = tmp_path_factory.mktemp("signed")
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    for name, curve in (("mine", ec.SECP256R1()), ("other", ec.SECP521R1())):
        private = ec.generate_private_key(curve)
        (out / f"{name}.pem").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (out / f"{name}.pub").write_bytes(public)
    package_model(write_model(out), sign=signer(out / "mine.pem"))
    return out


@pytest.fixture
def published(signed, tmp_path):
    return ModelPaths.of(shutil.copytree(signed, tmp_path / "build"), HANDLE, 2)


def with_key(path, key):
    """Return the differences that both verifiers find in a signed model, which must be the same ones."""
    check = partial(alone.check_signature, key=key)
    ours, theirs = verify(path, check_signature=check), alone.verify(str(path), str(key))
    assert tuple(theirs["differences"])[-1:] == ours.differences[-1:]
    return ours.differences


def test_a_signature_is_checked_with_the_key(published, signed):
    path, name = published.archive, published.signature.name
    assert with_key(path, signed / "mine.pub") == ()
    assert with_key(path, signed / "other.pub") == (f"{name} is not a bundle of one signature by this key",)
    content = published.signature.read_bytes()
    published.signature.unlink()
    assert with_key(path, signed / "mine.pub") == (f"{name} or 2.provenance.json, which it signs, is missing",)
    published.signature.write_bytes(content)
    published.provenance.write_bytes(published.provenance.read_bytes() + b" ")
    assert with_key(path, signed / "mine.pub") == (f"{name} is a signature of another 2.provenance.json",)


def test_each_flipped_bit_of_a_signature_is_noticed(published, signed):
    content, chance = published.signature.read_bytes(), random.Random(0)  # noqa: S311
    check = partial(alone.check_signature, published.provenance, published.signature, signed / "mine.pub")
    assert check() is None
    for _ in range(300):
        changed, place = bytearray(content), chance.randrange(len(content))
        changed[place] ^= 1 << chance.randrange(8)
        published.signature.write_bytes(changed)
        assert published.signature.name in (check() or ""), place


def test_the_command_checks_a_signature(published, signed, capfd):
    with pytest.raises(SystemExit) as status:
        main(["verify", str(published.archive), "--key", str(signed / "mine.pub")])
    assert status.value.code == 0
    with pytest.raises(SystemExit) as status:
        main(["verify", str(published.archive), "--key", str(signed / "other.pub")])
    assert status.value.code == 3
    assert "is not a bundle of one signature by this key" in capfd.readouterr().err
    for key in ("mine.pem", "nowhere"):
        with pytest.raises(SystemExit) as status:
            main(["verify", str(published.archive), "--key", str(signed / key)])
        assert status.value.code == 2
        assert "is not a usable public key" in capfd.readouterr().err


def test_a_key_needs_cryptography(run, published, signed):
    done = run(published.archive, "--key", signed / "mine.pub")
    assert (done.returncode, done.stdout) == (2, "")
    assert "`pip install cryptography` installs it" in done.stderr
    done = run(published.archive)
    assert (done.returncode, "not checked: the signature 2.provenance.json.sig" in done.stdout) == (0, True)
    done = run(published.archive, "--key", signed / "mine.pub", packages=str(Path(cryptography.__file__).parents[1]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "same: 2.provenance.json.sig is a signature of 2.provenance.json by the key" in done.stdout


def test_saved_outputs_of_another_report_are_noticed_by_both(tmp_path):
    model = write_model(tmp_path, report={"outputs_sha256": hashlib.sha256(b"outputs").hexdigest()})
    model.outputs.write_bytes(b"outputs")
    assert both(model.directory) == ("same", set())
    model.outputs.write_bytes(b"outputt")
    assert both(model.directory) == ("different", {"2.evidence.npz"})
    model.outputs.unlink()
    assert both(model.directory) == ("same", set())
