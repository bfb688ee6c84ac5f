"""Commands about models: convert, validate, convert-all."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.catalog import BUCKET, DEFAULT_VERSION
from models.errors import UsageError
from models.selection import select_named

if TYPE_CHECKING:
    from convert.pipeline.job import Batch, Task


def convert(
    handles: options.HandlesOrNames = None,
    collection: options.CollectionOption = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    overwrite: options.Overwrite = False,
    checkpoint: options.CustomCheckpoint = None,
    name: options.CustomName = None,
    labels: options.Labels = None,
    strip_prefix: options.StripPrefix = None,
    about: options.About = None,
    jobs: options.Jobs = 1,
    no_graph_cache: options.NoGraphCache = False,
    json: options.Json = False,
) -> None:
    """Convert checkpoints to SavedModels with manifests; does not check the outputs (see validate)."""
    from convert.pipeline.kept_graphs import KeptGraphs

    custom = (checkpoint, name, labels, strip_prefix, about)
    batch = _batch("convert", select_named(handles, collection), custom, source, cache, out, version, flavour)
    kept = None if no_graph_cache else KeptGraphs.of(cache)
    _run(replace(batch, overwrite=overwrite, jobs=jobs, kept=kept), json=json)


def validate(
    handles: options.HandlesOrNames = None,
    collection: options.CollectionOption = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    inputs_set: options.InputsSetOption = "gate",
    reference: options.Reference = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the error after each step of the model.")] = False,
    checkpoint: options.CustomCheckpoint = None,
    name: options.CustomName = None,
    labels: options.Labels = None,
    strip_prefix: options.StripPrefix = None,
    jobs: options.Jobs = 1,
    memory: options.Memory = None,
    json: options.Json = False,
) -> None:
    """Compare SavedModels with JAX and their checkpoints, and write their reports."""
    custom = (checkpoint, name, labels, strip_prefix, None)
    batch = _batch("validate", select_named(handles, collection), custom, source, cache, out, version, flavour)
    if reference is not None and (not handles or len(batch.handles) != 1):
        raise UsageError("--reference takes one HANDLE in one flavour: the model that it is an earlier version of.")
    batch = replace(batch, inputs_set=inputs_set, explain=explain, jobs=jobs, memory=_bytes_of(memory))
    _run(batch, reference=reference, json=json)


def convert_all(
    handles: options.HandlesOrNames = None,
    collection: options.CollectionOption = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    overwrite: options.Overwrite = False,
    checkpoint: options.CustomCheckpoint = None,
    name: options.CustomName = None,
    labels: options.Labels = None,
    strip_prefix: options.StripPrefix = None,
    about: options.About = None,
    jobs: options.Jobs = 1,
    memory: options.Memory = None,
    json: options.Json = False,
) -> None:
    """Fetch, convert and validate; skips models that are up to date and passed."""
    custom = (checkpoint, name, labels, strip_prefix, about)
    batch = _batch("convert-all", select_named(handles, collection), custom, source, cache, out, version, flavour)
    _run(replace(batch, overwrite=overwrite, jobs=jobs, memory=_bytes_of(memory)), json=json)


def _bytes_of(gibibytes: float | None) -> int | None:
    return None if gibibytes is None else round(gibibytes * 2**30)


def _batch(
    task: "Task",
    handles: list[str],
    custom: tuple[Path | None, str | None, Path | None, str | None, Path | None],
    source: str,
    cache: Path | None,
    out: Path,
    version: int,
    flavour: options.Flavour,
) -> "Batch":
    from convert.pipeline.selection import custom_checkpoint, select_batch

    batch = select_batch(
        task,
        handles,
        source=source,
        cache=cache,
        out=out,
        version=version,
        flavours=flavour.each,
        custom=custom_checkpoint(handles, *custom),
    )
    if batch.custom is not None:
        batch.custom.refuse_unreadable()
    return batch


def _run(batch: "Batch", *, reference: Path | None = None, json: bool) -> None:
    from convert.cli import parity_tables
    from convert.pipeline.batch import check_batch, run_batch
    from convert.pipeline.page import refresh_page
    from validation.previous.open import Published

    watch = console.progress_bar()
    check_batch(batch, watch)
    with ExitStack() as stack:
        published = None if reference is None else stack.enter_context(Published.opened(reference))
        done = run_batch(replace(batch, published=published), watch)
    if batch.task != "convert":
        refresh_page(batch.out, watch)
    parity_tables.show(batch, done, json=json)
