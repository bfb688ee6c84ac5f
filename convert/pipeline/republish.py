"""Make, prove, pack, describe and publish new versions of outdated models in one run."""

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from convert.checkpoints.fetch import Source
from convert.pipeline.batch import check_batch, run_batch
from convert.pipeline.for_each import for_each, raise_problems
from convert.pipeline.job import Batch
from convert.pipeline.outcome import Outcome
from convert.pipeline.outdated import compare_all_with_published
from convert.pipeline.progress import Event, Steps, Watch
from export.cards.publisher import Publisher
from export.cards.write import write_collection_cards, write_model_cards
from export.install import held, tidy
from export.package.archive import package_model
from export.package.signing import Signer
from export.publish.outdated import PublishedState
from export.publish.policy import PublishPolicy
from export.publish.publish import Publication, publish
from export.publish.store import Store, StoredFile
from models.catalog import Checkpoint, Handle
from models.errors import MixerError, UsageError
from models.records.contents import compare_files
from models.records.layout import ModelPaths
from models.records.provenance import git_state
from models.records.report import InputsSet
from models.storage.files import Hashes
from models.storage.gsutil import StoredObject


@dataclass(frozen=True)
class Work:
    """What to republish, from which source, and under which policy."""

    models: tuple[Handle, ...]
    """In their flavours."""
    source: Source
    out: Path
    rules: PublishPolicy
    where: Publisher | None
    """The publisher and the address of the models, for the cards; tests and measurements write none."""
    sign: Signer | None = None
    inputs_set: InputsSet = "full"
    """The set that they are checked with; cards contain results that only the full set gives."""

    def bring_up_to_date(
        self, store: Store, *, dry_run: bool = False, watch: Watch | None = None
    ) -> list["Republished"]:
        """Republish outdated models or, with `dry_run`, only report them; a failure ends only that model.

        Raises:
            MixerError: before any work, if the comparison with published models fails, a checkpoint at the source is
                not the recorded one, or the sources are not those of a commit.
        """
        watch = watch or (lambda event: None)
        looked = functools.cache(self.source.probe)
        standings, problems = compare_all_with_published(self.models, store, looked, self.rules.digests, watch)
        raise_problems(problems, len(self.models))
        for note in dict.fromkeys(note for one in standings for note in one.unknown):
            watch(Event("noted", f"not compared: {note}"))
        _refuse(self, looked)
        numbers = {one.handle: _free_number(one, store, self.out) for one in standings if one.reasons}
        if dry_run or not numbers:
            return [_result(one, numbers, "to be republished") for one in standings]
        batches = list(_batches(self, numbers, watch))
        failed = _make(batches, watch)
        left = [name for name in numbers if name not in failed]
        published, more = for_each(left, lambda name, on: _publish(self, store, name, numbers[name], on), watch)
        _describe_collection(self, published, watch)
        sent = {one.handle: one.sent for one in published}
        failed |= {problem.handle: problem.reason for problem in more}
        return [
            _result(one, numbers, "republished", failed.get(one.handle), sent.get(one.handle, 0)) for one in standings
        ]


@dataclass(frozen=True)
class Republished:
    """The result for one model."""

    handle: str
    published: int | None
    """The highest version before; None if there was none."""
    version: int | None
    """The new version; None if none is needed."""
    reasons: tuple[str, ...]
    verdict: Literal["up to date", "to be republished", "republished", "failed"]
    sent: int = 0
    """Bytes."""
    problem: str | None = None


def _result(
    standing: PublishedState,
    numbers: dict[str, int],
    verdict: Literal["to be republished", "republished"],
    problem: str | None = None,
    sent: int = 0,
) -> Republished:
    number = numbers.get(standing.handle)
    said: Literal["up to date", "failed", "to be republished", "republished"] = verdict
    if number is None:
        said = "up to date"
    elif problem is not None:
        said = "failed"
    return Republished(standing.handle, standing.published, number, standing.reasons, said, sent, problem)


# --- checks before any work ---


def _refuse(work: Work, looked: Callable[[Checkpoint], Hashes | StoredObject]) -> None:
    checkpoints = dict.fromkeys(one.checkpoint for one in work.models)
    problems = [problem for one in checkpoints for problem in _changes(one, work, looked)]
    commit, dirty = git_state()
    if not work.rules.allow_dirty and (commit is None or dirty):
        found = (
            "the sources are of no known git commit" if commit is None else f"the sources differ from commit {commit}"
        )
        problems.append(f"{found}: commit them, or give --allow-dirty")
    if problems:
        said = "".join(f"\n  {problem}" for problem in problems)
        raise MixerError(f"nothing was made or published:{said}")


def _changes(
    checkpoint: Checkpoint, work: Work, looked: Callable[[Checkpoint], Hashes | StoredObject]
) -> Iterator[str]:
    """Yield how the source's file differs from the recorded one, or that none is recorded."""
    digests, origins = work.rules.digests, sorted(work.rules.origins)
    accept = "record it with `mixer-jax2tf fetch --record`, review the change of models/digests.json, and commit it"
    entries = [entry for origin in origins if (entry := digests.find(checkpoint.object, origin)) is not None]
    if not entries:
        yield f"models/digests.json has no {' or '.join(origins)} {checkpoint.object}: {accept}"
        return
    found = looked(checkpoint)
    for entry in entries:
        pairs = (
            ("size", found.size, entry.size),
            ("sha256", found.sha256, entry.sha256),
            ("md5", found.md5, entry.md5),
        )
        for what, is_now, recorded in pairs:
            if None not in (is_now, recorded) and is_now != recorded:
                yield (
                    f"{checkpoint.object} changed: its {what} at {work.source.place} is {is_now}, recorded was "
                    f"{recorded}; {accept}"
                )
                break


# --- the new versions ---


def _free_number(standing: PublishedState, store: Store, out: Path) -> int:
    """Return the number of a new version: above any unfinished publication, unless that can be finished.

    Files of a version that the index does not list block its number for any other. If they equal those in `out`, that
    publication is finished instead.
    """
    files = store.files(standing.handle)
    left = {name: int(found[1]) for name in files if (found := re.match(r"(\d+)\.", name))}
    highest = max((number for number in left.values() if number >= standing.next), default=None)
    if highest is None:
        return standing.next
    mine = {name: files[name] for name, number in left.items() if number == highest}
    made = ModelPaths.of(out, standing.handle, highest)
    tidy(made)
    return highest if _same(mine, made.folder) else highest + 1


def _same(stored: Mapping[str, StoredFile], folder: Path) -> bool:
    def same(path: Path, there: StoredFile) -> bool:
        of_that_size = path.is_file() and path.stat().st_size == there.size  # else it need not be read
        return of_that_size and not compare_files({path.name: Hashes.of(path)}, {path.name: there})

    return all(same(folder / name, one) for name, one in stored.items())


def _batches(work: Work, numbers: dict[str, int], watch: Watch) -> Iterator[Batch]:
    """Yield the batches to make, one for each version number.

    Raises:
        UsageError: a directory without a manifest is in the way, or the models would not fit on the disk.
    """
    places = [ModelPaths.of(work.out, name, number) for name, number in numbers.items()]
    for one in places:
        tidy(one)
    foreign = [str(one.directory) for one in places if os.path.lexists(one.directory) and not one.manifest.is_file()]
    if foreign:
        raise UsageError(
            f"{', '.join(foreign)} has no manifest, so it is not replaced: move it away, or give another --out."
        )
    for number in sorted(set(numbers.values())):
        models = tuple(one for one in work.models if numbers.get(one.name) == number)
        batch = Batch("convert-all", models, work.source, work.out, number, inputs_set=work.inputs_set)
        check_batch(batch, watch)
        yield batch


def _make(batches: Iterable[Batch], watch: Watch) -> dict[str, str]:
    """Convert and check; return what failed and why. Models already proven by the same set are skipped."""
    failed: dict[str, str] = {}
    for batch in batches:
        made = run_batch(batch, watch)
        failed |= _failures(made)
        less = [one.handle for one in made if one.report is not None and one.report.inputs_set == "gate"]
        if less and batch.inputs_set == "full":  # proven earlier, by the gate set only
            again = tuple(handle for handle in batch.handles if handle.name in less)
            failed |= _failures(run_batch(replace(batch, task="validate", handles=again), watch))
    return failed


def _failures(outcomes: Iterable[Outcome]) -> dict[str, str]:
    return {one.handle: "; ".join(one.problems) for one in outcomes if one.verdict == "failed"}


def _publish(work: Work, store: Store, name: str, number: int, on: Steps) -> Publication:
    destination = ModelPaths.of(work.out, name, number)
    with held(destination):
        if work.where is not None:
            write_model_cards(destination, work.where)
        package_model(destination, overwrite=True, sign=work.sign, progress=on.start(f"packing {name}"))
        return publish(destination, store, work.rules, progress=on.start(f"publishing {name}"))


def _describe_collection(work: Work, published: Sequence[Publication], watch: Watch) -> None:
    """Write the cards of the collection, which name the new versions; a failure does not undo what was published."""
    if work.where is None or not published:
        return
    try:
        written = write_collection_cards(work.out, work.where)
    except MixerError as error:
        watch(Event("noted", f"the cards of the collection could not be written: {error}"))
    else:
        for path in written.files if written else ():
            watch(Event("noted", f"written: {path}"))
