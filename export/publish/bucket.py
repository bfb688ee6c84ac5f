"""Publish in a bucket, through gsutil; `Bucket` is an `export.publish.store.Store`.

New objects are sent on the condition that no object of the name exists, and the index on the condition that it has not
changed since it was read: the store itself enforces both. An interrupted upload leaves no object, and is sent again.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Self

from models.errors import MixerError
from models.progress import Progress
from models.records.manifest import MOST_BYTES
from models.storage import gsutil
from models.storage.gsutil_errors import GsutilResult, KnownFailure

ARCHIVE = ("-h", "Content-Type:application/gzip")  # else the store may decompress it for readers
INDEX = ("-h", "Cache-Control:no-cache", "-h", "Content-Type:application/json")
"""By default, a store caches public objects for an hour."""

_WRITING = (
    KnownFailure(
        "No space left on device|Disk quota exceeded|File too large",
        "gsutil cannot write its temporary files, which are in the directory that TMPDIR names. Free some space there, "
        "or set TMPDIR to another directory, and run the same command again; finished files are not sent again.",
    ),
    KnownFailure(
        "PreconditionException|412",
        "it exists already, or changed in the meantime, and nothing was overwritten: is somebody else publishing? Run "
        "the same command again; it compares first.",
    ),
    KnownFailure(
        "AccessDenied|Exception: 40[13]|'status': '40[13]'|Anonymous caller|protected data|authorized|[Cc]redentials",
        "access was denied. Expected a bucket that may be listed, read and written: set BOTO_CONFIG to a gsutil "
        "configuration with your credentials.",
    ),
    KnownFailure(
        "NotFoundException|BucketNotFound|404|No URLs matched",
        "there is no such bucket or object. Expected a bucket that exists: check --to.",
    ),
    KnownFailure(
        "HashMismatch|differs|doesn't match|corrupt",
        "the data that arrived differs from the data sent, and was deleted. Run the same command again; if this "
        "repeats, something between here and the store (a proxy?) changes the data.",
    ),
    *KnownFailure.unreachable("run the same command again; finished files are not sent again."),
)


class Bucket:
    """A bucket, or a folder in one."""

    def __init__(self, url: str, state: Path) -> None:
        """Take `gs://bucket` or `gs://bucket/prefix`, and an empty folder for gsutil's state.

        Gsutil resumes interrupted uploads from that state; with an empty folder it starts again.
        """
        self._url, self._state = url, state

    @classmethod
    @contextmanager
    def opened(cls, url: str) -> Iterator[Self]:
        """Yield a bucket to publish in, with a temporary folder for gsutil's state.

        Raises:
            MixerError: the folder cannot be made.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix="gsutil-")
        except OSError as error:
            raise MixerError(
                f"no temporary folder for gsutil can be made in {tempfile.gettempdir()} ({error.strerror}): free some "
                "space there, or set TMPDIR to another directory."
            ) from error
        with folder as state:
            yield cls(url, Path(state))

    def address(self, folder: str, name: str) -> str:
        """Return the URL of an object."""
        return f"{self._url}/{folder}/{name}"

    def files(self, folder: str) -> dict[str, gsutil.StoredObject]:
        """Return the objects in a folder, by name."""
        url = self.address(folder, "")
        ran = self._run(["ls", "-L", url], url, fine="matched no objects")
        blocks = re.findall(r"^(gs://.*):\n((?: {4}.*\n)+)", ran.output, flags=re.MULTILINE)
        found = {one.removeprefix(url): gsutil.StoredObject.parse(one, block) for one, block in blocks}
        return {name: one for name, one in found.items() if name and "/" not in name}

    def cat(self, folder: str, name: str) -> bytes:
        """Return the contents of a record; of a larger object, only the first bytes, which are not a record."""
        url = self.address(folder, name)
        return self._run(["cat", "-r", f"0-{MOST_BYTES}", url], url).output.encode()

    def held(self, folder: str) -> AbstractContextManager[None]:
        """Lock nothing: each request names the generation that it may replace, and the store refuses any other."""
        return nullcontext()

    def put(self, files: Sequence[Path], folder: str, progress: Progress | None = None) -> None:
        """Send files of one directory that are not in the store yet."""
        total = sum(file.stat().st_size for file in files)
        archives = [file for file in files if file.name.endswith(".tar.gz")]
        others = [file for file in files if file not in archives]
        done = 0
        for some, headers in ((archives, ARCHIVE), (others, ())):
            if some:
                self._send(some, folder, "0", headers, _Meter(some, done, total, progress))
                done += sum(file.stat().st_size for file in some)

    def replace(self, file: Path, folder: str, seen: str | None) -> None:
        """Send a file instead of the object whose generation is `seen`."""
        self._send([file], folder, seen or "0", INDEX, lambda _: 0)

    def _send(
        self,
        files: Sequence[Path],
        folder: str,
        generation: str,
        headers: Sequence[str],
        watch: Callable[[int], int],
    ) -> None:
        url = self.address(folder, "")
        condition = ("-h", f"x-goog-if-generation-match:{generation}", *headers)
        # Names without a path: gsutil would take brackets or stars in it for a pattern.
        command = [*condition, "cp", *(file.name for file in files), url]
        self._run(command, url, folder=files[0].parent, watch=watch)

    def _run(
        self,
        arguments: list[str],
        url: str,
        *,
        folder: Path | None = None,
        watch: Callable[[int], int] = lambda _: 0,
        fine: str | None = None,
    ) -> GsutilResult:
        """Run gsutil; a failure whose messages all contain `fine` is accepted."""
        ran = gsutil.run(arguments, folder or self._state, self._state, watch)
        # Its warnings are no failures: such as that of a long TMPDIR, in which it cannot make a socket.
        said = re.findall(r"^\w+Exception: .*", ran.errors, flags=re.MULTILINE)
        if ran.status == 0 or (fine is not None and said and all(fine in line for line in said)):
            return ran
        raise ran.failure(url, known=_WRITING)


class _Meter:
    """How far gsutil is with some files: its position in the file that it has open, if the system reports it."""

    def __init__(self, files: Sequence[Path], before: int, total: int, progress: Progress | None) -> None:
        self._starts = {}
        for file in files:
            self._starts[os.path.realpath(file)] = before
            before += file.stat().st_size
        self._total, self._progress, self._seen = total, progress, 0

    def __call__(self, process: int) -> int:
        """Return the bytes so far, of all files; a new value each time where the system does not report them."""
        try:
            descriptors = list(Path(f"/proc/{process}/fd").iterdir())
        except OSError:
            return time.monotonic_ns()
        for descriptor in descriptors:
            try:
                start = self._starts[str(descriptor.readlink())]
                notes = Path(f"/proc/{process}/fdinfo/{descriptor.name}").read_text(encoding="ascii")
                self._seen = start + int(notes.split()[1])  # "pos:	123"
            except (OSError, KeyError, ValueError, IndexError):
                continue
            if self._progress is not None:
                self._progress(min(self._seen, self._total), self._total)
        return self._seen
