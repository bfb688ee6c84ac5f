"""Adapt Matplotlib's SVG to the page: without its own styles, and with colours from the page's style sheet."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PENS = {
    "ink": "#000001",
    "rule": "#000002",
    "saved_model": "#000003",
    "jax": "#000004",
    "oracle": "#000005",
    "limit": "#000006",
}
"""Colours to draw with: each is a placeholder for a colour of the page, in its light and its dark theme."""

_NAMES = {colour: name.replace("_", "-") for name, colour in PENS.items()}
_KEPT = {
    "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-opacity", "fill-opacity", "opacity",
    "text-anchor", "font-size", "dominant-baseline",
}  # fmt: skip
_NUMBER = re.compile(r"-?\d+\.\d+")
_HREF = "{http://www.w3.org/1999/xlink}href"


@contextmanager
def drawing(width: int, height: int) -> Iterator["Figure"]:
    """Yield an empty figure of this size in CSS pixels, with the settings to draw it applied.

    Matplotlib's defaults apply, not a user's configuration, so that a page is the same wherever it is made.
    """
    import matplotlib
    from matplotlib.figure import Figure

    ink = PENS["ink"]
    settings: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "svg.hashsalt": "mixer-jax2tf",
        "font.size": 11,
        "text.color": ink,
        "axes.labelcolor": ink,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "xtick.color": PENS["rule"],
        "ytick.color": PENS["rule"],
        "axes.edgecolor": PENS["rule"],
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 1,
        "legend.frameon": False,
        "legend.fontsize": 11,
        "axes.unicode_minus": False,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def to_markup(figure: "Figure", *, prefix: str, label: str) -> Markup:
    """Return the figure as an inline SVG image with this label; ids start with the prefix."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 (written two lines above)
    _strip(root)
    _rename_ids(root, prefix)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        _restyle(node)
    view_box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": view_box, "role": "img", "aria-label": label, "focusable": "false"})
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 (matplotlib escapes what it draws)


def _strip(parent: ET.Element) -> None:
    """Remove style sheets, comments, metadata and elements without any colour."""
    for child in list(parent):
        unseen = child.get("style") == "fill: none" and "clip-path" not in child.attrib
        if child.tag.rpartition("}")[2] in {"style", "metadata"} or unseen:
            parent.remove(child)
        else:
            _strip(child)
        child.tail = None
    if parent.text and not parent.text.strip():
        parent.text = None


def _rename_ids(root: ET.Element, prefix: str) -> None:
    """Rename the ids that are referred to, so that they are unique on the page, and remove the others."""
    used = {node.attrib[_HREF][1:] for node in root.iter() if _HREF in node.attrib}
    used |= {node.attrib["clip-path"][5:-1] for node in root.iter() if "clip-path" in node.attrib}
    found = (node.attrib["id"] for node in root.iter() if node.get("id") in used)
    names = {old: f"{prefix}-{index}" for index, old in enumerate(found)}
    for node in root.iter():
        old = node.attrib.pop("id", None)
        if old in names:
            node.set("id", names[old])
        if _HREF in node.attrib:
            node.set("href", f"#{names[node.attrib.pop(_HREF)[1:]]}")
        if "clip-path" in node.attrib:
            node.set("clip-path", f"url(#{names[node.attrib['clip-path'][5:-1]]})")


def _restyle(node: ET.Element) -> None:
    """Turn inline styles, which the page's policy forbids, into classes and attributes; shorten the numbers."""
    style = dict(item.split(": ", 1) for item in node.attrib.pop("style", "").split("; ") if item)
    classes = []
    for kind in ("fill", "stroke"):
        colour = style.get(kind)
        if colour == "none":
            node.set(kind, "none")
        elif colour is not None:
            classes.append(f"{kind}-{_NAMES[colour]}")
    if classes:
        node.set("class", " ".join(classes))
    for key in sorted(_KEPT & style.keys()):  # sets have another order in each process
        node.set(key, style[key].removesuffix("px"))
    for key in ("d", "transform", "x", "y", "width", "height"):
        if key in node.attrib:
            node.set(key, _NUMBER.sub(_shorten, node.attrib[key]).replace("\n", "").strip())
    if "transform" in node.attrib and node.attrib["transform"].startswith("rotate(-0 "):
        del node.attrib["transform"]
    node.attrib.update(dict(sorted(node.attrib.items())))


def _shorten(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
