"""Hugging Face's cards say what the records say, and a slip in them is noticed."""

import pytest
import yaml
from publishable import WHERE, write_catalogued, write_model

from export.cards.facts import CardFacts
from export.cards.hugging_face import Card
from models.catalog import HANDLES


def header(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture
def card(tmp_path):
    return Card.of_model(CardFacts.read(write_catalogued(tmp_path, "mixer_l16_i1k_classification"), WHERE)).text


def test_the_header_says_what_the_model_is(card):
    assert Card(card).problems == []
    assert header(card) == {
        "license": "apache-2.0",
        "pipeline_tag": "image-classification",
        "tags": ["tensorflow", "saved-model", "mlp-mixer", "vision"],
        "datasets": ["imagenet-1k"],
    }
    assert "\n# mixer\\_l16\\_i1k\\_classification, version 2\n" in card


def test_a_feature_extractor_is_no_classifier(tmp_path):
    found = CardFacts.read(write_catalogued(tmp_path, "mixer_l16_i21k_fe"), WHERE)
    assert header(Card.of_model(found).text)["pipeline_tag"] == "image-feature-extraction"
    assert header(Card.of_collection([found]).text)["pipeline_tag"] == "image-feature-extraction"


def test_seeded_weights_have_no_data_and_say_so(tmp_path):
    found = CardFacts.read(write_catalogued(tmp_path, "mixer_l16_i1k_fe", checkpoint={"origin": "seeded"}), WHERE)
    for text in (Card.of_model(found).text, Card.of_collection([found]).text):
        assert Card(text).problems == []
        assert "datasets" not in header(text)
        assert "seeded-weights" in header(text)["tags"]
        assert "\n\n**" in text
        assert "SEEDED WEIGHTS, NEVER TRAINED" in text


def test_ones_own_has_no_licence_that_is_known_here(tmp_path):
    own = write_model(tmp_path, handle="my_mixer", checkpoint={"origin": "own"})
    text = Card.of_model(CardFacts.read(own, WHERE)).text
    assert Card(text).problems == []
    assert header(text)["license"] == "unknown"


def test_the_repositorys_card_names_all_its_models(tmp_path):
    members = [CardFacts.read(write_catalogued(tmp_path, name), WHERE) for name in HANDLES]
    text = Card.of_collection(members).text
    assert Card(text).problems == []
    assert header(text)["datasets"] == ["imagenet-1k", "imagenet-21k"]
    assert all(f"{name}/2.md" in text for name in HANDLES)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("---\n", "--\n", "it does not begin with a header in YAML"),
        ("license: apache-2.0", "license: Apache 2.0", "license: Input should be 'apache-2.0', "),
        ("license: apache-2.0\n", "", "license: Field required"),
        ("license:", "licence:", "licence: Extra inputs are not permitted"),
        ("image-classification", "classification", "pipeline_tag: Input should be"),
        ("pipeline_tag: image-classification\n", "pipeline_tag:\n", "pipeline_tag: Input should be"),
        ("- tensorflow", "- Tensor Flow", "tags.0: String should match pattern"),
        ("- tensorflow", "- 2", "tags.0: Input should be a valid string"),
        ("datasets:\n- imagenet-1k", "datasets: imagenet-1k", "datasets: Input should be a valid list"),
        ("datasets:\n- imagenet-1k", "datasets: []", "datasets: List should have at least 1 item"),
        ("license: apache-2.0", "license: unknown\nlicense: apache-2.0", "license occurs twice in the header"),
        ("license: apache-2.0", "license: [", "its header is not YAML: while parsing"),
        ("license: apache-2.0", "license: !!python/object:os.system {}", "its header is not YAML: could not determine"),
        ("\n# mixer", "\nmixer", "expected a title: # ..."),
    ],
)
def test_a_slip_is_told(old, new, said, card):
    assert old in card
    problems = Card(card.replace(old, new, 1)).problems
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    "text", ["", "# a", "---\n---\n", "---\n[]\n---\n# a\n\nb", "---\nlicense: unknown\n---\n# a\n"]
)
def test_what_is_no_card_at_all_is_told(text):
    assert Card(text).problems
