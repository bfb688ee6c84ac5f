"""Open the destination that `--to` names, by its prefix."""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from export.publish.bucket import Bucket
from export.publish.hugging_face import HuggingFaceRepository
from export.publish.kaggle import KaggleModel
from export.publish.publish import Publication, publish
from export.publish.store import Mirror, Store
from models.errors import UsageError
from models.storage.gsutil import BUCKET_URL

Send = Callable[..., Publication]
"""Publishes one model, given its paths and the keywords `rules`, `dry_run` and `progress`."""

HUBS: tuple[type[KaggleModel | HuggingFaceRepository], ...] = (KaggleModel, HuggingFaceRepository)
"""Hubs with a client of their own; all other destinations are an `export.publish.store.Store`."""


@contextmanager
def opened_place(to: str, out: Path) -> Iterator[Send]:
    """Yield a function that publishes a model at the bucket, directory or hub that `--to` names.

    Raises:
        UsageError: `--to` names none of them, or the hub's client is not installed.
    """
    hub = next((hub for hub in HUBS if to.startswith(hub.PREFIX)), None)
    if hub is not None:
        place = hub.parse(to)
        _require_client(hub.CLIENT, to)
        yield place.publish
        return
    with opened_store(to, out) as store:
        yield functools.partial(publish, store=store)


@contextmanager
def opened_store(to: str, out: Path | None = None) -> Iterator[Store]:
    """Yield the bucket or directory that `--to` names, or, without `out`, that models are only read from.

    Raises:
        UsageError: it is neither, is the directory in which the models are made, or is only read and does not exist.
    """
    if to.startswith(tuple(hub.PREFIX for hub in HUBS)):
        raise UsageError(
            f"{to}: only `publish` takes this destination; expected gs://bucket, gs://bucket/prefix or a directory."
        )
    place = _parse(to)
    if isinstance(place, str):
        with Bucket.opened(place) as store:
            yield store
        return
    if out is not None and place.resolve() == out.resolve():
        raise UsageError(f"--to {to} is the output directory (--out): give another directory.")
    if out is None and not place.is_dir():
        raise UsageError(
            f"{to} does not exist: expected a directory in which models are published. Is a `gs://` missing?"
        )
    yield Mirror(place)


def _require_client(name: str, destination: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise UsageError(
            f"--to {destination} needs the package {name}, which is not installed: .venv/bin/pip install -e '.[hub]' "
            "installs it."
        )


def _parse(destination: str) -> str | Path:
    """Return where to publish: the URL of a bucket (or a folder in it), without a slash at its end, or a directory.

    Raises:
        UsageError: the destination is neither.
    """
    expected = "expected gs://bucket, gs://bucket/prefix, or a directory"
    if destination.startswith("gs://"):
        if BUCKET_URL.fullmatch(destination.rstrip("/")):
            return destination.rstrip("/")
        raise UsageError(f"{destination!r} does not name a bucket: {expected}.")
    if "://" in destination:
        raise UsageError(f"{destination!r}: {destination.split(':')[0]} is not supported; {expected}.")
    folder = Path(destination).expanduser()
    if not destination or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{destination!r} is not a directory: {expected}.")
    return folder.absolute()
