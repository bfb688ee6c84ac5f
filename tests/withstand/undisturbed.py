"""Commands that nothing befell, and the same commands again after a fault."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prepared import Starter
from store import Store

from withstand.commands import Command, Inputs
from withstand.events import family
from withstand.trees import Tree, difference, left_over, tree_of
from withstand.trials import Ended, Order


class Trials:
    """Runs commands and judges what they leave."""

    def __init__(self, inputs: Inputs, store: Store, starter: Starter) -> None:
        self.inputs, self._store, self._starter, self._buckets = inputs, store, starter, 0

    @classmethod
    @contextmanager
    def opened(cls, inputs: Inputs) -> "Iterator[Trials]":
        """Yield them with an object store."""
        (inputs.folder / "store").mkdir()
        store, starter = Store(inputs.folder / "store"), Starter(inputs.folder)
        try:
            yield cls(inputs, store, starter)
        finally:
            starter.stop()
            store.stop()

    def prepare(self, command: Command) -> Order:
        """Lay down what a command begins with."""
        folder, words, environment = self.inputs.fresh(command.begin), command.words, {}
        if command.to_store:
            self._buckets += 1
            self._store.make_bucket(self._bucket)
            words, environment = (*words, f"gs://{self._bucket}/models"), {"BOTO_CONFIG": str(self._store.boto)}
        return Order(words, folder, self.inputs.notes, command.workers, None, self._starter.address, environment)

    def tree(self, command: Command) -> Tree:
        """Return what there is now."""
        if not command.to_store:
            return tree_of(self.inputs.trial)
        self._store.settle()
        sent = self._store.objects(self._bucket)
        digests = {f"sent/{name}": hashlib.sha256(content).hexdigest() for name, content in sent.items()}
        return tree_of(self.inputs.trial) | digests

    def running(self, pid: int) -> set[int]:
        """Return the processes that a command has started."""
        return family(pid) | family(self._starter.server.pid)

    @property
    def _bucket(self) -> str:
        return f"withstand-{self._buckets}"


@dataclass(frozen=True)
class Undisturbed:
    """A command that nothing befell."""

    command: Command
    before: Tree
    after: Tree
    ended: Ended
    sizes: tuple[int, ...]
    """Bytes of the files that it wrote."""

    @classmethod
    def of(cls, command: Command, trials: Trials) -> "Undisturbed":
        order = trials.prepare(command)
        before, ended = trials.tree(command), order.run()
        if ended.status or ended.left:
            raise RuntimeError(f"{command.title}: {ended}")
        after, folder = trials.tree(command), order.folder
        new = [folder / name for name, digest in after.items() if before.get(name) != digest]
        return cls(command, before, after, ended, tuple(path.stat().st_size for path in new if path.is_file()))


def completed(trials: Trials, whole: Undisturbed, order: Order) -> str | None:
    """Run a command again after a fault; return how the result differs from that of an undisturbed run."""
    again = order.run()
    if again.status or again.left:
        return f"again: exit status {again.status}, {again.left}: {again.said[-500:]}"
    now = trials.tree(whole.command)
    wrong, left = difference(now, whole.after), left_over(now)
    return (wrong and f"again: {wrong}") or (left and f"left after it: {left}")
