"""The page that a person looks at: `<out>/index.html`, made of the records that stand beside the models."""

import base64
import hashlib
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from models.catalog import Handle
from models.records.report import Report
from models.storage.files import write_atomically
from validation.views.handle import ORIGINS, badge, section
from validation.views.html import NOTHING, Cell, Column, Markup, element, escape, figure_of, join, link, share, table
from validation.views.model_records import ModelRecords, Status
from validation.views.plots import Margin, draw_margins

TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(out: Path, version: int, handles: Sequence[Handle]) -> Path:
    """Write `<out>/index.html` about this version of the handles, one self-contained file, and return its path.

    Whatever is missing or damaged is named on the page; the same records give the same bytes.
    """
    models = [ModelRecords.read(out, version, handle) for handle in handles]
    anchors = _anchors(handles)
    template = TEMPLATE.read_text(encoding="utf-8")
    page = string.Template(template).substitute(
        policy=escape(_policy(template)),
        title=escape(f"Mixers in TensorFlow, version {version}"),
        account=_account(models),
        origins=_origins(models),
        table=_table(models, anchors),
        margins=_margins(models),
        sections=join(*(section(model, anchor) for model, anchor in zip(models, anchors, strict=True))),
        count=escape(_handles(len(models))),
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    write_atomically(path, page.encode())
    return path


def _policy(template: str) -> str:
    """Return a policy under which the page loads nothing and runs only its own style and script, known by digest."""
    allowed = ["default-src 'none'", "base-uri 'none'", "form-action 'none'"]
    for name in ("style", "script"):
        found = re.search(rf"<{name}>(.*?)</{name}>", template, re.DOTALL)
        digest = hashlib.sha256(found[1].encode()).digest() if found else b""
        allowed.append(f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'")
    return "; ".join(allowed)


def _anchors(handles: Sequence[Handle]) -> list[str]:
    """Return an id for each handle: its name, where that can be one and is no other's."""
    names = [handle.name for handle in handles]
    good = {name for name in names if re.fullmatch(r"mixer_[a-z0-9_-]+", name) and names.count(name) == 1}
    return [name if name in good else f"handle-{index}" for index, name in enumerate(names)]


def _handles(count: int) -> str:
    return f"{count} handle{'s' * (count != 1)}"


def _account(models: Sequence[ModelRecords]) -> Markup:
    """Say how many handles passed, and what was held against what."""
    counts = Counter(model.status for model in models)
    said = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    full = sum(model.report is not None and model.report.inputs_set == "full" for model in models)
    void = "Void: the records cannot be read or do not belong together, so no verdict counts. "
    return join(
        element("p", element("strong", f"{_handles(len(models))}: {said or 'nothing to show'}."), class_="lead"),
        element(
            "p",
            "What was checked was read back from disk and run in TensorFlow on the CPU. Its outputs were compared with "
            "the Flax model in JAX on the same parameters and with a float64 oracle in NumPy, its variables with "
            f"the checkpoint, bit for bit. {full} of {len(models)} went through the full set: more inputs, "
            "gradients, the error along the depth, what consumers do. ",
            void if counts["void"] else "",
            "This page repeats what the reports say; nothing was run to make it.",
        ),
    )


def _origins(models: Sequence[ModelRecords]) -> Markup:
    counts = Counter(model.manifest.checkpoint.origin for model in models if model.manifest)
    if not counts:
        return Markup("")
    rows = (
        element("li", element("strong", f"{origin} ({_handles(count)})"), f": {ORIGINS[origin]}.")
        for origin, count in counts.most_common()
    )
    return join(element("p", "Where the weights came from:"), element("ul", *rows))


_COLUMNS = (
    Column("Handle"),
    Column("Verdict"),
    Column("Set"),
    Column("Origin"),
    Column("Mixer"),
    Column("Trained on"),
    Column("Made from"),
    Column("Outputs", numeric=True),
    Column("Parameters", numeric=True),
    Column("MB", numeric=True),
    Column("Worst difference", numeric=True),
    Column("Of the limit", numeric=True),
    Column("Fine-tunable"),
)


def _table(models: Sequence[ModelRecords], anchors: Sequence[str]) -> Markup:
    rows = (tuple(_row(model, anchor)) for model, anchor in zip(models, anchors, strict=True))
    caption = "The handles: worst difference of SavedModel and JAX, over the scale of the image's outputs"
    return table(caption, _COLUMNS, rows, id_="handles")


def _row(model: ModelRecords, anchor: str) -> Iterator[Cell | str]:
    handle, manifest, report = model.handle, model.manifest, model.report
    training = handle.checkpoint.training
    worst, limit = (report.figure("max_relative"), _limit(report)) if report else (None, None)
    part = None if worst is None or limit is None else 100 * worst / limit
    yield link(f"#{anchor}", handle.name)
    yield badge(model.status)
    yield report.inputs_set if report else NOTHING
    yield manifest.checkpoint.origin if manifest else NOTHING
    yield handle.checkpoint.architecture.name
    yield training.data + (" (SAM)" if training.name == "sam" else "")
    yield handle.checkpoint.object
    yield Cell(f"{handle.outputs:,}", handle.outputs)
    yield Cell(f"{handle.parameters:,}", handle.parameters)
    yield Cell(f"{manifest.size / 1e6:,.1f}" if manifest else NOTHING, manifest.size if manifest else None)
    yield Cell(figure_of(worst), worst)
    yield Cell(share(part), part)
    yield {True: "yes", False: "no", None: NOTHING}[report.fine_tunable if report else None]


def _limit(report: Report) -> float | None:
    tolerance = report.tolerances.get("max_relative")
    return tolerance.limit if tolerance and tolerance.limit > 0 else None


def _margins(models: Sequence[ModelRecords]) -> Markup:
    margins = [
        Margin(model.handle.name, worst, *_oracle_distances(model.report), limit)
        for model in models
        if model.report
        and (worst := model.report.figure("max_relative")) is not None
        and (limit := _limit(model.report)) is not None
    ]
    return draw_margins(margins, "margins").to_figure("All at a glance.", "glance") if margins else Markup("")


def _oracle_distances(report: Report) -> tuple[float | None, float | None]:
    """Return the worst distance from the oracle: the SavedModel's and JAX's."""
    return report.figure("saved_model_oracle_relative"), report.figure("jax_oracle_relative")
