"""The command card, and what readers and the sites' own clients make of the cards."""

import json
import subprocess
import sys
import warnings

import pytest
from command import run
from programs import PLACES, run_program
from publishable import WHERE, tree, write_catalogued, write_report

from export.cards.facts import CardFacts
from export.cards.hugging_face import Card
from export.cards.kaggle import VariationMetadata
from models.catalog import HANDLES, TESTING_HANDLES
from models.records.layout import ModelPaths
from models.records.manifest import Manifest

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
GIVEN = ("--publisher", "somebody", "--assets", "https://models.example/mixers/")


def with_gradients(build, *names):
    """Write the reports that the full set would write, as far as cards care."""
    for name in names:
        destination = ModelPaths.of(build, name, 2)
        write_report(destination, Manifest.read(destination.manifest))


def test_the_command_writes_the_cards_of_real_models(build, capfd):
    names = [CLASSIFIER, f"{CLASSIFIER}-graph", EXTRACTOR, f"{EXTRACTOR}-graph"]
    with_gradients(build, *names)
    command = ("card", CLASSIFIER, EXTRACTOR, "--flavour", "both", "--out", build, *GIVEN)
    code, out, err = run(capfd, *command, "--json")
    assert code == 0, err
    done = json.loads(out)
    assert [one["handle"] for one in done] == [*names, "the collection, 4 models"]
    assert all((build / path).is_file() for one in done for path in one["files"])
    before = tree(build)
    code, out, _ = run(capfd, *command)
    assert (code, tree(build)) == (0, before)
    assert f"{build}/cards/huggingface/README.md" in out.replace("\n", "")


def test_without_gradients_the_command_says_what_to_do(build, capfd):
    with_gradients(build, CLASSIFIER)
    code, _, err = run(capfd, "card", CLASSIFIER, EXTRACTOR, "--out", build, *GIVEN)
    assert code == 1
    assert "not all cards could be written:" in err
    assert f"{EXTRACTOR}: version 2 cannot have a card:" in err
    assert f"`mixer-jax2tf validate {EXTRACTOR} --set full --out {build}` does" in err
    assert ModelPaths.of(build, CLASSIFIER, 2).card.is_file()
    assert not ModelPaths.of(build, EXTRACTOR, 2).card.exists()


def test_a_collection_that_cannot_be_written_is_told_beside_the_cards_that_were(build, capfd):
    with_gradients(build, CLASSIFIER, EXTRACTOR)
    assert run(capfd, "card", EXTRACTOR, "--out", build, *GIVEN)[0] == 0
    ModelPaths.of(build, EXTRACTOR, 2).report.unlink()
    code, out, err = run(capfd, "card", CLASSIFIER, "--out", build, *GIVEN)
    assert (code, f"{CLASSIFIER}/2.md" in out.replace("\n", "")) == (1, True)
    assert "the collection: version 2 cannot have a card:\n  there is no 2.report.json" in err


def test_of_nobody_and_from_nowhere_no_card_is_written(build, capfd):
    before = tree(build)
    code, _, err = run(capfd, "card", "--publisher", "Some Body", "--assets", "gs://bucket", "--out", build)
    assert (code, tree(build)) == (2, before)
    assert "--publisher 'Some Body' is no name" in err
    assert "--assets 'gs://bucket' is no address" in err
    assert "https://storage.googleapis.com/bucket/prefix" in err
    for missing in (GIVEN[:2], GIVEN[2:]):
        code, _, err = run(capfd, "card", *missing)
        assert (code, "Missing option" in err) == (2, True)


def test_an_unknown_handle_is_bad_usage(capfd):
    code, _, err = run(capfd, "card", "mixer_b16_i1k_ef", *GIVEN)
    assert (code, "did you mean" in err) == (2, True)


def test_the_command_is_in_the_help(capfd):
    code, out, _ = run(capfd, "card", "--help")
    assert code == 0
    assert all(word in out for word in ("--publisher", "--assets", "--out", "--version", "--flavour", "--json"))
    assert "validate --set full" in " ".join(out.split())


def test_writing_cards_imports_no_framework(build):
    with_gradients(build, CLASSIFIER)
    program = (
        "import sys\nfrom convert.cli import main\n"
        f"try:\n    main(['card', {CLASSIFIER!r}, '--out', {str(build)!r}, *{GIVEN!r}])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print(sorted({'jax', 'jaxlib', 'flax', 'tensorflow'} & sys.modules.keys()))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


# --- what readers make of it ---


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", TESTING_HANDLES)
def test_the_program_on_a_card_runs(name, place, build, capfd):
    """It is run on the directory, in place of the archive's address."""
    with_gradients(build, name)
    assert run(capfd, "card", name, "--out", build, *GIVEN)[0] == 0
    page = (build / name / "2.md").read_text()
    program = page.split("```python\n")[1].split("```")[0]
    local = program.replace(f"https://models.example/mixers/{name}/2.tar.gz", str(build / name / "2"))
    assert local != program
    lines = run_program(local, build, place).splitlines()
    if name == CLASSIFIER:
        known = TESTING_HANDLES[name].labels.path.read_text().splitlines()
        assert len(lines[:5]) == 5
        assert set(lines[:5]) <= set(known)
    assert lines[-1] == f"(1, {TESTING_HANDLES[name].outputs})"


# --- what the sites' own clients make of it ---


@pytest.mark.hub
@pytest.mark.parametrize("name", HANDLES)
def test_the_client_of_hugging_face_reads_the_header(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from huggingface_hub import ModelCard

    text = Card.of_model(CardFacts.read(write_catalogued(tmp_path, name), WHERE)).text
    card = ModelCard(text, ignore_metadata_errors=False)
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", tag(name))
    assert card.data.to_dict().keys() == {"license", "pipeline_tag", "tags", "datasets"}
    assert card.text.startswith("\n# ")


def tag(name):
    return "image-classification" if name.endswith("classification") else "image-feature-extraction"


@pytest.mark.hub
def test_the_client_of_kaggle_knows_our_words(tmp_path):
    from kagglesdk.models.types.model_enums import ModelFramework, ModelInstanceType

    said = json.loads(VariationMetadata.of(CardFacts.read(write_catalogued(tmp_path, "mixer_b16_i1k_fe"), WHERE)).text)
    for form, word in ((ModelFramework, said["framework"]), (ModelInstanceType, said["modelInstanceType"])):
        assert any(one.name.replace("_", "").lower().endswith(word.lower()) for one in form)
