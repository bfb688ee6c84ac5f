"""Graphs are traced once each, beside the reading and writing of checkpoints, and complain where they are needed."""

import sys
import threading

import pytest

from convert.cli import graphs
from models.catalog import TESTING_HANDLES
from models.errors import MixerError

KINDS = [
    graphs.Kind.of(handle.in_flavour(flavour), None)
    for handle in TESTING_HANDLES.values()
    for flavour in ("native", "graph")
]


@pytest.fixture
def traced(monkeypatch):
    """What was traced so far, by which thread: kinds, instead of graphs."""
    made = []

    def trace(kind):
        made.append((kind, threading.current_thread().name))
        return kind

    monkeypatch.setattr(graphs, "_trace", trace)
    graphs.forget()
    yield made
    graphs.forget()


def test_what_is_wanted_while_it_is_traced_ahead_is_traced_once(traced):
    with graphs.tracing_ahead(KINDS):
        assert [graphs.graph_of(kind) for kind in reversed(KINDS)] == KINDS[::-1]
    assert sorted(map(repr, (kind for kind, _ in traced))) == sorted(map(repr, KINDS))


def test_what_is_traced_is_given_while_others_are_traced(traced, monkeypatch):
    given = threading.Event()
    trace = graphs._trace

    def in_turn(kind):
        assert kind == KINDS[0] or given.wait(10)
        return trace(kind)

    monkeypatch.setattr(graphs, "_trace", in_turn)
    with graphs.tracing_ahead(KINDS):
        assert graphs.graph_of(KINDS[0]) == KINDS[0]
        given.set()
    assert [kind for kind, _ in traced] == KINDS


def test_all_are_traced_when_the_block_ends_in_order_and_by_a_thread_of_their_own(traced):
    with graphs.tracing_ahead(KINDS):
        pass
    assert traced == [(kind, "graphs") for kind in KINDS]


def test_what_cannot_be_traced_ahead_is_complained_of_where_it_is_needed(traced, monkeypatch):
    def fail(kind):
        raise MixerError(f"{kind.flavour} cannot be traced")

    monkeypatch.setattr(graphs, "_trace", fail)
    with graphs.tracing_ahead(KINDS):
        with pytest.raises(MixerError, match="graph cannot be traced"):
            graphs.graph_of(KINDS[1])
        monkeypatch.undo()


def test_a_block_that_fails_leaves_the_rest_untraced(traced, monkeypatch):
    begun, failed = threading.Event(), threading.Event()
    trace = graphs._trace

    def slowly(kind):
        begun.set()
        failed.wait()
        return trace(kind)

    class Joined(threading.Thread):
        def join(self, timeout=None):
            failed.set()
            super().join(timeout)

    monkeypatch.setattr(graphs, "_trace", slowly)
    monkeypatch.setattr(threading, "Thread", Joined)
    with pytest.raises(KeyboardInterrupt), graphs.tracing_ahead(KINDS):
        begun.wait()
        raise KeyboardInterrupt
    assert len(traced) == 1 < len(KINDS)


def test_python_changes_threads_often_only_meanwhile(traced):
    before = sys.getswitchinterval()
    with graphs.tracing_ahead(KINDS):
        assert sys.getswitchinterval() == pytest.approx(graphs.SWITCH)
    assert sys.getswitchinterval() == before
