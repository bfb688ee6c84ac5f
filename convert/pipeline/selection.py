"""Find the handles and models that belong to the names given by a caller."""

from collections.abc import Sequence
from pathlib import Path

from convert.checkpoints.fetch import parse_source
from convert.checkpoints.open import CustomCheckpoint, Source
from convert.pipeline.job import Batch, Task
from export.install import tidy
from models.catalog import GRAPH_SUFFIX, Flavour, Handle
from models.digests import DigestTable
from models.errors import UsageError
from models.records.layout import ModelPaths
from models.selection import custom_handle, select_handles


def choose(handles: Sequence[str], source: str, custom: CustomCheckpoint | None) -> tuple[Handle, ...]:
    """Return the named handles, or the one that gives the architecture and head of a custom checkpoint.

    Raises:
        UsageError: a handle, the source, the name or the class list cannot be used.
    """
    chosen = tuple(select_handles(handles))
    if custom is None:
        parse_source(source)
    elif not handles or len(chosen) != 1:
        raise UsageError("--checkpoint takes one HANDLE, which gives the architecture and the head.")
    else:
        if custom.labels is not None and not custom.labels.is_file():
            raise UsageError(f"--labels {custom.labels} is not a file: expected a text file, one line per class.")
        custom_handle(chosen[0], custom.name, 1)  # refuses an unusable name before any work
        if custom.labels is not None and chosen[0].head == "fe":
            raise UsageError(f"--labels is for classifiers: {chosen[0].name} gives features, which have no classes.")
    return chosen


def in_flavours(handles: Sequence[Handle], flavours: Sequence[Flavour]) -> tuple[Handle, ...]:
    """Return each handle in each flavour."""
    return tuple(handle.in_flavour(flavour) for handle in handles for flavour in flavours)


def custom_checkpoint(checkpoint: Path | None, name: str | None, labels: Path | None = None) -> CustomCheckpoint | None:
    """Return the custom checkpoint that these options give; None if they give none.

    Raises:
        UsageError: the name or the checkpoint is missing.
    """
    if checkpoint is None and name is None and labels is None:
        return None
    if checkpoint is None or name is None:
        raise UsageError("a custom model needs both --checkpoint FILE and --name NAME (--labels FILE is optional).")
    return CustomCheckpoint(checkpoint, name, labels)


def select_batch(
    task: Task,
    handles: Sequence[str],
    *,
    source: str,
    cache: Path | None,
    out: Path,
    version: int,
    flavours: Sequence[Flavour],
    custom: CustomCheckpoint | None,
) -> Batch:
    """Return the batch of a task on these handles in these flavours.

    Raises:
        UsageError: a handle, the source or the name cannot be used.
    """
    chosen = in_flavours(choose(handles, source, custom), flavours)
    return Batch(task, chosen, Source(source, cache, DigestTable.read()), out, version, custom=custom)


def chosen_names(handles: Sequence[str], flavours: Sequence[Flavour], out: Path, version: int) -> list[str]:
    """Return the names of the chosen models of the catalog, and of custom ones, in these flavours.

    Raises:
        UsageError: a name is neither in the catalog nor that of a model in `out`.
    """
    custom = [name for name in handles if _is_custom(name, flavours, out, version)]
    known = {handle.name: handle for handle in select_handles([name for name in handles if name not in custom])}
    names = []
    for name in handles or known:
        template = known.get(name)
        for flavour in flavours:
            if template is not None:
                names.append(template.in_flavour(flavour).name)
            else:
                names.append(name.removesuffix(GRAPH_SUFFIX) + GRAPH_SUFFIX if flavour == "graph" else name)
    for name in names:
        tidy(ModelPaths.of(out, name, version))  # restores what an ended process left aside
    return list(dict.fromkeys(names))


def _is_custom(name: str, flavours: Sequence[Flavour], out: Path, version: int) -> bool:
    try:
        select_handles([name])
    except UsageError:
        stems = {name, name.removesuffix(GRAPH_SUFFIX) + GRAPH_SUFFIX} if "graph" in flavours else {name}
        models = [ModelPaths.of(out, stem, version) for stem in stems if "/" not in name]
        for model in models:
            tidy(model)
        return any(model.manifest.is_file() for model in models)
    return False
