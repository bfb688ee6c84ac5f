"""Handles by the names that users give, and the handles of custom checkpoints."""

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import replace

from models.catalog import ALL_HANDLES, COLLECTIONS, GRAPH_SUFFIX, HANDLES, MIXER_PAPER, Collection, Handle
from models.errors import UsageError
from models.formats import FORMATS

_RESERVED_SUFFIXES = (GRAPH_SUFFIX, *(f"-{name}" for name in FORMATS))
"""Endings of the names of graph models and exports, which no custom model may have."""


def select_handles(names: Sequence[str] = ()) -> list[Handle]:
    """Return the handles with these names or patterns, each once, in the given order; no name means all twelve.

    Raises:
        UsageError: names are unknown; the message lists all of them, each with the closest known names.
    """
    if not names:
        return list(HANDLES.values())
    found = {name: _matching(name) for name in names}
    unknown = [name for name, matching in found.items() if not matching]
    if unknown:
        raise UsageError("\n".join(_unknown_handle(name) for name in unknown))
    return [ALL_HANDLES[name] for name in dict.fromkeys(name for matching in found.values() for name in matching)]


def select_named(names: Sequence[str] | None, collection: Collection | None) -> list[str]:
    """Return the names that are given, or those of a collection.

    Raises:
        UsageError: both are given.
    """
    if names and collection is not None:
        raise UsageError(f"--collection {collection} and HANDLE exclude each other: give one of them.")
    return list(COLLECTIONS[collection]) if collection is not None else list(names or ())


def _matching(name: str) -> list[str]:
    """Return the handle of this name, or those that a pattern with `*`, `?` or `[` matches, except those of tests."""
    if name in ALL_HANDLES:
        return [name]
    if not set("*?[") & set(name):
        return []
    return [known for handles in COLLECTIONS.values() for known in fnmatch.filter(handles, name)]


def _unknown_handle(name: str) -> str:
    listed = [known for handles in COLLECTIONS.values() for known in handles]
    nearest = difflib.get_close_matches(name, listed, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else "`mixer-jax2tf list` shows the twelve."
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
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,99}", name):
        raise UsageError(
            f"--name {name!r} cannot name a model: expected lower-case letters, digits, '_', '-' and '.', "
            "starting with a letter or digit, at most 100 characters."
        )
    training = replace(
        template.checkpoint.training,
        data="unknown",
        method="unknown",
        papers=(MIXER_PAPER,),
        num_classes=num_classes,
        labels=None,
        source="one's own",
        license="unknown",
    )
    checkpoint = replace(template.checkpoint, name=name, training=training, size=None)
    return Handle(name, checkpoint, template.head).in_flavour(template.flavour)


def is_catalogued(name: str) -> bool:
    """Return whether a name, in either flavour, is in the catalog."""
    return name.removesuffix(GRAPH_SUFFIX) in ALL_HANDLES


def command_for(task: str, name: str) -> str:
    """Return the command that converts or validates a model of this name; of a custom one with words to fill in."""
    handle = name.removesuffix(GRAPH_SUFFIX)
    model = handle if is_catalogued(handle) else f"HANDLE --checkpoint FILE --name {handle}"
    return f"mixer-jax2tf {task} {model}{' --flavour graph' * name.endswith(GRAPH_SUFFIX)}"
