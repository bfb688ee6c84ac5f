"""Errors that a user can act on, and how foreign text is shown in messages.

Every error meant for a user is a `MixerError`; its text says what was found, what was expected and what to do next.
The command line prints it without a traceback and turns it into an exit status. Text from a file or the network (a
name, a server's answer) passes through `shown` before it enters a message, and a message through `printable` before it
reaches a terminal.
"""

MOST_SHOWN = 100
"""Most characters of a foreign name in a message."""

_MOST_OF_A_LINE, _MOST_LINES = 4000, 2000


class MixerError(Exception):
    """A failure that the user can understand and act on (exit status 1)."""

    exit_status = 1


class UsageError(MixerError):
    """A command, option or input that cannot be used as given (exit status 2)."""

    exit_status = 2


class DifferentError(MixerError):
    """Nothing failed, but the things compared differ (exit status 3)."""

    exit_status = 3


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
