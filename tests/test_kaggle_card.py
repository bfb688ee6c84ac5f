"""Kaggle's metadata says what the records say, and a slip in it is noticed."""

import hashlib
import json

import bleach
import pytest
from publishable import WHERE, write_catalogued, write_model

from export.cards.collection import COLLECTION
from export.cards.facts import CardFacts
from export.cards.kaggle import ModelMetadata, VariationMetadata
from export.cards.publisher import Publisher
from export.cards.write import write_model_cards
from models.catalog import GRAPH_SUFFIX, HANDLES
from models.errors import MixerError
from models.records.about import About, AboutRecord


def custom(tmp_path, name, about, origin="own"):
    model = write_model(tmp_path, handle=name, checkpoint={"origin": origin})
    digest = hashlib.sha256(model.manifest.read_bytes()).hexdigest()
    record = AboutRecord(handle=name, version=2, manifest_sha256=digest, about=about)
    model.about.write_bytes(record.to_bytes())
    return CardFacts.read(model, WHERE)


@pytest.fixture
def subject(tmp_path):
    return CardFacts.read(write_catalogued(tmp_path, "mixer_b16_i21k_fe"), WHERE)


def test_a_variation_is_one_of_our_models(subject):
    text = VariationMetadata.of(subject).text
    said = json.loads(text)
    assert VariationMetadata.problems_of(text) == []
    assert said == {
        "ownerSlug": "somebody",
        "modelSlug": "mlp-mixer",
        "instanceSlug": "mixer_b16_i21k_fe",
        "framework": "tensorFlow2",
        "overview": said["overview"],
        "usage": said["usage"],
        "licenseName": "Apache 2.0",
        "fineTunable": True,
        "trainingData": ["ImageNet-21k"],
        "modelInstanceType": "ExternalVariant",
        "baseModelInstance": "",
        "externalBaseModelUrl": "https://github.com/google-research/vision_transformer",
    }
    assert 'hub.load("${PATH}")' in said["usage"]
    assert said["overview"].endswith("trained on ImageNet-21k, supervised, from scratch.")


def test_the_model_is_the_collection(subject):
    text = ModelMetadata.of(WHERE, [subject]).text
    said = json.loads(text)
    assert ModelMetadata.problems_of(text) == []
    assert (said["slug"], said["isPrivate"], said["publishTime"]) == (COLLECTION, True, "")
    assert "mixer_b16_i21k_fe/2.md" in said["description"]


@pytest.mark.parametrize("name", ["0", "a-", 100 * "a"])
def test_every_publisher_that_is_accepted_can_own_a_variation(name, tmp_path):
    destination = write_catalogued(tmp_path, "mixer_b16_i21k_fe")
    found = CardFacts.read(destination, Publisher(name, "https://a.example"))
    assert json.loads(VariationMetadata.of(found).text)["ownerSlug"] == name


@pytest.mark.parametrize("tunable", [True, False])
def test_fine_tunable_is_the_reports_result(tunable, tmp_path):
    found = CardFacts.read(write_catalogued(tmp_path, "mixer_b16_i1k_fe", report={"fine_tunable": tunable}), WHERE)
    assert json.loads(VariationMetadata.of(found).text)["fineTunable"] is tunable


def test_seeded_weights_were_trained_on_nothing_and_say_so(tmp_path):
    found = CardFacts.read(write_catalogued(tmp_path, "mixer_b16_i1k_fe", checkpoint={"origin": "seeded"}), WHERE)
    said = json.loads(VariationMetadata.of(found).text)
    assert said["trainingData"] == []
    assert said["overview"].startswith("SEEDED WEIGHTS, NEVER TRAINED.")
    assert said["usage"].startswith("**SEEDED WEIGHTS, NEVER TRAINED")


@pytest.mark.parametrize("origin", ["original", "unknown", "seeded", "own"])
@pytest.mark.parametrize("name", ["mixer_b16_i21k_fe", "mixer_b16_i1k_classification", "digits"])
def test_what_kaggles_client_cleans_stays_as_it_is(name, origin, tmp_path):
    """`kaggle models create` runs these texts through `bleach.clean`, with its defaults."""
    if name == "digits":
        about = About(license="MIT", training_data="1,437 digits", description="Digits > 3 & < 9, in `code`.\n> quoted")
        found = custom(tmp_path, name, about, origin)
    else:
        found = CardFacts.read(write_catalogued(tmp_path, name, checkpoint={"origin": origin}), WHERE)
    said = json.loads(VariationMetadata.of(found).text), json.loads(ModelMetadata.of(WHERE, [found]).text)
    texts = [said[0]["overview"], said[0]["usage"], said[1]["subtitle"], said[1]["description"]]
    assert [bleach.clean(text) for text in texts] == texts


def test_the_longest_custom_name_can_be_a_variation_in_each_flavour(tmp_path):
    about = About(license="MIT", training_data="1,437 digits", description="Digits.")
    name = 90 * "a" + GRAPH_SUFFIX
    assert json.loads(VariationMetadata.of(custom(tmp_path, name, about)).text)["instanceSlug"] == name


def test_what_is_said_of_a_custom_model_and_kaggle_does_not_take_is_named(tmp_path):
    about = About(license="MIT", training_data="INSERT_DATA_HERE", description="INSERT_SUMMARY_HERE")
    subject = custom(tmp_path, "my_mixer", about)
    said = r"model-instance-metadata\.json: overview: .*\n  model-instance-metadata\.json: trainingData\.0: it still is"
    with pytest.raises(MixerError, match=rf"(?s)breaks the rules of its site, so nothing was:.*{said}"):
        write_model_cards(subject.paths, WHERE)
    assert not list(tmp_path.rglob("model-instance-metadata.json"))


def test_without_a_known_licence_there_is_none(tmp_path):
    own = write_model(tmp_path, handle="my_mixer", checkpoint={"origin": "own"})
    assert VariationMetadata.of(CardFacts.read(own, WHERE)) is None


@pytest.mark.parametrize("name", HANDLES)
def test_every_handle_can_be_a_variation(name, tmp_path):
    for flavour in ("native", "graph"):
        found = CardFacts.read(write_catalogued(tmp_path, name, flavour=flavour), WHERE)
        assert VariationMetadata.problems_of(VariationMetadata.of(found).text) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ownerSlug": "INSERT_OWNER_SLUG_HERE"}, "ownerSlug: String should match pattern"),
        ({"ownerSlug": ""}, "ownerSlug: "),
        ({"instanceSlug": "a/b"}, "instanceSlug: "),
        ({"framework": "TensorFlow2"}, "framework: Input should be 'tensorFlow2'"),
        ({"licenseName": "apache-2.0"}, "licenseName: it is none of Apache 2.0, "),
        ({"fineTunable": "true"}, "fineTunable: Input should be a valid boolean"),
        ({"fineTunable": None}, "fineTunable: "),
        ({"trainingData": "ImageNet-1k"}, "trainingData: "),
        ({"trainingData": [""]}, "trainingData.0: it is empty"),
        ({"usage": " "}, "usage: it is empty"),
        ({"usage": "INSERT_USAGE_HERE"}, "usage: it still is the placeholder of Kaggle's template"),
        ({"modelInstanceType": "base"}, "modelInstanceType: Input should be"),
        ({"externalBaseModelUrl": ""}, "externalBaseModelUrl is '', but modelInstanceType 'ExternalVariant'"),
        ({"externalBaseModelUrl": "a.example"}, "externalBaseModelUrl: String should match pattern"),
        ({"baseModelInstance": "a/b/c/d"}, "baseModelInstance is 'a/b/c/d', but modelInstanceType 'ExternalVariant'"),
        ({"licence": "MIT"}, "licence: Extra inputs are not permitted"),
    ],
)
def test_a_slip_in_a_variation_is_told(changes, said, subject):
    values = json.loads(VariationMetadata.of(subject).text) | changes
    (problem,) = VariationMetadata.problems_of(json.dumps(values))
    assert said in problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slug": "MLP Mixer"}, "slug: "),
        ({"title": ""}, "title: it is empty"),
        ({"isPrivate": "false"}, "isPrivate: Input should be a valid boolean"),
        ({"publishTime": "today"}, "publishTime: String should match pattern"),
        ({"description": "INSERT_DESCRIPTION_HERE"}, "description: it still is the placeholder"),
        ({"keywords": []}, "keywords: Extra inputs are not permitted"),
    ],
)
def test_a_slip_in_the_model_is_told(changes, said, subject):
    values = json.loads(ModelMetadata.of(WHERE, [subject]).text) | changes
    (problem,) = ModelMetadata.problems_of(json.dumps(values))
    assert said in problem


@pytest.mark.parametrize("form", [ModelMetadata, VariationMetadata])
def test_a_missing_field_and_what_is_no_json_are_told(form):
    assert "the whole: Invalid JSON" in form.problems_of("{")[0]
    assert "ownerSlug: Field required" in form.problems_of("{}")
