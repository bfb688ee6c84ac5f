"""The graphs of a process: each is traced once, and ahead of its use where checkpoints are read and written meanwhile.

Tracing is work of Python's, reading, hashing and writing is the system's: side by side they take two cores.
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
    from convert.native import Apply, TensorFlowFunction
    from export.saved_model import Graph

SWITCH = 0.0002
"""Seconds for which a thread keeps Python to itself where another one waits: reading asks for it often, and briefly."""


@dataclass(frozen=True)
class Kind:
    """All that a graph depends on, which is everything but the weights."""

    architecture: Architecture
    num_classes: int | None
    flavour: Flavour
    labels: Path | None = None
    steps: bool = False
    """Whether it gives the activations after each step, and no gradients: to see where along the depth errors arise."""

    @classmethod
    def of(cls, handle: Handle, labels: Path | None) -> "Kind":
        """Return the kind of a handle's graph, with that class list."""
        return cls(handle.checkpoint.architecture, handle.num_classes, handle.flavour, labels)


_TRACED: dict[Kind, "Graph"] = {}
_IN_WORK: set[Kind] = set()
_CHANGED = threading.Condition()
"""That one of the two has."""


def graph_of(kind: Kind) -> "Graph":
    """Return the graph of a kind, which serves every checkpoint of it; traced once a process, one at a time.

    Raises:
        MixerError: the Mixer cannot be written in that flavour.
        OSError: there is no room for temporary files.
    """
    with _CHANGED:
        _CHANGED.wait_for(lambda: kind in _TRACED or not _IN_WORK)
        if kind in _TRACED:
            return _TRACED[kind]
        _IN_WORK.add(kind)
    try:
        graph = _trace(kind)
        with _CHANGED:
            return _TRACED.setdefault(kind, graph)
    finally:
        with _CHANGED:
            _IN_WORK.remove(kind)
            _CHANGED.notify_all()


def forget() -> None:
    """Let every graph be traced anew."""
    _TRACED.clear()


@contextmanager
def tracing_ahead(kinds: Sequence[Kind]) -> Iterator[None]:
    """Trace graphs, in this order, beside the block; they are all traced when it ends, unless it fails.

    What cannot be traced is left for `graph_of` to complain about. While a graph is traced, tensors are equal only to
    themselves, in all threads (`export.saved_model`): let the block do nothing with them but write them.
    """
    failed = threading.Event()

    def work() -> None:
        for kind in kinds:
            with contextlib.suppress(Exception):
                if not failed.is_set():
                    graph_of(kind)

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


def to_flavour(flavour: Flavour, *, gradient: bool = True) -> "Callable[[Apply], TensorFlowFunction]":
    """Return what turns an apply function into a TensorFlow function of that flavour (`graph` always has gradients)."""
    if flavour == "graph":
        from convert.graph import to_graph

        return to_graph
    from convert.native import to_tensorflow

    return functools.partial(to_tensorflow, gradient=gradient)


def _trace(kind: Kind) -> "Graph":
    from export.saved_model import trace

    return trace(
        to_flavour(kind.flavour, gradient=not kind.steps)(_apply(kind)),
        kind.architecture.arrays(kind.num_classes),
        image_size=kind.architecture.image_size,
        labels=kind.labels,
    )


def _apply(kind: Kind) -> "Apply":
    if kind.steps:
        from validation.depth import apply_steps

        return apply_steps(kind.architecture, kind.num_classes)
    from convert.native import mixer_apply

    return mixer_apply(kind.architecture, kind.num_classes)
