"""Markdown for terminals and summaries (GitHub's tables), whose cells may contain emphasis but nothing else.

Cards, where nothing foreign may be Markdown, have templates of their own (`export.cards.markdown`).
"""

from collections.abc import Iterable, Sequence

from models.errors import shown

_STRUCTURE = str.maketrans({"<": "&lt;", "|": "&#124;", "[": "&#91;"})

_LONGEST = 4000
"""Most characters of a cell."""


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a column whose name starts with '#' contains numbers and is right-aligned."""
    rule = ["--:" if column.startswith("#") else ":--" for column in columns]
    heading = [_cell(column.removeprefix("#")) for column in columns]
    lines = (heading, rule, *([_cell(cell) for cell in row] for row in rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_bullets(lines: Iterable[str]) -> str:
    """Return a list with one line per item."""
    return "".join(f"- {_cell(line)}\n" for line in lines)


def _cell(text: str) -> str:
    """Return foreign text on one line that cannot begin a tag, a link, an image or another cell."""
    return shown(" ".join(text.split()), _LONGEST).translate(_STRUCTURE)
