"""What a card is about is read from the records and the model's own files, and from nothing else."""

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import replace

import pytest
from publishable import HANDLE, WHERE, write_catalogued, write_model, write_report

from export.cards.facts import CardFacts
from export.cards.publisher import Publisher
from export.package.archive import package_model
from export.package.facts import SignatureFacts
from models.catalog import HANDLES, TESTING_HANDLES
from models.errors import MixerError, UsageError
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import Report
from models.selection import is_catalogued
from models.signatures import MODEL_JSON, SIGNATURES, Signature


def refused(destination):
    with pytest.raises(MixerError, match="version 2 cannot have a card:") as error:
        CardFacts.read(destination, WHERE)
    return str(error.value).splitlines()[1:]


def model_json(**signatures):
    return {MODEL_JSON: json.dumps({"schema_version": 1, "signatures": signatures, "more": 1}).encode()}


# --- what is read ---


@pytest.mark.parametrize("flavour", ["native", "graph"])
@pytest.mark.parametrize("name", HANDLES)
def test_every_handle_is_what_its_records_say(name, flavour, tmp_path):
    destination = write_catalogued(tmp_path, name, flavour=flavour)
    found = CardFacts.read(destination, WHERE)
    assert found.handle == HANDLES[name].in_flavour(flavour)
    assert found.manifest_sha256 == hashlib.sha256(destination.manifest.read_bytes()).hexdigest()
    assert found.report_sha256 == hashlib.sha256(destination.report.read_bytes()).hexdigest()
    assert found.archive == f"https://models.example/mixers/{found.manifest.handle}/2.tar.gz"
    assert found.page == f"https://models.example/mixers/{found.manifest.handle}/2.md"
    assert (found.is_catalogued, found.trained, found.fine_tunable) == (True, True, True)
    assert (found.manifest.class_list, found.classes) == ("assets/labels.txt", ("a", "ü"))


def test_platforms_are_those_that_the_report_ran_on(tmp_path):
    found = CardFacts.read(write_catalogued(tmp_path, "mixer_b16_i1k_fe"), WHERE)
    assert found.manifest.platforms == ("cpu", "cuda", "rocm", "tpu")
    assert found.platforms_run == ("cpu",)
    everywhere = write_catalogued(tmp_path, "mixer_b16_i1k_fe", report={"not_checked": ()})
    assert CardFacts.read(everywhere, WHERE).platforms_run == ("cpu", "cuda", "rocm", "tpu")


def test_a_real_report_says_what_was_run_as_it_is_read_here(tiny_build, tmp_path):
    """The note is of another package (`validation.parity.report`), which this one may not import."""
    report = Report.read(ModelPaths.of(tiny_build, HANDLE, 2).report)
    subject = CardFacts.read(write_model(tmp_path, platforms=("cpu", "cuda", "rocm", "tpu")), WHERE)
    assert replace(subject, report=report).platforms_run == ("cpu",)


@pytest.mark.parametrize(
    ("origin", "trained"), [("original", True), ("unknown", True), ("seeded", False), ("own", False)]
)
def test_only_what_may_be_an_original_was_trained_as_the_catalog_says(origin, trained, tmp_path):
    destination = write_catalogued(tmp_path, "mixer_b16_i1k_fe", checkpoint={"origin": origin})
    assert CardFacts.read(destination, WHERE).trained is trained


def test_signatures_are_those_that_the_model_says_it_has(tmp_path):
    handle = HANDLES["mixer_b16_i1k_fe"]
    facts = {one.name: one.facts(handle) for one in Signature.all_of(handle)}
    found = CardFacts.read(write_catalogued(tmp_path, handle.name, more=model_json(**facts)), WHERE)
    assert list(found.signatures) == ["serving_default", "serving_uint8", "serving_bytes", "token_features"]
    assert found.signatures["token_features"].output.shape == (None, 196, 768)
    assert found.signatures["serving_bytes"].input.dtype == "string"


def test_a_model_that_does_not_say_has_the_one_that_all_have(tmp_path):
    expected = {"serving_default": SignatureFacts(**SIGNATURES["serving_default"].facts(HANDLES["mixer_b16_i1k_fe"]))}
    for more in ({}, {MODEL_JSON: b"{}"}):
        destination = write_catalogued(tmp_path, "mixer_b16_i1k_fe", more=more)
        assert CardFacts.read(destination, WHERE).signatures == expected


@pytest.mark.parametrize("name", sorted(TESTING_HANDLES))
def test_the_signatures_of_a_real_model_are_read(name, tiny_build, tmp_path):
    """Its report is made up: the gate set has no gradients."""
    destination = ModelPaths.of(tmp_path, name, 2)
    shutil.copytree(tiny_build / name, destination.directory.parent)
    write_report(destination, Manifest.read(destination.manifest))
    found = CardFacts.read(destination, WHERE)
    assert set(found.signatures) == {one.name for one in Signature.all_of(TESTING_HANDLES[name])}
    assert found.trained is False
    assert (found.classes is None) == name.endswith("_fe")


def test_without_the_directory_the_archive_is_read(tmp_path):
    facts = {"serving_default": SIGNATURES["serving_default"].facts(HANDLES["mixer_b16_i1k_fe"])}
    destination = write_catalogued(tmp_path, "mixer_b16_i1k_fe", more=model_json(**facts))
    package_model(destination)
    before = CardFacts.read(destination, WHERE)
    shutil.rmtree(destination.directory)
    assert CardFacts.read(destination, WHERE) == before


def test_only_the_end_of_a_line_ends_the_name_of_a_class(tmp_path):
    odd = "a\N{LINE SEPARATOR}b\x0bc\r\n\nü".encode() + b"\xff"
    found = CardFacts.read(write_model(tmp_path, more={"assets/labels.txt": odd}), WHERE)
    assert found.classes == ("a\N{LINE SEPARATOR}b\x0bc\r", "", "ü\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("name", ["my_mixer", "my_mixer-graph"])
def test_ones_own_is_of_the_architecture_that_it_names(name, tmp_path):
    flavour = "graph" if name.endswith("-graph") else "native"
    own = write_model(
        tmp_path, handle=name, flavour=flavour, architecture="B/32", num_classes=7, checkpoint={"origin": "own"}
    )
    found = CardFacts.read(own, WHERE)
    assert (found.handle.name, found.handle.flavour, found.handle.outputs) == (name, flavour, 7)
    assert found.handle.checkpoint.architecture.patch_size == 32
    assert (found.is_catalogued, found.handle.checkpoint.training.license) == (False, "unknown")


def test_names_of_the_catalog_are_known_in_both_flavours():
    assert is_catalogued("mixer_b16_i1k_fe")
    assert is_catalogued("mixer_b16_i1k_fe-graph")
    assert not is_catalogued("my_mixer")


# --- what is refused ---


def test_without_a_model_there_is_no_card(tmp_path):
    with pytest.raises(MixerError, match=r"2\.manifest\.json is missing: there is no converted model"):
        CardFacts.read(ModelPaths.of(tmp_path, HANDLE, 2), WHERE)


def test_without_a_report_there_is_no_card(tmp_path):
    destination = write_model(tmp_path)
    destination.report.unlink()
    assert refused(destination) == [
        f"  there is no 2.report.json: `mixer-jax2tf validate {HANDLE} --set full` writes it"
    ]


def test_without_gradients_there_is_no_card(tmp_path):
    destination = write_model(tmp_path, report={"inputs_set": "gate", "fine_tunable": None})
    (line,) = refused(destination)
    assert "its report (inputs: gate) tried no gradients, so nothing says whether it can be fine-tuned" in line
    assert f"`mixer-jax2tf validate {HANDLE} --set full` does" in line


def test_what_failed_and_what_was_made_anew_since_have_no_card(tmp_path):
    destination = write_model(tmp_path, report={"problems": ("outputs differ",), "manifest_sha256": "0" * 64})
    another, failed = refused(destination)
    assert re.fullmatch(
        r"  2\.manifest\.json has sha256 \w{64}, but 2\.report\.json lists 0{64}; `.*` writes .*", another
    )
    assert failed == "  its report says that the model failed: outputs differ"


def test_a_model_under_a_foreign_name_has_no_card(tmp_path):
    destination = write_model(tmp_path)
    moved = ModelPaths.of(tmp_path, "mixer_sq8_seeded_fe", 2)
    destination.directory.parent.rename(moved.directory.parent)
    assert refused(moved) == [f"  its path says handle 'mixer_sq8_seeded_fe', 2.manifest.json '{HANDLE}'"]


def test_an_architecture_that_nobody_knows_has_no_card(tmp_path):
    own = write_model(tmp_path, handle="my_mixer", architecture="H/14", checkpoint={"origin": "own"})
    with pytest.raises(MixerError, match="names the architecture 'H/14', which is none of the catalog's"):
        CardFacts.read(own, WHERE)


@pytest.mark.parametrize("name", ["assets/labels.txt", MODEL_JSON])
def test_a_file_that_is_not_the_manifests_is_not_believed(name, tmp_path):
    destination = write_model(tmp_path, more=model_json())
    path = destination.directory / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(MixerError, match="is not the file that the manifest lists: convert the model again"):
        CardFacts.read(destination, WHERE)
    path.unlink()
    with pytest.raises(MixerError, match="is missing: convert the model again, with --overwrite"):
        CardFacts.read(destination, WHERE)


def test_a_model_json_that_cannot_be_read_is_told(tmp_path):
    destination = write_model(tmp_path, more={MODEL_JSON: b'{"signatures": {"a": {}}}'})
    with pytest.raises(
        MixerError, match=r"model\.json cannot be read: signatures\.a\.input: Field required \(and 1 more\)\."
    ):
        CardFacts.read(destination, WHERE)


def test_a_damaged_archive_is_told(tmp_path):
    destination = write_model(tmp_path)
    package_model(destination)
    shutil.rmtree(destination.directory)
    destination.archive.write_bytes(b"no archive")
    with pytest.raises(MixerError, match=r"2\.tar\.gz is refused:\n  it is not a \.tar\.gz"):
        CardFacts.read(destination, WHERE)
    with tarfile.open(destination.archive, "w:gz"):
        pass
    with pytest.raises(MixerError, match="is missing: convert the model again"):
        CardFacts.read(destination, WHERE)


def test_a_name_in_a_model_json_is_shown_escaped_and_cut(tmp_path):
    content = json.dumps({"signatures": {"\x1b[2J" + "n" * 60_000: {}}}).encode()
    destination = write_model(tmp_path, more={MODEL_JSON: content})
    with pytest.raises(MixerError, match="Field required") as error:
        CardFacts.read(destination, WHERE)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_a_model_json_of_any_size_is_not_read(tmp_path):
    destination = write_model(tmp_path, more={MODEL_JSON: b"[" + b"[]," * (1 << 20) + b"[]]"})
    with pytest.raises(
        MixerError, match=r"model\.json has 3,145,732 bytes, according to its manifest; expected 1,048,576"
    ):
        CardFacts.read(destination, WHERE)


def test_an_archive_that_could_do_harm_has_no_card(tmp_path):
    destination = write_model(tmp_path)
    shutil.rmtree(destination.directory)
    with tarfile.open(destination.archive, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"))
    with pytest.raises(MixerError, match=r"is refused:\n  '\.\./evil' leads out of the directory"):
        CardFacts.read(destination, WHERE)


# --- who and where ---


@pytest.mark.parametrize(
    "assets",
    ["https://a.example", "https://a.example:8443/b", "https://storage.googleapis.com/bucket/a_b-c.d/~e"],
)
def test_an_address_is_taken(assets):
    assert Publisher("some-body1", assets).address("h", 3, ".md") == f"{assets}/h/3.md"


@pytest.mark.parametrize(
    "assets",
    ["", "http://a.example", "gs://bucket", "https://", "https://a.example/", "https://a.example/b c", "/srv/a",
     "https://a.example/-->", "https://a.example/b\n", "https://a.example/b?c", "https://user:pw@a.example", "https://a:٣"],
)  # fmt: skip
def test_an_address_that_cannot_stand_on_a_card_is_refused(assets):
    with pytest.raises(UsageError, match="is no address to download from: expected https://HOST/PATH"):
        Publisher("somebody", assets)


@pytest.mark.parametrize(
    "publisher", ["", "Somebody", "some_body", "some body", "a/b", "a\n", "-->", "-x", "ä", "٣", 101 * "a"]
)
def test_a_name_that_cannot_stand_on_a_card_is_refused(publisher):
    with pytest.raises(UsageError, match="is no name that TensorFlow Hub and Kaggle take: expected at most 100"):
        Publisher(publisher, "https://a.example")


def test_both_are_told_at_once():
    with pytest.raises(UsageError, match=r"(?s)--publisher 'A'.*--assets 'b'"):
        Publisher("A", "b")
