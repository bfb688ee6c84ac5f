"""The places that models are published at, by what `--to` begins with."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from export.publish import hugging_face, kaggle
from export.publish.bucket import bucket, parse_destination
from export.publish.publish import Publication, publish
from export.publish.store import Mirror, Store
from models.errors import UsageError

Send = Callable[..., Publication]
"""Publishes one model: given its paths, and `policy`, `dry_run` and `progress` by name."""

HUBS: dict[str, Callable[[str], Send]] = {
    kaggle.PREFIX: lambda to: kaggle.KaggleModel.parse(to).publish,
    hugging_face.PREFIX: lambda to: hugging_face.HuggingFaceRepository.parse(to).publish,
}
"""Hubs with a client of their own; everything else is a place of files (`export.publish.store.Store`)."""


@contextmanager
def opened_place(to: str, out: Path) -> Iterator[Send]:
    """Give what publishes a model at the place that `--to` names: a bucket, a directory or a hub.

    Raises:
        UsageError: it names none, or the client of a hub is not installed.
    """
    hub = next((opener for prefix, opener in HUBS.items() if to.startswith(prefix)), None)
    if hub is not None:
        yield hub(to)
        return
    with opened_store(to, out) as store:
        yield functools.partial(publish, store=store)


@contextmanager
def opened_store(to: str, out: Path | None = None) -> Iterator[Store]:
    """Give the bucket or directory that `--to` names.

    Raises:
        UsageError: it names none, or the directory in which the models are made.
    """
    if to.startswith(tuple(HUBS)):
        raise UsageError(
            f"{to}: only publish sends there; here expected gs://bucket, gs://bucket/prefix or a directory."
        )
    place = parse_destination(to)
    if isinstance(place, str):
        with bucket(place) as store:
            yield store
        return
    if out is not None and place.resolve() == out.resolve():
        raise UsageError(f"--to {to} is where the models are made (--out): give another directory.")
    yield Mirror(place)
