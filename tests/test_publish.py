"""What is published is proven, whole and never overwritten, in a mirror and in a bucket, whatever happens meanwhile."""

import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from command import run, status_of
from publishable import CHECKPOINT, HANDLE, WEIGHTS, change, tree, write_card, write_model, write_report
from reporting import checks, forged

from export.install import held
from export.package.archive import package_model
from export.package.verify import verify
from export.publish.bucket import Bucket
from export.publish.destinations import opened_store
from export.publish.policy import ORIGINS, PublishPolicy
from export.publish.publish import publish
from export.publish.store import Mirror
from models.digests import Digest, DigestTable
from models.errors import MixerError, UsageError
from models.records.check import GRAPH
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.published_index import INDEX, Index
from models.records.tolerances import TOLERANCES
from models.storage import gsutil
from models.storage.gsutil_errors import GsutilResult, StoreUnreachableError

ROOT = Path(gsutil.__file__).parents[2]
NAMES = ("2.manifest.json", "2.md", "2.provenance.json", "2.report.json", "2.tar.gz")
RECORDED = Digest(CHECKPOINT.object, "original", 12, "", "", "a" * 64)
RULES = PublishPolicy(DigestTable((RECORDED,)))
MIB = 1 << 20


def packed(out, **fields):
    destination = write_model(out, **fields)
    write_card(destination)
    package_model(destination, overwrite=True)
    return destination


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("made")).out


@pytest.fixture
def destination(_made, tmp_path):
    """A packed model of one's own."""
    return ModelPaths.of(shutil.copytree(_made, tmp_path / "build"), HANDLE, 2)


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror")


@pytest.fixture
def store(prepared_store):
    """A real object store, where gsutil starts with its libraries imported."""
    return prepared_store


@pytest.fixture
def gs(store, request):
    """A bucket of the test's own, by URL."""
    name = "b-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    store.make_bucket(name)
    return f"gs://{name}/models"


def objects(store, gs):
    name = gs.removeprefix("gs://").removesuffix("/models")
    return {path.removeprefix("models/"): content for path, content in store.objects(name).items()}


def expected(destination, names=NAMES):
    folder = destination.directory.parent
    return {f"{destination.handle}/{name}": (folder / name).read_bytes() for name in names}


def without_index(there):
    return {name: content for name, content in there.items() if not name.endswith("index.json")}


# --- what is there afterwards ---


def test_a_mirror_holds_the_model_and_an_index(destination, mirror):
    seen = []
    done = publish(destination, mirror, RULES, progress=lambda *both: seen.append(both))
    there = tree(mirror.root)
    assert without_index(there) == expected(destination)
    index = Index.read(mirror.root / HANDLE / "index.json")
    assert (index.handle, index.latest, list(index.versions)) == (HANDLE, 2, ["2"])
    assert {name: (one.sha256, one.size) for name, one in index.versions["2"].items()} == {
        name.split("/")[1]: (hashlib.sha256(content).hexdigest(), len(content))
        for name, content in expected(destination).items()
    }
    assert (done.verdict, done.sent) == ("published", sum(map(len, there.values())))
    assert seen[-1][0] == seen[-1][1] == sum(map(len, expected(destination).values()))
    assert verify(mirror.root / HANDLE / "2.tar.gz").not_checked == ()


def test_a_bucket_holds_the_same_index_last_and_says_so_before(destination, mirror, store, gs, monkeypatch):
    calls, run = [], gsutil.run
    monkeypatch.setattr(gsutil, "run", lambda words, *rest: calls.append(words) or run(words, *rest))
    publish(destination, mirror, RULES)
    with Bucket.opened(gs) as there:
        planned = publish(destination, there, RULES, dry_run=True)
        assert (objects(store, gs), store.received, planned.verdict, planned.sent) == ({}, 0, "to be published", 0)
        done = publish(destination, there, RULES)
    assert objects(store, gs) == tree(mirror.root)
    assert done.verdict == "published"
    assert done.sent == sum(map(len, objects(store, gs).values()))
    assert {item.address for item in done.items} == {f"{gs}/{name}" for name in tree(mirror.root)}
    assert [(item.address, item.size) for item in planned.items] == [(item.address, item.size) for item in done.items]
    assert {item.action for item in planned.items} == {"to be sent"}
    sent = [words for words in calls if "cp" in words]
    assert [words[words.index("cp") + 1] for words in sent] == ["2.tar.gz", "2.manifest.json", "index.json"]
    assert [calls.index(words) for words in sent][-1] == len(calls) - 2  # and read back
    assert calls[-3][:2] == calls[-1][:2] == ["ls", "-L"]
    assert "Content-Type:application/gzip" in sent[0]
    assert "Cache-Control:no-cache" in sent[-1]
    assert all("x-goog-if-generation-match:0" in words for words in sent)


def test_a_dry_run_says_what_would_go_where_and_sends_nothing(destination, mirror):
    planned = publish(destination, mirror, RULES, dry_run=True)
    assert (planned.verdict, planned.sent, mirror.root.exists()) == ("to be published", 0, False)
    assert {(item.address, item.size) for item in planned.items} == {
        (item.address, item.size) for item in publish(destination, mirror, RULES).items
    }


def test_a_second_time_nothing_is_sent_and_the_number_is_not_given_to_other_files(destination, mirror, store, gs):
    places = (mirror, Bucket(gs, destination.out))
    for place in places:
        publish(destination, place, RULES)
    before = tree(mirror.root), objects(store, gs), store.received
    # The report of another day and its provenance: what was published stays.
    write_report(destination, Manifest.read(destination.manifest), inputs_sha256="e" * 64)
    write_card(destination)
    package_model(destination, overwrite=True)
    other = packed(destination.out.with_name("other"), seed=1)
    for place in places:
        again = publish(destination, place, RULES)
        assert (again.verdict, again.sent) == ("published already", 0)
        assert {item.address.rpartition("/")[2]: item.action for item in again.items} == {
            **dict.fromkeys(("2.tar.gz", "2.manifest.json"), "there already"),
            **dict.fromkeys(("2.report.json", "2.provenance.json", "2.md"), "there, differs here"),
        }
        with pytest.raises(MixerError, match="version 2 is published already, with other files") as error:
            publish(other, place, RULES)
        assert f"\n  {WEIGHTS} has sha256 " in str(error.value)
        assert str(error.value).endswith("Convert with --version 3.")
    assert (tree(mirror.root), objects(store, gs), store.received) == before


def test_what_a_killed_publication_left_is_removed_even_if_nothing_is_sent(destination, mirror):
    publish(destination, mirror, RULES)
    before = tree(mirror.root)
    index = mirror.root / HANDLE / INDEX
    os.link(index, index.with_name(".index.json.partial-0123456789abcdef"))  # killed before it removed its first name
    assert publish(destination, mirror, RULES).verdict == "published already"
    assert tree(mirror.root) == before


def bytes_read():
    """Bytes that this process has read so far, by the system's account."""
    (count,) = re.findall(r"^rchar: (\d+)$", Path("/proc/self/io").read_text(), flags=re.M)
    return int(count)


def test_nothing_is_read_more_often_than_it_must_be(tmp_path, mirror):
    """A model once to be packed; its archive to be checked, to be sent, and back; a second time, here and there."""
    destination = write_model(tmp_path / "build", size=16 * MIB)
    write_card(destination)
    counts = [bytes_read()]
    package_model(destination)
    counts.append(bytes_read())
    for _ in range(2):
        before = bytes_read()
        publish(destination, mirror, RULES)
        counts.append(bytes_read() - before)
    assert [round(count / (16 * MIB)) for count in (counts[1] - counts[0], *counts[2:])] == [1, 3, 2]


def test_of_a_published_version_the_model_here_must_be_in_order_too(destination, mirror):
    publish(destination, mirror, RULES)
    destination.report.unlink()
    with pytest.raises(MixerError, match=r"may not be published:\n  there is no 2\.report\.json"):
        publish(destination, mirror, RULES)


def test_what_is_only_here_of_a_published_version_stays_here(destination, mirror):
    publish(destination, mirror, RULES)
    destination.signature.write_text("{}")
    again = publish(destination, mirror, RULES)
    assert (again.verdict, again.sent) == ("published already", 0)
    assert [item.action for item in again.items if item.action != "there already"] == ["not there"]


def test_further_versions_are_listed_beside_it(destination, mirror):
    publish(destination, mirror, RULES)
    for version in (3, 11):
        publish(packed(destination.out, version=version, seed=version), mirror, RULES)
    index = Index.read(mirror.root / HANDLE / "index.json")
    assert (list(index.versions), index.latest) == (["2", "3", "11"], 11)


def test_a_signature_goes_along(destination, mirror):
    destination.signature.write_text("{}")
    publish(destination, mirror, RULES)
    assert without_index(tree(mirror.root)) == expected(destination, (*NAMES, "2.provenance.json.sig"))


# --- never overwritten ---


def test_a_version_must_be_above_the_published_one(destination, mirror):
    publish(packed(destination.out, version=7), mirror, RULES)
    with pytest.raises(MixerError, match=r"version 2 is not above the published 7 \(.*index\.json\): .* --version 8"):
        publish(destination, mirror, RULES)


def test_what_an_unfinished_publication_left_is_kept_if_equal_and_else_in_the_way(destination, mirror, store, gs):
    place = Bucket(gs, destination.out)
    for one in (mirror, place):
        one.put([destination.archive, destination.manifest], HANDLE)
    store.received = 0
    other = packed(destination.out.with_name("other"), seed=1)
    for one in (mirror, place):
        with pytest.raises(MixerError, match="an unfinished publication of version 2 left other files") as error:
            publish(other, one, RULES)
        assert re.findall(r"\n  (\S+) has .*, but the model here lists", str(error.value)) == [
            "2.manifest.json",
            "2.tar.gz",
        ]
        assert "--version 3, or remove them there" in str(error.value)
        actions = {item.address.rpartition("/")[2]: item.action for item in publish(destination, one, RULES).items}
        assert actions == {
            "2.tar.gz": "there already",
            "2.manifest.json": "there already",
            "2.report.json": "sent",
            "2.provenance.json": "sent",
            "2.md": "sent",
            "index.json": "sent",
        }
    assert store.received < destination.archive.stat().st_size


def test_what_was_put_there_meanwhile_is_not_overwritten(destination, mirror, store, gs):
    manifest = destination.manifest
    for place in (mirror, Bucket(gs, destination.out)):
        place.put([manifest], HANDLE)
        with pytest.raises(MixerError, match="nothing was overwritten"):
            place.put([manifest], HANDLE)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_what_is_put_there_while_it_is_copied_is_not_overwritten(links, destination, mirror, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    path = mirror.root / HANDLE / "2.tar.gz"
    with pytest.raises(MixerError, match=r"2\.tar\.gz was created or changed in the meantime, and nothing was"):
        publish(destination, mirror, RULES, progress=lambda *_: path.write_bytes(b"another's"))
    assert tree(mirror.root) == {f"{HANDLE}/2.tar.gz": b"another's"}  # and nothing else is left
    path.unlink()
    publish(destination, mirror, RULES)
    assert without_index(tree(mirror.root)) == expected(destination)


def refuse_links(*_, **__):
    raise PermissionError(errno.EPERM, "Operation not permitted")


PUBLISHER = f"""
import sys
from pathlib import Path
from export.publish.store import Mirror
from export.publish.policy import PublishPolicy
from export.publish.publish import publish
from models.digests import Digest, DigestTable
from models.records.layout import ModelPaths
mirror = Mirror(Path(sys.argv[1]))
if len(sys.argv) == 2:
    with mirror.held({HANDLE!r}):
        print("held", flush=True)
        sys.stdin.read()
digests = DigestTable((Digest({CHECKPOINT.object!r}, "original", 12, "", "", {"a" * 64!r}),))
print(publish(ModelPaths.of(Path(sys.argv[2]), {HANDLE!r}, 2), mirror, PublishPolicy(digests)).verdict)
"""


def publisher(*arguments):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", PUBLISHER, *arguments], cwd=ROOT, text=True, **pipes)


def test_two_publishers_of_one_version_do_not_mix(destination, mirror):
    other = packed(destination.out.with_name("other"), seed=1)
    with mirror.held(HANDLE):
        process = publisher(mirror.root, other.out)
        assert "another process is publishing in" in process.stderr.readline()
        # Not before: the other has made sure of its own model, and waits to look at what is there.
        mirror.put([getattr(destination, name) for name in ("archive", "manifest")], HANDLE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "an unfinished publication of version 2 left other files" in errors
    publish(destination, mirror, RULES)
    assert without_index(tree(mirror.root)) == expected(destination)


def test_a_version_is_held_as_long_as_its_publisher_lives(destination, mirror):
    with publisher(mirror.root) as holder:
        assert holder.stdout.readline() == "held\n"
        with publisher(mirror.root, destination.out) as second:
            assert "another process is publishing in" in second.stderr.readline()
            holder.kill()
            said, errors = second.communicate(timeout=60)
    assert (second.returncode, said) == (0, "published\n"), errors
    assert without_index(tree(mirror.root)) == expected(destination)  # and no lock is left


def test_a_place_that_cannot_be_locked_is_told(destination, mirror, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("models.storage.temporary.fcntl.flock", refuse)
    with pytest.raises(MixerError, match=r"No locks available\. Expected a directory .* read, written and locked"):
        publish(destination, mirror, RULES)
    assert [path.name for path in mirror.root.rglob("*") if path.is_file()] == [".publishing.lock"]


@pytest.mark.whole
def test_every_request_that_writes_says_what_it_may_replace(_big, store, gs):
    big, rules = ModelPaths.of(_big, HANDLE, 2), PublishPolicy(DigestTable(()), origins=frozenset({"own"}))
    with Bucket.opened(gs) as there:
        publish(big, there, rules)
        index = there.files(HANDLE)["index.json"].generation
        publish(packed(_big, version=3, checkpoint={"origin": "own"}), there, rules)
    begun = [one for one in store.sent if "upload_id=" not in one]  # what goes on names the upload that was begun
    assert len(begun) == 2 * len(NAMES) + 2
    seen = [re.search(r"[?&]ifGenerationMatch=(\d+)", one)[1] for one in begun]
    assert seen == ["0"] * (2 * len(NAMES) + 1) + [index]
    assert len(store.sent) > len(begun)


def test_an_index_that_changed_meanwhile_is_not_overwritten(destination, mirror, store, gs, tmp_path):
    file = tmp_path / "index.json"
    for place, text in ((mirror, "changed in the"), (Bucket(gs, destination.out), "changed in the")):
        file.write_text("1")
        place.replace(file, HANDLE, None)
        with pytest.raises(MixerError, match=text):
            place.replace(file, HANDLE, None)
        seen = place.files(HANDLE)["index.json"].generation
        file.write_text("2")
        place.replace(file, HANDLE, seen)
        file.write_text("3")
        with pytest.raises(MixerError, match=text):
            place.replace(file, HANDLE, seen)
        assert place.cat(HANDLE, "index.json") == b"2"


# --- what the place holds is read back ---


def test_what_arrived_otherwise_is_not_listed(destination, mirror, monkeypatch):
    put = Mirror.put

    def spoil(self, files, folder, progress=None):
        put(self, files, folder, progress)
        (self.root / folder / "2.tar.gz").write_bytes(b"spoilt")
        (self.root / folder / "2.report.json").unlink()

    monkeypatch.setattr(Mirror, "put", spoil)
    with pytest.raises(MixerError, match=r"differ from those sent, so index\.json was not written") as error:
        publish(destination, mirror, RULES)
    assert "2.tar.gz has 6 bytes, but the model here lists " in str(error.value)
    assert "2.report.json is missing" in str(error.value)
    assert not (mirror.root / HANDLE / "index.json").exists()


def test_an_object_without_md5_is_not_listed(destination, store, gs):
    store.faults.no_md5 = True
    with pytest.raises(MixerError, match="cannot be compared: no kind of digest is both"):
        publish(destination, Bucket(gs, destination.out), RULES)
    assert f"{HANDLE}/index.json" not in objects(store, gs)


DAMAGE = {
    "2.tar.gz": r"2\.tar\.gz has (sha256|md5) \S+, but index\.json lists \S+",
    "2.manifest.json": r"2\.manifest\.json has (sha256|md5) \S+, but index\.json lists \S+",
    "2.report.json": r"2\.report\.json has (sha256|md5) \S+, but index\.json lists \S+",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "2.tar.gz" else [pytest.mark.whole]) for name in DAMAGE]
)
def test_a_published_file_of_other_bytes_is_told_by_the_next_publication(name, destination, mirror, store, gs):
    place = Bucket(gs, destination.out)
    for one in (mirror, place):
        publish(destination, one, RULES)
    path = mirror.root / HANDLE / name
    other = path.read_bytes()[:-1] + b"x"  # of the same size
    path.write_bytes(other)
    store.put(gs.split("/")[2], f"models/{HANDLE}/{name}", other)
    store.received = 0
    for one in (mirror, place):
        with pytest.raises(MixerError, match=rf"the published version 2 differs from .*:\n  {DAMAGE[name]}\nRepair it"):
            publish(destination, one, RULES)
    assert (path.read_bytes(), store.received) == (other, 0)


@pytest.mark.whole
def test_a_file_of_other_bytes_is_told_though_the_one_here_is_another(destination, store, gs):
    """The index has the MD5, so that it need not be found out from the file here."""
    place = Bucket(gs, destination.out)
    publish(destination, place, RULES)
    content = objects(store, gs)[f"{HANDLE}/2.report.json"]
    store.put(gs.split("/")[2], f"models/{HANDLE}/2.report.json", content[:-1] + b"x")
    write_report(destination, Manifest.read(destination.manifest), inputs_sha256="e" * 64)
    write_card(destination)
    package_model(destination, overwrite=True)
    with pytest.raises(MixerError, match=r"2\.report\.json has md5 \S+, but index\.json lists \S+\nRepair it"):
        publish(destination, place, RULES)


@pytest.mark.whole
def test_an_index_without_md5_is_compared_by_the_files_here(destination, store, gs):
    place = Bucket(gs, destination.out)
    publish(destination, place, RULES)
    index = json.loads(objects(store, gs)[f"{HANDLE}/index.json"])
    for one in index["versions"]["2"].values():
        del one["md5"]
    store.put(gs.split("/")[2], f"models/{HANDLE}/index.json", json.dumps(index).encode())
    assert publish(destination, place, RULES).verdict == "published already"
    content = objects(store, gs)[f"{HANDLE}/2.tar.gz"]
    store.put(gs.split("/")[2], f"models/{HANDLE}/2.tar.gz", content[:-1] + b"x")
    with pytest.raises(MixerError, match=r"2\.tar\.gz has md5 "):
        publish(destination, place, RULES)


def test_everything_that_is_wrong_with_a_place_is_told_at_once(destination, mirror):
    publish(destination, mirror, RULES)
    folder = mirror.root / HANDLE
    index = json.loads((folder / "index.json").read_text())
    index["versions"]["2"]["2.provenance.json"]["size"] += 1
    del index["versions"]["2"]["2.tar.gz"]
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "2.report.json").unlink()
    (folder / "2.provenance.json.sig").write_text("{}")
    with pytest.raises(MixerError, match="the published version 2 differs from") as error:
        publish(destination, mirror, RULES)
    assert [line.split(" ")[2] for line in str(error.value).splitlines()[1:-1]] == [
        "2.provenance.json",
        "2.provenance.json.sig",
        "2.report.json",
        "2.tar.gz",
    ]


def test_an_index_of_another_handle_or_none_is_told(destination, mirror):
    publish(destination, mirror, RULES)
    change(mirror.root / HANDLE / "index.json", handle="other")
    with pytest.raises(MixerError, match=rf"index\.json lists versions of other, expected {HANDLE}: check the"):
        publish(destination, mirror, RULES)
    (mirror.root / HANDLE / "index.json").write_text("{")
    with pytest.raises(MixerError, match=r"index\.json is not a readable index of schema 1"):
        publish(destination, mirror, RULES)


# --- what may not leave ---


def refused(destination, mirror, rules=RULES):
    with pytest.raises(MixerError, match="version 2 may not be published:") as error:
        publish(destination, mirror, rules)
    assert not mirror.root.exists()
    return str(error.value).splitlines()[1:]


def test_without_a_report_nothing_leaves(destination, mirror):
    destination.report.unlink()
    assert refused(destination, mirror) == [
        f"  there is no 2.report.json: `mixer-jax2tf validate {HANDLE}` writes it",
        "  2.report.json is missing, but 2.provenance.json lists it",
    ]


def test_without_an_archive_nothing_leaves(destination, mirror):
    destination.archive.unlink()
    destination.provenance.unlink()
    assert refused(destination, mirror) == [
        f"  there is no 2.tar.gz: `mixer-jax2tf package {HANDLE}` writes it",
        f"  there is no 2.provenance.json: `mixer-jax2tf package {HANDLE}` writes it",
    ]


def test_without_a_model_nothing_leaves(tmp_path, mirror):
    with pytest.raises(MixerError, match=r"2\.manifest\.json is missing: there is no converted model"):
        publish(ModelPaths.of(tmp_path, HANDLE, 2), mirror, RULES)


def test_a_model_that_failed_does_not_leave(destination, mirror):
    write_report(destination, Manifest.read(destination.manifest), problems=("outputs differ",))
    told = refused(destination, mirror)
    assert "  2.report.json says that the model failed: outputs differ" in told


def test_a_report_whose_figures_speak_against_it_does_not_leave(destination, mirror):
    write_report(destination, Manifest.read(destination.manifest), checks=forged())
    told = refused(destination, mirror)
    assert any("contradicts itself: max_relative" in one and "measured 9.9, over its limit" in one for one in told)


def test_a_graph_that_was_not_compared_with_a_fresh_trace_does_not_leave(destination, mirror):
    found = tuple(one for one in checks() if one.name != GRAPH)
    write_report(destination, Manifest.read(destination.manifest), checks=found)
    told = refused(destination, mirror)
    assert any("its saved_model.pb was not compared with a fresh trace" in one for one in told)


def test_limits_of_before_do_not_leave(destination, mirror):
    wide = TOLERANCES["max_relative"].model_copy(update={"limit": 1.0})
    found = [one.model_copy(update={"limit": 1.0}) if one.name == "max_relative" else one for one in checks()]
    tolerances = TOLERANCES | {"max_relative": wide}
    write_report(destination, Manifest.read(destination.manifest), checks=tuple(found), tolerances=tolerances)
    told = refused(destination, mirror)
    assert any("other limits than today's: its limit of max_relative is 1, today's is 5e-05" in one for one in told)


@pytest.mark.parametrize(("handle", "leaves"), [("mixer_b32_sam_classification", False), ("my_mixer", True)])
def test_a_head_of_zeros_leaves_under_a_name_of_ones_own_alone(handle, leaves, tmp_path, mirror):
    origin = "own" if leaves else "original"
    destination = write_model(
        tmp_path / "out", handle=handle, report={"zero_head": True}, checkpoint={"origin": origin}
    )
    package_model(destination)
    with pytest.raises(MixerError) as error:
        publish(destination, mirror, RULES)
    assert ("head/kernel is all zeros" in str(error.value)) is not leaves


@pytest.mark.parametrize("name", ["manifest", "report", "provenance", "archive"])
def test_records_of_other_bytes_do_not_leave(name, destination, mirror):
    path = getattr(destination, name)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"native"', b'"graph"') if name != "archive" else content[:-1])
    assert any(f"2.{'tar.gz' if name == 'archive' else name}" in line for line in refused(destination, mirror))


@pytest.mark.parametrize("origin", ["seeded", "unknown", "own"])
@pytest.mark.parametrize("suffix", ["", "-graph"])
def test_what_is_no_original_does_not_leave_under_a_handle_of_the_catalog(origin, suffix, tmp_path, mirror):
    other = packed(tmp_path, handle=HANDLE + suffix, checkpoint={"origin": origin})
    (line,) = refused(other, mirror)
    assert line == (
        f"  its checkpoint is of origin {origin}, but under a handle of the catalog only original is published"
    )
    assert publish(other, mirror, PublishPolicy(RULES.digests, origins=frozenset({origin}))).verdict == "published"


def test_what_only_calls_itself_original_does_not_leave(destination, mirror):
    (line,) = refused(destination, mirror, PublishPolicy(DigestTable(())))
    assert "calls the checkpoint original, but models/digests.json has no original" in line
    seeded = Digest(CHECKPOINT.object, "seeded", 12, "", "", "a" * 64)
    refused(destination, mirror, PublishPolicy(DigestTable((seeded,))))


def test_ones_own_leaves_under_its_own_name_only(tmp_path, mirror):
    own = packed(tmp_path, handle="my_mixer", checkpoint={"origin": "own"})
    assert publish(own, mirror, RULES).verdict == "published"
    seeded = packed(tmp_path, handle="your_mixer", checkpoint={"origin": "seeded"})
    with pytest.raises(MixerError, match="of origin seeded, but under a custom name only own is published"):
        publish(seeded, mirror, RULES)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"git_commit": None, "git_dirty": None}, "it was made from sources of no known git commit"),
        ({"git_dirty": True}, f"it was made from sources that differ from commit {'c' * 40}"),
        ({"git_dirty": None}, "it was made from sources that differ from commit"),
    ],
)
def test_what_no_commit_names_does_not_leave_unless_told(state, text, tmp_path, mirror):
    other = packed(tmp_path, **state)
    (line,) = refused(other, mirror)
    assert text in line
    assert "--allow-dirty" in line
    assert publish(other, mirror, PublishPolicy(RULES.digests, allow_dirty=True)).verdict == "published"


def test_everything_in_the_way_is_told_at_once(tmp_path, mirror):
    other = packed(tmp_path, checkpoint={"origin": "seeded"}, git_commit=None)
    other.report.unlink()
    other.archive.unlink()
    other.card.unlink()
    (other.directory / WEIGHTS).write_bytes(b"")
    assert len(refused(other, mirror)) == 8


def test_without_a_card_nothing_leaves(destination, mirror):
    destination.card.unlink()
    missing = f"  there is no 2.md: `mixer-jax2tf card {HANDLE} --publisher P --assets URL` writes it"
    bound = "  2.md is missing, but 2.provenance.json binds it: write it again"
    assert refused(destination, mirror) == [bound, missing]
    package_model(destination, overwrite=True)
    assert refused(destination, mirror) == [missing]
    assert publish(destination, mirror, PublishPolicy(RULES.digests, needs_card=False)).verdict == "published"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# Module", "# Modul", "2.md breaks a rule of TensorFlow Hub's pages: line 1 is '# Modul somebody/"),
        (
            "<!-- task: image-classification -->\n",
            "",
            "2.md breaks a rule of TensorFlow Hub's pages: a page of a Module",
        ),
        ("<!-- task: image", "<!-- task: video", "task is video-classification, expected one of: image-classification"),
        ("<!-- fine-tunable: true", "<!-- fine-tunable: false", "(line 7 is '<!-- fine-tunable: false -->', expected"),
        ("1.0e-06", "9.9e-06", "is not the card of this manifest and report (line "),
        (f"{HANDLE}/2.tar.gz -->", "other/2.tar.gz -->", "its asset-path is not <assets>/<handle>/<version>.tar.gz"),
    ],
)
@pytest.mark.parametrize("needed", [True, False], ids=["needed", "free"])
def test_a_card_of_other_bytes_does_not_leave(old, new, said, needed, destination, mirror):
    card = destination.card
    text = card.read_text()
    card.write_text(text.replace(old, new))
    assert card.read_text() != text
    rules = PublishPolicy(RULES.digests, needs_card=needed)
    assert refused(destination, mirror, rules)[0].startswith("  2.md has sha256 ")  # not what the provenance binds
    package_model(destination, overwrite=True)
    (line,) = refused(destination, mirror, rules)
    assert said in line


def test_a_card_that_is_newer_than_the_provenance_does_not_leave(tmp_path, mirror):
    destination = write_model(tmp_path / "build")
    package_model(destination)
    write_card(destination)
    (line,) = refused(destination, mirror)
    assert "2.md is not bound by 2.provenance.json, which is older: `mixer-jax2tf package" in line
    package_model(destination, overwrite=True)
    assert publish(destination, mirror, RULES).verdict == "published"


def test_a_card_that_is_no_text_does_not_leave(destination, mirror):
    destination.card.write_bytes(b"\xff\xfe")
    package_model(destination, overwrite=True)
    (line,) = refused(destination, mirror)
    assert "2.md cannot be read ('utf-8' codec" in line


def test_the_card_of_another_report_does_not_leave(destination, mirror):
    write_report(destination, Manifest.read(destination.manifest), inputs_sha256="e" * 64)
    package_model(destination, overwrite=True)
    (line,) = refused(destination, mirror)
    assert "2.md is not the card of this manifest and report" in line
    assert f"`mixer-jax2tf card {HANDLE} --publisher P --assets URL` writes it again" in line


def test_a_card_without_gradients_cannot_be_compared(destination, mirror):
    write_report(destination, Manifest.read(destination.manifest), inputs_set="gate", fine_tunable=None)
    package_model(destination, overwrite=True)
    with pytest.raises(MixerError, match=r"tried no gradients, .*validate .* --set full` does"):
        publish(destination, mirror, RULES)


def test_a_card_is_compared_where_only_the_archive_is_left(destination, mirror):
    shutil.rmtree(destination.directory)
    assert publish(destination, mirror, RULES).verdict == "published"


def test_a_model_under_a_foreign_name_does_not_leave(destination, mirror):
    moved = ModelPaths.of(destination.out, "mixer_sq8_seeded_fe", 2)
    destination.directory.parent.rename(moved.directory.parent)
    assert refused(moved, mirror) == [f"  its path says handle 'mixer_sq8_seeded_fe', 2.manifest.json '{HANDLE}'"]


# --- uploads that do not end well ---

PROGRAM = f"""
import sys
from pathlib import Path
from export.publish.bucket import Bucket
from export.publish.policy import PublishPolicy
from models.records.layout import ModelPaths
from export.publish.publish import publish
from models.digests import DigestTable
with Bucket.opened(sys.argv[2]) as there:
    made = ModelPaths.of(Path(sys.argv[1]), {HANDLE!r}, 2)
    publish(made, there, PublishPolicy(DigestTable(()), origins=frozenset({{"own"}})))
"""


@pytest.fixture(scope="module")
def _big(tmp_path_factory):
    out = tmp_path_factory.mktemp("big")
    packed(out, size=12 * MIB, checkpoint={"origin": "own"})  # gsutil sends in pieces what is larger than 8 MiB
    return out


def started(out, gs):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, out, gs], cwd=ROOT, stderr=subprocess.PIPE)


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill(process, how):
    """End a publication: as a user or a system would, gsutil alone, or everything at once."""
    gsutils = children(process.pid)
    if how == "everything":
        process.kill()
    if how in {"gsutil", "everything"}:
        for pid in gsutils:
            os.killpg(pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)


def refuse_half(store, gs, whole):
    """Make sure that every object is whole, and that the index stands only beside all of them."""
    there = objects(store, gs)
    for name, content in without_index(there).items():
        assert content == whole[name], name
    if len(there) != len(without_index(there)):
        assert without_index(there) == whole


WAYS_TO_END = ("user", "gsutil", "everything")


def finish(store, gs, destination, whole):
    """Publish what an interrupted publication left undone, and nothing else of it."""
    left, seen = without_index(objects(store, gs)), []
    store.reset()
    rules = PublishPolicy(DigestTable(()), origins=frozenset({"own"}))
    with Bucket.opened(gs) as there:
        done = publish(destination, there, rules, progress=lambda *both: seen.append(both))
    assert without_index(objects(store, gs)) == whole
    assert Index.parse(objects(store, gs)[f"{HANDLE}/index.json"], "there").latest == 2
    again = {item.address.removeprefix(f"{gs}/") for item in done.items if item.action == "there already"}
    assert again == set(left)
    missing = sum(len(content) for name, content in whole.items() if name not in left)
    assert {total for _, total in seen} <= {missing}
    assert all(0 <= so_far <= total for so_far, total in seen)


@pytest.mark.whole
def test_an_upload_killed_at_random_moments_is_finished_by_the_next(_big, store, gs):
    times = 20
    chance = random.Random(times)  # noqa: S311
    destination, place, killed = ModelPaths.of(_big, HANDLE, 2), gs, 0
    whole = expected(destination)
    ways = [WAYS_TO_END[turn % 3] for turn in range(times)]
    for turn, how in enumerate(chance.sample(ways, times)):
        if f"{HANDLE}/2.tar.gz" in objects(store, place):  # little is left to interrupt
            finish(store, place, destination, whole)
            name = f"{gs.split('/')[2]}-{turn}"
            store.make_bucket(name)
            place = f"gs://{name}/models"
        missing = sum(len(content) for name, content in whole.items() if name not in objects(store, place))
        store.reset()
        store.faults.hold_upload_after = chance.randrange(missing)
        with started(_big, place) as process:
            while store.received < store.faults.hold_upload_after and process.poll() is None:
                time.sleep(0.01)
            if process.poll() is None:  # else the store took what an earlier one had sent, and little was left
                kill(process, how)
                killed += 1
            process.wait()
            store.settle()
        refuse_half(store, place, whole)
    assert killed > 0.8 * times - 1
    finish(store, place, destination, whole)


@pytest.mark.whole
def test_an_upload_that_does_not_move_is_ended(_big, store, gs, monkeypatch):
    store.faults.hold_upload_after = 4 * MIB
    archive, seen = ModelPaths.of(_big, HANDLE, 2).archive, []

    def look(*both):
        seen.append(both)
        if store.received >= 4 * MIB:  # not before: gsutil takes its time to start
            monkeypatch.setattr(gsutil, "PATIENCE", 2)

    with (
        Bucket.opened(gs) as there,
        pytest.raises(StoreUnreachableError, match=f"{HANDLE}/: no data was transferred for 2"),
    ):
        there.put([archive], HANDLE, look)
    assert 0 < seen[-1][0] <= seen[-1][1] == archive.stat().st_size


@pytest.mark.whole
def test_an_index_that_does_not_move_is_ended(destination, store, gs, monkeypatch):
    store.faults.hold_upload_after = 1
    monkeypatch.setattr(gsutil, "PATIENCE", 2)
    with Bucket.opened(gs) as there, pytest.raises(StoreUnreachableError, match="no data was transferred for 2"):
        there.replace(destination.manifest, HANDLE, None)


def test_a_portal_where_files_are_sent_is_named(destination, store, gs):
    store.faults.page, store.faults.page_for = b"<html>Sign in</html>", ("sent",)
    with Bucket.opened(gs) as there, pytest.raises(StoreUnreachableError, match="a web page arrived instead of the"):
        there.put([destination.manifest], HANDLE)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "access was denied. .* BOTO_CONFIG"),
        (503, "the store cannot be reached"),
        (404, "no such bucket"),
        (
            412,
            "it exists already, or changed in the meantime, and nothing was overwritten: .* Run the same command again",
        ),
    ],
)
def test_a_store_that_refuses_is_told(status, text, destination, store, gs):
    store.faults.upload_status = status
    with pytest.raises(MixerError, match=text) as error:
        publish(destination, Bucket(gs, destination.out), RULES)
    assert "gsutil: " in str(error.value)
    assert objects(store, gs) == {}


def test_a_store_that_may_not_be_read_is_told(destination, store, gs):
    store.faults.status = 401
    with pytest.raises(MixerError, match="access was denied"):
        publish(destination, Bucket(gs, destination.out), RULES)


def test_a_bucket_that_does_not_exist_is_told(destination, store):
    with pytest.raises(MixerError, match=r"gs://nowhere-at-all/.*no such bucket or object\. .* check --to"):
        publish(destination, Bucket("gs://nowhere-at-all", destination.out), RULES)


def test_a_mirror_that_cannot_be_written_is_told(destination, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MixerError, match=r"Not a directory\. Expected a directory .*: free .*, or give another --to"):
        publish(destination, Mirror(tmp_path / "file"), RULES)


def test_a_full_disk_for_gsutils_files_is_told(monkeypatch, tmp_path):
    full = GsutilResult(1, "", "OSError: [Errno 28] No space left on device")
    monkeypatch.setattr("models.storage.gsutil.run", lambda *_: full)
    with pytest.raises(MixerError, match=r"gs://x/models/.* temporary files, .* that TMPDIR names\. Free some space"):
        Bucket("gs://x/models", tmp_path).files(HANDLE)


def test_a_temporary_folder_that_is_deleted_under_gsutil_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    result = GsutilResult(1, "", f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}/gone/gsutil-x'")
    monkeypatch.setattr("models.storage.gsutil.run", lambda *_: result)
    with pytest.raises(MixerError, match=r"gs://x/models/.*the temporary folder .*gone was deleted .*: run the same"):
        Bucket("gs://x/models", tmp_path).files(HANDLE)


def test_a_bucket_is_empty_though_gsutil_warns_that_its_temporary_folder_has_a_long_name(monkeypatch, tmp_path):
    warned = "Traceback (most recent call last):\n  File ...\nOSError: AF_UNIX path too long\n"
    said = [f"{warned}CommandException: One or more URLs matched no objects.\n", warned]
    monkeypatch.setattr("models.storage.gsutil.run", lambda *_: GsutilResult(1, "", said.pop(0)))
    assert Bucket("gs://x/models", tmp_path).files(HANDLE) == {}
    with pytest.raises(MixerError, match="gsutil failed with status 1"):
        Bucket("gs://x/models", tmp_path).files(HANDLE)


def test_secrets_are_neither_told_nor_stored(destination, store, gs, monkeypatch, tmp_path, capfd):
    boto = tmp_path / "secret.boto"
    boto.write_text(store.boto.read_text().replace("[Boto]", "gs_oauth2_refresh_token = very-secret\n[Boto]"))
    monkeypatch.setenv("BOTO_CONFIG", str(boto))
    state = tmp_path / "state"
    state.mkdir()
    with pytest.raises(MixerError, match="gsutil: ") as error:  # the token opens nothing here
        publish(destination, Bucket(gs, state), RULES)
    assert "very-secret" not in str(error.value)
    assert "very-secret" not in "".join(capfd.readouterr())
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"very-secret" in path.read_bytes()]
    assert kept == [boto]


# --- where to ---


@pytest.mark.parametrize(
    ("text", "place"), [("gs://bucket/", "gs://bucket"), ("gs://bucket/a/b", "gs://bucket/a/b"), ("mirror", None)]
)
def test_a_destination_is_a_bucket_or_a_directory(text, place):
    with opened_store(text, Path("out")) as store:
        assert store.address("a", "b") == f"{place or Path('mirror').absolute()}/a/b"


def test_a_directory_that_is_only_read_must_exist(tmp_path):
    expected = "nope does not exist: expected a directory in which models are published"
    with pytest.raises(UsageError, match=expected), opened_store(str(tmp_path / "nope")):
        pytest.fail("opened")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket", "s3 is not supported"),
        ("gs://", "does not name a bucket"),
        ("gs://user:secret@bucket", "does not name a bucket"),
        ("", "is not a directory"),
        (__file__, "is not a directory"),
    ],
)
def test_what_is_no_destination_is_refused(text, said):
    expected = rf"{said}.*: expected gs://bucket, gs://bucket/prefix, or a directory|{said}"
    with pytest.raises(UsageError, match=expected), opened_store(text):
        pass


# --- the command ---


@pytest.fixture
def allowed(monkeypatch, tmp_path):
    """What the command takes for original."""
    monkeypatch.setattr(DigestTable, "read", classmethod(lambda _: RULES.digests))


@pytest.mark.usefixtures("allowed")
def test_the_command_publishes_to_a_bucket(destination, store, gs, capfd):
    code, out, err = run(capfd, "publish", HANDLE, "--out", destination.out, "--to", gs, "--json")
    assert code == 0, err
    (done,) = json.loads(out)
    assert done["verdict"] == "published"
    assert done["sent"] == sum(map(len, objects(store, gs).values()))
    assert without_index(objects(store, gs)) == expected(destination)


@pytest.mark.usefixtures("allowed")
def test_the_command_publishes_what_it_can_and_tells_the_rest(destination, tmp_path, capfd):
    mirror = tmp_path / "mirror"
    command = ("publish", HANDLE, "--flavour", "both", "--out", destination.out, "--to", mirror)
    code, out, err = run(capfd, *command, "--dry-run")
    assert (code, mirror.exists()) == (1, False)
    assert out.count("to be sent") == 6
    code, out, err = run(capfd, *command)
    assert code == 1
    assert f"1 of 2 handles failed.\n{HANDLE}-graph: " in err
    assert "MB were sent." in err
    assert without_index(tree(mirror)) == expected(destination)


@pytest.mark.usefixtures("allowed")
def test_the_command_waits_for_a_process_that_is_writing_the_model(destination, tmp_path, caplog):
    command, mirror, ended = ("publish", HANDLE, "--out", destination.out, "--to"), tmp_path / "mirror", []
    thread = threading.Thread(target=lambda: ended.append(status_of(*command, mirror)))
    with held(destination):
        destination.report.rename(tmp_path / "aside")  # as while another version is put in its place
        thread.start()
        while thread.is_alive() and "another process is using" not in caplog.text:
            time.sleep(0.01)
        (tmp_path / "aside").rename(destination.report)
    thread.join()
    assert ended == [0]
    assert without_index(tree(mirror)) == expected(destination)


def test_no_flag_lets_out_what_is_no_original(tmp_path, capfd):
    other = packed(tmp_path / "build", checkpoint={"origin": "seeded"})
    command = ("publish", HANDLE, "--out", other.out, "--to", tmp_path / "mirror", "--allow-dirty")
    code, _, err = run(capfd, *command)
    assert (code, "of origin seeded" in err) == (1, True)
    assert {"original"} == ORIGINS


def test_the_command_refuses_to_publish_where_models_are_made(destination, capfd):
    code, _, err = run(capfd, "publish", HANDLE, "--out", destination.out, "--to", f"{destination.out}/../build")
    assert (code, "is the output directory" in err) == (2, True)
    code, _, err = run(capfd, "publish", HANDLE, "--out", destination.out)
    assert (code, "--to" in err) == (2, True)


@pytest.mark.parametrize("url", ["/home/somebody/x.npz", "file:/home/somebody/x.npz", "C:\\somebody\\x.npz"])
def test_a_manifest_with_a_path_of_somebodys_disk_is_refused(tmp_path, mirror, url):
    destination = packed(tmp_path, checkpoint={"url": url})
    with pytest.raises(MixerError, match="contains the local path of the checkpoint"):
        publish(destination, mirror, RULES)
    assert publish(packed(tmp_path, version=3, checkpoint={"url": "file:x.npz"}), mirror, RULES).verdict == "published"
