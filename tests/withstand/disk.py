"""Disks that are full, read-only or of several kinds, names that are long, and folders that disappear.

A small tmpfs is mounted for the trials, where that is permitted. Without it the limit on the size of a file stands for
the full disk, and what needs a mount is left out.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from withstand.commands import PLACES, Command, Inputs, all_commands
from withstand.events import Fault
from withstand.rows import Row
from withstand.trees import difference, half_written, left_over, refused_in_words
from withstand.trials import Ended, Order
from withstand.undisturbed import Trials, Undisturbed, completed

FULL, WORKERS_FULL, LIMITS, GONE = 20, 10, 4, 6
"""Trials of a command: of a full disk, the same in its worker, of limits on files, and of each folder that is gone."""
SIZE = "128m"
LONG = "é" * 127
"""A name of 254 bytes, to which a digit is added."""
NAMES = ("n" * 255, "n" * 248, "modèle")

TITLE = "Disks: full, read-only, several, and names"
REMARK = (
    "Survived: the command says in words which folder or file it is and what to do (exit status 1 or 2, no traceback), "
    "or does without it and writes the bytes of an undisturbed run; nothing is incomplete under a final name, no "
    "temporary file is left, and the same command succeeds once the cause is gone."
)

_ADVICE = r"free some space|[Gg]ive |set TMPDIR|choose another|[Cc]heck |make it writable|again|raise "


def mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "withstand", folder], check=True)


@contextmanager
def mounted(*folders: Path) -> Iterator[None]:
    """Mount an empty file system in each folder."""
    done = []
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            mount(folder, f"size={SIZE}")
            done.append(folder)
        yield
    finally:
        for folder in reversed(done):
            subprocess.run(["umount", "--lazy", folder], check=True)


def may_mount(folder: Path) -> bool:
    try:
        with mounted(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


# --- what is judged ---


def wrong_words(ended: Ended) -> str | None:
    """Return what a message lacks."""
    if wrong := refused_in_words(ended):
        return wrong
    said = ended.said[-1500:]
    if not re.search(rf"({'|'.join((*PLACES, 'published', 'TMPDIR'))})\b", said):
        return f"it names no folder or file: {said[-300:]}"
    return None if re.search(_ADVICE, said) else f"it says not what to do: {said[-300:]}"


def survived(trials: Trials, whole: Undisturbed, order: Order, ended: Ended, *, tidy: bool = True) -> str | None:
    """Return what is wrong after a fault whose cause is gone, and after the same command again."""
    now = trials.tree(whole.command)
    wrong = half_written(order.folder, now, whole.before, whole.after) or (tidy and left_over(now))
    wrong = wrong or (difference(now, whole.after) if ended.status == 0 else wrong_words(ended))
    if wrong or ended.left:
        return wrong or f"still running: {ended.left}"
    # One that succeeded has nothing to do, or refuses what exists, as it should.
    more = whole.command.again
    return completed(trials, whole, replace(order, words=(*order.words, *more), fault=None, largest=None))


def spread(count: int, events: int) -> list[int]:
    """Return the numbers of events, evenly over all."""
    count = min(count, events)
    return [1 + int((number + 0.5) * events / count) for number in range(count)]


# --- faults ---


def full_disk(trials: Trials, whole: Undisturbed, share: float) -> Row:
    row = Row("full disk", whole.command.title, "tmpfs, filled before file-system events")
    ballast = trials.inputs.trial / "ballast"
    events = [(event, False) for event in spread(max(1, round(FULL * share)), whole.ended.events)]
    if whole.ended.worker_events:
        many = max(1, round(WORKERS_FULL * share))
        events += [(event, True) for event in spread(many, whole.ended.worker_events)]
    for event, worker in events:
        order = trials.prepare(whole.command)
        ended = replace(order, fault=Fault(event, fill=ballast, worker=worker)).run()
        ballast.unlink(missing_ok=True)
        wrong = survived(trials, whole, order, ended)
        row.count(wrong and f"event {event}{' of a worker' if worker else ''}: {wrong}")
    return row


def limited_files(trials: Trials, whole: Undisturbed, share: float, row: Row) -> None:
    """Limit the size of files to less than the files that the command writes."""
    trials.prepare(whole.command)
    sizes = sorted({size for size in whole.sizes if size > 1 << 13})
    for chosen in spread(max(1, round(LIMITS * share)), len(sizes)):
        order, largest = trials.prepare(whole.command), sizes[chosen - 1] - 1
        ended = replace(order, largest=largest).run()
        wrong = survived(trials, whole, order, ended)
        row.count(wrong and f"{whole.command.title}, {largest} bytes: {wrong}")


def read_only(trials: Trials, whole: Undisturbed, place: str, row: Row) -> None:
    """Let a command run while a folder cannot be written."""
    order, folder = trials.prepare(whole.command), trials.inputs.trial / place
    mount(folder, "remount", "ro", f"size={SIZE}")
    try:
        ended = order.run()
    finally:
        mount(folder, "remount", "rw", f"size={SIZE}")
    wrong = survived(trials, whole, order, ended)
    row.count(wrong and f"{whole.command.title}: {wrong}")


def several_disks(trials: Trials, whole: Undisturbed, row: Row) -> None:
    order = trials.prepare(whole.command)
    ended, now = order.run(), trials.tree(whole.command)
    wrong = f"exit status {ended.status}: {ended.said[-300:]}" if ended.status else difference(now, whole.after)
    row.count((wrong or left_over(now)) and f"{whole.command.title}: {wrong or left_over(now)}")


def long_names(trials: Trials, whole: Undisturbed, row: Row) -> None:
    """Give every folder the longest name, which is not ASCII."""
    order = trials.prepare(whole.command)
    names = {name: f"{LONG}{number}" for number, name in enumerate((*PLACES, "published"))}
    for name in PLACES:
        (order.folder / name).rename(order.folder / names[name])
    places = {"TMPDIR": str(order.folder / names["tmp"]), "MIXER_JAX2TF_CACHE": str(order.folder / names["cache"])}
    words = tuple(names.get(word, word) for word in order.words)
    ended = replace(order, words=words, environment={**order.environment, **places}).run()
    for name in names:
        if (order.folder / names[name]).exists():
            (order.folder / names[name]).rename(order.folder / name)
    now = trials.tree(whole.command)
    wrong = f"exit status {ended.status}: {ended.said[-300:]}" if ended.status else difference(now, whole.after)
    row.count((wrong or left_over(now)) and f"{whole.command.title}: {wrong or left_over(now)}")


def names_of_models(trials: Trials, commands: list[Command], row: Row) -> None:
    """Give models names that are too long for files beside them, or not ASCII: refused in words, or made."""
    for command in commands:
        for name in NAMES if "--name" in command.words else ():
            order = trials.prepare(command)
            place = order.words.index("--name") + 1
            ended = replace(order, words=(*order.words[:place], name, *order.words[place + 1 :])).run()
            wrong = refused_in_words(ended) if ended.status else None
            wrong = wrong or left_over(trials.tree(command))
            row.count(wrong and f"{command.title} {name[:10]} ({len(name.encode())} bytes): {wrong}")


def gone(trials: Trials, whole: Undisturbed, share: float) -> Row:
    row = Row("cache or temporary folder deleted", whole.command.title, "before file-system events")
    for place in ("cache", "tmp"):
        for event in spread(max(1, round(GONE * share)), whole.ended.events):
            order = trials.prepare(whole.command)
            ended = replace(order, fault=Fault(event, remove=order.folder / place)).run()
            (order.folder / place).mkdir(exist_ok=True)
            wrong = survived(trials, whole, order, ended)
            row.count(wrong and f"{place}, event {event}: {wrong}")
    return row


def everywhere(fault: str, how: str) -> Row:
    return Row(fault, "every command", how)


def on_mounts(trials: Trials, every: list[Undisturbed], share: float) -> Iterator[Row]:
    """Yield the rows of faults that need file systems of their own."""
    trial = trials.inputs.trial
    with mounted(trial):
        for whole in every:
            yield full_disk(trials, whole, share)
    places = (*PLACES, "published")
    with mounted(*(trial / place for place in places)):
        yield (row := everywhere("several file systems", "tmpfs each: output, temporary folder, cache, destination"))
        for whole in every:
            several_disks(trials, whole, row)
        for place in places:
            yield (row := everywhere(f"read-only `{place}`", "tmpfs, mounted read-only"))
            for whole in every:
                read_only(trials, whole, place, row)


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table."""
    inputs, rows = Inputs(folder), []
    commands = all_commands(inputs)
    with Trials.opened(inputs) as trials:
        every = [Undisturbed.of(command, trials) for command in commands]
        if may_mount(inputs.trial):
            rows += on_mounts(trials, every, share)
        rows += [gone(trials, whole, share) for whole in every]
        rows.append(everywhere("limit on the size of files", "RLIMIT_FSIZE below a file that is written"))
        for whole in every:
            limited_files(trials, whole, share, rows[-1])
        rows.append(everywhere("folders with names of 255 bytes, not ASCII", "output, temporary folder, cache"))
        for whole in every:
            long_names(trials, whole, rows[-1])
        rows.append(everywhere("models with names of 248 and 255 bytes, or not ASCII", "--name"))
        names_of_models(trials, commands, rows[-1])
    return rows
