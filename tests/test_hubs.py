"""What leaves for Kaggle and Hugging Face, by their own clients, as stand-in servers on this machine received it."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from command import run
from hubs import HuggingFace, Kaggle
from publishable import CHECKPOINT, HANDLE, WEIGHTS, WHERE, tree, write_card, write_model

from export.cards.write import CardFiles, write_collection_cards
from export.package.archive import package_model
from export.publish import destinations
from export.publish.destinations import opened_place
from export.publish.hugging_face import HuggingFaceRepository
from export.publish.kaggle import KaggleModel
from export.publish.policy import PublishPolicy
from models.digests import Digest, DigestTable
from models.errors import MixerError, UsageError
from models.records.manifest import Manifest
from models.storage.files import Hashes

pytestmark = [
    pytest.mark.hub,
    # Hugging Face's client sends large files in a way that the library below it wants no more.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

ENTRY = Digest(CHECKPOINT.object, "original", 12, "", "", "a" * 64)
RULES = PublishPolicy(DigestTable((ENTRY,)))
VARIATION = f"somebody/mixers/tensorFlow2/{HANDLE}"
RECORDS = ("manifest.json", "provenance.json", "report.json")


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Credentials and caches of nobody."""
    for name in [name for name in os.environ if name.startswith(("HF_", "KAGGLE", "HUGGING_FACE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # where it was imported before
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "kaggle-secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def kaggle(monkeypatch):
    """A stand-in of Kaggle."""
    from kagglesdk import kaggle_env

    # To name itself the client asks for the module of each call on the stack, six times, which takes seconds in pytest.
    monkeypatch.setattr("kagglehub.env.inspect.stack", list)
    with Kaggle().running() as hub:
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, hub.url)
        yield hub


@pytest.fixture
def hugging_face(monkeypatch):
    """A stand-in of Hugging Face, with one empty repository."""
    with HuggingFace("somebody/mixers").running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(params=["kaggle", "hf"])
def site(request):
    """Both, one after the other: the stand-in, and what publishes there."""
    if request.param == "kaggle":
        return request.getfixturevalue("kaggle"), KaggleModel.parse("kaggle:somebody/mixers")
    return request.getfixturevalue("hugging_face"), HuggingFaceRepository.parse("hf:somebody/mixers")


def packed(out, **fields):
    destination = write_model(out, **fields)
    write_card(destination)
    package_model(destination, overwrite=True)
    return destination


def state(hub):
    if isinstance(hub, Kaggle):
        return [(name, len(versions)) for name, versions in hub.variations.items()]
    return [one["oid"] for one in hub.commits], dict(hub.tags)


def expected(destination):
    folder, version = destination.directory.parent, destination.version
    return tree(destination.directory) | {name: (folder / f"{version}.{name}").read_bytes() for name in RECORDS}


# --- what arrives ---


def test_the_stand_in_of_kaggle_gets_a_variation_with_all_files(kaggle, tmp_path):
    destination = packed(tmp_path)
    done = KaggleModel.parse("kaggle:somebody/mixers").publish(destination, RULES)
    assert list(kaggle.models) == ["somebody/mixers"]
    (version,) = kaggle.variations[variation(kaggle)]
    assert version["files"] == expected(destination)
    assert version["licenseName"] == "Apache 2.0"
    assert (done.verdict, done.sent) == ("published", sum(map(len, expected(destination).values())))
    assert {item.address for item in done.items} == {f"kaggle:{VARIATION}/{name}" for name in expected(destination)}


def test_the_stand_in_of_kaggle_gets_our_number_in_the_notes_of_later_versions(kaggle, tmp_path):
    model = KaggleModel.parse("kaggle:somebody/mixers")
    model.publish(packed(tmp_path), RULES)
    later = packed(tmp_path, version=5, seed=5)
    assert model.publish(later, RULES).verdict == "published"
    first, second = kaggle.variations[variation(kaggle)]
    sha256 = Hashes.of(later.manifest).sha256
    assert second["versionNotes"] == f"{HANDLE} version 5, manifest sha256 {sha256}"
    assert second["files"] == expected(later)
    assert Manifest.model_validate_json(first["files"]["manifest.json"]).version == 2


def variation(kaggle):
    (name,) = kaggle.variations
    assert (name.split("/")[:2], name.split("/")[3]) == (["somebody", "mixers"], HANDLE)
    assert "TENSOR_FLOW_2" in name.upper()
    return name


def test_the_stand_in_of_hugging_face_gets_one_commit_and_a_tag(hugging_face, tmp_path):
    destination = packed(tmp_path)
    done = HuggingFaceRepository.parse("hf:somebody/mixers").publish(destination, RULES)
    _, commit = hugging_face.commits
    card = commit["files"][f"{HANDLE}/README.md"]
    assert card.startswith(b"---\nlicense: ")
    assert WHERE.assets not in card.decode()
    line = r'folder = snapshot_download\("(.*)", revision="(.*)", allow_patterns="(.*)"\)'
    from huggingface_hub import HfApi

    repository, revision, pattern = re.search(line, card.decode()).groups()
    assert (repository, revision, pattern) == ("somebody/mixers", f"{HANDLE}-v2", f"{HANDLE}/*")
    folder = HfApi(endpoint=hugging_face.url).snapshot_download(
        repository, revision=revision, allow_patterns=pattern, cache_dir=tmp_path / "downloads"
    )
    assert tree(Path(folder, HANDLE)).items() >= tree(destination.directory).items()
    del commit["files"][f"{HANDLE}/README.md"]
    assert commit["files"] == {".gitattributes": b""} | {
        f"{HANDLE}/{name}": content for name, content in expected(destination).items()
    }
    assert commit["header"]["summary"] == f"{HANDLE} version 2"
    assert commit["header"]["description"] == f"manifest sha256 {Hashes.of(destination.manifest).sha256}"
    assert hugging_face.tags == {f"{HANDLE}-v2": commit["oid"]}
    assert (done.verdict, done.sent) == ("published", sum(map(len, [card, *expected(destination).values()])))
    assert {item.address for item in done.items} == {
        f"hf:somebody/mixers/{HANDLE}/{name}" for name in ("README.md", *expected(destination))
    }


def test_the_stand_in_of_hugging_face_gets_the_card_of_the_collection_once(hugging_face, tmp_path):
    repository = HuggingFaceRepository.parse("hf:somebody/mixers")
    first = packed(tmp_path)
    write_collection_cards(tmp_path, WHERE)
    card = CardFiles(tmp_path).hugging_face
    assert HANDLE in card.read_text()
    planned, done = (repository.publish(first, RULES, dry_run=dry_run) for dry_run in (True, False))
    assert hugging_face.commits[-1]["files"]["README.md"] == card.read_bytes()
    assert [item.address for item in planned.items] == [item.address for item in done.items]
    assert [item.size for item in done.items if item.address == "hf:somebody/mixers/README.md"] == [
        len(card.read_bytes())
    ]
    again = repository.publish(packed(tmp_path, version=3, seed=3), RULES)
    assert "hf:somebody/mixers/README.md" not in {item.address for item in again.items}  # it is there already
    assert hugging_face.files["README.md"] == card.read_bytes()


def test_a_card_of_the_collection_that_breaks_the_rules_does_not_leave_for_the_stand_in(hugging_face, tmp_path):
    destination = packed(tmp_path)
    write_collection_cards(tmp_path, WHERE)
    card = CardFiles(tmp_path).hugging_face
    card.write_text(card.read_text().replace("license: apache-2.0", "license: mine"))
    with pytest.raises(MixerError, match=r"the card README\.md breaks Hugging Face's rules: license: "):
        HuggingFaceRepository.parse("hf:somebody/mixers").publish(destination, RULES)
    assert (len(hugging_face.commits), hugging_face.received) == (1, 0)


def test_the_stand_in_of_hugging_face_loses_what_a_later_version_has_not(hugging_face, tmp_path):
    repository = HuggingFaceRepository.parse("hf:somebody/mixers")
    hugging_face.commit(
        {f"{HANDLE}-graph/saved_model.pb": b"another's", f"{HANDLE}/old/file": b"old", "README.md": b"x"}
    )
    first = repository.publish(packed(tmp_path), RULES)
    later = packed(tmp_path, version=5, seed=5)
    repository.publish(later, RULES)
    assert first.verdict == "published"
    files = dict(hugging_face.files)
    del files[f"{HANDLE}/README.md"]
    assert files == {f"{HANDLE}-graph/saved_model.pb": b"another's", "README.md": b"x"} | {
        f"{HANDLE}/{name}": content for name, content in expected(later).items()
    }
    assert list(hugging_face.tags) == [f"{HANDLE}-v2", f"{HANDLE}-v5"]


# --- never twice, never over another ---


def test_a_second_time_nothing_is_sent_to_the_stand_ins(site, tmp_path):
    hub, place = site
    destination = packed(tmp_path)
    place.publish(destination, RULES)
    before, received = state(hub), hub.received
    again = place.publish(destination, RULES)
    assert (again.verdict, again.sent, {item.action for item in again.items}) == (
        "published already",
        0,
        {"there already"},
    )
    assert (state(hub), hub.received) == (before, received)


def test_a_dry_run_sends_nothing_to_the_stand_ins(site, tmp_path):
    hub, place = site
    before = state(hub)
    planned = place.publish(packed(tmp_path), RULES, dry_run=True)
    assert (planned.verdict, planned.sent, hub.received, state(hub)) == ("to be published", 0, 0, before)
    assert not any(call.startswith("PUT") or "Create" in call or "commit" in call for call in hub.calls)
    done = place.publish(packed(tmp_path), RULES)
    assert [(item.address, item.size) for item in done.items] == [(item.address, item.size) for item in planned.items]


def test_a_published_number_is_not_given_to_other_files_on_the_stand_ins(site, tmp_path):
    hub, place = site
    place.publish(packed(tmp_path / "a"), RULES)
    before = state(hub)
    for dry_run in (True, False):
        with pytest.raises(MixerError, match="version 2 is published already, with other files") as error:
            place.publish(packed(tmp_path / "b", seed=1), RULES, dry_run=dry_run)
        assert f"\n  {WEIGHTS} has sha256 " in str(error.value)
        assert str(error.value).endswith("Convert with --version 3.")
    assert state(hub) == before


def test_a_version_must_be_above_the_published_one_on_the_stand_ins(site, tmp_path):
    hub, place = site
    place.publish(packed(tmp_path, version=7), RULES)
    before = state(hub)
    with pytest.raises(MixerError, match=r"version 2 is not above the published 7 \(.*\)\. Convert with --version 8"):
        place.publish(packed(tmp_path), RULES)
    assert state(hub) == before


def test_a_publication_that_ended_before_its_tag_is_finished_on_the_stand_in(hugging_face, tmp_path):
    repository, destination = HuggingFaceRepository.parse("hf:somebody/mixers"), packed(tmp_path)
    hugging_face.fail = {"/tag/": 500}
    with pytest.raises(MixerError, match=r"hf:somebody/mixers/.*: Hugging Face or its client reports "):
        repository.publish(destination, RULES)
    assert hugging_face.tags == {}
    hugging_face.fail = {}
    again = repository.publish(destination, RULES)
    assert (again.verdict, len(hugging_face.commits), list(hugging_face.tags)) == (
        "published already",
        2,
        [f"{HANDLE}-v2"],
    )


def test_a_tag_of_another_version_is_in_the_way_on_the_stand_in(hugging_face, tmp_path):
    hugging_face.tags[f"{HANDLE}-v2"] = hugging_face.commits[0]["oid"]
    with pytest.raises(MixerError, match=f"the tag {HANDLE}-v2 exists, but the folder contains another version"):
        HuggingFaceRepository.parse("hf:somebody/mixers").publish(packed(tmp_path), RULES)
    assert len(hugging_face.commits) == 1


def test_a_commit_of_somebody_else_meanwhile_is_not_built_over_on_the_stand_in(hugging_face, tmp_path):
    hugging_face.meanwhile = lambda: hugging_face.commit({"README.md": b"theirs"})
    with pytest.raises(MixerError, match="A commit has happened since"):
        HuggingFaceRepository.parse("hf:somebody/mixers").publish(packed(tmp_path), RULES)
    assert hugging_face.files == {"README.md": b"theirs"}
    assert hugging_face.tags == {}


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_what_is_no_manifest_there_is_told(site, tmp_path, content):
    hub, place = site
    place.publish(packed(tmp_path), RULES)
    if isinstance(hub, Kaggle):
        hub.variations[variation(hub)][-1]["files"]["manifest.json"] = content
    else:
        hub.commit({**hub.files, f"{HANDLE}/manifest.json": content})
    with pytest.raises(MixerError, match=r"manifest\.json is not a readable manifest of schema 1"):
        place.publish(packed(tmp_path, version=3), RULES)


# --- what does not leave ---


def refuse(site, destination, rules=RULES):
    hub, place = site
    with pytest.raises(MixerError) as error:
        place.publish(destination, rules)
    assert hub.calls == []
    return str(error.value)


def test_what_may_not_leave_elsewhere_may_not_leave_for_the_stand_ins(site, tmp_path):
    assert "may not be published:\n  there is no 2.tar.gz" in refuse(site, write_model(tmp_path / "a"))
    seeded = packed(tmp_path / "b", checkpoint={"origin": "seeded"})
    assert "its checkpoint is of origin seeded" in refuse(site, seeded)
    dirty = packed(tmp_path / "c", git_dirty=True)
    assert "from sources that differ from commit" in refuse(site, dirty)
    failed = packed(tmp_path / "d")
    failed.report.unlink()
    assert "there is no 2.report.json" in refuse(site, failed)


def test_a_directory_that_is_not_what_was_packed_does_not_leave(site, tmp_path):
    destination = packed(tmp_path)
    (destination.directory / WEIGHTS).write_bytes(b"other")
    assert f"{destination.directory} may not be published:\n  {WEIGHTS} has 5 bytes" in refuse(site, destination)
    for path in sorted(destination.directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    destination.directory.rmdir()
    assert f"{destination.directory} may not be published:\n  it does not exist" in refuse(site, destination)


def test_a_licence_that_is_not_known_is_nothing_for_kaggle(kaggle, tmp_path):
    own = packed(tmp_path, handle="my_mixer", checkpoint={"origin": "own"}, num_classes=1000)
    with pytest.raises(MixerError, match="the licence of my_mixer's weights is unknown, but Kaggle requires one"):
        KaggleModel.parse("kaggle:somebody/mixers").publish(own, RULES)
    assert kaggle.calls == []


# --- the sites ---


def test_what_a_stand_in_refuses_is_told_without_a_secret(site, tmp_path):
    hub, place = site
    hub.fail = {"GetModelInstance": 401, "/api/models/": 401}
    with pytest.raises(MixerError, match=r"or its client reports .*Expected an address that the credentials") as error:
        place.publish(packed(tmp_path), RULES)
    assert "secret" not in str(error.value)


def test_a_repository_that_there_is_not_is_not_made_on_the_stand_in(hugging_face, tmp_path):
    with pytest.raises(MixerError, match=r"hf:somebody/other/.*Repository"):
        HuggingFaceRepository.parse("hf:somebody/other").publish(packed(tmp_path), RULES)
    assert len(hugging_face.commits) == 1


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        (KaggleModel, "kaggle:", "is not a model on Kaggle: expected kaggle:owner/model"),
        (KaggleModel, "kaggle:owner", "is not a model on Kaggle"),
        (KaggleModel, "kaggle:owner/model/tensorFlow2", "is not a model on Kaggle"),
        (KaggleModel, "kaggle:../model", "is not a model on Kaggle"),
        (HuggingFaceRepository, "hf:repo", "is not a repository on Hugging Face: expected hf:owner/repo"),
        (HuggingFaceRepository, "hf:owner/repo/more", "is not a repository on Hugging Face"),
        (HuggingFaceRepository, "hf:owner/../x", "is not a repository on Hugging Face"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_place_is_read_strictly(place, name, said):
    with pytest.raises(UsageError, match=said):
        place.parse(name)


@pytest.mark.parametrize(
    ("name", "client"), [("kaggle:a/b", "kagglehub"), ("hf:a/b", "huggingface_hub")], ids=("kaggle", "hf")
)
def test_a_missing_client_is_told_with_how_to_have_it(name, client, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = rf"--to {name} needs the package {client}, .*pip install -e '\.\[hub\]'"
    with pytest.raises(UsageError, match=said), opened_place(name, tmp_path):
        pass


# --- the command ---


@pytest.mark.parametrize("to", ["kaggle:somebody/mixers", "hf:somebody/mixers"], ids=("kaggle", "hf"))
def test_the_command_publishes_at_the_stand_ins(to, kaggle, hugging_face, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(DigestTable, "read", lambda: RULES.digests)
    destination = packed(tmp_path)
    command = ("publish", HANDLE, "--to", to, "--out", tmp_path, "--json")
    for option, verdict in (("--dry-run", "to be published"), ("--json", "published"), ("--json", "published already")):
        code, out, err = run(capfd, *command, option)
        assert code == 0, err
        (one,) = json.loads(out)
        assert (one["handle"], one["version"], one["verdict"]) == (HANDLE, 2, verdict)
    assert destination.archive.is_file()
    code, _, err = run(capfd, "publish", HANDLE, "--to", "kaggle:x", "--out", tmp_path)
    assert (code, "is not a model on Kaggle" in err) == (2, True)
    assert not {"kaggle-secret", "hf_secret"} & set((out + err).split())


@pytest.mark.parametrize("place", ["kaggle:somebody/mixers", "hf:somebody/mixers"], ids=("kaggle", "hf"))
def test_what_is_published_on_a_hub_is_not_compared(place, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    cards = ("--publisher", "somebody", "--assets", "https://models.example")
    for command in (("outdated", "--published", place), ("republish", "--to", place, *cards)):
        code, _, err = run(capfd, *command, "--source", tmp_path)
        assert (code, f"{place}: only `publish` takes this destination; expected gs://bucket" in err) == (2, True)
    assert not list(tmp_path.glob("*:*"))


def test_the_clients_are_not_imported_before_they_are_needed():
    import subprocess

    code = "import sys, convert.cli, export.publish.kaggle, export.publish.hugging_face\n"
    code += "print({'kagglehub', 'huggingface_hub'} & sys.modules.keys())"
    root = Path(destinations.__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
