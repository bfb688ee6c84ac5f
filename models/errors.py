"""What goes wrong in words that a user can act on.

Every error meant for a user is a `MixerError`; its text says what was found, what was expected and what to do next.
The command line prints it without a traceback and turns it into an exit status. What comes from a file or the network
(a name, a server's answer) stands in such a text as `shown` gives it; a terminal gets it as `printable` does.
"""

MOST_SHOWN = 100
"""Characters of a foreign name in a message."""

_MOST_OF_A_LINE, _MOST_LINES = 4000, 2000


class MixerError(Exception):
    """A failure that the user can understand and act on (exit status 1)."""

    exit_status = 1


class UsageError(MixerError):
    """A command, option or input that cannot be worked with as given (exit status 2)."""

    exit_status = 2


class DifferentError(MixerError):
    """Nothing failed, but what was compared is not the same (exit status 3)."""

    exit_status = 3


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """Return foreign text on one line: escaped as in a Python literal where it is not printable, and cut.

    Not printable are control characters, with which a name could rewrite the screen, marks that turn the direction of
    writing, and what no encoding has.
    """
    whole = str(text)
    cut = whole[:most]
    if not cut.isprintable():
        cut = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)
    return cut if len(whole) <= most else f"{cut}... ({len(whole):,} characters)"


def printable(text: str, most: int = _MOST_OF_A_LINE) -> str:
    """Return a message as a terminal may have it: line by line as `shown`, cut only where nobody would read it."""
    lines = text.split("\n")
    more = [f"... ({len(lines):,} lines)"] if len(lines) > _MOST_LINES else []
    return "\n".join([shown(line, most) for line in lines[:_MOST_LINES]] + more)
