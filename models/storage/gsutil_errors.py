"""Turn failures of gsutil into errors that a user can act on."""

import re
import signal
from dataclasses import dataclass

from models.errors import MixerError


class StoreUnreachableError(MixerError):
    """The store did not answer: the only failure after which a cached file may still be used."""


@dataclass(frozen=True)
class KnownFailure:
    """A failure: the pattern of gsutil's messages for it, and our own message."""

    pattern: str
    words: str
    kind: type[MixerError] = MixerError


READING = (
    KnownFailure(
        "No space left on device|Disk quota exceeded",
        "the disk is full. Free some space, or choose a cache on another disk with --cache or MIXER_JAX2TF_CACHE, and "
        "run the same command again: it continues where this one stopped.",
    ),
    KnownFailure(
        "HashMismatch|cloud-supplied digest",
        "the data received does not match the store's hash, so it was deleted. Run the same command again; if this "
        "repeats, something between here and the store (a proxy?) changes the data.",
    ),
    KnownFailure(
        "AccessDenied|Exception: 40[13]|'status': '40[13]'|Anonymous caller|protected data|authorized",
        "access was denied (or it does not exist). Expected an object that anyone may read; for a private bucket, set "
        "BOTO_CONFIG to a gsutil configuration with your credentials.",
    ),
    KnownFailure(
        "No URLs matched|NotFoundException|Exception: 404",
        "the store has no such object. Expected a bucket of the layout <folder>/Mixer-<size>_<patch>.npz: check "
        "--source (`mixer-jax2tf list` names the objects).",
    ),
    KnownFailure(
        "Connection (refused|reset|aborted)|Unable to find the server|[Uu]nreachable|timed out|gaierror|SSL"
        "|EOF occurred|RemoteDisconnected|Broken pipe|ResumableDownload|IncompleteRead|[Pp]roxy"
        "|OSError: None"  # a proxy that does not exist, if PySocks is installed
        "|(Exception: |'status': ')(429|50\\d)",
        "the store cannot be reached. Check the network (behind a proxy, set https_proxy) and run the same command "
        "again, or give --source a directory with the checkpoints.",
        StoreUnreachableError,
    ),
)


@dataclass(frozen=True)
class GsutilResult:
    """The output of gsutil and its exit status."""

    status: int
    output: str
    errors: str

    def failure(self, url: str, kept: int = 0, known: tuple[KnownFailure, ...] = READING) -> MixerError:
        """Return the error for a failed run, which quotes its last lines."""
        said = _last_lines(self.errors)
        rest = f" {kept:,} bytes are kept." if kept else ""
        quoted = f"\n  gsutil: {said[:400]}" if said else ""
        if self.status < 0:
            return MixerError(
                f"{url}: gsutil was killed ({signal.Signals(-self.status).name}).{rest} Run the same command "
                f"again: it continues where this one stopped.{quoted}"
            )
        for one in known:
            if re.search(one.pattern, said):
                return one.kind(f"{url}: {one.words}{rest}{quoted}")
        return MixerError(f"{url}: gsutil failed with status {self.status}, expected 0.{rest}{quoted}")


def _last_lines(errors: str, count: int = 3) -> str:
    """Return the last lines that are not about progress (of a traceback only the last), without credentials."""
    lines = [line.split("\r")[-1].strip() for line in errors.splitlines()]
    told = [line for line in lines if line and not re.match(r"[-\\|/] \[|Copying |Authorization|Operation ", line)]
    last = told[-1:] if "Traceback (most recent" in errors else told[-count:]
    return re.sub(r"//[^/\s@]+@", "//***@", " / ".join(last))
