"""Pieces of Markdown (CommonMark with GitHub's tables): text is escaped unless it is Markdown already.

https://spec.commonmark.org/0.31.2/, https://github.github.com/gfm/#tables-extension-
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote

from models.errors import printable, shown

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
"""Entities instead of backslashes, which not every renderer of tables treats alike."""

_STRUCTURE = str.maketrans({"<": "&lt;", "|": "&#124;", "[": "&#91;"})

_INLINE = re.compile(r"([\\`*_\[\]~$])")
_AT_THE_START = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[#+\-=]))")
"""Where to escape marks of headings, lists and rules, which have a meaning only at the start of a line."""

_LONGEST = 4000
"""Most characters of a line."""


class Markdown(str):
    """Text that is Markdown already; every other string is plain and gets escaped."""

    __slots__ = ()


def escape(text: str) -> Markdown:
    """Escape text so that it renders literally, on one line; return Markdown unchanged."""
    if isinstance(text, Markdown):
        return text
    line = _on_one_line(text).translate(_ENTITIES)
    return Markdown(_AT_THE_START.sub(r"\1\\", _INLINE.sub(r"\\\1", line)))


def _on_one_line(text: str) -> str:
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return shown(line, _LONGEST)


def fill(template: str, **values: str) -> Markdown:
    """Fill the fields of a Markdown template, escaping each value unless it is Markdown."""
    return Markdown(template.format(**{name: escape(value) for name, value in values.items()}))


def code(text: str) -> Markdown:
    """Return text as a code span, or as plain text where a table would break the span."""
    line = _on_one_line(text)
    if not line or "|" in line:
        return escape(line)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " if line[0] == "`" or line[-1] == "`" else ""
    return Markdown(f"{fence}{room}{line}{room}{fence}")


def link(text: str, url: str) -> Markdown:
    """Return a link to an `https://` address; for any other address only the text."""
    if not url.startswith("https://"):
        return escape(text)
    return Markdown(f"[{escape(text)}]({quote(url, safe=':/?&=%#~+@,;.-_')})")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    """Return a table; a column whose name starts with '#' contains numbers and is right-aligned."""
    return Markdown("\n".join(_draw(columns, rows, escape)))


def bullets(*items: str) -> Markdown:
    """Return a list with one line per item."""
    return Markdown("\n".join(f"- {escape(item)}" for item in items))


def block(content: str, language: str = "") -> Markdown:
    """Return lines of a program or file as a code block."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return Markdown(f"{fence}{language}\n{printable(content.rstrip())}\n{fence}")


def warning(text: str) -> Markdown:
    """Return a bold paragraph in a block quote."""
    return Markdown(f"> **{escape(text)}**")


def section(heading: str, *parts: str) -> Markdown:
    """Return a heading of the second level and the parts below it, separated by empty lines."""
    return Markdown("\n\n".join((f"## {escape(heading)}", *(escape(part) for part in parts if part))))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells may contain Markdown's emphasis; columns as in `table`."""
    return "".join(f"{line}\n" for line in _draw(columns, rows, _cell))


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]], drawn: Callable[[str], str]) -> Iterator[str]:
    """Yield the lines of a table, each cell as `drawn` returns it."""
    rule = ["--:" if column.startswith("#") else ":--" for column in columns]
    heading = [drawn(column.removeprefix("#")) for column in columns]
    for line in (heading, rule, *([drawn(cell) for cell in row] for row in rows)):
        yield f"| {' | '.join(line)} |"


def markdown_bullets(lines: Iterable[str]) -> str:
    """Return a list with one line per item, which may contain Markdown's emphasis."""
    return "".join(f"- {_cell(line)}\n" for line in lines)


def _cell(text: str) -> str:
    """Return foreign text on one line that cannot begin a tag, a link, an image or another cell."""
    return shown(" ".join(text.split()), _LONGEST).translate(_STRUCTURE)
