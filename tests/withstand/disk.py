"""Disks that are full, read-only or of several kinds, names that are long, and folders that disappear.

A small tmpfs is mounted for the trials, where that is permitted. Without it the limit on the size of a file stands for
the full disk, and what needs a mount is left out.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from withstand.commands import CLASSIFIER, PLACES, Command, Inputs, all_commands
from withstand.events import Fault, spread
from withstand.rows import Row
from withstand.trees import difference, half_written, left_over, refused_in_words
from withstand.trials import Ended, Order
from withstand.undisturbed import Trials, Undisturbed, completed

FULL, WORKERS_FULL, LIMITS, GONE = 20, 10, 4, 6
"""Trials of a command: of a full disk, the same in its worker, of limits on files, and of each folder that is gone."""
SIZE = "128m"
LONG = "é" * 127
"""A name of 254 bytes, to which a digit is added."""
FOLDERS = {"build": "output", "cache": "cache", "tmp": "temporary folder", "published": "destination"}
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


def survived(trials: Trials, whole: Undisturbed, order: Order, ended: Ended) -> str | None:
    """Return what is wrong after a fault whose cause is gone, and after the same command again."""
    now = trials.tree(whole.command)
    wrong = half_written(order.folder, now, whole.before, whole.after) or left_over(now)
    wrong = wrong or (difference(now, whole.after) if ended.status == 0 else wrong_words(ended))
    if wrong or ended.left:
        return wrong or f"still running: {ended.left}"
    return completed(trials, whole, replace(order, words=(*order.words, *whole.command.again)))


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
    sys.stderr.write(f"{row}\n")
    return row


def limited_files(trials: Trials, share: float, whole: Undisturbed, row: Row) -> None:
    """Limit the size of files to less than that of a file that the command writes."""
    sizes = sorted({size for size in whole.sizes if size > 1 << 12})
    for chosen in spread(max(1, round(LIMITS * share)), len(sizes)):
        order, largest = trials.prepare(whole.command), sizes[chosen - 1] - 1
        ended = replace(order, largest=largest).run()
        wrong = survived(trials, whole, order, ended)
        row.count(wrong and f"{whole.command.title}, {largest} bytes: {wrong}")


def read_only(trials: Trials, place: str, whole: Undisturbed, row: Row) -> None:
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


def names_of_models(trials: Trials, commands: list[Command]) -> Row:
    """Give models names that are too long for files beside them, or not ASCII: refused in words, or made."""
    row = Row("names of models of 248 and 255 bytes, or not ASCII", "commands with --name", "refused in words, or made")
    for command in commands:
        for name in NAMES if "--name" in command.words else ():
            order = trials.prepare(command)
            place = order.words.index("--name") + 1
            ended = replace(order, words=(*order.words[:place], name, *order.words[place + 1 :])).run()
            wrong = refused_in_words(ended) if ended.status else None
            wrong = wrong or left_over(trials.tree(command))
            row.count(wrong and f"{command.title} {name[:10]} ({len(name.encode())} bytes): {wrong}")
    return row


def gone(trials: Trials, place: str, share: float, whole: Undisturbed, row: Row) -> None:
    """Delete a folder while a command runs."""
    for event in spread(max(1, round(GONE * share)), whole.ended.events):
        order = trials.prepare(whole.command)
        ended = replace(order, fault=Fault(event, remove=order.folder / place)).run()
        (order.folder / place).mkdir(exist_ok=True)
        wrong = survived(trials, whole, order, ended)
        row.count(wrong and f"{whole.command.title}, event {event}: {wrong}")


def each(every: list[Undisturbed], share: float, fault: str, how: str, work: Callable[[Undisturbed, Row], None]) -> Row:
    """Try a fault on each command; of a share of the trials, on some that are drawn."""
    count = len(every) if share == 1 else max(3, round(2 * share * len(every)))
    row = Row(fault, "each command" if count == len(every) else "commands that were drawn", how)
    for whole in Random(fault).sample(every, min(count, len(every))):  # noqa: S311
        work(whole, row)
        sys.stderr.write(f"{row}\n")
    return row


def on_mounts(trials: Trials, every: list[Undisturbed], share: float) -> Iterator[Row]:
    """Yield the rows of faults that need file systems of their own."""
    trial, places = trials.inputs.trial, (*PLACES, "published")
    with mounted(trial):
        yield from (full_disk(trials, whole, share) for whole in every)
    with mounted(*(trial / place for place in places)):
        how = "tmpfs each: output, temporary folder, cache, destination"
        yield each(every, share, "several file systems", how, partial(several_disks, trials))
        for place in places:
            work = partial(read_only, trials, place)
            yield each(every, share, f"read-only {FOLDERS[place]}", "tmpfs, mounted read-only", work)


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table."""
    inputs, rows = Inputs(folder), []
    commands = all_commands(inputs)
    with Trials.opened(inputs) as trials:
        every = [Undisturbed.of(command, trials) for command in commands]
        if may_mount(inputs.trial):
            rows += on_mounts(trials, every, share)
        for place in ("cache", "tmp"):
            work = partial(gone, trials, place, share)
            rows.append(each(every, share, f"{FOLDERS[place]} deleted", "before file-system events", work))
        how = "RLIMIT_FSIZE, below a file that is written"
        rows.append(each(every, share, "limit on the size of files", how, partial(limited_files, trials, share)))
        how = "output, temporary folder, cache, destination"
        rows.append(each(every, share, "names of 255 bytes, not ASCII", how, partial(long_names, trials)))
        custom = Command("`convert-all --checkpoint`", ("convert-all", CLASSIFIER, *inputs.custom))
        rows.append(names_of_models(trials, [*commands, custom]))
    return [row for row in rows if row.tried]
