"""Trace each graph once per process, and ahead of its use while checkpoints are read and written.

Tracing runs in Python; reading, hashing and writing release the interpreter lock: together they use two cores.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.catalog import Architecture, Flavour, Handle

if TYPE_CHECKING:
    from convert.flavours.native import Apply, TensorFlowFunction
    from convert.pipeline.kept_graphs import KeptGraphs
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

    def graph(self, kept: "KeptGraphs | None" = None) -> "Graph":
        """Return the graph, for any checkpoint; traced once per process, one graph at a time.

        `kept` are the graphs of earlier runs, which may be used, and to which it is added; None for one traced in this
        process.

        Raises:
            MixerError: the Mixer cannot be written in that flavour.
            OSError: there is no room for temporary files.
        """

        def found() -> "Graph | None":
            return _TRACED.get(self) or (_READ.get(self) if kept else None)

        with _CHANGED:
            _CHANGED.wait_for(lambda: found() or not _IN_WORK)
            if graph := found():
                return graph
            _IN_WORK.add(self)
        try:
            graph = kept.read(self) if kept else None
            if graph is not None:
                return _READ.setdefault(self, graph)
            graph = _TRACED.setdefault(self, _trace(self))
            if kept:
                kept.store(self, graph)
            return graph
        finally:
            with _CHANGED:
                _IN_WORK.remove(self)
                _CHANGED.notify_all()


_TRACED: dict[GraphKey, "Graph"] = {}
_READ: dict[GraphKey, "Graph"] = {}
"""Those that an earlier run traced, read from `KeptGraphs`."""
_IN_WORK: set[GraphKey] = set()
_CHANGED = threading.Condition()
"""Notified when one of the two has changed."""


@contextmanager
def tracing_ahead(keys: Sequence[GraphKey], kept: "KeptGraphs | None" = None) -> Iterator[Callable[[], None]]:
    """Trace graphs, in this order, in a thread during the block; when it ends, wait until all are traced.

    If the block fails, or calls the function that it is given, graphs that are not begun by then are left untraced.

    Errors are left for `GraphKey.graph` to raise. While a graph is traced, tensors are equal only to themselves, in all
    threads (`export.saved_model.writer`), so the block must do nothing with them but write them.
    """
    stopped = threading.Event()

    def work() -> None:
        for key in keys:
            with contextlib.suppress(Exception):
                if not stopped.is_set():
                    key.graph(kept)

    thread = threading.Thread(target=work, name="graphs")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    thread.start()
    try:
        yield stopped.set
    except BaseException:
        stopped.set()
        raise
    finally:
        thread.join()
        sys.setswitchinterval(interval)


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
