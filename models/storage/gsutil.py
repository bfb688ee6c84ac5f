"""Run gsutil as a subprocess: read an object's metadata, and download it.

`export.publish.bucket` uploads.

If neither BOTO_CONFIG nor BOTO_PATH is set, gsutil runs without any configuration: it reads anonymously and takes no
credentials from the home directory. A configuration that the user sets is used, with its proxies and credentials. In
both cases hashes are always checked, the files for resuming a download are in the cache, update checks and usage
reports are off, a transfer without progress for PATIENCE seconds is ended, and a request that fails is repeated five
times, which takes half a minute, unless the configuration has its own `num_retries`: gsutil's default, 23 times and ten
minutes, would exceed PATIENCE, so that nobody would learn why it failed.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.errors import MixerError
from models.progress import Progress
from models.storage import lifeline as lifeline_program
from models.storage.gsutil_errors import DOWNLOADING, READING, SIGN_IN, GsutilResult, StoreUnreachableError
from models.storage.gsutil_settings import GsutilSettings
from models.storage.lifeline import lifeline

BUCKET_URL = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(/[\w=+-][\w.=+-]*)*", flags=re.ASCII)
"""Pattern of the URL of a bucket, or of a folder in it."""

PATIENCE = 120.0
"""Seconds without progress after which gsutil is ended; its own limit is a minute for each of its many retries."""

_POLL = 0.1  # seconds between checks of the partial file
_TAIL = 512  # bytes at its end that are checked

_ALWAYS = (
    "GSUtil:check_hashes=always",
    "GSUtil:sliced_object_download_threshold=0",  # one partial file, written front to back
    "GSUtil:parallel_composite_upload_threshold=0",  # one object, which has an MD5
    "GSUtil:software_update_check_period=0",
    "GSUtil:use_gcloud_storage=False",
)
_RETRIES = ("Boto:num_retries=5", "Boto:max_retry_delay=8")
_FOREIGN = ("CLOUDSDK_", "AWS_", "DEVSHELL_")  # variables through which gsutil finds credentials


@dataclass(frozen=True)
class StoredObject:
    """An object's metadata in the store; hashes in base64, `md5` only of objects that were uploaded in one piece."""

    url: str
    size: int
    md5: str | None
    crc32c: str | None
    generation: str
    sha256: None = None
    """No store has it."""

    @classmethod
    def of(cls, url: str, state: Path) -> Self:
        """Return the metadata of the object at `url`; `state` is gsutil's state directory.

        Raises:
            StoreUnreachableError: the store does not answer.
            MixerError: there is no such object, it may not be read, or gsutil cannot do its work.
        """
        ran = run(["stat", url], state, state, watch=lambda _: 0)
        if ran.status != 0:
            raise ran.failure(url)
        return cls.parse(url, ran.output)

    @classmethod
    def parse(cls, url: str, output: str) -> Self:
        """Parse the output of `gsutil stat` for one object.

        Raises:
            MixerError: the output is something else.
        """
        fields = dict(re.findall(r"^ {4}([^:]+):\s*(\S+)", output, flags=re.MULTILINE))
        if "Content-Length" not in fields or "Generation" not in fields:
            raise MixerError(
                f"{url}: cannot read gsutil's answer (expected lines 'Content-Length:' and 'Generation:'): "
                f"{output[:500]!r}. Is this gsutil 5.38? `make setup` installs it."
            )
        return cls(
            url,
            int(fields["Content-Length"]),
            fields.get("Hash (md5)"),
            fields.get("Hash (crc32c)"),
            fields["Generation"],
        )

    def left_to_download(self, destination: Path) -> int:
        """Return the bytes that an earlier, unfinished `download` to `destination` did not get."""
        return self.size - _size(_partial_of(destination))

    def download(self, destination: Path, state: Path, progress: Progress | None = None) -> int:
        """Download the object to `destination`, resuming an earlier run; return the bytes transferred now.

        Gsutil itself checks the hash, and deletes a file that differs.

        Raises:
            StoreUnreachableError: the connection is lost or stalls; the bytes received are kept.
            MixerError: the bytes differ from their hash, the disk is full, or gsutil was ended by someone.
        """
        partial = _partial_of(destination)
        # Left by an earlier, larger object, or by a run that was killed while a web page arrived.
        for left in (partial, destination):
            if _size(left) > self.size or (left == partial and _ends_as_page(left)):
                left.unlink()
        before = _size(partial)

        def watch(_: int) -> int:
            size = max(_size(partial), _size(destination))
            if size > self.size or _ends_as_page(partial):  # gsutil would accept a page as a part, and request the next
                raise StoreUnreachableError(
                    f"{self.url}: a web page arrived instead of the object. {SIGN_IN} run the same command again."
                )
            if progress is not None:
                progress(min(size, self.size), self.size)
            return size

        # Only the name: gsutil would read brackets or stars in the path of the cache as a pattern.
        copy = ["cp", f"{self.url}#{self.generation}", destination.name]
        try:
            ran = run(copy, destination.parent, state, watch)
        finally:
            if _ends_as_page(partial):
                partial.unlink()
        if ran.status != 0:
            raise ran.failure(self.url, _size(partial), (*DOWNLOADING, *READING))
        watch(0)
        return self.size - (before if re.search("Resuming download|Download already complete", ran.errors) else 0)


def _partial_of(destination: Path) -> Path:
    """Return the partial file of gsutil's download to `destination`."""
    return destination.with_name(f"{destination.name}_.gstmp")


def _ends_as_page(path: Path) -> bool:
    """Return whether a file ends like a web page, which no part of a checkpoint does."""
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
    """Run gsutil in a folder, polling its progress; end it if an exception is raised meanwhile.

    Args:
        arguments: of gsutil.
        folder: its working directory.
        state: its state directory.
        watch: called with gsutil's process id; returns the bytes so far, whose change counts as progress.

    Raises:
        StoreUnreachableError: there was no progress for PATIENCE seconds.
        MixerError: gsutil is not installed.
    """
    address = next(word for word in arguments if word.startswith("gs://"))
    environment = _environment()
    through = GsutilSettings.read(environment).through
    seen, since = -1, time.monotonic()
    with _started(arguments, folder, state, environment) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=_POLL)
                return GsutilResult(process.returncode, output, errors, through)
            except subprocess.TimeoutExpired:
                size = watch(process.pid)
            if size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise StoreUnreachableError(
                    f"{address}: no data was transferred for {PATIENCE:.0f} seconds, so gsutil was stopped. Check the "
                    "network and run the same command again; it continues with what was finished.{through}"
                )


@contextmanager
def _started(
    arguments: list[str], folder: Path, state: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", str(Path(lifeline_program.__file__)), str(_program())]
    retries = () if GsutilSettings.read(environment).has_retries else _RETRIES
    for option in (f"GSUtil:state_dir={state}", *_ALWAYS, *retries):
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
            env=environment,
            start_new_session=True,  # its own process group, so that its helpers can be ended with it
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
            "`make setup` creates the project's environment with it; then run `.venv/bin/mixer-jax2tf` "
            "(or give --source a directory, which needs no gsutil)."
        )
    return program


def _environment() -> dict[str, str]:
    configured = "BOTO_CONFIG" in os.environ or "BOTO_PATH" in os.environ
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONWARNINGS", "PYTHONPATH"}}
    if not configured:
        kept = {name: value for name, value in kept.items() if not name.startswith(_FOREIGN)}
        kept["BOTO_CONFIG"] = os.devnull
    elif "BOTO_CONFIG" in kept:  # it may be relative to our working directory, and gsutil runs in another
        kept["BOTO_CONFIG"] = str(Path(kept["BOTO_CONFIG"]).expanduser().absolute())
    return kept | {"GSUTIL_TEST_ANALYTICS": "1"}  # no usage reports


def _end(process: subprocess.Popen[str]) -> None:
    """End gsutil and its helpers, unless gsutil has exited by itself."""
    if process.poll() is not None and process.returncode >= 0:
        return
    try:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # while it copies it ignores SIGTERM
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
