"""The models below an output directory, for messages that say which of them can be meant."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.catalog import ALL_HANDLES, GRAPH_SUFFIX, Head
from models.errors import MixerError
from models.records.formats import read_manifest
from models.records.layout import ModelPaths

_MOST = 3


def made_below(out: Path, version: int, head: Head) -> list[str]:
    """Return the names of the models and exports with this head; those of which it is not known are classifiers."""
    return [paths.handle for paths in _made(out, version) if _head_of(paths) == head]


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return a few of the names, those that are most like a name first."""
    return sorted(names, key=lambda one: -difflib.SequenceMatcher(None, one, name).ratio())[:_MOST]


def similar(name: str, names: Sequence[str]) -> list[str]:
    """Return the names that can be meant by a mistyped one."""
    return difflib.get_close_matches(name, names, n=_MOST, cutoff=0.5)


def _made(out: Path, version: int) -> Iterator[ModelPaths]:
    for folder in sorted(out.glob("*")):
        paths = ModelPaths(folder, str(version))
        if paths.directory.is_dir():
            yield paths


def _head_of(paths: ModelPaths) -> Head:
    """Return the head of a model by its manifest or, without one that can be read, by its name."""
    try:
        return read_manifest(paths.manifest).head
    except MixerError:
        known = ALL_HANDLES.get(paths.handle.removesuffix(GRAPH_SUFFIX))
        return known.head if known else "classification"
