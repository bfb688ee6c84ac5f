"""Trace each graph once per process, and ahead of its use while checkpoints are read and written.

Tracing runs in Python; reading, hashing and writing release the interpreter lock: together they use two cores.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.catalog import Architecture, Flavour, Handle

if TYPE_CHECKING:
    import numpy as np

    from convert.flavours.native import Apply, TensorFlowFunction
    from export.saved_model.writer import Graph

SWITCH = 0.0002
"""Python's switch interval in seconds while tracing ahead: reading needs the interpreter often, and briefly."""


@dataclass(frozen=True)
class GraphKey:
    """Everything that a graph depends on: all but the weights."""

    architecture: Architecture
    num_classes: int | None
    flavour: Flavour
    labels: Path | None = None
    steps: bool = False
    """Whether it returns the activations after each step, without gradients, to show where errors arise."""

    @classmethod
    def of(cls, handle: Handle, labels: Path | None) -> "GraphKey":
        """Return the key of a handle's graph, with that class list."""
        return cls(handle.checkpoint.architecture, handle.num_classes, handle.flavour, labels)


_TRACED: dict[GraphKey, "Graph"] = {}
_IN_WORK: set[GraphKey] = set()
_CHANGED = threading.Condition()
"""Notified when one of the two has changed."""


def graph_of(key: GraphKey) -> "Graph":
    """Return the graph of a key, for any checkpoint; traced once per process, one graph at a time.

    Raises:
        MixerError: the Mixer cannot be written in that flavour.
        OSError: there is no room for temporary files.
    """
    with _CHANGED:
        _CHANGED.wait_for(lambda: key in _TRACED or not _IN_WORK)
        if key in _TRACED:
            return _TRACED[key]
        _IN_WORK.add(key)
    try:
        graph = _trace(key)
        with _CHANGED:
            return _TRACED.setdefault(key, graph)
    finally:
        with _CHANGED:
            _IN_WORK.remove(key)
            _CHANGED.notify_all()


@contextmanager
def tracing_ahead(keys: Sequence[GraphKey]) -> Iterator[None]:
    """Trace graphs, in this order, in a thread during the block; all are traced when it ends, unless it fails.

    Errors are left for `graph_of` to raise. While a graph is traced, tensors are equal only to themselves, in all
    threads (`export.saved_model.writer`), so the block must do nothing with them but write them.
    """
    failed = threading.Event()

    def work() -> None:
        for key in keys:
            with contextlib.suppress(Exception):
                if not failed.is_set():
                    graph_of(key)

    thread = threading.Thread(target=work, name="graphs")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    thread.start()
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        thread.join()
        sys.setswitchinterval(interval)


def write_steps(handle: Handle, arrays: "Mapping[str, np.ndarray]", directory: Path) -> None:
    """Write a SavedModel of the handle's graph that returns the activations after each step."""
    graph_of(replace(GraphKey.of(handle, None), steps=True)).write(arrays, directory)


def _to_flavour(flavour: Flavour, *, gradient: bool = True) -> "Callable[[Apply], TensorFlowFunction]":
    """Return the converter of apply functions to that flavour (`graph` always has gradients)."""
    if flavour == "graph":
        from convert.flavours.graph import to_graph

        return to_graph
    from convert.flavours.native import to_tensorflow

    return functools.partial(to_tensorflow, gradient=gradient)


def _trace(key: GraphKey) -> "Graph":
    from export.saved_model.writer import Graph

    return Graph.trace(
        _to_flavour(key.flavour, gradient=not key.steps)(_apply(key)),
        key.architecture.arrays(key.num_classes),
        image_size=key.architecture.image_size,
        labels=key.labels,
    )


def _apply(key: GraphKey) -> "Apply":
    if key.steps:
        from validation.parity.depth import apply_steps

        return apply_steps(key.architecture, key.num_classes)
    from convert.flavours.native import mixer_apply

    return mixer_apply(key.architecture, key.num_classes)
