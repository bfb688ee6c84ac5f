"""Cards on disk: all of a model or none, where each site wants it, and only what manifest and report give may leave."""

import json
import re
from pathlib import Path

import pytest
from publishable import HANDLE, WHERE, tree, write_card, write_catalogued, write_model, write_report

from export.cards import tfhub, write
from export.cards.publisher import Publisher
from export.cards.write import CardFiles, write_collection_cards, write_model_cards
from export.package.archive import package_model
from export.publish.policy import PublishPolicy
from models.digests import Digest, DigestTable
from models.errors import MixerError
from models.records.layout import ModelPaths
from models.records.manifest import Manifest

OTHER = Publisher("another", "https://elsewhere.example")


def only_cards(out):
    return {name for name in tree(out) if name.startswith("cards/") or name.endswith(".md")}


def test_all_cards_of_a_model_are_written(tmp_path):
    done = write_card(write_model(tmp_path))
    assert {path.relative_to(tmp_path).as_posix() for path in done.files} == only_cards(tmp_path) == {
        f"{HANDLE}/2.md",
        f"cards/huggingface/{HANDLE}/README.md",
        f"cards/kaggle/{HANDLE}/model-instance-metadata.json",
    }  # fmt: skip
    assert (done.name, done.notes) == (HANDLE, ())


def test_the_files_are_where_the_sites_want_them(tmp_path):
    files = CardFiles(tmp_path)
    expected = {
        files.hub_collection("p"): "hub/p/collections/mlp-mixer/1.md",
        files.hub_publisher("p"): "hub/p/p.md",
        files.kaggle_model: "kaggle/model-metadata.json",
        files.kaggle_variation("h"): "kaggle/h/model-instance-metadata.json",
        files.hugging_face: "huggingface/README.md",
        files.hugging_face_model("h"): "huggingface/h/README.md",
    }
    assert {path.relative_to(tmp_path / "cards").as_posix() for path in expected} == set(expected.values())
    assert all(path == tmp_path / "cards" / name for path, name in expected.items())


def test_what_is_there_is_replaced_and_equal_records_give_equal_bytes(tmp_path):
    destination = write_model(tmp_path)
    write_card(destination, OTHER)
    first = tree(tmp_path)
    write_card(destination)
    second = tree(tmp_path)
    write_card(destination)
    assert first != second == tree(tmp_path)


def test_of_ones_own_there_is_no_card_for_kaggle_and_it_is_said(tmp_path):
    done = write_card(write_model(tmp_path, handle="my_mixer", checkpoint={"origin": "own"}))
    assert [path.name for path in done.files] == ["2.md", "README.md"]
    (note,) = done.notes
    assert "which takes only models with a licence" in note


def test_a_card_that_breaks_a_rule_is_not_written_nor_any_other(tmp_path, monkeypatch):
    destination = write_model(tmp_path)
    write_card(destination)
    before = tree(tmp_path)
    monkeypatch.setitem(tfhub.TASKS, "classification", "classification")
    with pytest.raises(MixerError, match=r"breaks the rules of its site, so nothing was:\n  2\.md: task is classif"):
        write_card(destination, OTHER)
    assert tree(tmp_path) == before


def test_a_refused_model_gets_no_card(tmp_path):
    destination = write_model(tmp_path, report={"inputs_set": "gate", "fine_tunable": None})
    with pytest.raises(MixerError, match="tried no gradients"):
        write_card(destination)
    assert not only_cards(tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    destination = write_model(tmp_path)
    (tmp_path / "cards").write_text("a file")
    said = r"could not be written \((Not a directory|File exists)\): free some space, make its folder writable, or give"
    with pytest.raises(MixerError, match=said):
        write_card(destination)


# --- the collection ---


def test_the_collection_is_of_the_models_that_have_a_page(tmp_path):
    assert write_collection_cards(tmp_path, WHERE) is None
    for name in ("mixer_b16_i1k_fe", "mixer_l16_i1k_fe"):
        write_card(write_catalogued(tmp_path, name))
    write_card(write_catalogued(tmp_path, "mixer_b16_i1k_fe", flavour="graph"))
    write_catalogued(tmp_path, "mixer_b32_sam_fe")
    write_card(write_model(tmp_path, handle="my_mixer", checkpoint={"origin": "own"}))
    done = write_collection_cards(tmp_path, WHERE)
    files = CardFiles(tmp_path)
    assert done.name == "the collection, 3 models"
    assert done.files == (
        files.hub_collection("somebody"),
        files.hub_publisher("somebody"),
        files.kaggle_model,
        files.hugging_face,
    )
    page = files.hub_collection("somebody").read_text()
    start, _, rest = page.partition("TensorFlow Hub knows these models")  # its validator's links, which it alone has
    assert json.loads(files.kaggle_model.read_text())["description"] in start + rest.partition("\n\n")[2]
    listed = [
        line.split("(https://models.example/mixers/")[1].split(")")[0] for line in page.splitlines() if "/2.md" in line
    ]
    assert listed == ["mixer_b16_i1k_fe/2.md", "mixer_b16_i1k_fe-graph/2.md", "mixer_l16_i1k_fe/2.md"]


def test_the_collection_lists_the_highest_version_with_a_page(tmp_path):
    for version in (2, 10):
        write_card(write_catalogued(tmp_path, "mixer_b16_i1k_fe", version=version))
    write_catalogued(tmp_path, "mixer_b16_i1k_fe", version=11)
    write_collection_cards(tmp_path, WHERE)
    page = CardFiles(tmp_path).hub_collection("somebody").read_text()
    assert "mixer_b16_i1k_fe/10.md" in page
    assert "mixer_b16_i1k_fe/2.md" not in page


def test_pages_of_another_publisher_are_left_out_and_told(tmp_path):
    write_card(write_catalogued(tmp_path, "mixer_b16_i1k_fe"))
    write_card(write_catalogued(tmp_path, "mixer_l16_i1k_fe"), OTHER)
    (ModelPaths.of(tmp_path, "mixer_b16_sam_fe", 2).directory.parent).mkdir()
    (tmp_path / "mixer_b16_sam_fe" / "2.md").write_text("notes")
    done = write_collection_cards(tmp_path, WHERE)
    assert done.name == "the collection, 1 model"
    assert len(done.notes) == 2
    assert all("is not by somebody: left out of the collection" in note for note in done.notes)


def test_a_model_that_lost_its_records_stops_the_collection(tmp_path):
    destination = write_catalogued(tmp_path, "mixer_b16_i1k_fe")
    write_card(destination)
    destination.report.unlink()
    with pytest.raises(MixerError, match=r"there is no 2\.report\.json"):
        write_collection_cards(tmp_path, WHERE)
    assert not CardFiles(tmp_path).kaggle_model.exists()


# --- what may leave (see also test_publish) ---


def in_the_way(destination):
    """Pack a model as it is, and return what keeps it from being published."""
    package_model(destination, overwrite=True)
    checkpoint = Manifest.read(destination.manifest).checkpoint
    recorded = Digest(checkpoint.object, "original", checkpoint.size, "", "", checkpoint.sha256)
    try:
        PublishPolicy(DigestTable((recorded,))).check(destination)
    except MixerError as error:
        return [line.removeprefix("  ") for line in str(error).splitlines()[1:]]
    return []


def test_a_card_that_was_written_has_no_faults_and_no_differences(tmp_path):
    for name in ("mixer_b16_i1k_fe", "mixer_b16_i1k_classification"):
        destination = write_catalogued(tmp_path, name)
        write_card(destination)
        assert in_the_way(destination) == []


def test_a_missing_card_names_the_command(tmp_path):
    destination = write_model(tmp_path)
    (fault,) = in_the_way(destination)
    assert fault == f"there is no 2.md: `mixer-jax2tf card {HANDLE} --publisher P --assets URL` writes it"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + "more\n", "is 'more', expected ''"),
        (lambda text: text + "\n", "is '', expected missing"),
        (lambda text: text[: text.index("## Provenance")], "is '', expected '## Provenance'"),
        (lambda text: text.replace("Verdict: **passed**", "Verdict: **fine**"), "Verdict: **fine**"),
        (lambda text: text.replace("| its origin | original |", "| its origin | mine |"), "| its origin | mine |"),
    ],
    ids=range(5),
)
def test_a_card_that_was_edited_is_told_with_the_line(change, said, tmp_path):
    destination = write_model(tmp_path)
    write_card(destination)
    card = destination.card
    text = card.read_text()
    card.write_text(change(text))
    assert card.read_text() != text
    (difference,) = in_the_way(destination)
    assert "2.md is not the card of this manifest and report (line " in difference
    assert said in difference


def test_a_card_of_another_day_is_told(tmp_path):
    destination = write_model(tmp_path)
    write_card(destination)
    write_report(destination, Manifest.read(destination.manifest), inputs_sha256="e" * 64)
    (difference,) = in_the_way(destination)
    assert "2.md is not the card of this manifest and report (line " in difference
    write_model_cards(destination, WHERE)
    assert in_the_way(destination) == []


def test_a_card_of_the_same_model_elsewhere_is_no_difference(tmp_path):
    destination = write_model(tmp_path)
    write_card(destination, OTHER)
    assert in_the_way(destination) == []
    assert tfhub.Page.read(destination.card.read_text()).publisher == OTHER


def test_the_modules_that_write_cards_are_all_here():
    """A new kind of card must be checked before it is written."""
    folder = Path(write.__file__).parent
    modules = {
        path.stem
        for path in folder.glob("*.py")
        if re.search(r"^from export\.cards\.markdown import .*\brender\b", path.read_text(encoding="utf-8"), re.M)
    }
    assert modules <= vars(write).keys()
    assert modules == {"hugging_face", "kaggle", "tfhub"}
