"""The graphs of a process: each is traced once, and ahead of its use where checkpoints are read and written meanwhile.

Tracing is work of Python's, reading, hashing and writing is the system's: side by side they take two cores.
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
"""Seconds for which a thread keeps Python to itself where another one waits: reading asks for it often, and briefly."""


@dataclass(frozen=True)
class GraphKey:
    """All that a graph depends on, which is everything but the weights."""

    architecture: Architecture
    num_classes: int | None
    flavour: Flavour
    labels: Path | None = None
    steps: bool = False
    """Whether it gives the activations after each step, and no gradients: to see where along the depth errors arise."""

    @classmethod
    def of(cls, handle: Handle, labels: Path | None) -> "GraphKey":
        """Return the key of a handle's graph, with that class list."""
        return cls(handle.checkpoint.architecture, handle.num_classes, handle.flavour, labels)


_TRACED: dict[GraphKey, "Graph"] = {}
_IN_WORK: set[GraphKey] = set()
_CHANGED = threading.Condition()
"""That one of the two has."""


def graph_of(key: GraphKey) -> "Graph":
    """Return the graph of a key, which serves every checkpoint of it; traced once a process, one at a time.

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
    """Trace graphs, in this order, beside the block; they are all traced when it ends, unless it fails.

    What cannot be traced is left for `graph_of` to complain about. While a graph is traced, tensors are equal only to
    themselves, in all threads (`export.saved_model.writer`): let the block do nothing with them but write them.
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
    """Write a SavedModel of the handle's graph that gives the activations after each step."""
    graph_of(replace(GraphKey.of(handle, None), steps=True)).write(arrays, directory)


def _to_flavour(flavour: Flavour, *, gradient: bool = True) -> "Callable[[Apply], TensorFlowFunction]":
    """Return what turns an apply function into a TensorFlow function of that flavour (`graph` always has gradients)."""
    if flavour == "graph":
        from convert.flavours.graph import to_graph

        return to_graph
    from convert.flavours.native import to_tensorflow

    return functools.partial(to_tensorflow, gradient=gradient)


def _trace(key: GraphKey) -> "Graph":
    from export.saved_model.writer import trace

    return trace(
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
