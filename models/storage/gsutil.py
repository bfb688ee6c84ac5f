"""The real gsutil as a subprocess: what the store says of an object, and the object's bytes into a file.

`export.publish.bucket` brings files the other way.

Where neither BOTO_CONFIG nor BOTO_PATH is set, gsutil runs with no configuration at all: it reads anonymously, takes
nobody's credentials from the home folder, and gives up on a dead network after five retries (half a minute when
connections are refused). A configuration that the user names is honoured: his proxies, credentials and retries. Either
way hashes are always checked, the files by which an interrupted download is resumed lie in the cache, updates and
usage reports are off, and a transfer that does not move for PATIENCE seconds is ended.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from models.errors import MixerError
from models.progress import Progress
from models.storage import lifeline as lifeline_program
from models.storage.gsutil_errors import GsutilResult, StoreUnreachableError, failure
from models.storage.lifeline import lifeline

BUCKET_URL = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(/[\w=+-][\w.=+-]*)*", flags=re.ASCII)
"""Of a bucket, or of a folder in it."""

PATIENCE = 120.0
"""Seconds without any movement after which gsutil is ended: its own limit is a minute for each of its many tries."""

_POLL = 0.1  # seconds between two looks at the partial file
_TAIL = 512  # bytes at its end that are looked at

_ALWAYS = (
    "GSUtil:check_hashes=always",
    "GSUtil:sliced_object_download_threshold=0",  # one partial file, written from its beginning to its end
    "GSUtil:parallel_composite_upload_threshold=0",  # one object, which has an MD5
    "GSUtil:software_update_check_period=0",
    "GSUtil:use_gcloud_storage=False",
)
_ANONYMOUS = ("Boto:num_retries=5", "Boto:max_retry_delay=8")
_FOREIGN = ("CLOUDSDK_", "AWS_", "DEVSHELL_")  # variables through which gsutil finds credentials


@dataclass(frozen=True)
class StoredObject:
    """What the store says of an object; hashes in base64, `md5` only of objects that were uploaded in one piece."""

    url: str
    size: int
    md5: str | None
    crc32c: str | None
    generation: str


@dataclass(frozen=True)
class SourceObject:
    """What a source says of a checkpoint, without bringing it: `md5` in base64, `sha256` in hexadecimal."""

    url: str
    size: int
    md5: str | None
    sha256: str | None
    """None of a bucket, which knows none."""


def stat(url: str, state: Path) -> StoredObject:
    """Return what the store says of the object at `url`; `state` is gsutil's own folder.

    Raises:
        StoreUnreachableError: the store does not answer.
        MixerError: there is no such object, it may not be read, or gsutil cannot do its work.
    """
    ran = run(["stat", url], state, state, watch=lambda _: 0)
    if ran.status != 0:
        raise failure(url, ran)
    return described(url, ran.output)


def described(url: str, output: str) -> StoredObject:
    """Return what `gsutil stat` said of one object.

    Raises:
        MixerError: it said something else.
    """
    fields = dict(re.findall(r"^ {4}([^:]+):\s*(\S+)", output, flags=re.MULTILINE))
    if "Content-Length" not in fields or "Generation" not in fields:
        raise MixerError(
            f"{url}: cannot read what gsutil says of it (expected lines 'Content-Length:' and 'Generation:'): "
            f"{output[:500]!r}. Is this gsutil 5.38? `make setup` installs it."
        )
    return StoredObject(
        url,
        int(fields["Content-Length"]),
        fields.get("Hash (md5)"),
        fields.get("Hash (crc32c)"),
        fields["Generation"],
    )


def download(stored: StoredObject, destination: Path, state: Path, progress: Progress | None = None) -> int:
    """Write the object to `destination`, going on where an earlier run stopped; return the bytes transferred now.

    Gsutil itself checks the hash, and deletes what differs.

    Raises:
        StoreUnreachableError: the connection is lost or does not move; what was received is kept.
        MixerError: the bytes differ from their hash, the disk is full, or gsutil was ended by someone.
    """
    partial = partial_of(destination)
    # Of a larger object that was here before, or of a run that was killed while a web page arrived.
    for left in (partial, destination):
        if _size(left) > stored.size or (left == partial and _ends_as_page(left)):
            left.unlink()
    before = _size(partial)

    def watch(_: int) -> int:
        size = max(_size(partial), _size(destination))
        if size > stored.size or _ends_as_page(partial):  # gsutil would take one for a part, and ask for the next
            raise StoreUnreachableError(
                f"{stored.url}: something on the way (a portal to sign in at?) answers with a web page in the place of "
                "the object. Open the network with a browser, then run the same command again."
            )
        if progress is not None:
            progress(min(size, stored.size), stored.size)
        return size

    # The bare name: gsutil would take brackets or stars in the path of the cache for a pattern.
    copy = ["cp", f"{stored.url}#{stored.generation}", destination.name]
    try:
        ran = run(copy, destination.parent, state, watch)
    finally:
        if _ends_as_page(partial):
            partial.unlink()
    if ran.status != 0:
        raise failure(stored.url, ran, kept=_size(partial))
    watch(0)
    return stored.size - (before if re.search("Resuming download|Download already complete", ran.errors) else 0)


def partial_of(destination: Path) -> Path:
    """Return the file in which gsutil gathers what belongs at `destination`."""
    return destination.with_name(f"{destination.name}_.gstmp")


def _ends_as_page(path: Path) -> bool:
    """Tell whether what arrived last is a web page, which no part of a checkpoint looks like."""
    try:
        with path.open("rb") as file:
            file.seek(-min(_size(path), _TAIL), os.SEEK_END)
            return b"</html>" in file.read().lower()
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def run(arguments: list[str], folder: Path, state: Path, watch: Callable[[int], int]) -> GsutilResult:
    """Run gsutil in a folder, asking now and then how far it is; end it with whatever is raised meanwhile.

    Args:
        arguments: of gsutil.
        folder: where it runs.
        state: its own folder.
        watch: takes gsutil's process id and gives the bytes so far; what matters is that they change.

    Raises:
        StoreUnreachableError: nothing changed for PATIENCE seconds.
        MixerError: there is no gsutil.
    """
    address = next(word for word in arguments if word.startswith("gs://"))
    seen, since = -1, time.monotonic()
    with _started(arguments, folder, state) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=_POLL)
                return GsutilResult(process.returncode, output, errors)
            except subprocess.TimeoutExpired:
                size = watch(process.pid)
            if size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise StoreUnreachableError(
                    f"{address}: nothing moved for {PATIENCE:.0f} seconds, so gsutil was ended. Expected an "
                    "answer from the store: look at the network and run the same command again; it goes on with what "
                    "was finished."
                )


@contextmanager
def _started(arguments: list[str], folder: Path, state: Path) -> Iterator[subprocess.Popen[str]]:
    configured = "BOTO_CONFIG" in os.environ or "BOTO_PATH" in os.environ
    command = [sys.executable, "-P", str(Path(lifeline_program.__file__)), str(_program())]
    for option in (f"GSUtil:state_dir={state}", *_ALWAYS, *(() if configured else _ANONYMOUS)):
        command += ["-o", option]
    with (
        lifeline() as line,
        subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            stdin=line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=_environment(configured),
            start_new_session=True,  # a group of its own, so that its helpers can be ended with it
        ) as process,
    ):
        try:
            yield process
        finally:
            _end(process)


def _program() -> Path:
    program = Path(sys.executable).with_name("gsutil")
    if not program.is_file():
        raise MixerError(
            f"gsutil is missing: expected the program at {program}, beside the running Python. "
            "`make setup` makes the project's environment with it; then run `.venv/bin/mixer-jax2tf` "
            "(or give --source a directory, which needs no gsutil)."
        )
    return program


def _environment(configured: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONWARNINGS", "PYTHONPATH"}}
    if not configured:
        kept = {name: value for name, value in kept.items() if not name.startswith(_FOREIGN)}
        kept["BOTO_CONFIG"] = os.devnull
    elif "BOTO_CONFIG" in kept:  # it may be relative to our folder, and gsutil runs in another
        kept["BOTO_CONFIG"] = str(Path(kept["BOTO_CONFIG"]).expanduser().absolute())
    return kept | {"GSUTIL_TEST_ANALYTICS": "1"}  # no usage reports


def _end(process: subprocess.Popen[str]) -> None:
    """End gsutil and its helpers, unless they came to their end by themselves."""
    if process.poll() is not None and process.returncode >= 0:
        return
    try:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # while it copies it does not heed SIGTERM
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
