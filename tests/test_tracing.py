"""Graphs are traced once each, beside the reading and writing of checkpoints, and complain where they are needed."""

import sys
import threading

import pytest

from convert.checkpoints.fetch import Source
from convert.pipeline import tracing
from convert.pipeline.batch import run_batch
from convert.pipeline.job import Batch
from models.catalog import TESTING_HANDLES
from models.digests import DigestTable
from models.errors import MixerError

KEYS = [
    tracing.GraphKey.of(handle.in_flavour(flavour), None)
    for handle in TESTING_HANDLES.values()
    for flavour in ("native", "graph")
]


@pytest.fixture
def traced(monkeypatch):
    """What was traced so far, by which thread: keys, instead of graphs."""
    made = []

    def trace(key):
        made.append((key, threading.current_thread().name))
        return key

    monkeypatch.setattr(tracing, "_trace", trace)
    tracing._TRACED.clear()
    yield made
    tracing._TRACED.clear()


def test_what_is_wanted_while_it_is_traced_ahead_is_traced_once(traced):
    with tracing.tracing_ahead(KEYS):
        assert [key.graph() for key in reversed(KEYS)] == KEYS[::-1]
    assert sorted(map(repr, (key for key, _ in traced))) == sorted(map(repr, KEYS))


def test_what_is_traced_is_given_while_others_are_traced(traced, monkeypatch):
    given = threading.Event()
    trace = tracing._trace

    def in_turn(key):
        assert key == KEYS[0] or given.wait(10)
        return trace(key)

    monkeypatch.setattr(tracing, "_trace", in_turn)
    with tracing.tracing_ahead(KEYS):
        assert KEYS[0].graph() == KEYS[0]
        given.set()
    assert [key for key, _ in traced] == KEYS


def test_all_are_traced_when_the_block_ends_in_order_and_by_a_thread_of_their_own(traced):
    with tracing.tracing_ahead(KEYS):
        pass
    assert traced == [(key, "graphs") for key in KEYS]


def test_what_cannot_be_traced_ahead_is_complained_of_where_it_is_needed(traced, monkeypatch):
    def fail(key):
        raise MixerError(f"{key.flavour} cannot be traced")

    monkeypatch.setattr(tracing, "_trace", fail)
    with tracing.tracing_ahead(KEYS):
        with pytest.raises(MixerError, match="graph cannot be traced"):
            KEYS[1].graph()
        monkeypatch.undo()


@pytest.fixture
def begun(traced, monkeypatch):
    """Set when the first graph is begun; it is finished only when the thread that traces is waited for."""
    begun, trace = threading.Event(), tracing._trace

    class Joined(threading.Thread):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.waited_for = threading.Event()

        def join(self, timeout=None):
            self.waited_for.set()
            super().join(timeout)

    def slowly(key):
        begun.set()
        threading.current_thread().waited_for.wait()
        return trace(key)

    monkeypatch.setattr(tracing, "_trace", slowly)
    monkeypatch.setattr(threading, "Thread", Joined)
    return begun


def test_a_block_that_fails_leaves_the_rest_untraced(traced, begun):
    with pytest.raises(KeyboardInterrupt), tracing.tracing_ahead(KEYS):
        begun.wait()
        raise KeyboardInterrupt
    assert len(traced) == 1 < len(KEYS)


def test_a_block_that_stops_it_leaves_the_rest_untraced(traced, begun):
    with tracing.tracing_ahead(KEYS) as stop:
        begun.wait()
        stop()
    assert len(traced) == 1 < len(KEYS)


@pytest.mark.parametrize("task", ["convert", "convert-all"])
def test_graphs_of_a_checkpoint_that_cannot_be_opened_are_left_untraced(task, traced, begun, tmp_path):
    handles = [handle.in_flavour(flavour) for handle in TESTING_HANDLES.values() for flavour in ("native", "graph")]
    work = Batch(task, tuple(handles), Source(str(tmp_path), None, DigestTable.read()), tmp_path / "out", 2)
    assert {outcome.verdict for outcome in run_batch(work)} == {"failed"}
    assert len(traced) <= 1 < len(work.graphs_needed(work.items))


def test_python_changes_threads_often_only_meanwhile(traced):
    before = sys.getswitchinterval()
    with tracing.tracing_ahead(KEYS):
        assert sys.getswitchinterval() == pytest.approx(tracing.SWITCH)
    assert sys.getswitchinterval() == before
