"""What two commands leave that run at once on one output directory, one cache and one destination.

Both run in forks, the second a random time after the first. Survived: what is there afterwards is what one of the two
orders leaves, one command after the other; each command ends with exit status 0, or refuses in words; no temporary file
or lock is left; and the first command, run once more, leaves what it leaves after those two in that order.
"""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from prepared import Starter
from store import Store

from models.catalog import TESTING_HANDLES
from withstand.commands import BUILD, CLASSIFIER, OWN, Command, Inputs
from withstand.rows import Row
from withstand.trees import Tree, difference, left_over, refused_in_words
from withstand.trials import Ended, Order
from withstand.undisturbed import Trials

TITLE = "Together: two commands at once"
REMARK = (
    "The second begins a random part of the time later that the first takes alone. Commands run in forks of a process "
    "that has imported\neverything; `index.html` and the cache are not compared."
)

ROUNDS, FETCHES, AT_ONCE = 200, 20, 4
PUBLISH = ("publish", OWN, *BUILD, "--allow-dirty", "--to")


@dataclass(frozen=True)
class Pair:
    """Two commands that begin with the same tree; `to_store` of the first is that of both."""

    first: Command
    second: Command


def pairs(inputs: Inputs) -> list[Pair]:
    """Return the pairs, with the trees that they begin with made."""
    custom = (CLASSIFIER, *inputs.custom)
    other = inputs.source / TESTING_HANDLES[CLASSIFIER].checkpoint.object
    others = tuple(str(other) if word.endswith(".npz") else word for word in custom)
    full = ("validate", *custom, "--set", "full")
    card = ("card", OWN, *BUILD, "--publisher", "somebody", "--assets", "https://models.example")
    checked = inputs.made("checked", ("convert-all", *custom), full, card)
    packed = inputs.made("packed", ("package", OWN, *BUILD), begin=checked)

    def command(title: str, *words: str, begin: Path | None = packed) -> Command:
        return Command(title, words, begin, to_store=words[-1] == "--to")

    make = command("`convert-all`", "convert-all", *custom, "--overwrite")
    remake = command("`convert-all` of another checkpoint", "convert-all", *others, "--overwrite")
    validate, package = command("`validate`", "validate", *custom), command("`package`", *PACKAGE)
    publish, send = (
        command("`publish` to a directory", *PUBLISH, "published"),
        command("`publish` to a bucket", *PUBLISH),
    )
    new = [
        command(f"{one.title}, nothing there", *one.words[:-1], begin=None)  # without --overwrite
        for one in (make, remake)
    ]
    return [
        Pair(*new),
        Pair(make, remake),
        *(Pair(remake, one) for one in (validate, package, publish)),
        *(Pair(validate, one) for one in (validate, package, publish)),
        *(Pair(package, one) for one in (package, publish)),
        Pair(publish, publish),
        Pair(send, send),
    ]


PACKAGE = ("package", OWN, *BUILD, "--overwrite")


class Both:
    """A pair of commands, and what they leave one after the other."""

    def __init__(self, pair: Pair, trials: Trials, inputs: Inputs) -> None:
        self.pair, self._trials, self._notes = pair, trials, inputs.folder / "notes of the other"

    def _prepare(self) -> tuple[Order, Order]:
        first = self._trials.prepare(self.pair.first)
        words = first.words if self.pair.first.to_store else self.pair.second.words
        return first, replace(first, words=words, notes=self._notes)

    @cached_property
    def in_turn(self) -> list[tuple[Tree, Tree]]:
        """What the two orders leave, and what the first command leaves after that."""
        found = []
        for turn in (1, -1) if self.pair.first != self.pair.second else (1,):
            orders = self._prepare()
            began = time.monotonic()
            for order in orders[::turn]:
                order.run()
                self.seconds = min(getattr(self, "seconds", 60.0), time.monotonic() - began)
            left = self._tree()
            orders[0].run()
            found.append((left, self._tree()))
        return found

    def _tree(self) -> Tree:
        return self._trials.tree(self.pair.first)

    def round(self, chance: random.Random) -> str | None:
        """Run both at once, and the first once more; return what is wrong."""
        expected = self.in_turn
        orders = self._prepare()
        ended = at_once([orders, orders[::-1]][chance.randrange(2)], [0.0, chance.uniform(0.0, self.seconds)])
        if wrong := badly_ended(ended):
            return wrong
        now = self._tree()
        if left := left_over(now):
            return f"left: {left}"
        wrong = [difference(now, left) for left, _ in expected]
        if all(wrong):
            return f"not as one after the other: {' / or: '.join(map(str, wrong))}; {ended[0].said[-200:]}"
        orders[0].run()
        after = expected[wrong.index(None)][1]
        different = difference(self._tree(), after)
        return different and f"the first once more: {different}"


def at_once(orders: Sequence[Order], delays: Sequence[float]) -> list[Ended]:
    """Run commands at once, each after its delay in seconds."""

    def run(order: Order, delay: float) -> Ended:
        time.sleep(delay)
        return order.run()

    with ThreadPoolExecutor(len(orders)) as pool:
        return [*pool.map(run, orders, delays)]


def badly_ended(ended: Sequence[Ended]) -> str | None:
    """Return how a command ended that neither succeeded nor refused in words."""
    for one in ended:
        if one.left:
            return f"processes are left: {one.left}"
        if one.status and (wrong := refused_in_words(one)):
            return wrong
    return None


def fetch_at_once(trials: Trials, inputs: Inputs, store: Store, chance: random.Random, number: int) -> str | None:
    """Fetch an object several times at once, and once more; return what is wrong."""
    name, bucket = TESTING_HANDLES[CLASSIFIER].checkpoint.object, f"fetched-{number}"
    content = (inputs.source / name).read_bytes()
    store.reset()
    store.put(bucket, name, content)
    words = ("fetch", CLASSIFIER, "--source", f"gs://{bucket}")
    order = replace(trials.prepare(Command("", words)), environment={"BOTO_CONFIG": str(store.boto)})
    orders = [replace(order, notes=inputs.folder / f"notes {one}") for one in range(AT_ONCE)]
    ended = at_once(orders, [chance.uniform(0.0, 1.0) for _ in orders])
    ended.append(order.run())
    if failed := [one.said[-300:] for one in ended if one.status]:
        return f"exit status 1: {failed[0]}"
    if store.served != len(content):
        return f"{store.served:,} bytes were transferred of {len(content):,}"
    if (inputs.trial / "cache" / bucket / name).read_bytes() != content:
        return "other bytes are in the cache"
    return badly_ended(ended)


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table."""
    inputs, chance, rows = Inputs(folder), random.Random(0), []  # noqa: S311
    (folder / "store").mkdir()
    store, starter = Store(folder / "store"), Starter(folder)
    try:
        trials, every = Trials(inputs, store, starter), pairs(inputs)
        for number, pair in enumerate(every):
            both = Both(pair, trials, inputs)
            where = "one output" if pair.first.to_store is False else "one bucket"
            rows.append(
                Row(f"{pair.first.title} and {pair.second.title}", where, "at once; what is left, the next run")
            )
            for _ in range(
                max(1, round(share * (ROUNDS * (number + 1) // len(every) - ROUNDS * number // len(every))))
            ):
                rows[-1].count(both.round(chance))
        rows.append(
            Row(f"{AT_ONCE} times `fetch`", "one cache", "at once; one transfer, and a fifth that waits for none")
        )
        for number in range(max(1, round(share * FETCHES))):
            rows[-1].count(fetch_at_once(trials, inputs, store, chance, number))
    finally:
        starter.stop()
        store.stop()
    return rows
