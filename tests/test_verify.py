"""What arrived is checked without JAX or TensorFlow, and everything that is wrong is told at once."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from publishable import CHECKPOINT, HANDLE, WEIGHTS, WHERE, change, fields_of, tree, write_model, write_report
from reporting import forged

from convert.cli import main
from export.cards.facts import CardFacts
from export.package.archive import package_model
from export.package.provenance import Statement
from export.package.verify import verify
from models.errors import MixerError, UsageError
from models.records.contents import compare_files
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.published_index import INDEX, Index
from models.storage.archives import MOST_BYTES, digest_archive, extract_archive
from models.storage.files import Hashes

ROOT = Path(__file__).parent.parent
MODEL_JSON = "assets.extra/model.json"
KINDS = ("directory", "archive")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed model; for reading only."""
    destination = write_model(tmp_path_factory.mktemp("packed"))
    package_model(destination)
    return destination


@pytest.fixture
def siblings(packed, tmp_path):
    """A packed model of one's own."""
    shutil.copytree(packed.out, tmp_path / "build")
    return ModelPaths.of(tmp_path / "build", HANDLE, 2)


def flip(path, offset=20):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_is_as_it_should_be(kind, siblings):
    before = tree(siblings.folder)
    found = verify(getattr(siblings, kind))
    assert (found.verdict, found.differences, found.not_checked) == ("same", (), ())
    assert (found.kind, found.handle, found.version) == (kind, HANDLE, 2)
    assert found.checked == (
        "5 files, 20,015 bytes, as listed in 2.manifest.json",
        "2.report.json is of this manifest and says that the model passed (inputs: full)",
        "2.provenance.json binds 2.tar.gz, 2.manifest.json, 2.report.json",
    )
    assert tree(siblings.folder) == before  # nothing is unpacked


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_beside_it_is_said_and_no_fault(kind, siblings):
    siblings.report.unlink()
    siblings.provenance.unlink()
    found = verify(getattr(siblings, kind))
    assert found.verdict == "same"
    assert found.not_checked == (
        "there is no 2.report.json, so whether the model passed the parity check is unknown",
        "there is no 2.provenance.json, so who packed the model, and from what, is unknown",
    )


def test_a_signature_is_pointed_to(siblings):
    siblings.signature.write_text("{}")
    assert verify(siblings.archive).not_checked == (
        "the signature 2.provenance.json.sig: give the publisher's public key with --key",
    )


# --- damage ---


def test_every_damaged_file_of_a_directory_is_told(siblings):
    flip(siblings.directory / WEIGHTS)
    (siblings.directory / "assets/labels.txt").unlink()
    (siblings.directory / "saved_model.pb").write_bytes(b"grap")
    (siblings.directory / "variables/added").write_bytes(b"x")
    found = verify(siblings.directory)
    assert found.verdict == "different"
    assert [one.split(" ", 1)[0] for one in found.differences] == [
        "assets/labels.txt",
        "saved_model.pb",
        "variables/added",
        WEIGHTS,
    ]
    assert "has 4 bytes, but the manifest lists 5" in found.differences[1]


def repack(archive, edit):
    """Pack an archive's members again, each as `edit` returns it; None leaves it out."""
    with tarfile.open(archive) as old:
        members = [(member, old.extractfile(member).read() if member.isfile() else b"") for member in old]
    with tarfile.open(archive, "w:gz") as new:
        for member, content in members:
            edited = edit(member, content)
            if edited is not None:
                member.size = len(edited)
                new.addfile(member, io.BytesIO(edited))


def test_every_damaged_file_of_an_archive_is_told(siblings):
    def edit(member, content):
        if member.name == "saved_model.pb":
            return None
        return content[::-1] if member.name == WEIGHTS else content

    repack(siblings.archive, edit)
    found = verify(siblings.archive).differences
    assert found[0] == "saved_model.pb is missing, but the manifest lists it"
    assert found[1].startswith(f"{WEIGHTS} has sha256 ")
    assert found[2].startswith("2.tar.gz has sha256 ")
    assert ", but 2.provenance.json lists " in found[2]
    assert len(found) == 3


def test_the_same_files_packed_by_somebody_else_are_another_archive(siblings):
    repack(siblings.archive, lambda _, content: content)
    assert compare_files(Manifest.read(siblings.manifest).files, digest_archive(siblings.archive).files) == []
    (only,) = verify(siblings.archive).differences
    assert only.startswith("2.tar.gz has sha256 ")
    siblings.provenance.unlink()
    assert verify(siblings.archive).verdict == "same"


@pytest.mark.parametrize("place", [0, 12, 200, -5])
def test_one_flipped_bit_of_an_archive_is_noticed(place, siblings):
    flip(siblings.archive, place)
    siblings.provenance.unlink()  # the files alone tell
    assert verify(siblings.archive).verdict == "different"


def test_an_archive_that_was_cut_off_is_noticed(siblings):
    content = siblings.archive.read_bytes()
    siblings.archive.write_bytes(content[:-100])
    found = verify(siblings.archive).differences
    assert "cut off or damaged" in found[0]
    assert len(found) == 2


def test_a_harmful_archive_is_refused_by_name(siblings):
    with tarfile.open(siblings.archive, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"))
    found = verify(siblings.archive)
    assert "'../evil' leads out of the directory" in found.differences[0]
    assert not (siblings.folder.parent / "evil").exists()


def test_a_bomb_is_refused_before_it_is_read(siblings):
    bomb = tarfile.TarInfo("bomb")
    bomb.size = MOST_BYTES
    siblings.archive.write_bytes(gzip.compress(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    assert "with 'bomb' it unpacks to more than" in verify(siblings.archive).differences[0]


def test_a_directory_of_more_than_its_manifest_lists_is_not_read(siblings, monkeypatch):
    monkeypatch.setattr("models.records.contents.sha256_of", pytest.fail)
    os.truncate(siblings.directory / "saved_model.pb", 1 << 40)
    (only,) = (one for one in verify(siblings.directory).differences if "saved" in one or "bytes" in one)
    assert re.search(r"2 has \d+ files, 1,099,\d{3},\d{3},\d{3} bytes: more than its manifest lists", only)


@pytest.mark.parametrize("name", ["\x1b[31mred\u202e\n", "n" * 60_000])
def test_names_in_records_are_escaped_and_cut(name, siblings):
    manifest = json.loads(siblings.manifest.read_bytes())
    manifest["files"][name] = {"sha256": name, "size": 1}
    siblings.manifest.write_text(json.dumps(manifest | {"handle": name}))
    (siblings.folder / "index.json").write_text(json.dumps({"handle": name, "versions": {name: {}}}))
    found = verify(siblings.directory)
    assert len(found.differences) > 3
    lines = [found.handle, *(line for one in found.differences for line in one.split("\n"))]
    assert all(line.isprintable() and len(line) < 1000 for line in lines)


def test_paths_in_an_archive_are_compared_whatever_stands_before_them(siblings):
    with tarfile.open(siblings.archive, "w:gz") as archive:
        archive.add(siblings.directory, arcname=".")
    siblings.provenance.unlink()
    assert verify(siblings.archive).verdict == "same"


# --- records that do not belong together ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_of_other_bytes_is_noticed_by_report_and_provenance(kind, siblings):
    siblings.manifest.write_bytes(siblings.manifest.read_bytes() + b"\n")
    found = verify(getattr(siblings, kind)).differences
    assert [one.split(", but ")[1].split(" ")[0] for one in found] == ["2.report.json", "2.provenance.json"]
    assert all(one.startswith("2.manifest.json has sha256 ") for one in found)
    assert len(found) == 2


def test_a_report_of_other_bytes_is_noticed_by_the_provenance(siblings):
    siblings.report.write_bytes(siblings.report.read_bytes() + b"\n")
    itself, bound = verify(siblings.archive).differences
    assert "2.report.json is not the report that was written: it must end with its record_sha256." in itself
    assert bound.startswith("2.report.json has sha256 ")


def test_a_failing_report_is_a_fault(siblings):
    siblings.provenance.unlink()
    write_report(
        ModelPaths.of(siblings.folder.parent, HANDLE, 2), Manifest.read(siblings.manifest), problems=("outputs differ",)
    )
    assert verify(siblings.directory).differences == ("2.report.json says that the model failed: outputs differ",)


def test_a_report_whose_figures_speak_against_it_is_a_fault(siblings):
    siblings.provenance.unlink()
    destination = ModelPaths.of(siblings.folder.parent, HANDLE, 2)
    write_report(destination, Manifest.read(siblings.manifest), checks=forged())
    (only,) = verify(siblings.directory).differences
    assert only.startswith("2.report.json contradicts itself: max_relative, ")
    assert only.endswith("measured 9.9, over its limit 5e-05, but no problem is listed")


def test_a_report_of_another_model_is_a_fault(siblings):
    siblings.provenance.unlink()
    change(siblings.report, handle="other", version=3)
    assert verify(siblings.directory).differences == (
        f"2.report.json says handle 'other', 2.manifest.json '{HANDLE}'",
        "2.report.json says version 3, 2.manifest.json 2",
    )


def test_provenance_of_another_model_is_a_fault(siblings):
    manifest = Manifest.read(siblings.manifest)
    other = manifest.checkpoint.model_copy(update={"sha256": "9" * 64})
    bound = Statement.read(siblings.provenance).bound
    del bound["2.report.json"]
    statement = Statement.of(manifest.model_copy(update={"handle": "other", "checkpoint": other}), bound)
    siblings.provenance.write_bytes(statement.to_bytes())
    assert verify(siblings.archive).differences == (
        f"2.provenance.json says externalParameters.handle 'other', 2.manifest.json '{HANDLE}'",
        (
            f"2.provenance.json says resolvedDependencies[{CHECKPOINT.object}].digest.sha256 '{'9' * 64}', "
            f"2.manifest.json '{'a' * 64}'"
        ),
        "2.report.json is not listed in 2.provenance.json",
    )


DEFINITION, RUN = ("predicate", "buildDefinition"), ("predicate", "runDetails")
DEPENDENCIES = (*DEFINITION, "resolvedDependencies")
MORE = {"uri": "pkg:pypi/evil@1"}
PROVENANCE = {
    "build type": ((*DEFINITION, "buildType"), "urn:other"),
    "version": ((*DEFINITION, "externalParameters", "version"), 3),
    "flavour": ((*DEFINITION, "externalParameters", "flavour"), "graph"),
    "checkpoint": ((*DEFINITION, "externalParameters", "checkpoint"), "other.npz"),
    "another parameter": ((*DEFINITION, "externalParameters", "more"), "x"),
    "pipeline": ((*DEFINITION, "internalParameters", "pipeline"), "9.9"),
    "pipeline's sha256": ((*DEFINITION, "internalParameters", "pipeline_sha256"), "0" * 64),
    "checkpoint's address": ((*DEPENDENCIES, 0, "uri"), "gs://other/x.npz"),
    "origin": ((*DEPENDENCIES, 0, "annotations", "origin"), "seeded"),
    "size": ((*DEPENDENCIES, 0, "annotations", "size"), 13),
    "commit": ((*DEPENDENCIES, 1, "digest", "gitCommit"), "d" * 40),
    "dirty": ((*DEPENDENCIES, 1, "annotations", "dirty"), True),
    "library": ((*DEPENDENCIES, 2, "uri"), "pkg:pypi/jax@0.9.9"),
    "no library": ((*DEPENDENCIES, 2), None),
    "another library": ((*DEPENDENCIES, 4), MORE),
    "a library twice": ((*DEPENDENCIES, 4), {"uri": "pkg:pypi/jax@0.9.9"}),
    "builder": ((*RUN, "builder", "id"), "somebody"),
    "builder's version": ((*RUN, "builder", "version", "mixer-jax2tf"), "9.9"),
    "a file twice": (("subject", 3), {"name": "2.tar.gz", "digest": {"sha256": "0" * 64}}),
    "another file": (("subject", 3), {"name": "3.tar.gz", "digest": {"sha256": "0" * 64}}),
    "no archive": (("subject", 0), None),
    "no type": (("_type",), None),
    "no type of its predicate": (("predicateType",), None),
}


def edit(path, place, value):
    """Write a value, or nothing for None, at a place in a JSON file."""
    content = inner = fields_of(path.read_bytes())
    for step in place[:-1]:
        inner = inner[step]
    if isinstance(inner, list):
        inner[place[-1] : place[-1] + 1] = [] if value is None else [value]
    elif value is None:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("what", PROVENANCE)
def test_whatever_provenance_says_otherwise_than_the_manifest_is_a_fault(what, siblings):
    edit(siblings.provenance, *PROVENANCE[what])
    found = verify(siblings.archive)
    assert (found.verdict, len(found.differences)) == ("different", 1)
    assert all("2.provenance.json" in one for one in found.differences)


def test_provenance_that_a_workflow_wrote_is_in_order(siblings):
    edit(siblings.provenance, (*RUN, "builder", "id"), "https://github.com/a/b/.github/workflows/c.yml@refs/heads/main")
    page = f"https://github.com/a/b/blob/{'c' * 40}/export/README.md#provenance"
    edit(siblings.provenance, (*DEFINITION, "buildType"), page)
    assert verify(siblings.archive).verdict == "same"


# --- what the model says of itself ---

FACTS = {
    "handle": HANDLE,
    "version": 2,
    "flavour": {"name": "native", "what": "some words"},
    "architecture": "Mixer Ti/8",
    "parameters": 1,
    "input": {"shape": [None, 32, 32, 3]},
    "output": {"shape": [None, 1000], "classes": "assets/labels.txt"},
    "checkpoint": {"object": CHECKPOINT.object, "sha256": "a" * 64, "origin": "original"},
}


def with_facts(out, place=(), value=None):
    """Write and pack a model whose own `model.json` differs from its manifest at one place."""
    facts = json.loads(json.dumps(FACTS))
    inner = facts
    for step in place[:-1]:
        inner = inner[step]
    if place:
        inner[place[-1]] = value
    return write_model(out, more={MODEL_JSON: json.dumps(facts).encode()})


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_says_the_same_of_itself_is_in_order(kind, tmp_path):
    destination = with_facts(tmp_path)
    package_model(destination)
    found = verify(getattr(destination, kind))
    assert (found.verdict, found.checked[2]) == ("same", f"{MODEL_JSON} agrees with 2.manifest.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("handle",), "other"),
        (("version",), 3),
        (("flavour", "name"), "graph"),
        (("architecture",), "Mixer B/16"),
        (("parameters",), 2),
        (("input", "shape"), [None, 64, 64, 3]),
        (("output", "shape"), [None, 7]),
        (("output", "classes"), "assets/other.txt"),
        (("checkpoint", "object"), "other.npz"),
        (("checkpoint", "sha256"), "0" * 64),
        (("checkpoint", "origin"), "seeded"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_whatever_a_model_says_otherwise_than_its_manifest_is_a_fault(place, value, tmp_path):
    destination = with_facts(tmp_path, place, value)
    (only,) = verify(destination.directory).differences
    assert only.startswith(f"{MODEL_JSON} says ")
    with pytest.raises(MixerError, match="contradict each other, so it was not packed") as error:
        package_model(destination)
    assert only in str(error.value)
    assert not destination.archive.exists()
    with pytest.raises(MixerError, match="cannot have a card") as error:
        CardFacts.read(destination, WHERE)
    assert only in str(error.value)


# --- records that cannot be read, or have another name ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["manifest", "report", "provenance"])
def test_a_record_that_cannot_be_read_is_a_fault(name, kind, siblings):
    getattr(siblings, name).write_text("{")
    found = verify(getattr(siblings, kind)).differences
    assert any(f"2.{name}.json is not a readable" in one for one in found)


def test_a_version_under_another_number_is_noticed(siblings):
    for path in (siblings.archive, siblings.manifest):
        path.rename(path.with_name(path.name.replace("2.", "3.")))
    found = verify(siblings.folder / "3.tar.gz")
    assert found.differences == ("its path says version 3, 3.manifest.json 2",)


def test_any_other_name_will_do(siblings):
    for path in (siblings.archive, siblings.manifest):
        path.rename(path.with_name(path.name.replace("2.", "mixer.")))
    assert verify(siblings.folder / "mixer.tar.gz").verdict == "same"


# --- where models are published ---


@pytest.fixture
def mirrored(siblings):
    files = (siblings.archive, siblings.manifest, siblings.report, siblings.provenance)
    digests = {path.name: {"sha256": Hashes.of(path).sha256, "size": path.stat().st_size} for path in files}
    (siblings.folder / INDEX).write_bytes(Index(handle=HANDLE, versions={"2": digests}).to_bytes())
    shutil.rmtree(siblings.directory)
    return siblings


def test_the_index_of_a_mirror_is_held_against_it(mirrored):
    assert verify(mirrored.archive).checked[-1] == (
        "index.json lists 2.tar.gz, 2.manifest.json, 2.report.json, 2.provenance.json"
    )
    mirrored.provenance.write_bytes(mirrored.provenance.read_bytes() + b"\n")
    (only,) = verify(mirrored.archive).differences
    assert only.startswith("2.provenance.json has ")
    assert "index.json" in only


INDEXES = {
    "handle": ("handle", "other"),
    "version": ("versions", "3"),
    "no archive": ("versions", "2", "2.tar.gz", None),
    "no report": ("versions", "2", "2.report.json", None),
    "another file": ("versions", "2", "2.md", {"size": 1, "sha256": "0" * 64}),
    "size": ("versions", "2", "2.tar.gz", "size", 1),
    "sha256": ("versions", "2", "2.tar.gz", "sha256", "0" * 64),
}


@pytest.mark.parametrize("what", INDEXES)
def test_an_index_that_says_otherwise_is_a_fault(what, mirrored):
    index = mirrored.folder / INDEX
    if what == "version":
        said = json.loads(index.read_text())
        index.write_text(json.dumps(said | {"versions": {"3": said["versions"]["2"]}}))
    else:
        *place, value = INDEXES[what]
        edit(index, place, value)
    found = verify(mirrored.archive)
    assert (found.verdict, len(found.differences)) == ("different", 1)
    assert INDEX in found.differences[0]


def test_what_the_index_lists_and_what_is_there_are_compared_both_ways(mirrored):
    mirrored.report.unlink()
    mirrored.card.write_text("a card")
    flip(mirrored.provenance)
    listed = [one for one in verify(mirrored.archive).differences if INDEX in one]
    assert listed[0] == "2.md is not listed in index.json"
    assert listed[1].startswith("2.provenance.json has sha256 ")
    assert listed[2:] == ["2.report.json is missing, but index.json lists it"]


def test_a_version_that_the_index_does_not_list_is_not_whole(mirrored):
    (mirrored.folder / INDEX).write_bytes(Index(handle=HANDLE).to_bytes())
    (only,) = verify(mirrored.archive).differences
    assert only == "index.json does not list version 2: its publication is incomplete"


def test_an_unpacked_model_needs_no_archive_beside_it(mirrored):
    mirrored.directory.mkdir()
    extract_archive(mirrored.archive, mirrored.directory)
    mirrored.archive.unlink()
    assert verify(mirrored.directory).verdict == "same"


@pytest.mark.parametrize("content", ["{", '{"handle": "x", "versions": {"new": {}}}', '{"handle": "x", "more": 1}'])
def test_a_damaged_index_is_a_fault(content, mirrored):
    (mirrored.folder / "index.json").write_text(content)
    (only,) = verify(mirrored.archive).differences
    assert "index.json is not a readable index of schema 1" in only


# --- what cannot be checked ---


def test_without_a_manifest_there_is_nothing_to_check_against(siblings):
    siblings.manifest.unlink()
    with pytest.raises(
        UsageError, match=r"2\.manifest\.json is missing, so there is nothing to compare .* with: download"
    ):
        verify(siblings.archive)


def test_a_folder_of_versions_or_of_models_names_what_to_give(siblings):
    for folder in (siblings.folder, siblings.out):
        with pytest.raises(UsageError, match=rf"{folder} is no model, but contains some: give {siblings.directory}\."):
            verify(folder)
    shutil.rmtree(siblings.directory)
    with pytest.raises(UsageError, match=f"give {siblings.archive}"):
        verify(siblings.folder)


@pytest.mark.parametrize("name", ["2.report.json", "nowhere", "nowhere.tar.gz"])
def test_what_is_neither_directory_nor_archive_is_refused(name, siblings):
    with pytest.raises(UsageError, match=r"(is neither|does not exist): expected the directory of a SavedModel"):
        verify(siblings.folder / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_told(siblings):
    (siblings.directory / WEIGHTS).chmod(0)
    with pytest.raises(MixerError, match=rf"{WEIGHTS} cannot be read \(Permission denied\)"):
        verify(siblings.directory)


def test_a_file_that_cannot_be_read_is_told(siblings, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error", "the file")

    monkeypatch.setattr("export.package.verify.digest_files", fail)
    with pytest.raises(MixerError, match=r"the file cannot be read \(Input/output error\)"):
        verify(siblings.directory)


# --- the command ---

WITHOUT = """
import sys
for name in ("jax", "jaxlib", "flax", "tensorflow", "numpy"):
    sys.modules[name] = None  # as if it were not installed
from convert.cli import main
main(sys.argv[1:])
"""


def without_frameworks(*arguments):
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_where_there_is_neither_jax_nor_tensorflow(kind, packed):
    ran = without_frameworks("verify", getattr(packed, kind), "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["verdict"] == "same"


def test_a_command_that_needs_them_fails_there():
    assert "ModuleNotFoundError" in without_frameworks("convert", HANDLE, "--debug").stderr


def test_the_command_tells_all_differences_and_exits_with_3(siblings, capfd):
    flip(siblings.archive, 200)
    siblings.report.write_bytes(siblings.report.read_bytes() + b"\n")
    with pytest.raises(SystemExit) as end:
        main(["verify", str(siblings.archive), "--json"])
    said = capfd.readouterr()
    assert end.value.code == 3
    found = json.loads(said.out)
    assert (found["verdict"], found["kind"], found["path"]) == ("different", "archive", str(siblings.archive))
    assert len(found["differences"]) == 4
    assert "2.tar.gz differs from its records:\n  " in said.err
    assert all(one.splitlines()[0] in said.err for one in found["differences"])
    assert "Traceback" not in said.err


def test_the_command_as_a_table(siblings, capfd):
    siblings.provenance.unlink()
    with pytest.raises(SystemExit) as end:
        main(["verify", str(siblings.directory)])
    assert end.value.code == 0
    out = capfd.readouterr().out
    assert f"{HANDLE} version 2" in out
    assert "not checked" in out


def test_the_command_refuses_bad_usage_with_2(tmp_path):
    with pytest.raises(SystemExit) as end:
        main(["verify", str(tmp_path / "nowhere")])
    assert end.value.code == 2
