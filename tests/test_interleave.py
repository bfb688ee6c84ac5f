"""Sides in turn: each as often as the others, and a failure ends one of them only."""

import pytest

from validation.benchmark.interleave import run_interleaved


def turns(sides, repeats, **told):
    silent = {"started": lambda _: None, "finished": lambda _: None}
    return run_interleaved(sides, repeats, failing=(ValueError,), said=str, **(silent | told))


def test_sides_take_turns():
    order = []
    found = turns({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, 3)
    assert order == list("ababab")
    assert (found.runs, found.failures) == ({"a": (1, 3, 5), "b": (2, 4, 6)}, {})


def test_a_side_that_fails_says_why_and_is_not_run_again():
    def fail():
        raise ValueError("no such thing")

    told = []
    found = turns({"bad": fail, "good": lambda: 7}, 2, started=told.append, finished=told.append)
    assert (found.runs, found.failures) == ({"bad": (), "good": (7, 7)}, {"bad": "no such thing"})
    assert told == [
        "bad, run 1 of 2", "bad: failed: no such thing",
        "good, run 1 of 2", "good: 7",
        "good, run 2 of 2", "good: 7",
    ]  # fmt: skip


def test_another_error_is_nobodys_failure():
    with pytest.raises(ZeroDivisionError):
        turns({"a": lambda: 1 / 0}, 1)
