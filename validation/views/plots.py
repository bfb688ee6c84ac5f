"""The pictures of the page, each with a caption that says what it shows and what would be bad."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from models.records.report import DepthStep
from validation.views.cells import figure_of
from validation.views.svg import PENS, drawing, to_markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[np.float64]

WIDTH = 360
CELL = 2
"""Side of the square, in CSS pixels, within which the outputs of a scatter are drawn as one mark."""


@dataclass(frozen=True)
class Picture:
    """An SVG image and its caption."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Margin:
    """The worst distances of one handle, over the outputs' scale, and the limit of `to_jax`."""

    name: str
    to_jax: float
    oracle_to_saved_model: float | None
    oracle_to_jax: float | None
    limit: float


def draw_margins(margins: Sequence[Margin], prefix: str) -> Picture:
    """Draw the worst distances of all handles, one row each."""
    row, names = 30, [margin.name for margin in margins]
    with drawing(WIDTH, row * len(margins) + 70) as figure:
        axes = figure.add_subplot()
        for y, margin in enumerate(margins):
            points = (
                (margin.oracle_to_jax, "jax", "s"),
                (margin.oracle_to_saved_model, "oracle", "D"),
                (margin.to_jax, "saved_model", "o"),
            )
            axes.plot([margin.limit] * 2, [y - 0.32, y + 0.32], color=PENS["limit"], linewidth=2)
            for value, pen, marker in points:
                if value is not None and math.isfinite(value) and value > 0:
                    face = PENS[pen] if pen == "saved_model" else "none"
                    axes.plot([value], [y], marker, color=PENS[pen], markersize=6, markerfacecolor=face)
                elif value is not None and not math.isfinite(value):
                    axes.plot([1], [y], ">", color=PENS[pen], transform=axes.get_yaxis_transform(), clip_on=False)
            axes.text(0, y - 0.3, margin.name, transform=axes.get_yaxis_transform(), fontsize=10)
        axes.set_xscale("log")
        axes.set_ylim(len(names) - 0.4, -0.9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(_power)
        axes.minorticks_off()
        axes.set_xlabel("largest difference, over the scale of the outputs")
        svg = to_markup(figure, prefix=prefix, label=_margins_label(margins))
    return Picture(
        svg,
        "One row per handle, on a logarithmic scale; further right is worse. Filled circle: SavedModel compared with "
        "JAX, which must be left of the red bar, its limit. Diamond and square: SavedModel and JAX compared with the "
        "float64 oracle; a diamond far to the right of its square would be bad. An arrow at the edge means NaN or "
        "infinity.",
    )


def _margins_label(margins: Sequence[Margin]) -> str:
    rows = (f"{margin.name} {figure_of(margin.to_jax)} (limit {figure_of(margin.limit)})" for margin in margins)
    return f"Dot plot of the largest difference between SavedModel and JAX: {', '.join(rows)}"


def draw_agreement(saved_model: Values, jax: Values, shares: Values, prefix: str) -> Picture:
    """Plot the SavedModel's outputs over JAX's, and below the differences, as `shares` of the limit (1 = the limit)."""
    finite = np.isfinite(saved_model) & np.isfinite(jax) & np.isfinite(shares)
    x, y, percent = jax[finite], saved_model[finite], 100 * shares[finite]
    with drawing(WIDTH, 340) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        span = _span(np.concatenate([x, y]))
        for axes, limits in ((upper, span), (lower, _around_zero(percent))):
            axes.set_xlim(*span)
            axes.set_ylim(*limits)
            axes.locator_params(nbins=5)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_major_formatter("{x:g}")
            figure.draw_without_rendering()  # fixes the layout, which the number of cells depends on
        upper.plot(span, span, color=PENS["rule"], linewidth=1, zorder=0)
        lower.axhline(0, color=PENS["rule"], linewidth=1, zorder=0)
        for sign in (-100, 100):
            lower.plot(span, [sign, sign], color=PENS["limit"], linewidth=1.5, scaley=False)
        over = np.abs(percent) > 100
        for axes, values in ((upper, y), (lower, percent)):
            _draw_density(axes, x[~over], values[~over])
            _draw_density(axes, x[over], values[over], pen="limit", size=3 * CELL)
        upper.set_ylabel("SavedModel")
        lower.set_ylabel("difference,\n% of limit")
        lower.set_xlabel("output of JAX")
        worst = float(np.abs(percent).max()) if percent.size else math.nan
        label = f"Scatter of {x.size:,} outputs; the largest difference is {figure_of(worst)} % of its limit"
        svg = to_markup(figure, prefix=prefix, label=label)
    return Picture(
        svg,
        "Above, each output of the SavedModel by JAX's: marks off the diagonal would be bad. Below, their difference "
        "in percent of the limit: any beyond 100 would be bad, and is red and large. Outputs that fall into one square "
        f"of {CELL} pixels are one mark, fainter for fewer than ten; none of the {x.size:,} is left out."
        f"{_lost(finite)}",
    )


def _draw_density(axes: "Axes", x: Values, y: Values, *, pen: str = "saved_model", size: int = CELL) -> None:
    """Mark each cell that contains a point; neighbours in a row become one stroke, to keep the picture small."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    box = axes.get_window_extent()
    columns, rows = max(int(box.width / size), 1), max(int(box.height / size), 1)
    counts, edges, levels = np.histogram2d(x, y, bins=(columns, rows), range=(axes.get_xlim(), axes.get_ylim()))
    middles = (levels[:-1] + levels[1:]) / 2
    for low, high, opacity in ((1, 9, 0.55 if pen == "saved_model" else 1.0), (10, math.inf, 1.0)):
        inside = ((counts >= low) & (counts <= high)).astype(np.int8)
        steps = np.diff(inside, axis=0, prepend=0, append=0).T
        row, start = np.nonzero(steps == 1)
        end = np.nonzero(steps == -1)[1]
        if not row.size:
            continue
        vertices = np.empty((2 * row.size, 2))
        vertices[::2, 0], vertices[1::2, 0] = edges[start], edges[end]
        vertices[::2, 1] = vertices[1::2, 1] = middles[row]
        codes = np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=Path.code_type), row.size)
        path = Path(vertices, codes)
        patch = PathPatch(path, fill=False, edgecolor=PENS[pen], linewidth=size, alpha=opacity, capstyle="butt")
        axes.add_patch(patch)


def draw_errors(shares: Values, prefix: str) -> Picture:
    """Draw a histogram of the outputs' differences, as `shares` of the limit (1 = the limit)."""
    finite = np.isfinite(shares)
    percent = 100 * np.abs(shares[finite])
    equal, off = int((percent == 0).sum()), percent[percent > 0]
    with drawing(WIDTH, 340) as figure:
        axes = figure.add_subplot()
        low = min(math.floor(math.log10(off.min())) if off.size else -2, 1)
        high = max(math.ceil(math.log10(off.max())) if off.size else 2, 2.3)
        counts, edges = np.histogram(off, np.logspace(low, high, min(int(8 * (high - low)) + 1, 200)))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0.7, 2 * max(int(counts.max()), 1))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.stairs(np.maximum(counts, 0.1), edges, baseline=0.1, fill=True, color=PENS["saved_model"], alpha=0.8)
        axes.axvline(100, color=PENS["limit"], linewidth=2)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(_power)
        axes.yaxis.set_major_formatter(_power)
        beside = axes.get_xaxis_transform()
        axes.annotate("limit", (100, 1), (-6, 0), beside, "offset points", color=PENS["limit"], ha="right", va="top")
        axes.set_xlabel("difference, % of limit")
        axes.set_ylabel("number of outputs")
        over = int((percent > 100).sum())
        label = f"Histogram of {percent.size:,} differences; {over:,} are over the limit, {equal:,} are zero"
        svg = to_markup(figure, prefix=prefix, label=label)
    return Picture(
        svg,
        "Number of outputs (vertical, logarithmic) by their difference from JAX's (horizontal, logarithmic): any to "
        f"the right of the red line would be bad. {over:,} of {percent.size:,} are; {equal:,} are bit-identical and "
        f"not drawn.{_lost(finite)}",
    )


def draw_depth(steps: Sequence[DepthStep], prefix: str) -> Picture:
    """Draw how far JAX and the SavedModel's function are from the oracle after each step of the model."""
    sides = (
        ("JAX", "jax", [step.jax for step in steps], "s--"),
        ("SavedModel", "saved_model", [step.saved_model for step in steps], "o-"),
    )
    with drawing(WIDTH, 340) as figure:
        axes = figure.add_subplot()
        for name, pen, values, style in sides:
            drawn = [value if math.isfinite(value) and value > 0 else math.nan for value in values]
            face = PENS[pen] if pen == "saved_model" else "none"
            axes.plot(drawn, style, color=PENS[pen], label=name, markersize=5, markerfacecolor=face, linewidth=1.5)
            lost = [index for index, value in enumerate(values) if not math.isfinite(value)]
            axes.plot(lost, [1] * len(lost), "^", color=PENS[pen], transform=axes.get_xaxis_transform(), clip_on=False)
        axes.set_yscale("log")
        axes.set_xlim(-0.5, len(steps) - 0.5)
        ticks = {index: name for index, step in enumerate(steps) if (name := _short(step.name, len(steps)))}
        axes.set_xticks(list(ticks), list(ticks.values()), rotation=90)
        axes.yaxis.set_major_formatter(_power)
        axes.yaxis.set_minor_formatter(_few(axes))
        axes.set_ylabel("largest error, over the spread")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.12), ncols=2, borderaxespad=0)
        ends = (f"{name} {figure_of(values[0])} to {figure_of(values[-1])}" for name, _, values, _ in sides)
        label = f"Line chart of the error along the depth: {', '.join(ends)}" if steps else "No steps"
        svg = to_markup(figure, prefix=prefix, label=label)
    return Picture(
        svg,
        "Largest error of the activations, compared with the float64 oracle (vertical, logarithmic), after each step, "
        "from the stem through the blocks to the output: a line that jumps, or a SavedModel far above JAX, would be "
        "bad. A triangle at the top means NaN or infinity.",
    )


def _short(name: str, steps: int) -> str:
    """Return a step's name, shortened for an axis; empty for every other block if there are many."""
    block = name.removeprefix("MixerBlock_")
    if block == name:
        return "last norm" if name == "pre_head_layer_norm" else name
    return f"block {block}" if not block.isdigit() or int(block) % (1 if steps < 20 else 2) == 0 else ""


def _power(value: float, _position: Any = None) -> str:  # noqa: ANN401 (matplotlib's signature)
    return f"{value:g}" if 0.001 <= value < 100_000 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _few(axes: "Axes") -> Any:  # noqa: ANN401 (a formatter)
    """Return a formatter that labels minor ticks only if the axis spans less than 1.5 powers of ten."""
    low, high = axes.get_ylim()
    few = math.log10(high / low) < 1.5
    return lambda value, *_: _power(value) if few and f"{value:e}"[0] in "25" else ""


def _span(values: Values) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    room = (high - low) * 0.04 or abs(high) * 0.04 or 1.0
    return low - room, high + room


def _around_zero(values: Values) -> tuple[float, float]:
    reach = 1.15 * float(np.abs(values).max(initial=0)) or 1.0
    return -reach, reach


def _lost(finite: NDArray[np.bool_]) -> str:
    lost = int(finite.size - finite.sum())
    return f" {lost:,} are NaN or infinite and cannot be drawn." if lost else ""
