"""One command brings what is published up to date: only what needs it, with the next number, or nothing at all."""

import base64
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from publishable import tree
from reporting import consumed

from convert.checkpoints.fetch import Source
from convert.cli import main
from convert.pipeline import republish
from convert.pipeline.republish import Work
from export.cards.publisher import Publisher
from export.package.verify import verify
from export.publish.bucket import Bucket
from export.publish.policy import PublishPolicy
from export.publish.store import Mirror
from models.catalog import TESTING_HANDLES
from models.digests import Digest, DigestTable
from models.errors import MixerError
from models.records import provenance
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.published_index import Index
from models.records.report import Report

CLASSIFIER, FEATURES = TESTING_HANDLES
CHECKPOINT = TESTING_HANDLES[FEATURES].checkpoint
SEEDED = DigestTable.read()
RULES = PublishPolicy(SEEDED, origins=frozenset({"seeded"}), allow_dirty=True, needs_card=False)
WHERE = ("--publisher", "somebody", "--assets", "https://models.example/mixers")


def work_in(out, source, *names, **fields):
    models = tuple(TESTING_HANDLES[name] for name in names or TESTING_HANDLES)
    place = Source(str(source), None, RULES.digests)
    given = {"models": models, "source": place, "out": out, "rules": RULES, "where": None, "inputs_set": "gate"}
    return Work(**(given | fields))


def standing(done):
    return [(one.handle, one.version, one.verdict) for one in done]


@pytest.fixture(scope="module")
def _first(tmp_path_factory, tiny_source):
    """Both tiny models, published for the first time."""
    folder = tmp_path_factory.mktemp("first")
    mirror = Mirror(folder / "mirror")
    done = work_in(folder / "build", tiny_source).bring_up_to_date(mirror)
    return folder, done


@pytest.fixture
def first(_first, tmp_path):
    """A copy of what was made and published for the first time: the models, and the mirror."""
    shutil.copytree(_first[0], tmp_path / "first")
    return tmp_path / "first" / "build", Mirror(tmp_path / "first" / "mirror")


def age(mirror, name, **changes):
    """Let the published model be of another day, as its manifest tells."""
    path = ModelPaths.of(mirror.root, name, Index.read(mirror.root / name / "index.json").latest).manifest
    path.write_bytes(Manifest(**(dict(Manifest.read(path)) | changes)).to_bytes())


# --- what it does ---


def test_what_was_never_published_is_made_proven_and_published(_first):
    folder, done = _first
    assert standing(done) == [(CLASSIFIER, 2, "republished"), (FEATURES, 2, "republished")]
    assert {one.reasons for one in done} == {("it was never published",)}
    for name in TESTING_HANDLES:
        published = folder / "mirror" / name
        assert Index.read(published / "index.json").latest == 2
        assert verify(published / "2.tar.gz").verdict == "same"
        assert Report.read(published / "2.report.json").verdict == "passed"
    assert sum(one.sent for one in done) == sum(map(len, tree(folder / "mirror").values()))


def test_nothing_that_leaves_tells_of_this_disk(_first, tiny_source):
    folder, _ = _first
    contents = tree(folder / "mirror") | {name: data for name, data in tree(folder / "build").items() if "/2/" in name}
    assert len(contents) > 2 * 5 + 2 * 4
    for secret in (folder, tiny_source, Path(provenance.__file__).parents[2], Path.home()):
        assert not [name for name, content in contents.items() if f"{secret}/".encode() in content]


def test_a_second_time_nothing_is_made_nor_sent(first, tiny_source):
    out, mirror = first
    before = tree(mirror.root), tree(out)
    done = work_in(out, tiny_source).bring_up_to_date(mirror)
    assert standing(done) == [(CLASSIFIER, None, "up to date"), (FEATURES, None, "up to date")]
    assert (tree(mirror.root), tree(out)) == before


def test_only_what_is_out_of_date_gets_the_next_number(first, tiny_source):
    out, mirror = first
    age(mirror, FEATURES, pipeline="0.0.9")
    before = tree(mirror.root), tree(out)
    done = work_in(out, tiny_source).bring_up_to_date(mirror, dry_run=True)
    assert standing(done) == [(CLASSIFIER, None, "up to date"), (FEATURES, 3, "to be republished")]
    assert (tree(mirror.root), tree(out)) == before
    done = work_in(out, tiny_source).bring_up_to_date(mirror)
    assert standing(done) == [(CLASSIFIER, None, "up to date"), (FEATURES, 3, "republished")]
    assert [one.reasons for one in done][1] == (f"mixer-jax2tf 0.0.9 is now {provenance.pipeline_version()}",)
    new = {name: content for name, content in tree(mirror.root).items() if name not in before[0]}
    assert {name.split("/")[0] for name in new} == {FEATURES}
    assert Index.read(mirror.root / FEATURES / "index.json").latest == 3
    assert Manifest.read(mirror.root / FEATURES / "3.manifest.json").version == 3
    kept = {name: content for name, content in before[0].items() if not name.endswith("index.json")}
    assert kept.items() <= tree(mirror.root).items()


@pytest.mark.whole
def test_it_goes_to_a_bucket_through_the_real_client(store, tiny_source, tmp_path, _first):
    store.make_bucket("republished")
    work = work_in(shutil.copytree(_first[0] / "build", tmp_path / "build"), tiny_source, FEATURES)
    with Bucket.opened("gs://republished/models") as place:
        done = work.bring_up_to_date(place)
        assert standing(done) == [(FEATURES, 2, "republished")]
        received = store.received
        assert standing(work.bring_up_to_date(place)) == [(FEATURES, None, "up to date")]
    assert store.received == received
    there = store.objects("republished")
    assert there[f"models/{FEATURES}/2.tar.gz"] == (work.out / FEATURES / "2.tar.gz").read_bytes()
    assert json.loads(there[f"models/{FEATURES}/index.json"])["versions"].keys() == {"2"}


@pytest.mark.whole
def test_what_stands_proven_is_kept_and_by_the_gate_set_only_is_proven_again(first, tiny_source, monkeypatch):
    # What consumers do has tests of its own, and takes most of the time.
    monkeypatch.setattr("validation.gate.check_consumer", lambda *_: (consumed(),))
    monkeypatch.setattr("validation.gate.Gate._explain", lambda *_: ())
    out, _ = first
    made = (out / FEATURES / "2.manifest.json").stat().st_mtime_ns
    assert Report.read(out / FEATURES / "2.report.json").inputs_set == "gate"
    elsewhere = Mirror(out.with_name("elsewhere"))
    batches = []
    monkeypatch.setattr("convert.pipeline.republish.run_batch", _remembering(batches))
    work = work_in(out, tiny_source, FEATURES, inputs_set="full")
    work = replace(
        work, rules=replace(RULES, needs_card=True), where=Publisher("somebody", "https://models.example/mixers")
    )
    done = work.bring_up_to_date(elsewhere)
    assert standing(done) == [(FEATURES, 2, "republished")], done
    assert [(one.task, one.inputs_set) for one in batches] == [("convert-all", "full"), ("validate", "full")]
    report = Report.read(elsewhere.root / FEATURES / "2.report.json")
    assert (report.inputs_set, report.fine_tunable, report.verdict) == ("full", True, "passed")
    assert (out / FEATURES / "2.manifest.json").stat().st_mtime_ns == made
    card = (elsewhere.root / FEATURES / "2.md").read_text()
    assert card.startswith(f"# Module somebody/{FEATURES}/2\n")
    assert "<!-- fine-tunable: true -->" in card
    assert (out / "cards" / "hub" / "somebody").is_dir()


def _remembering(batches):
    from convert.pipeline.batch import run_batch

    def run(batch, watch):
        batches.append(batch)
        return run_batch(batch, watch)

    return run


def test_a_model_that_fails_ends_only_itself(first, tiny_source, monkeypatch):
    out, mirror = first
    for name in TESTING_HANDLES:
        age(mirror, name, pipeline="0.0.9")
    from convert.pipeline import convert_handle

    write = convert_handle.Item.write

    def failing(item, *rest, **options):
        if item.handle.name == CLASSIFIER:
            raise MixerError("not today")
        return write(item, *rest, **options)

    monkeypatch.setattr(convert_handle.Item, "write", failing)
    done = work_in(out, tiny_source).bring_up_to_date(mirror)
    assert standing(done) == [(CLASSIFIER, 3, "failed"), (FEATURES, 3, "republished")]
    assert done[0].problem == "not today"
    assert Index.read(mirror.root / CLASSIFIER / "index.json").latest == 2


# --- numbers ---


def test_an_unfinished_publication_of_the_same_files_is_finished(first, tiny_source):
    out, mirror = first
    (mirror.root / FEATURES / "index.json").unlink()
    (mirror.root / FEATURES / "2.report.json").unlink()
    done = work_in(out, tiny_source, FEATURES).bring_up_to_date(mirror)
    assert standing(done) == [(FEATURES, 2, "republished")]


def test_an_unfinished_publication_of_other_files_keeps_its_number(first, tiny_source):
    out, mirror = first
    for left in ({"2.tar.gz": b"other"}, {"7.tar.gz": b"other"}):
        folder = mirror.root / FEATURES
        shutil.rmtree(folder)
        folder.mkdir()
        for name, content in left.items():
            (folder / name).write_bytes(content)
        (number,) = (int(name.split(".")[0]) for name in left)
        done = work_in(out, tiny_source, FEATURES).bring_up_to_date(mirror, dry_run=True)
        assert standing(done) == [(FEATURES, number + 1, "to be republished")]


# --- what is refused before any work ---


def refused(work, place):
    before = tree(work.out), tree(place.root)
    with pytest.raises(MixerError, match=r"^nothing was made or published:\n") as error:
        work.bring_up_to_date(place)
    assert (tree(work.out), tree(place.root)) == before
    return str(error.value)


def test_a_checkpoint_that_changed_at_the_source_stops_everything(first, tiny_source, tmp_path):
    out, mirror = first
    changed = tmp_path / "source" / CHECKPOINT.object
    changed.parent.mkdir(parents=True)
    content = (tiny_source / CHECKPOINT.object).read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = refused(work_in(out, tmp_path / "source"), mirror)
    sha256 = hashlib.sha256(changed.read_bytes()).hexdigest()
    recorded = SEEDED.find(CHECKPOINT.object, "seeded").sha256
    assert (
        f"{CHECKPOINT.object} changed: its sha256 at {tmp_path / 'source'} is {sha256}, recorded was {recorded}" in said
    )
    assert "record it with `mixer-jax2tf fetch --record`, review the change of models/digests.json, and commit" in said
    changed.write_bytes(content + b"x")
    assert f"its size at {tmp_path / 'source'} is {len(content) + 1}" in refused(
        work_in(out, tmp_path / "source"), mirror
    )


def test_a_new_digest_lets_it_go_on(first, tiny_source, tmp_path):
    """After it was recorded, the changed checkpoint is the reason for a new version of both of its models."""
    out, mirror = first
    for name in TESTING_HANDLES:
        record = Manifest.read(mirror.root / name / "2.manifest.json").checkpoint
        age(mirror, name, checkpoint=record.model_copy(update={"sha256": "0" * 64}))
    done = work_in(out, tiny_source).bring_up_to_date(mirror, dry_run=True)
    assert standing(done) == [(CLASSIFIER, 3, "to be republished"), (FEATURES, 3, "to be republished")]
    recorded = SEEDED.find(CHECKPOINT.object, "seeded").sha256
    assert {one.reasons for one in done} == {
        (f"the checkpoint {CHECKPOINT.object} changed: sha256 {'0' * 64} is now {recorded}",)
    }


def test_a_changed_object_of_a_bucket_is_known_without_a_download(store, first, tiny_source):
    out, mirror = first
    entry = SEEDED.find(CHECKPOINT.object, "seeded")
    content = (tiny_source / CHECKPOINT.object).read_bytes()
    store.put("changed", CHECKPOINT.object, content[::-1])
    said = refused(work_in(out, "gs://changed"), mirror)
    assert f"its md5 at gs://changed is {gsutil_md5(content[::-1])}, recorded was {entry.md5}" in said
    assert store.served == 0


def gsutil_md5(content):
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def test_without_a_recorded_original_nothing_leaves(first, tiny_source):
    out, mirror = first
    age(mirror, FEATURES, pipeline="0.0.9")
    work = work_in(out, tiny_source, rules=PublishPolicy(SEEDED, allow_dirty=True))
    assert f"models/digests.json has no original {CHECKPOINT.object}: record it with `mixer-" in refused(work, mirror)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((None, None), "the sources are of no known git commit"),
        (("c" * 40, True), f"the sources differ from commit {'c' * 40}"),
    ],
    ids=("none", "dirty"),
)
def test_sources_that_no_commit_names_are_refused_before_any_work(first, tiny_source, monkeypatch, state, said):
    out, mirror = first
    monkeypatch.setattr(republish, "git_state", lambda: state)
    work = work_in(out, tiny_source, rules=replace(RULES, allow_dirty=False))
    assert f"{said}: commit them, or give --allow-dirty" in refused(work, mirror)


def test_what_cannot_be_read_there_stops_everything(first, tiny_source):
    out, mirror = first
    (mirror.root / FEATURES / "index.json").write_text("{")
    before = tree(mirror.root)
    with pytest.raises(MixerError, match=f"1 of 2 handles failed.\n{FEATURES}: .* is not a readable index"):
        work_in(out, tiny_source).bring_up_to_date(mirror)
    assert tree(mirror.root) == before


def test_something_of_the_users_in_the_way_is_told_before_any_work(first, tiny_source, tmp_path):
    out, mirror = first
    for name in TESTING_HANDLES:
        age(mirror, name, pipeline="0.0.9")
    (ModelPaths.of(out, FEATURES, 3).directory).mkdir()
    (ModelPaths.of(out, FEATURES, 3).directory / "notes.txt").write_text("mine")
    before = tree(out)
    with pytest.raises(MixerError, match=f"{FEATURES}/3 has no manifest, so .*: move it away") as error:
        work_in(out, tiny_source).bring_up_to_date(mirror)
    assert CLASSIFIER not in str(error.value)
    assert tree(out) == before


# --- the command ---


def run(capfd, *arguments):
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    said = capfd.readouterr()
    return end.value.code, said.out, said.err


def test_the_command(first, tiny_source, capfd, monkeypatch):
    out, mirror = first
    entry = SEEDED.find(CHECKPOINT.object, "seeded")
    original = Digest(entry.object, "original", entry.size, entry.md5, entry.crc32c, entry.sha256)
    monkeypatch.setattr(DigestTable, "read", lambda: DigestTable((original,)))
    command = (
        "republish",
        FEATURES,
        *WHERE,
        "--to",
        mirror.root,
        "--source",
        tiny_source,
        "--out",
        out,
        "--allow-dirty",
    )
    code, said, err = run(capfd, *command)
    assert (code, "up to date" in said) == (0, True), err
    age(mirror, FEATURES, pipeline="0.0.9")
    code, said, err = run(capfd, *command, "--dry-run", "--json")
    assert code == 0, err
    (one,) = json.loads(said)
    assert (one["handle"], one["published"], one["version"], one["verdict"]) == (FEATURES, 2, 3, "to be republished")
    code, said, err = run(capfd, *command, "--flavour", "both", "--dry-run")
    assert (code, f"{FEATURES}-graph" in said, "it was never published" in said) == (0, True, True)


def test_the_command_says_what_failed(first, tiny_source, capfd, monkeypatch):
    out, mirror = first
    failed = republish.Republished(FEATURES, 2, 3, ("old",), "failed", problem="no room")
    monkeypatch.setattr(Work, "bring_up_to_date", lambda *_, **__: [failed])
    code, said, err = run(
        capfd, "republish", FEATURES, *WHERE, "--to", mirror.root, "--source", tiny_source, "--out", out
    )
    assert (code, "failed" in said) == (1, True)
    assert f"1 of 1 handles failed.\n{FEATURES}: no room" in err


def test_the_command_knows_its_places(tiny_source, tmp_path, capfd):
    for to, said in (("s3://x", "s3 is not supported"), (tmp_path, "is the output directory")):
        code, _, err = run(capfd, "republish", *WHERE, "--to", to, "--source", tiny_source, "--out", tmp_path)
        assert (code, said in err) == (2, True)
