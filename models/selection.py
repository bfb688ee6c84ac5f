"""Handles by the names that users give, and the handles of custom checkpoints."""

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import replace

from models.catalog import ALL_HANDLES, COLLECTIONS, GRAPH_SUFFIX, HANDLES, MIXER_PAPER, Collection, Handle, Head
from models.errors import MixerError, UsageError, shown
from models.formats import FORMATS

_EXPORT_SUFFIXES = tuple(f"-{name}" for name in FORMATS)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,89}")
"""What can name a custom model: with the ending of a flavour or a format it is what Kaggle takes, too."""

RUNS = "finetune"
"""Name of the folder of fine-tuning runs below `--out`."""

_OTHER_FILES = (RUNS, "bench", "cards", "index.html", "matrix.json", "parity.xml")
"""What is written below `--out` beside the models: no custom model may have these names."""

_RESERVED_SUFFIXES = (GRAPH_SUFFIX, *_EXPORT_SUFFIXES)
"""Endings of the names of graph models and exports, which no custom model may have."""


def select_handles(names: Sequence[str] = ()) -> list[Handle]:
    """Return the handles with these names or patterns, each once, in the given order; no name means all twelve.

    A name or pattern that ends in `-graph` gives handles of the graph flavour.

    Raises:
        UsageError: names are unknown; the message lists all of them, each with the closest known names.
    """
    if not names:
        return list(HANDLES.values())
    found = {name: _matching(name) for name in names}
    unknown = [name for name, matching in found.items() if not matching]
    if unknown:
        raise UsageError("\n".join(_unknown_handle(name) for name in unknown))
    return list({handle.name: handle for matching in found.values() for handle in matching}.values())


def split_custom(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names that `select_handles` knows, or that no custom model can have, and the others."""
    custom = [name for name in names if not _matching(name) and _NAME.fullmatch(name)]
    return [name for name in names if name not in custom], custom


def select_named(names: Sequence[str] | None, collection: Collection | None) -> list[str]:
    """Return the names that are given, or those of a collection.

    Raises:
        UsageError: both are given.
    """
    if names and collection is not None:
        raise UsageError(f"--collection {collection} and HANDLE exclude each other: give one of them.")
    return list(COLLECTIONS[collection]) if collection is not None else list(names or ())


def _matching(name: str) -> list[Handle]:
    """Return the handle of this name, or those that a pattern with `*`, `?` or `[` matches, except those of tests."""
    base = name.removesuffix(GRAPH_SUFFIX)
    if base in ALL_HANDLES:
        found = [base]
    elif set("*?[") & set(name):
        found = [known for handles in COLLECTIONS.values() for known in fnmatch.filter(handles, base)]
    else:
        found = []
    return [ALL_HANDLES[known].in_flavour("graph" if base != name else "native") for known in found]


def _unknown_handle(name: str) -> str:
    listed = [known for handles in COLLECTIONS.values() for known in handles]
    of_export = next((name.removesuffix(suffix) for suffix in _EXPORT_SUFFIXES if name.endswith(suffix)), None)
    if of_export in ALL_HANDLES:
        return f"{name!r} is an export, not a handle: give {of_export}, which it is made from."
    part = [known for known in listed if name.strip("_-") and name.strip("_-") in known]
    nearest = difflib.get_close_matches(name, listed, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else "`mixer-jax2tf list` shows the twelve."
    if len(part) == 1:
        hint = f"did you mean {part[0]}?"
    elif set("*?[") & set(name):
        wider = f"*{name.strip('*')}*"
        return f"no handle of the catalog matches {name!r}: {f'did you mean {wider!r}?' if _matching(wider) else hint}"
    elif part:
        more = f", ... ({len(part)} in all)" if len(part) > 3 else ""
        hint = f"did you mean {', '.join(part[:3])}{more}? The pattern '*{name.strip('_-')}*' names them all."
    return f"unknown handle {name!r}: {hint}"


def custom_handle(template: Handle, name: str, num_classes: int) -> Handle:
    """Return the handle of a custom checkpoint: the architecture and head of `template`, another name and class count.

    Raises:
        UsageError: the name is in the catalog, has a reserved ending, or cannot name a model.
    """
    if name.removesuffix(GRAPH_SUFFIX) in ALL_HANDLES:
        raise UsageError(f"--name {name!r} is a name of the catalog: give another name.")
    if name.endswith(_RESERVED_SUFFIXES):
        raise UsageError(f"--name {name!r} has a reserved ending ({', '.join(_RESERVED_SUFFIXES)}): give another name.")
    if name in _OTHER_FILES:
        raise UsageError(f"--name {name!r} is what other files below --out are called: give another name.")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r} cannot name a model: expected lower-case letters, digits, '_', '-' and '.', "
            "starting with a letter or digit, at most 90 characters."
        )
    training = replace(
        template.checkpoint.training,
        data="unknown",
        method="unknown",
        papers=(MIXER_PAPER,),
        num_classes=num_classes,
        labels=None,
        source="unknown",
        license="unknown",
    )
    checkpoint = replace(template.checkpoint, name=name, training=training, size=None)
    return Handle(name, checkpoint, template.head).in_flavour(template.flavour)


def template_of(architecture: str, head: Head) -> Handle:
    """Return a handle of the catalog with this architecture and head, for a custom model.

    Raises:
        MixerError: the architecture is none of the catalog's.
    """
    rows = ALL_HANDLES.values()
    found = next((row for row in rows if (row.checkpoint.architecture.name, row.head) == (architecture, head)), None)
    if found is None:
        raise MixerError(
            f"its manifest names the architecture {shown(architecture)!r}, which is none of the catalog's: was it made "
            "by a later release?"
        )
    return found


def handle_of(name: str, architecture: str, head: Head, num_classes: int | None) -> Handle:
    """Return the handle of a model that was made: the catalog's, or a custom one by what its manifest says.

    Raises:
        MixerError: the architecture is none of the catalog's, or it is no name of a model.
    """
    if is_catalogued(name):
        return _matching(name)[0]
    template = template_of(architecture, head).in_flavour("graph" if name.endswith(GRAPH_SUFFIX) else "native")
    return custom_handle(template, name.removesuffix(GRAPH_SUFFIX), num_classes or template.checkpoint.num_classes)


def is_catalogued(name: str) -> bool:
    """Return whether a name, in either flavour, is in the catalog."""
    return name.removesuffix(GRAPH_SUFFIX) in ALL_HANDLES


def command_for(task: str, name: str) -> str:
    """Return the command that converts or validates a model of this name; of a custom one with words to fill in."""
    kind = next((suffix for suffix in _EXPORT_SUFFIXES if name.endswith(suffix)), "")
    handle = name.removesuffix(kind).removesuffix(GRAPH_SUFFIX)
    graph = " --flavour graph" * name.endswith(GRAPH_SUFFIX)
    if is_catalogued(handle):
        model = f"{handle}{graph}"
    else:
        named = kind or task == "validate"
        model = (
            f"{name.removesuffix(kind)} --checkpoint FILE"
            if named
            else f"HANDLE --checkpoint FILE --name {handle}{graph}"
        )
    return f"mixer-jax2tf export {model} --to {kind[1:]} --overwrite" if kind else f"mixer-jax2tf {task} {model}"
