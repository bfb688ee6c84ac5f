"""Errors that a user can act on, and how foreign text is shown in messages.

Every error meant for a user is a `MixerError`; its text says what was found, what was expected and what to do next.
The command line prints it without a traceback and turns it into an exit status. Text from a file or the network (a
name, a server's answer) passes through `shown` before it enters a message, and a message through `printable` before it
reaches a terminal.
"""

import errno
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

MOST_SHOWN = 100
"""Most characters of a foreign name in a message."""

_MOST_OF_A_LINE, _MOST_LINES = 4000, 2000


Result = TypeVar("Result")


class MixerError(Exception):
    """A failure that the user can understand and act on (exit status 1)."""

    exit_status = 1


class UsageError(MixerError):
    """A command, option or input that cannot be used as given (exit status 2)."""

    exit_status = 2


class DifferentError(MixerError):
    """Nothing failed, but the things compared differ (exit status 3)."""

    exit_status = 3


def each(checks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return the results of checks that do not depend on each other, so that all problems are known at once.

    Raises:
        MixerError: some raised it; the message has the problems of all, each once.
    """
    results, errors = list[Result](), list[MixerError]()
    for check in checks:
        try:
            results.append(check())
        except MixerError as error:
            errors.append(error)
    if len(errors) > 1:
        said = "\n".join(dict.fromkeys(map(str, errors)))
        raise max(errors, key=lambda error: error.exit_status).__class__(said) from errors[0]
    if errors:
        raise errors[0]
    return results


_OURS = ("convert", "export", "models", "validation")

_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    errno.EROFS: "give another place, which can be written",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EIO: "check the disk",
    errno.EISDIR: "a file is expected there, move the directory",
    errno.ENOTDIR: "a directory is expected there, move the file",
    errno.EEXIST: "it is in the way, move it",
}


def understood(error: BaseException) -> str | None:
    """Return an error in words, if it is one that the user can act on; None if it is a mistake in the program."""
    if isinstance(error, MixerError):
        return str(error)
    folder = tempfile.gettempdir()
    if folder in str(error) and not Path(folder).is_dir():
        return f"the temporary folder {folder} was deleted while the program ran: run the same command again."
    if isinstance(error, ImportError) and (name := (error.name or "").partition(".")[0]) not in {"", *_OURS}:
        return _not_imported(name, error)
    if isinstance(error, OSError) and error.errno in _ADVICE:
        where = "standard output, or a file," if error.filename is None else shown(error.filename, 300)
        advice = f"{where} cannot be read or written ({error.strerror}): {_ADVICE[error.errno]}"
    elif (found := _as_tensorflow_says_it(str(error))) is not None:
        advice = found
    else:
        return None
    temporary = f"; temporary files are in {folder} (TMPDIR)" if os.strerror(errno.ENOSPC) in advice else ""
    return f"{advice}{temporary}."


def advice_on(error: OSError) -> str:
    """Return what to do about a file that cannot be read or written."""
    return _ADVICE.get(error.errno or 0, "check the disk and the permissions")


def _as_tensorflow_says_it(text: str) -> str | None:
    """Return in words that a file cannot be written, if a text says so as TensorFlow does: `<path>; <reason>`."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = os.strerror(number)
        if reason in text:
            path = re.search(rf"(/[^;]+); {re.escape(reason)}", text)
            where = shown(path[1], 300) if path else "a file"
            return f"{where} cannot be written ({reason}): {_ADVICE[number]}"
    return None


def _not_imported(name: str, error: ImportError) -> str:
    """Return in words that a library cannot be imported, and where Python found it."""
    module = sys.modules.get(name)
    place = getattr(module, "__file__", None)
    found = f"Python finds it in {shown(place, 300)}" if place else "it is not installed"
    return (
        f"the library `{name}` cannot be imported ({shown(error, 300)}): {found}. Is another one of that name on "
        "PYTHONPATH? `make setup` installs what this program needs."
    )


def reason_of(error: BaseException) -> str:
    """Return an error in words; a mistake in the program is called unexpected."""
    return understood(error) or f"unexpected {type(error).__name__}: {error}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with what is counted, such as "1 class" and "1,000 classes"; `many` is for other plurals."""
    return f"{number:,} {one if number == 1 else many or one + ('es' if one.endswith('s') else 's')}"


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """Return foreign text on one line: non-printable characters are escaped as in a Python literal, long text is cut.

    Non-printable are control characters, with which a name could rewrite the screen, marks that change the direction
    of writing, and surrogates, which cannot be encoded.
    """
    whole = str(text)
    cut = whole[:most]
    if not cut.isprintable():
        cut = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)
    return cut if len(whole) <= most else f"{cut}... ({len(whole):,} characters)"


def printable(text: str, most: int = _MOST_OF_A_LINE) -> str:
    """Return a message that is safe to print on a terminal: each line as by `shown`, cut only at generous limits."""
    lines = text.split("\n")
    more = [f"... ({len(lines):,} lines)"] if len(lines) > _MOST_LINES else []
    return "\n".join([shown(line, most) for line in lines[:_MOST_LINES]] + more)
