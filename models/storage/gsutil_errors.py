"""Turn failures of gsutil into errors that a user can act on."""

import re
import signal
from dataclasses import dataclass
from typing import Self

from models.errors import MixerError, understood


class StoreUnreachableError(MixerError):
    """The store did not answer: the only failure after which a cached file may still be used."""


@dataclass(frozen=True)
class KnownFailure:
    """A failure: the pattern of gsutil's messages for it, and our own message."""

    pattern: str
    words: str
    kind: type[MixerError] = MixerError

    @classmethod
    def unreachable(cls, then: str) -> tuple[Self, ...]:
        """Return the failures of a store that cannot be reached; `then` says what to do once it can."""
        page = f"a web page arrived instead of the store's answer. {SIGN_IN} {then}"
        return (
            cls("Error decoding response|KeyError: 'location'", page, StoreUnreachableError),
            *(
                cls(
                    pattern,
                    f"the store cannot be reached: {reason}. Check the network (behind a proxy, set https_proxy) and "
                    f"{then}",
                    StoreUnreachableError,
                )
                for pattern, reason in _REASONS.items()
            ),
        )


_STATUS = re.compile(r"Exception: (\d{3})\b|'status': '(\d{3})'|Error code: (\d{3})")
"""A status of HTTP in what gsutil says."""

_PROGRESS = re.compile(r"[-\\|/] \[|[-\\|/]$|Copying |Authorization|Operation |INFO .*Retrying request")
"""Lines of gsutil that are about progress, or are not to be shown."""

SIGN_IN = "Does this network ask you to sign in? Do so in a browser, then"
"""What to do where a web page arrives; the sentence goes on."""

_REASONS = {
    "[Cc]ertificate has expired": "its certificate has expired, or the clock of this machine is wrong",
    "CERTIFICATE_VERIFY_FAILED|[Cc]ertificate": "its certificate cannot be verified",
    "Connection refused": "the connection was refused",
    "Unable to find the server|gaierror": "its name has no address",
    "[Uu]nreachable": "there is no way to its address",
    "timed out": "it did not answer in time",
    r"(Exception: |'status': ')(408|429|50\d)": "it answers with an error of its own, or is overloaded",
    "Zero bytes unexpectedly": "it sends fewer bytes than it describes",
    "Connection (reset|aborted)|EOF occurred|RemoteDisconnected|Broken pipe|IncompleteRead": (
        "the connection was closed or reset"
    ),
    "SSL": "no encrypted connection could be made",
    "OSError: None": "there was no connection, or it was closed",  # also a proxy that does not exist
    "Resumable ?([Dd]ownload|[Uu]pload)": "the transfer failed each time that it was tried",
    "[Pp]roxy": "the proxy refuses",
}
"""Why a store cannot be reached, by what gsutil says then."""


DOWNLOADING = (
    KnownFailure(
        "No URLs matched|NotFoundException|Exception: 404",
        "the object was replaced or deleted in the store since it was described. Run the same command again.",
    ),
)
"""Of a download, before those of `READING`."""

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
        "AccessDenied|Exception: 40[13]|'status': '40[13]'|Anonymous caller|protected data|authorized|[Cc]redentials",
        "access was denied (or it does not exist). Expected an object that anyone may read; for a private bucket, set "
        "BOTO_CONFIG to a gsutil configuration with your credentials.",
    ),
    KnownFailure(
        "No URLs matched|NotFoundException|Exception: 404",
        "the store has no such object. Expected a bucket of the layout <folder>/Mixer-<size>_<patch>.npz: check "
        "--source (`mixer-jax2tf list` names the objects).",
    ),
    *KnownFailure.unreachable("run the same command again, or give --source a directory with the checkpoints."),
)


@dataclass(frozen=True)
class GsutilResult:
    """The output of gsutil and its exit status."""

    status: int
    output: str
    errors: str
    through: str = ""
    """The sentence about the proxy that it used, if it used one."""

    def failure(self, url: str, kept: int = 0, known: tuple[KnownFailure, ...] = READING) -> MixerError:
        """Return the error for a failed run, which quotes its last lines."""
        said = _last_lines(self.errors)
        status = next(filter(None, found.groups())) if (found := _STATUS.search(said)) else None
        answered = f" It answered with status {status}." if status else ""
        rest = f" {kept:,} bytes are kept." if kept else ""
        quoted = f"\n  gsutil: {said[:400]}" if said else ""
        if self.status < 0:
            return MixerError(
                f"{url}: gsutil was killed ({signal.Signals(-self.status).name}).{rest} Run the same command "
                f"again: it continues where this one stopped.{quoted}"
            )
        for one in known:
            if re.search(one.pattern, said):
                through = self.through if one.kind is StoreUnreachableError else ""
                return one.kind(f"{url}: {one.words}{answered}{through}{rest}{quoted}")
        failed = "the store refuses." if status else understood(OSError(self.errors))
        failed = failed or f"gsutil failed with status {self.status}, expected 0."
        return MixerError(f"{url}: {failed}{answered}{rest}{quoted}")


def _last_lines(errors: str, count: int = 3) -> str:
    """Return the last lines that are not about progress (of a traceback only the last), without credentials.

    Marks of HTML and the queries of URLs are left out too.
    """
    lines = [line.split("\r")[-1].strip() for line in errors.splitlines()]
    told = [line for line in lines if line and not _PROGRESS.match(line)]
    last = told[-1:] if "Traceback (most recent" in errors else told[-count:]
    said = re.sub(r"//[^/\s@]+@", "//***@", " / ".join(last))
    return re.sub(r"(</?[a-zA-Z!][^<>{}:]*>|\\+n|\s)+", " ", re.sub(r"(https://[^\s?]*)\?[^\s>]*", r"\1", said))
