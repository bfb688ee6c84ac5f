"""Find the handles and models that belong to the names given by a caller."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from convert.checkpoints.fetch import Source
from convert.checkpoints.open import CustomCheckpoint
from convert.pipeline.convert_handle import refuse_other_labels
from convert.pipeline.job import Batch, Task
from export.install import tidy
from models.catalog import GRAPH_SUFFIX, HANDLES, Flavour, Handle
from models.errors import UsageError, shown
from models.formats import FORMATS
from models.records.about import About
from models.records.formats import ExportManifest, read_manifest
from models.records.layout import ModelPaths, fine_tuned_checkpoint
from models.selection import custom_handle, is_catalogued, select_handles, template_of
from models.storage.files import sha256_of

_MOST_NAMED = 12


def choose(
    handles: Sequence[str], source: Source, custom: CustomCheckpoint | None, out: Path, version: int
) -> tuple[tuple[Handle, ...], CustomCheckpoint | None]:
    """Return the named handles and the custom checkpoint, of which the only handle gives the architecture and head.

    Instead of that handle, the name of a custom model in `out` may be given, whose manifest says which one it is.

    Raises:
        UsageError: a handle, the source, the name, the file or the class list cannot be used.
    """
    found = [_find_custom(name, custom, out, version) for name in handles]
    for one in filter(None, found):
        if len(handles) > 1:
            raise UsageError(f"{one[1].name} is a custom model: give it alone, with its --checkpoint.")
        handles, custom = one[:1], one[1]
    chosen = tuple(select_handles(handles))
    if custom is None:
        source.check()
    elif not handles or len(chosen) != 1:
        raise UsageError("--checkpoint takes one HANDLE, which gives the architecture and the head.")
    else:
        if custom.labels is not None:
            _refuse_no_file(custom.labels)
        custom_handle(chosen[0], custom.name, 1)  # refuses an unusable name before any work
        if custom.labels is not None and chosen[0].head == "fe":
            raise UsageError(f"--labels is for classifiers: {chosen[0].name} gives features, which have no classes.")
    return chosen, custom


def _refuse_no_file(labels: Path) -> None:
    if not labels.is_file():
        raise UsageError(f"--labels {labels} is not a file: expected a text file, one line per class.")


def in_flavours(handles: Sequence[Handle], flavours: Sequence[Flavour]) -> tuple[Handle, ...]:
    """Return each handle in each flavour; those that were named as graph models only as such."""
    each = ((handle, ("graph",) if handle.flavour == "graph" else flavours) for handle in handles)
    named = [handle.in_flavour(flavour) for handle, its in each for flavour in its]
    return tuple({handle.name: handle for handle in named}.values())


def custom_checkpoint(
    handles: Sequence[str],
    checkpoint: Path | None,
    name: str | None,
    labels: Path | None = None,
    strip_prefix: str | None = None,
    about: Path | None = None,
) -> CustomCheckpoint | None:
    """Return the custom checkpoint that these options give; None if they give none.

    Without `name`, one of the handles may be the name of a custom model.

    Raises:
        UsageError: the name or the checkpoint is missing.
    """
    if all(option is None for option in (checkpoint, name, labels, strip_prefix, about)):
        return None
    others = [handle for handle in handles if not is_catalogued(handle)]
    if name is None and len(others) == 1:
        name = others[0].removesuffix(GRAPH_SUFFIX)
    if checkpoint is None or name is None:
        raise UsageError(
            "a custom model needs both --checkpoint FILE and --name NAME (--labels, --strip-prefix and --about are "
            "optional)."
        )
    said = None if about is None else About.from_toml(about)
    return CustomCheckpoint(checkpoint, name, labels, strip_prefix or "", said)


def _find_custom(
    given: str, custom: CustomCheckpoint | None, out: Path, version: int
) -> tuple[str, CustomCheckpoint] | None:
    """Find a custom model in `out` by its name; return the handle of its architecture and head, and its checkpoint.

    Without labels, the class list is the model's own. None if the name is in the catalog, or no such model exists.

    Raises:
        UsageError: the checkpoint is not given, or not the one that the model was made from.
    """
    base = given.removesuffix(GRAPH_SUFFIX)
    models = [ModelPaths.of(out, name, version) for name in (given, base, base + GRAPH_SUFFIX) if "/" not in name]
    for model in models:
        tidy(model)
    made = next((one for one in models if one.manifest.is_file()), None)
    if is_catalogued(given) or made is None:
        return None
    manifest = read_manifest(made.manifest)
    if isinstance(manifest, ExportManifest):
        source = manifest.handle.removesuffix(f"-{manifest.format}")
        raise UsageError(f"{given} is an export, which `export` checks when it writes it: give {source}.")
    tuned = fine_tuned_checkpoint(out, base)
    if custom is None and tuned.is_file() and sha256_of(tuned) == manifest.checkpoint.sha256:
        custom = CustomCheckpoint(tuned, base)
    was = f"{shown(manifest.checkpoint.object)}, sha256 {manifest.checkpoint.sha256}"
    if custom is None:
        raise UsageError(
            f"{given} is a custom model: give the checkpoint that it was made from, --checkpoint FILE (it was {was})."
        )
    custom.refuse_unreadable()
    found = sha256_of(custom.path)
    if found != manifest.checkpoint.sha256:
        raise UsageError(f"{custom.path} has sha256 {found}, but {given} was made from {was}: give that file.")
    if custom.name != base:
        raise UsageError(f"--name {custom.name}: the model is named {base}; leave out --name, or give HANDLE instead.")
    own = made.directory / manifest.class_list if manifest.class_list else None
    template = template_of(manifest.architecture, manifest.head).in_flavour("graph" if given != base else "native")
    return template.name, replace(custom, labels=custom.labels or own)


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
    place = Source(source, cache)
    chosen, custom = choose(handles, place, custom, out, version)
    batch = Batch(task, in_flavours(chosen, flavours), place, out, version, custom=custom)
    for item in batch.items if task == "validate" else ():
        refuse_other_labels(item.paths, custom)
    return batch


def chosen_names(handles: Sequence[str], flavours: Sequence[Flavour], out: Path, version: int) -> list[str]:
    """Return the names of models: handles of the catalog in these flavours, and whatever else is in `out`.

    Raises:
        UsageError: a name is neither in the catalog nor that of a model in `out`.
    """
    names: list[str] = []
    unknown: list[str] = []
    for given in handles or HANDLES:
        try:
            names += [handle.name for handle in in_flavours(select_handles([given]), flavours)]
        except UsageError as error:
            found = _made(given, flavours, out, version)
            names += found
            unknown += [] if found else [str(error)]
    if unknown:
        raise UsageError("\n".join([*unknown, *_models_in(out, version)]))
    for name in names:
        tidy(ModelPaths.of(out, name, version))  # restores what an ended process left aside
    return list(dict.fromkeys(names))


def _made(name: str, flavours: Sequence[Flavour], out: Path, version: int) -> list[str]:
    """Return the names, in these flavours, of the custom model or the export of this name in `out`, if it exists."""
    if "/" in name:
        return []
    wanted = [name]
    if not name.endswith((GRAPH_SUFFIX, *(f"-{one}" for one in FORMATS))):
        wanted = [name + GRAPH_SUFFIX if flavour == "graph" else name for flavour in flavours]
    models = [ModelPaths.of(out, one, version) for one in {name: None} | dict.fromkeys(wanted)]
    for model in models:
        tidy(model)
    return wanted if any(model.manifest.is_file() for model in models) else []


def _models_in(out: Path, version: int) -> list[str]:
    """Return a line that names the models in `out`, if there are any."""
    found = sorted(path.parent.name for path in out.glob(f"*/{version}.manifest.json"))
    more = f", ... ({len(found)} in all)" if len(found) > _MOST_NAMED else ""
    return [f"Version {version} in {out}: {', '.join(found[:_MOST_NAMED])}{more}."] if found else []
