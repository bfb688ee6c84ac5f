"""Render cards from Markdown templates (CommonMark with GitHub's tables), where every value is escaped.

https://spec.commonmark.org/0.31.2/, https://github.github.com/gfm/#tables-extension-
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from export.cards.errata import ERRATA
from models import catalog, citations
from models.errors import printable, shown
from models.flavours import FLAVOURS
from models.records.report import ZERO_HEAD
from models.signatures import WARMUP
from models.storage.files import megabytes

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
"""Entities instead of backslashes, which not every renderer of tables treats alike."""

_INLINE = re.compile(r"([\\`*_\[\]~$])")
_AT_THE_START = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[#+\-=]))")
"""Where to escape marks of headings, lists and rules, which have a meaning only at the start of a line."""

_LONGEST = 4000
"""Most characters of a line."""


def render(template: str, **values: Any) -> str:  # noqa: ANN401 (whatever the template shows)
    """Return a template in `templates/` filled with these values."""
    return ENVIRONMENT.get_template(template).render(values)


def _environment() -> jinja2.Environment:
    """Return the environment of the templates: text is escaped for Markdown unless a filter made Markdown of it."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        # With it, macros and filters return markup, which `finalize` leaves as it is.
        autoescape=True,
        finalize=_escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters.update(block=_block, code=_code, figure=_figure, link=_link, thousands="{:,}".format, verbatim=Markup)
    found.filters["megabytes"] = megabytes
    found.globals.update(
        catalog=catalog, citations=citations, errata=ERRATA, flavours=FLAVOURS, warmup=WARMUP, zero_head=ZERO_HEAD
    )
    return found


def _escape(value: object) -> Markup:
    """Escape a value so that it renders literally, on one line; return markup unchanged."""
    if isinstance(value, Markup):
        return value
    line = _on_one_line(str(value)).translate(_ENTITIES)
    return _markup(_AT_THE_START.sub(r"\1\\", _INLINE.sub(r"\\\1", line)))


def _on_one_line(text: str) -> str:
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return shown(line, _LONGEST)


def _code(value: object) -> Markup:
    """Return a value as a code span, or as plain text where a table would break the span."""
    line = _on_one_line(str(value))
    if not line or "|" in line:
        return _escape(line)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " if line[0] == "`" or line[-1] == "`" else ""
    return _markup(f"{fence}{room}{line}{room}{fence}")


def _link(text: str, url: str) -> Markup:
    """Return a link to an `https://` address; for any other address only the text."""
    if not url.startswith("https://"):
        return _escape(text)
    return _markup(f"[{_escape(text)}]({quote(url, safe=':/?&=%#~+@,;.-_')})")


def _block(content: str, language: str = "") -> Markup:
    """Return lines of a program or file as a code block."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return _markup(f"{fence}{language}\n{printable(str(content).rstrip())}\n{fence}\n")


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"


def _markup(text: str) -> Markup:
    return Markup(text)  # noqa: S704 (escaped by those who call it)


ENVIRONMENT = _environment()
