import base64
import hashlib
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from convert.checkpoints import cache as cache_module
from convert.checkpoints.cache import Slot
from convert.checkpoints.fetch import Source, record
from models.catalog import BUCKET, CHECKPOINTS, HANDLES
from models.digests import Digest, DigestTable
from models.errors import MixerError, UsageError
from models.storage import gsutil
from models.storage.gsutil_errors import StoreUnreachableError, _last_lines

CHECKPOINT = CHECKPOINTS["mixer"]["b16_sam"]
NAME = CHECKPOINT.object
NOTHING = DigestTable(())
SMALL = random.Random(0).randbytes(100_000)  # noqa: S311
BIG = random.Random(1).randbytes(12 << 20)  # noqa: S311 (gsutil resumes what is larger than 8 MiB)
MIB = 1 << 20


def put(store, content=SMALL, bucket="mixer_models", name=NAME):
    store.put(bucket, name, content)
    return content


def fetch(checkpoint, *, source=BUCKET, cache=None, digests, progress=None):
    return Source(source, cache, digests).fetch(checkpoint, progress=progress)


def entry_of(content, **changes):
    fields = {
        "object": NAME,
        "origin": "original",
        "size": len(content),
        "md5": base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
        "crc32c": crc32c(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Digest(**(fields | changes))


def crc32c(content):
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return base64.b64encode((crc ^ 0xFFFFFFFF).to_bytes(4, "big")).decode()


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def leftovers(folder):
    """What lies in the cache, locks and gsutil's notes aside."""
    return [name for name in files(folder) if not name.endswith(".lock") and "/.gsutil/" not in name]


def interrupt_at(size, error=KeyboardInterrupt):
    def progress(done, _):
        if done >= size:
            raise error

    return progress


def gsutil_processes(mark):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"gsutil" in command and os.fsencode(mark) in command:
            found.append(int(folder.name))
    return found


@pytest.fixture
def store(prepared_store):
    """A real object store, where gsutil starts with its libraries imported, unless a test takes `started`."""
    return prepared_store


@pytest.fixture
def started(store, monkeypatch):
    """Start gsutil as the program does: a test ends it, or looks for its process."""
    monkeypatch.setattr(gsutil, "subprocess", subprocess)


@pytest.fixture(scope="module")
def once():
    return {}


@pytest.fixture
def filled(store, tmp_path, tmp_path_factory, once):
    """A cache into which SMALL was fetched before, from a store that has it."""
    put(store)
    if not once:
        once["cache"] = tmp_path_factory.mktemp("filled")
        fetch(CHECKPOINT, cache=once["cache"], digests=NOTHING)
    store.reset()
    return shutil.copytree(once["cache"], tmp_path / "filled")


@pytest.fixture
def no_store(store, monkeypatch, tmp_path):
    """The configuration of a store where nobody listens."""

    def leave():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        boto = tmp_path / "nobody.boto"
        boto.write_text(f"[Credentials]\ngs_json_host = 127.0.0.1\ngs_json_port = {port}\n[Boto]\nnum_retries = 0\n")
        monkeypatch.setenv("BOTO_CONFIG", str(boto))

    return leave


# What comes, and where it lies


def test_cache_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MIXER_JAX2TF_CACHE", str(tmp_path))
    assert Slot.of("gs://a/b", None).cache == tmp_path
    monkeypatch.delenv("MIXER_JAX2TF_CACHE")
    assert Slot.of("gs://a/b", None).cache.name == "mixer-jax2tf"


def test_fetches_from_the_public_bucket_into_the_default_cache(store, tmp_path, monkeypatch):
    content, seen = put(store), []
    monkeypatch.setenv("MIXER_JAX2TF_CACHE", str(tmp_path))
    fetched = fetch(CHECKPOINT, digests=NOTHING, progress=lambda *both: seen.append(both))
    assert fetched.path == tmp_path / "mixer_models" / NAME
    assert fetched.path.read_bytes() == content
    assert (fetched.object, fetched.url) == (NAME, CHECKPOINT.url)
    assert (fetched.size, fetched.transferred) == (len(content), len(content))
    assert seen == sorted(seen)
    assert seen[-1] == (len(content), len(content))
    assert leftovers(tmp_path) == [f"mixer_models/{NAME}", f"mixer_models/{NAME}.json"]


def test_second_run_and_second_handle_transfer_nothing(store, tmp_path, monkeypatch):
    content = put(store)
    names = ("mixer_b16_sam_classification", "mixer_b16_sam_fe")
    first, second = (fetch(HANDLES[name].checkpoint, cache=tmp_path, digests=NOTHING) for name in names)
    assert (first.transferred, second.transferred) == (len(content), 0)
    assert store.served == len(content)
    monkeypatch.setattr(cache_module.Hashes, "of", lambda _: pytest.fail("hashed again"))
    assert fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING).path == first.path


def test_two_at_once_share_one_download(store, tmp_path):
    content, got = put(store, BIG), []
    threads = [
        threading.Thread(target=lambda: got.append(fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING).transferred))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [0, len(content)]
    assert store.served == len(content)


def test_changed_object_is_downloaded_anew(store, filled):
    changed = put(store, SMALL[::-1])
    fetched = fetch(CHECKPOINT, cache=filled, digests=NOTHING)
    assert fetched.transferred == len(changed)
    assert fetched.path.read_bytes() == changed


def test_damaged_file_of_the_cache_is_downloaded_anew(filled):
    path = filled / "mixer_models" / NAME
    path.write_bytes(SMALL[::-1])
    os.utime(path, ns=(0, 0))
    fetched = fetch(CHECKPOINT, cache=filled, digests=NOTHING)
    assert fetched.path.read_bytes() == SMALL
    assert fetched.transferred == len(SMALL)


def test_file_put_there_by_hand_is_hashed_and_used(store, tmp_path):
    content = put(store)
    path = tmp_path / "mixer_models" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING).transferred == 0
    assert store.served == 0


def test_whole_file_that_was_not_moved_yet_is_used(store, tmp_path):
    content = put(store)
    path = tmp_path / ".partial/mixer_models" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    fetched = fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert (fetched.transferred, store.served) == (0, 0)
    assert fetched.path.read_bytes() == content


def test_another_bucket_and_a_folder_in_it(store, tmp_path):
    content = put(store, bucket="other", name=f"some/folder/{NAME}")
    wrong = DigestTable((entry_of(b"something else"),))
    fetched = fetch(CHECKPOINT, source="gs://other/some/folder/", cache=tmp_path / "[a*]", digests=wrong)
    assert fetched.path == tmp_path / "[a*]/other/some/folder" / NAME
    assert fetched.url == f"gs://other/some/folder/{NAME}"
    assert fetched.object == NAME
    assert fetched.path.read_bytes() == content


def test_object_without_md5_is_checked_by_its_crc32c(store, tmp_path):
    content = put(store)
    store.faults.no_md5 = True
    transferred = [fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING).transferred for _ in range(2)]
    assert transferred == [len(content), 0]
    store.faults.flip = 0
    with pytest.raises(MixerError, match="does not match the store's hash"):
        fetch(CHECKPOINT, cache=tmp_path / "other", digests=NOTHING)


# Interruptions


def test_interrupted_download_goes_on_where_it_stopped(store, tmp_path, started):
    content = put(store, BIG)
    store.faults.hold_after = 5 * MIB
    with pytest.raises(KeyboardInterrupt):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING, progress=interrupt_at(4 * MIB))
    assert gsutil_processes(tmp_path) == []
    assert leftovers(tmp_path) == [f".partial/mixer_models/{NAME}_.gstmp"]
    kept = (tmp_path / f".partial/mixer_models/{NAME}_.gstmp").stat().st_size
    assert 4 * MIB <= kept <= 5 * MIB
    store.reset()
    fetched = fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert store.ranges == [f"bytes={kept}-{len(content) - 1}"]
    assert fetched.transferred == store.served == len(content) - kept
    assert fetched.path.read_bytes() == content


@pytest.mark.whole
def test_partial_of_an_object_that_changed_is_not_used(store, tmp_path, started):
    put(store, BIG)
    store.faults.hold_after = 5 * MIB
    with pytest.raises(KeyboardInterrupt):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING, progress=interrupt_at(4 * MIB))
    store.reset()
    changed = put(store, BIG[::-1])
    fetched = fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert fetched.transferred == store.served == len(changed)
    assert fetched.path.read_bytes() == changed


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.whole)])
def test_gsutil_ends_with_the_process_that_started_it(number, store, tmp_path, started):
    put(store, BIG)
    store.faults.hold_after = 5 * MIB
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from convert.checkpoints.fetch import Source
        from models.catalog import BUCKET, CHECKPOINTS
        from models.digests import DigestTable

        def progress(done, _):
            if done >= 4 << 20:
                print("moving", flush=True)

        Source(BUCKET, Path(sys.argv[1]), DigestTable(())).fetch(CHECKPOINTS["mixer"]["b16_sam"], progress=progress)
        """
    )
    root = Path(gsutil.__file__).parents[2]
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"moving\n"
        process.send_signal(number)
        assert process.wait() == -number
    while gsutil_processes(tmp_path):
        time.sleep(0.01)
    assert leftovers(tmp_path) == [f".partial/mixer_models/{NAME}_.gstmp"]


def test_gsutil_ended_by_someone(store, tmp_path, started):
    put(store, BIG)
    store.faults.hold_after = 5 * MIB

    def progress(done, _):
        if done >= 4 * MIB:
            for process in gsutil_processes(tmp_path):
                os.kill(process, signal.SIGKILL)

    with pytest.raises(MixerError, match=r"gsutil was killed \(SIGKILL\)\. [\d,]+ bytes are kept\. Run the same"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING, progress=progress)


@pytest.mark.whole
def test_gsutil_itself_goes_on_after_a_lost_connection(store, tmp_path):
    content = put(store, BIG)
    store.faults.cut_after = 8 * MIB
    assert fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING).path.read_bytes() == content
    assert store.ranges == [f"bytes=0-{len(content) - 1}", f"bytes={8 * MIB}-{len(content) - 1}"]


@pytest.mark.whole
def test_transfer_that_does_not_move_is_ended(store, tmp_path, monkeypatch, started):
    put(store, BIG)
    store.faults.hold_after = 5 * MIB

    def progress(done, _):
        if done >= 4 * MIB:
            monkeypatch.setattr(gsutil, "PATIENCE", 0.3)

    with pytest.raises(StoreUnreachableError, match="no data was transferred for 0 seconds"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING, progress=progress)
    assert gsutil_processes(tmp_path) == []


# What goes wrong


@pytest.mark.whole
@pytest.mark.parametrize("before", [0, 5 * MIB])
def test_portal_that_answers_with_a_web_page_is_noticed(before, store, tmp_path, monkeypatch, started):
    monkeypatch.setattr(gsutil, "PATIENCE", 20)
    put(store, BIG)
    if before:
        store.faults.hold_after = before
        with pytest.raises(KeyboardInterrupt):
            fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING, progress=interrupt_at(before))
    store.reset()
    store.faults.page = b"<!DOCTYPE html>\n<HTML>Sign in</HTML>\n"
    with pytest.raises(StoreUnreachableError, match=r"sam/Mixer-B_16\.npz: a web page arrived instead of the object"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert len(store.ranges) < 10_000  # where 340,000 pages would fill the object
    assert gsutil_processes(tmp_path) == []
    assert not [name for name in leftovers(tmp_path) if "gstmp" in name]
    store.reset()
    assert fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING).path.read_bytes() == BIG


def test_bytes_that_differ_from_their_hash_are_refused(store, tmp_path):
    put(store)
    store.faults.flip = 0
    with pytest.raises(MixerError, match="does not match the store's hash, so it was deleted"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, MixerError, r"access was denied .*BOTO_CONFIG.*\n  gsutil: ServiceException: 401"),
        (403, MixerError, "access was denied"),
        (453, MixerError, "the store refuses. It answered with status 453"),
        (503, StoreUnreachableError, "the store cannot be reached.*--source a directory.* It answered with status 503"),
    ],
)
def test_store_that_refuses(store, tmp_path, status, kind, words):
    store.faults.status = status
    with pytest.raises(MixerError, match=f"^{CHECKPOINT.url}: .*{words}") as caught:
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert type(caught.value) is kind
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "was replaced or deleted"), (403, "access was denied"), (502, "It answered with status 502")],
)
def test_store_that_refuses_an_object_that_it_described(store, tmp_path, status, words):
    put(store)
    store.faults.media_status = status
    with pytest.raises(MixerError, match=words):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)


def test_portal_that_answers_everything_is_noticed(store, tmp_path):
    put(store)
    store.faults.page, store.faults.page_for = b"<!DOCTYPE html>\n<html>Sign in</html>\n", ("description",)
    with pytest.raises(StoreUnreachableError, match="a web page arrived instead of the store's answer"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)


def test_expired_certificate_is_named(store, tmp_path):
    store.certify(datetime(2021, 1, 1, tzinfo=UTC))
    try:
        with pytest.raises(StoreUnreachableError, match="its certificate has expired, or the clock"):
            fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    finally:
        store.certify()


def test_object_of_another_size_than_described_is_refused(store, tmp_path):
    put(store, BIG)
    store.faults.described_longer = 1000
    with pytest.raises(StoreUnreachableError, match="it sends fewer bytes than it describes"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)


@pytest.mark.parametrize("bucket", ["mixer_models", "nobody-has-this"])
def test_no_such_object_or_bucket(store, tmp_path, bucket):
    put(store, name="sam/another.npz")
    url = f"gs://{bucket}/{CHECKPOINTS['mixer']['l16_i21k'].object}"
    with pytest.raises(MixerError, match=f"^{url}: the store has no such object.*--source"):
        fetch(CHECKPOINTS["mixer"]["l16_i21k"], source=f"gs://{bucket}", cache=tmp_path, digests=NOTHING)
    assert leftovers(tmp_path) == []


def test_no_network(no_store, tmp_path):
    no_store()
    cache = tmp_path / "cache"
    with pytest.raises(StoreUnreachableError, match=r"cannot be reached.*\n  gsutil: OSError: Connection refused"):
        fetch(CHECKPOINT, cache=cache, digests=NOTHING)
    with pytest.raises(StoreUnreachableError):
        record(CHECKPOINT, cache=cache, digests=NOTHING)
    assert leftovers(cache) == []


def test_no_network_but_a_checked_file(filled, no_store, caplog):
    no_store()
    for digests in (NOTHING, DigestTable((entry_of(SMALL),))):
        assert fetch(CHECKPOINT, cache=filled, digests=digests).transferred == 0
    assert [line.levelno for line in caplog.records] == [logging.WARNING] * 2
    assert "from the cache, whose digest was checked" in caplog.text
    with pytest.raises(StoreUnreachableError):
        fetch(CHECKPOINT, cache=filled, digests=DigestTable((entry_of(b"something else"),)))


def test_own_configuration_is_anonymous_and_tells_no_secret(store, tmp_path, monkeypatch):
    """A configuration in the home folder is not read; a proxy (here: nobody) is used, its password never shown."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.boto").write_text(store.boto.read_text())
    monkeypatch.delenv("BOTO_CONFIG")
    monkeypatch.setenv("https_proxy", "http://someone:secret@127.0.0.1:1")
    monkeypatch.setattr(gsutil, "_RETRIES", ("Boto:num_retries=0",))
    with pytest.raises(StoreUnreachableError, match="cannot be reached") as caught:
        fetch(CHECKPOINT, cache=tmp_path / "cache", digests=NOTHING)
    assert "secret" not in str(caught.value)
    assert store.requests == 0
    assert files(tmp_path / "home") == [".boto"]


def test_a_proxy_of_the_configuration_is_named(store, tmp_path, monkeypatch):
    boto = tmp_path / "boto"
    boto.write_text(
        store.boto.read_text().replace("num_retries = 1", "num_retries = 0\nproxy = 127.0.0.1\nproxy_port = 1")
    )
    monkeypatch.setenv("BOTO_CONFIG", str(boto))
    with pytest.raises(StoreUnreachableError, match=r"The proxy is 127\.0\.0\.1:1 \(BOTO_CONFIG\)\."):
        fetch(CHECKPOINT, cache=tmp_path / "cache", digests=NOTHING)


def test_secrets_are_taken_out_of_what_gsutil_said():
    said = _last_lines("Copying x\nerror at http://someone:secret@proxy:80/\nAuthorization: secret\n")
    assert said == "error at http://***@proxy:80/"
    said = _last_lines("INFO 1 retry_util.py] Retrying request, attempt #4...\n|\nat https://x/o?key=secret: <p>no</p>")
    assert said == "at https://x/o no "


def test_no_gsutil(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MixerError, match=r"gsutil is missing: expected the program at .*gsutil, .*`make setup`"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert leftovers(tmp_path) == []


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MixerError, match=r"cannot write the cache .*file.*--cache or MIXER_JAX2TF_CACHE"):
        fetch(CHECKPOINT, cache=tmp_path / "file", digests=NOTHING)


def test_download_that_fails_does_not_fall_back_on_an_older_object(store, filled):
    put(store, SMALL[::-1])
    store.faults.media_status = 503
    with pytest.raises(StoreUnreachableError, match="cannot be reached"):
        fetch(CHECKPOINT, cache=filled, digests=NOTHING)
    assert (filled / "mixer_models" / NAME).read_bytes() == SMALL


def test_file_of_the_cache_that_may_not_be_locked(store, tmp_path):
    put(store)
    (tmp_path / f".partial/mixer_models/{NAME}.lock").mkdir(parents=True)
    with pytest.raises(MixerError, match=r"cannot write the cache .*: Is a directory \(.*lock\)"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)


# The disk


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 20 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small filesystem needs a privilege that this run has not")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MIB))
        except OSError:
            pass


def test_disk_too_small_is_found_before_the_download(store, small_disk):
    put(store, BIG)
    (small_disk / "others").write_bytes(bytes(9 * MIB))
    with pytest.raises(
        MixerError, match=r"12,582,912 bytes are still to be downloaded, but the disk .* has only 11,\d+,\d+ bytes"
    ):
        fetch(CHECKPOINT, cache=small_disk / "cache", digests=NOTHING)
    assert store.served == 0


def test_disk_that_fills_up_meanwhile(store, small_disk):
    content = put(store, BIG)
    cache, others = small_disk / "cache", small_disk / "others"
    store.faults.hold_after = 5 * MIB

    def progress(done, _):
        if done >= 4 * MIB and not others.exists():
            fill(others)
            store.faults.release.set()

    with pytest.raises(MixerError, match=r"the disk is full\. Free some space.*\n  gsutil: .*No space left on device"):
        fetch(CHECKPOINT, cache=cache, digests=NOTHING, progress=progress)
    assert leftovers(cache) == [f".partial/mixer_models/{NAME}_.gstmp"]
    others.unlink()
    fetched = fetch(CHECKPOINT, cache=cache, digests=NOTHING)
    assert fetched.path.read_bytes() == content
    assert 0 < fetched.transferred < len(content)


def test_disk_too_small_mock(store, tmp_path, monkeypatch):
    put(store)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(MixerError, match=r"has only 1,000 bytes free\. Free some"):
        fetch(CHECKPOINT, cache=tmp_path, digests=NOTHING)
    assert leftovers(tmp_path) == []


# Digests


def test_object_that_differs_from_its_entry_is_not_downloaded(store, tmp_path):
    content = put(store)
    for change, words in (
        ({"md5": "AAAA"}, "md5"),
        ({"size": 7, "crc32c": "AAAA"}, r"size 100000, recorded 7; crc32c"),
    ):
        table = DigestTable((entry_of(content, **change),))
        told = rf"differs from the recorded object: the store has {words}.*==, recorded AAAA.*`mixer-jax2tf fetch"
        with pytest.raises(MixerError, match=told):
            fetch(CHECKPOINT, cache=tmp_path, digests=table)
    assert store.served == 0
    assert leftovers(tmp_path) == []


def test_record_gives_the_old_entry_and_the_new_one_that_fetch_accepts(store, tmp_path):
    content = put(store)
    new = entry_of(content)
    assert record(CHECKPOINT, cache=tmp_path, digests=NOTHING) == (None, new)
    old = entry_of(b"before the update")
    assert record(CHECKPOINT, cache=tmp_path, digests=DigestTable((old,))) == (old, new)
    table = DigestTable((entry_of(b"seeded", origin="seeded"), old)).with_entry(new)
    assert fetch(CHECKPOINT, cache=tmp_path, digests=table).path.read_bytes() == content
    assert store.served == len(content)


def test_record_hashes_what_lies_there(filled):
    path = filled / "mixer_models" / NAME
    before = path.stat()
    path.write_bytes(SMALL[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(MixerError, match=r"expected the store's .*: it changed after it was checked. Delete it"):
        record(CHECKPOINT, cache=filled, digests=NOTHING)


# Directories and what is no source


def test_directory_is_used_in_place(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_JAX2TF_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "source" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(SMALL)
    fetched = fetch(CHECKPOINT, source=str(tmp_path / "source"), digests=DigestTable((entry_of(b"else"),)))
    assert (fetched.path, fetched.url) == (path, f"file:{NAME}")
    assert (fetched.size, fetched.transferred) == (len(SMALL), 0)
    assert not (tmp_path / "cache").exists()
    monkeypatch.chdir(tmp_path)
    assert fetch(CHECKPOINT, source="source", digests=NOTHING).path == path


def test_directory_without_the_file(tmp_path):
    with pytest.raises(MixerError, match=f"^{NAME} is missing in .*found no .npz file at all.*seed DIR"):
        fetch(CHECKPOINT, source=str(tmp_path), digests=NOTHING)
    (tmp_path / "Mixer-B_16.npz").write_bytes(b"")
    (tmp_path / "sam").mkdir()
    (tmp_path / "sam/Mixer-B_32.npz").write_bytes(b"")
    with pytest.raises(MixerError, match=r"found sam/Mixer-B_32\.npz, Mixer-B_16\.npz"):
        fetch(CHECKPOINT, source=str(tmp_path), digests=NOTHING)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://mixer_models", "s3 is not supported; expected gs://bucket"),
        ("https://storage.googleapis.com/mixer_models", "https is not supported"),
        ("gs://", "does not name a bucket"),
        ("gs://mixer_models/../elsewhere", "does not name a bucket"),
        ("gs://mixer_models/*", "does not name a bucket"),
        ("mixer_models", "does not exist: .*Is a `gs://` missing"),
        (__file__, "is a file: .*--checkpoint"),
    ],
)
def test_no_source(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^--source .*{words}"):
        fetch(CHECKPOINT, source=source, digests=NOTHING)


def test_the_default_source_is_the_bucket_of_the_catalog():
    assert CHECKPOINT.url == f"{BUCKET}/{NAME}"


@pytest.mark.parametrize(
    "source", ["", "~nobody-of-this-name/x", "x" * 5000, "a\udcffb"], ids=["none", "home", "long", "bytes"]
)
def test_source_that_is_no_path_at_all(source):
    with pytest.raises(UsageError, match=r"--source .*expected gs://bucket"):
        Source(source, None, NOTHING).check()


def test_a_store_that_cannot_be_reached_is_asked_once_and_another_is_asked_too(tmp_path, monkeypatch):
    asked = []

    def unreachable(url, state):
        asked.append(url)
        raise StoreUnreachableError(f"{url}: the store cannot be reached. Check the network.")

    monkeypatch.setattr(gsutil.StoredObject, "of", unreachable)
    source = Source("gs://first", tmp_path, NOTHING)
    for ask in (source.fetch, source.fetch, source.probe):
        with pytest.raises(StoreUnreachableError):
            ask(CHECKPOINT)
    with pytest.raises(StoreUnreachableError, match=r"^not tried, as an earlier attempt failed \(gs://first/"):
        source.probe(CHECKPOINT)
    with pytest.raises(StoreUnreachableError, match=r"^gs://second/"):
        replace(source, place="gs://second").fetch(CHECKPOINT)
    assert asked == [f"{bucket}/{CHECKPOINT.object}" for bucket in ("gs://first", "gs://second")]
