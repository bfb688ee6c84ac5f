"""Custom models are told about as themselves: what their owner says, and nothing of the collection."""

import hashlib
import json

import pytest
from command import run, status_of
from publishable import WHERE, change, tree, write_model

from export.cards.write import write_model_cards
from export.package.verify import verify
from models.catalog import TESTING_HANDLES
from models.errors import MixerError, UsageError
from models.records.about import About, AboutRecord, ClaimedAccuracy
from models.records.layout import ModelPaths

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
ABOUT = About(
    license="MIT",
    training_data="1,437 digits",
    description="Tells digits apart.",
    source="https://example.com/digits",
    accuracy=(ClaimedAccuracy(top1=98, data="360 digits", source="https://example.com/report"),),
)
TOML = """\
license = "MIT"
training_data = "1,437 digits"
description = "Tells digits apart."
source = "https://example.com/digits"

[[accuracy]]
top1 = 98.0
data = "360 digits"
source = "https://example.com/report"
"""


def record_of(model, about):
    digest = hashlib.sha256(model.manifest.read_bytes()).hexdigest()
    return AboutRecord(handle=model.handle, version=2, manifest_sha256=digest, about=about)


def cards(out, about):
    model = write_model(out, handle="digits", checkpoint={"origin": "own", "object": "digits.npz"})
    if about is not None:
        model.about.write_bytes(record_of(model, about).to_bytes())
    written = write_model_cards(model, WHERE)
    return {path.name: path.read_text() for path in written.files}, written.notes


def test_a_file_is_read(tmp_path):
    (tmp_path / "about.toml").write_text(TOML)
    assert About.from_toml(tmp_path / "about.toml") == ABOUT


def test_all_problems_are_told_at_once(tmp_path):
    path = tmp_path / "about.toml"
    path.write_text('licence = "MIT"\nlicense = "Mine"\ntraining_data = ""\naccuracy = [{top1 = 980}]\n')
    with pytest.raises(UsageError) as refused:
        About.from_toml(path)
    found = {line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]}
    of_accuracy = {f"accuracy.0.{name}" for name in ("top1", "data", "source")}
    assert found == {"license", "training_data", "description", "licence"} | of_accuracy


@pytest.mark.parametrize(
    ("content", "said"), [(b"a = ", "is not TOML"), (b"\xff", "is not TOML"), (None, "No such file")]
)
def test_what_is_no_file_of_toml_is_refused(content, said, tmp_path):
    if content is not None:
        (tmp_path / "about.toml").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        About.from_toml(tmp_path / "about.toml")


def test_an_earlier_record_is_refused_with_what_to_do(tmp_path):
    model = write_model(tmp_path, handle="digits", checkpoint={"origin": "own"})
    model.about.write_bytes(record_of(model, ABOUT).to_bytes())
    change(model.about, schema_version=1)
    said = r"it has schema 1\. Say it again with `mixer-jax2tf convert-all` and --about\."
    with pytest.raises(MixerError, match=said):
        write_model_cards(model, WHERE)


def test_the_cards_say_what_the_owner_says(tmp_path):
    found, notes = cards(tmp_path, ABOUT)
    for text in (found["2.md"], found["README.md"]):
        assert "Tells digits apart." in text
        assert "Trained on 1,437 digits. Made from `digits.npz` of [example.com/digits]" in text
        assert "| 360 digits | 98.00 % | https://example.com/report |" in text
        assert "Weights: MIT, as their owner says." in text
    assert found["README.md"].startswith("---\nlicense: mit\n")
    variation = json.loads(found["model-instance-metadata.json"])
    assert (variation["licenseName"], variation["trainingData"]) == ("MIT", ["1,437 digits"])
    assert (variation["modelSlug"], variation["externalBaseModelUrl"]) == ("digits", "https://example.com/digits")
    assert notes == ()


@pytest.mark.parametrize("about", [ABOUT, None], ids=["about", "nothing"])
def test_the_cards_say_nothing_of_the_collection(about, tmp_path):
    found, _ = cards(tmp_path, about)
    for text in (found["2.md"], found["README.md"]):
        assert "version 1" not in text.lower()
        assert "authors' own" not in text
        assert "authors' evaluation" not in text
        assert "not published" not in text
        assert "Made from `digits.npz`" in text
    assert ("model-instance-metadata.json" in found) == (about is not None)


@pytest.mark.parametrize("changes", [{"manifest_sha256": "0" * 64}, {"handle": "other"}, {"version": 1}], ids=str)
def test_what_was_said_of_another_make_is_not_said_of_this_one(changes, tmp_path):
    model = write_model(tmp_path, handle="digits", checkpoint={"origin": "own"})
    model.about.write_bytes(record_of(model, ABOUT).model_copy(update=changes).to_bytes())
    with pytest.raises(MixerError, match=r"2\.about\.json.*; say it again with `mixer-jax2tf convert-all` and --about"):
        write_model_cards(model, WHERE)
    assert any("2.about.json" in one for one in verify(model.directory).differences)


def test_without_a_source_there_is_no_external_base(tmp_path):
    found, _ = cards(tmp_path, ABOUT.model_copy(update={"source": None}))
    variation = json.loads(found["model-instance-metadata.json"])
    assert (variation["modelInstanceType"], variation["externalBaseModelUrl"]) == ("BaseModel", "")


def test_convert_writes_what_is_said_and_a_kept_model_gets_it_too(tiny_source, tmp_path, capfd):
    checkpoint = tiny_source / TESTING_HANDLES[EXTRACTOR].checkpoint.object
    command = ["convert-all", EXTRACTOR, "--checkpoint", checkpoint, "--name", "mine", "--out", tmp_path / "out"]
    (tmp_path / "about.toml").write_text(TOML)
    assert run(capfd, *command)[0] == 0
    before = tree(tmp_path / "out")
    status, out, _ = run(capfd, *command, "--about", tmp_path / "about.toml", "--json")
    assert (status, json.loads(out)[0]["verdict"]) == (0, "kept")
    added = tree(tmp_path / "out")
    model = ModelPaths.of(tmp_path / "out", "mine", 2)
    assert AboutRecord.read(model.about) == record_of(model, ABOUT)
    assert run(capfd, "verify", model.directory)[0] == 0
    assert {name: added[name] for name in before} == before
    assert added.keys() - before.keys() == {"mine/2.about.json"}
    (tmp_path / "about.toml").write_text("license = 1")
    status, _, err = run(capfd, *command, "--about", tmp_path / "about.toml")
    assert (status, "description: Field required" in err) == (2, True)
    (tmp_path / "out" / "index.html").unlink()
    assert status_of("convert", *command[1:], "--overwrite") == 0
    assert not (tmp_path / "out" / "index.html").exists()  # only what checks writes the page
    assert not (tmp_path / "out" / "mine" / "2.about.json").exists()  # nobody says it of the new model
