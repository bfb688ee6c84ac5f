"""Commands that are killed or interrupted, at their file-system events and at random moments.

An undisturbed run counts the events: files opened for writing, renames, removals, folders made, links (Python's audit
events, below the folders of the command). A trial kills the command just before one of them, evenly spread over all, or
after a random part of the time that the undisturbed run took.
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from convert.checkpoints.synthetic import write_seeded
from models.catalog import HANDLES
from withstand.commands import Command, Inputs, all_commands
from withstand.events import Fault, runs, send, spread
from withstand.rows import Row
from withstand.trees import difference, half_written, left_over, refused_in_words, tree_of
from withstand.trials import Ended, Order
from withstand.undisturbed import Trials, Undisturbed, completed

ROOT = Path(__file__).parent.parent.parent
WHOLE = 30
"""Of the trials, those of whole processes at the size of B/32."""
BIG = next(name for name in HANDLES if "b32" in name and name.endswith("classification"))

TITLE = "Killed and interrupted commands"
REMARK = (
    "Survived: nothing incomplete under a final name, no process left; after SIGKILL, the same command again completes "
    "with the bytes of an undisturbed run and leaves no temporary file anywhere; after SIGINT and SIGTERM, exit status "
    "130 and 143, and no temporary file.\n"
    "Commands run in forks of a process that has imported everything. `index.html`, the logs for TensorBoard and the "
    "cache are not compared.\n"
    f"The {WHOLE} trials of whole processes that convert a B/32 are part of all trials, not of a share."
)

Victim = Literal["command", "worker", "all"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault, and how often it is tried in all commands together."""

    fault: str
    signal: signal.Signals
    events: int
    moments: int
    victim: Victim = "command"

    def is_for(self, command: Command) -> bool:
        return self.victim == "command" or (command.workers > 0 or command.to_store)


KINDS = (
    Kind("SIGKILL", signal.SIGKILL, 220, 132),
    Kind("SIGKILL of one worker", signal.SIGKILL, 36, 24, "worker"),
    Kind("SIGKILL of all processes", signal.SIGKILL, 35, 24, "all"),
    Kind("SIGINT", signal.SIGINT, 66, 39),
    Kind("SIGTERM", signal.SIGTERM, 66, 39),
)


@dataclass(frozen=True)
class Moment:
    """When a command is disturbed: at an event, or after seconds."""

    event: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"event {self.event}" if self.event else f"after {self.seconds:.2f} s"


def moments_of(kind: Kind, whole: Undisturbed, share: float, chance: random.Random) -> list[Moment]:
    """Return when to disturb a command that has this share of the trials of a kind.

    Where there are fewer events than wanted, random moments take their place.
    """
    events = whole.ended.worker_events if kind.victim == "worker" else whole.ended.events
    wanted = max(1, round(kind.events * share))
    moments = [Moment(event) for event in spread(wanted, events)]
    count = wanted - len(moments) + round(kind.moments * share)
    return [*moments, *(Moment(seconds=chance.uniform(0, 0.95) * whole.ended.seconds) for _ in range(count))]


def disturbed(trials: Trials, whole: Undisturbed, kind: Kind, moment: Moment) -> tuple[Order, Ended]:
    """Run a command and let the fault befall it; one that ends before is run again, and disturbed earlier."""
    order = trials.prepare(whole.command)
    if moment.event:
        fault = Fault(moment.event, kind.signal, crash=kind.victim == "all", worker=kind.victim == "worker")
        return order, replace(order, fault=fault).run()

    struck = []

    def strike(pid: int) -> None:
        time.sleep(moment.seconds)
        while kind.victim == "worker" and not trials.running(pid) and runs(pid):
            time.sleep(0.005)  # until there is one
        others = trials.running(pid)
        struck[:] = {"command": [pid], "worker": [*others][:1], "all": [*others, pid]}[kind.victim]
        for one in struck:
            send(one, kind.signal)

    ended = order.run(strike)
    missed = not struck or (ended.status == 0 and kind.victim != "worker")
    if missed and moment.seconds > 0.01:
        return disturbed(trials, whole, kind, Moment(seconds=moment.seconds / 2))
    return order, ended


def survived(trials: Trials, whole: Undisturbed, kind: Kind, order: Order, ended: Ended) -> str | None:
    """Return what is wrong after a fault; after SIGKILL, also after the same command again."""
    now, killed = trials.tree(whole.command), kind.signal == signal.SIGKILL
    if wrong := half_written(order.folder, now, whole.before, whole.after):
        return wrong
    if ended.left:
        return f"still running: {ended.left}"
    if kind.victim == "worker":
        wrong = None if ended.status == 0 else refused_in_words(ended)
    else:
        expected = -kind.signal if killed else 128 + kind.signal
        wrong = None if ended.status in {expected, 0} else f"exit status {ended.status}: {ended.said[-300:]}"
    if wrong or not killed:
        left = left_over(now)
        return wrong or (left and f"left: {left}")
    return completed(trials, whole, replace(order, words=(*order.words, *whole.command.again)))


def row_of(trials: Trials, whole: Undisturbed, kind: Kind, moments: list[Moment]) -> Row:
    """Try a kind of fault on a command."""
    events = sum(moment.event > 0 for moment in moments)
    what = "before file-system events" if events == len(moments) else "before file-system events, and at random moments"
    row = Row(kind.fault, whole.command.title, what if events else "at random moments")
    for moment in moments:
        wrong = survived(trials, whole, kind, *disturbed(trials, whole, kind, moment))
        row.count(wrong and f"{moment}: {wrong}")
    return row


def rows_of(trials: Trials, commands: list[Command], share: float) -> list[Row]:
    """Try all kinds of faults on all commands."""
    rows, chance = [], random.Random(0)  # noqa: S311
    for command in commands:
        whole = Undisturbed.of(command, trials)
        for kind in KINDS:
            if kind.is_for(command):
                count = sum(map(kind.is_for, commands))
                moments = moments_of(kind, whole, share / count, chance)
                rows.append(row_of(trials, whole, kind, moments))
                sys.stderr.write(f"{rows[-1]}\n")
    return rows


def whole_processes(inputs: Inputs, count: int) -> Row:
    """Kill processes that convert a B/32 at random moments."""
    row, chance = Row("SIGKILL", f"`convert {BIG}`", "whole processes, at random moments"), random.Random(0)  # noqa: S311
    write_seeded(HANDLES[BIG].checkpoint, inputs.source)
    words = [sys.executable, "-m", "convert", "convert", BIG, "--source", inputs.source, "--out"]
    places = {"TMPDIR": inputs.trial / "tmp", "MIXER_JAX2TF_CACHE": inputs.trial / "cache"}

    def start(*more: str) -> subprocess.Popen:
        command = [*words, inputs.trial / "build", *more]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | places, stderr=subprocess.DEVNULL)

    inputs.fresh(None)
    began = time.monotonic()
    assert start().wait() == 0
    seconds, expected = time.monotonic() - began, tree_of(inputs.trial)
    for _ in range(count):
        inputs.fresh(None)
        moment, process = Moment(seconds=chance.uniform(0, seconds)), start()
        time.sleep(moment.seconds)
        process.kill()
        process.wait()
        wrong = half_written(inputs.trial, tree_of(inputs.trial), {}, expected)
        status = start("--overwrite").wait()
        now = tree_of(inputs.trial)
        wrong = wrong or (f"again: exit status {status}" if status else difference(now, expected) or left_over(now))
        row.count(wrong and f"{moment}: {wrong}")
    return row


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table."""
    inputs = Inputs(folder)
    commands = all_commands(inputs)
    with Trials.opened(inputs) as trials:
        rows = rows_of(trials, commands, share)
    return [*rows, whole_processes(inputs, WHOLE)] if share == 1 else rows
