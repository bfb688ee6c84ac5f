"""What happens to a download and to a publication when something between here and the object store fails.

The store is a real server behind a proxy that terminates TLS and fails on demand (`tests/store.py`), and its client is
gsutil. A checkpoint is read from it, or a packed model is published in it, while one fault is injected. Survived: the
bytes arrive, or the command is refused in limited time with a message that names the fault; nothing wrong is kept in
the cache or listed in `index.json`; and once the fault is gone, the same command does the rest.
"""

import hashlib
import os
import random
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path

from prepared import Starter
from publishable import HANDLE, write_card, write_model
from store import Faults, Store

from convert.checkpoints.fetch import Source
from export.package.archive import package_model
from export.publish.bucket import Bucket
from export.publish.policy import PublishPolicy
from export.publish.publish import publish
from models.catalog import BUCKET, CHECKPOINTS
from models.digests import DigestTable
from models.errors import MixerError
from models.records.layout import ModelPaths
from models.records.published_index import INDEX, Index
from models.storage import gsutil
from withstand.rows import Row

TITLE = "Network: faults between here and the object store"
REMARK = (
    "A fault lasts until the command ends, unless it is said to happen once. gsutil tries a request again up to five "
    "times, for half a minute,\nunless its configuration says otherwise; where nothing moves, it is ended after 120 s "
    "(here 10 s).\nIt takes status 416 for the end of the object: the message then names the wrong hash."
)

WORKERS = 8  # most of the time is spent waiting
SIZE, SMALL = 12 << 20, 100_000
"""Bytes of an object: gsutil resumes what is larger than 8 MiB."""
PATIENCE, LIMIT = 10.0, 120.0
"""Seconds without progress after which gsutil is ended here, and that a command may take."""
PLACES = (1, 50, 99)  # per cent of an object
STATUSES = range(400, 505)
RETRIED = (429, 500, 502, 503, 504)
DENIED, ABSENT = "access was denied", "no such|was replaced or deleted"
UNLIKE = "does not match the store's hash"
CHECKPOINT = CHECKPOINTS["mixer"]["b16_sam"]
RULES = PublishPolicy(DigestTable(()), origins=frozenset({"own"}))
PAGE = b"<!DOCTYPE html>\n<html>Sign in to this network</html>\n"
CLOSED = "the connection was closed or reset|there was no connection, or it was closed"


@dataclass(frozen=True)
class Case:
    """A fault, where it strikes, and what the message must say; None if the bytes must arrive in spite of it."""

    fault: str
    where: str
    how: str
    said: str | None
    faults: dict[str, object] = field(default_factory=dict)
    """Of the store."""
    limit: float = LIMIT
    """Seconds that the command may take."""
    setting: str = ""
    """How the store is reached, of `SETTINGS`."""
    size: int = SIZE
    replaced: bool = False
    """Whether somebody else writes the object when the connection is cut."""
    index_alone: bool = False
    """Whether only the index is still to be published."""


READING, LISTING = "reading: an object", "reading: its description"
SENDING, LOOKING = "publishing: sending", "publishing: listing"
INDEXING = "publishing: the index"


def cases(share: float, chance: random.Random) -> list[Case]:
    """Return the trials."""
    few = max(1, round(10 * share))
    found = [*connections(), *cuts(), *stalls(), *lengths(), *portals()]
    found += [one for _ in range(few) for one in flips(chance)]
    kept = {*RETRIED, 401, 403, 404, 408, 412, *chance.sample(STATUSES, round(len(STATUSES) * share))}
    found += [one for status in STATUSES if status in kept or share == 1 for one in answers(status)]
    return found


def connections() -> Iterator[Case]:
    """Yield what keeps a connection from being made."""
    for where in (LISTING, LOOKING):
        one = partial(Case, where=where)
        yield one("connection refused", how="nobody listens", said="connection was refused", setting="refused")
        yield one("unknown host", how="its name has no address", said="name has no address", setting="unknown")
        yield one("expired certificate", how="since 2021", said="certificate has expired", setting="expired")
        for setting, of in (("https_proxy", "https_proxy"), ("boto proxy", "BOTO_CONFIG")):
            said = rf"proxy is 127\.0\.0\.1:\d+ \({of}\)"
            yield one("dead proxy", how=f"nobody listens at the proxy of {of}", said=said, setting=setting)


def cuts() -> Iterator[Case]:
    """Yield connections that are reset while an object is transferred."""
    for place in PLACES:
        at = SIZE * place // 100
        for cut, where in (("cut_after", READING), ("cut_upload_after", SENDING)):
            one = partial(Case, f"reset at {place} %", where)
            spoil = {cut: at, "reset": True}
            once = spoil | {"times": 1 if cut == "cut_after" else 2}  # an upload begins with a request without bytes
            yield one("once: sent again, or resumed", None, once)
            limit = LIMIT * 5 if place == 1 else LIMIT  # 100 times resumed
            yield one("each time", CLOSED if cut != "cut_after" else "", spoil, limit=limit)
            if cut == "cut_after":
                yield one("once; meanwhile somebody replaces the object", UNLIKE, once, replaced=True)
    taken = {"cut_upload_after": SMALL // 2, "reset": True, "times": 1}
    how = "once; meanwhile somebody else writes the object"
    yield Case("reset at 50 %", SENDING, how, "in the meantime", taken, replaced=True, size=SMALL)


def stalls() -> Iterator[Case]:
    """Yield what stops to move, and never says so."""
    said = "no data was transferred for"
    for where in (LISTING, LOOKING):
        yield Case("stall", where, "no answer", said, {"hold": True})
        yield Case("stall", where, "no answer to the connection", said, setting="silent")
    for place in PLACES:
        at = SIZE * place // 100
        yield Case(f"stall at {place} %", READING, "the bytes stop", said, {"hold_after": at})
        yield Case(f"stall at {place} %", SENDING, "the bytes are not taken", said, {"hold_upload_after": at})
    yield Case("stall", INDEXING, "the bytes are not taken", said, {"hold_upload_after": 1}, index_alone=True)


def lengths() -> Iterator[Case]:
    """Yield wrong lengths."""
    for more in (-1000, 1000):
        how = f"{more:+,} bytes"
        yield Case("wrong length announced", READING, how, "", {"longer": more})
        said = "bytes arrived, expected|does not match|differ|fewer bytes"
        yield Case("wrong length described", READING, how, said, {"described_longer": more})
        yield Case("wrong length described", SENDING, how, said, {"described_longer": more})


def portals() -> Iterator[Case]:
    """Yield web pages that are answered instead of what was asked for."""
    every = ("object", "description", "sent")
    for where, of in ((READING, ("object",)), (LISTING, every), (LOOKING, every), (SENDING, ("sent",))):
        spoil = {"page": PAGE, "page_for": of}
        yield Case("HTML page of a portal", where, "status 200 and a page to sign in", "web page", spoil)


def flips(chance: random.Random) -> Iterator[Case]:
    """Yield a changed byte in either direction."""
    place = chance.randrange(SIZE)
    yield Case("changed byte", READING, "at a random place", UNLIKE, {"flip": place})
    yield Case("changed byte", SENDING, "at a random place", "differ", {"flip_upload": place})


def answers(status: int) -> Iterator[Case]:
    """Yield a status where an object is described, read, listed and sent."""
    pairs = ((LISTING, "status"), (READING, "media_status"), (LOOKING, "status"), (SENDING, "upload_status"))
    for where, what in pairs:
        one = partial(Case, where=where, size=SMALL)
        said = {401: DENIED, 403: DENIED, 404: ABSENT}.get(status, f"status {status}")
        if (status, where) == (416, READING):  # gsutil takes this one for the end of the object
            said = UNLIKE
        yield one("status 400 to 504", how="each time", said=said, faults={what: status})
        if status in RETRIED and what != "status":
            spoil = {what: status, "times": 1}
            yield one("status of an overload", how="once: tried again", said=None, faults=spoil)


# --- trials ---


class Place:
    """A store of one's own, what is read from it, and what is published in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.store = Store(folder)
        starter = Starter(folder)
        gsutil.subprocess = starter  # type: ignore[assignment]
        for server in (self.store, starter):
            Finalize(None, server.stop, exitpriority=1)
        self.trials = 0
        self.models = {size: packed(folder / f"model {size}", size) for size in (SMALL, SIZE)}
        text = self.store.boto.read_text()
        self.store.boto.write_text(text.replace("num_retries = 1\n", ""))

    def reach(self, setting: str) -> None:
        """Let gsutil reach the store, or not."""
        text = self.store.boto.read_text()
        os.environ.pop("https_proxy", None)
        self.store.certify(datetime(2021, 1, 1, tzinfo=UTC) if setting == "expired" else None)
        boto = self.folder / "now.boto"
        boto.write_text(SETTINGS.get(setting, str)(text))
        os.environ["BOTO_CONFIG"] = str(boto)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def elsewhere(text: str, port: int) -> str:
    return re.sub(r"gs_json_port = \d+", f"gs_json_port = {port}", text)


_silent: list[socket.socket] = []


def silent_port() -> int:
    """Return a port where connections are taken and nothing is answered."""
    _silent.append(socket.create_server(("127.0.0.1", 0)))
    return int(_silent[-1].getsockname()[1])


def proxied(text: str) -> str:
    os.environ["https_proxy"] = f"http://127.0.0.1:{closed_port()}"
    return text


SETTINGS: dict[str, Callable[[str], str]] = {
    "refused": lambda text: elsewhere(text, closed_port()),
    "silent": lambda text: elsewhere(text, silent_port()),
    "unknown": lambda text: text.replace("gs_json_host = 127.0.0.1", "gs_json_host = nowhere.invalid"),
    "https_proxy": proxied,
    "boto proxy": lambda text: text.replace("[Boto]", f"[Boto]\nproxy = 127.0.0.1\nproxy_port = {closed_port()}"),
}


def packed(out: Path, size: int) -> ModelPaths:
    destination = write_model(out, size=size, checkpoint={"origin": "own"})
    write_card(destination)
    package_model(destination)
    return destination


def content_of(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


def attempt(work: Callable[[], object]) -> str | None:
    """Return why a command is refused; None if it is not."""
    try:
        work()
    except MixerError as error:
        return str(error)
    except Exception as error:  # it is the fault that is looked for
        return f"UNEXPECTED {type(error).__name__}: {error}"
    return None


def misjudged(case: Case, said: str | None, seconds: float) -> Iterator[str]:
    """Yield what is wrong with the end of a command."""
    if said is None and case.said:
        yield "not refused"
    if said is not None and (case.said is None or "UNEXPECTED" in said or not re.search(case.said, said, re.DOTALL)):
        yield f"refused with: {said}"
    if seconds > case.limit:
        yield f"took {seconds:.0f} s"


def read(case: Case, place: Place) -> tuple[list[str], float]:
    """Fetch a checkpoint while the fault lasts, and after it; return what is wrong, and the seconds with the fault."""
    cache, store, content = place.folder / f"cache {place.trials}", place.store, content_of(case.size, 1)
    store.reset()
    store.put("mixer_models", CHECKPOINT.object, content)
    other = content_of(case.size, 2)
    begin_faults(case, place, lambda: store.put("mixer_models", CHECKPOINT.object, other))
    begin = time.monotonic()
    said = attempt(lambda: Source(BUCKET, cache, DigestTable(())).fetch(CHECKPOINT))
    seconds, file = time.monotonic() - begin, cache / "mixer_models" / CHECKPOINT.object
    wrong = [*misjudged(case, said, seconds)]
    if file.is_file() and file.read_bytes() not in ([content, other] if case.replaced else [content]):
        wrong.append("a wrong file is in the cache")
    end_faults(place)
    again = attempt(lambda: Source(BUCKET, cache, DigestTable(())).fetch(CHECKPOINT))
    if again is not None or file.read_bytes() != (other if case.replaced else content):
        wrong.append(f"afterwards: {again or 'another file is in the cache'}")
    shutil.rmtree(cache)
    return wrong, seconds


def send(case: Case, place: Place) -> tuple[list[str], float]:
    """Publish a model while the fault lasts, and after it; return what is wrong, and the seconds with the fault."""
    store, model, bucket = place.store, place.models[case.size], f"bucket-{place.trials}"
    store.reset()
    store.make_bucket(bucket)
    if case.index_alone:
        for file in model.folder.glob("2.*"):
            store.put(bucket, f"models/{HANDLE}/{file.name}", file.read_bytes())
    archive = f"models/{HANDLE}/{model.archive.name}"
    begin_faults(case, place, lambda: store.put(bucket, archive, content_of(case.size, 2)))

    def command() -> None:
        with Bucket.opened(f"gs://{bucket}/models") as there:
            publish(model, there, RULES)

    begin = time.monotonic()
    said = attempt(command)
    seconds = time.monotonic() - begin
    wrong = [*misjudged(case, said, seconds)]
    end_faults(place)
    if listed := incomplete(store.objects(bucket), model):
        wrong.append(f"listed in the index: {listed}")
    again = attempt(command)
    if case.replaced:
        if again is None or "left other files" not in again:
            wrong.append(f"afterwards, over another's file: {again}")
    elif again is not None or incomplete(store.objects(bucket), model, needs_index=True):
        wrong.append(f"afterwards: {again or 'not complete'}")
    return wrong, seconds


def begin_faults(case: Case, place: Place, replace: Callable[[], object]) -> None:
    place.trials += 1
    place.reach(case.setting)
    gsutil.PATIENCE = PATIENCE if "no data" in (case.said or "") else gsutil.PATIENCE
    spoil = Faults(**case.faults)  # type: ignore[arg-type]
    if case.replaced:
        spoil.at_cut = replace
    place.store.faults = spoil


def end_faults(place: Place) -> None:
    place.store.settle()
    place.store.reset()
    place.reach("")
    gsutil.PATIENCE = 120.0


def incomplete(objects: dict[str, bytes], model: ModelPaths, *, needs_index: bool = False) -> str:
    """Return which file of a listed version is not what it was here; empty text if none is, or none is listed."""
    there = {name.rpartition("/")[2]: content for name, content in objects.items()}
    if INDEX not in there:
        return INDEX if needs_index else ""
    listed = Index.parse(there[INDEX], INDEX).versions["2"]
    return ", ".join(
        name
        for name, one in listed.items()
        if hashlib.sha256(there.get(name, b"")).hexdigest() != one.sha256
        or there[name] != (model.folder / name).read_bytes()
    )


# --- all of them ---

_place: Place


def prepare(folder: Path) -> None:
    """Begin a worker."""
    global _place
    _place = Place(folder / f"worker {os.getpid()}")


def work(case: Case) -> tuple[list[str], float]:
    """Do a trial in a worker."""
    return (read if case.where.startswith("reading") else send)(case, _place)


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table."""
    trials, rows, slowest = cases(share, random.Random(0)), {}, {}  # noqa: S311
    with ProcessPoolExecutor(WORKERS, initializer=prepare, initargs=(folder,)) as pool:
        for case, (wrong, seconds) in zip(trials, pool.map(work, trials), strict=True):
            key = case.fault, case.where, case.how
            row = rows.setdefault(key, Row(*key))
            row.count("; ".join(wrong).replace("\n", " ")[:400] or None)
            slowest[key] = max(slowest.get(key, 0.0), seconds)
    for key, row in rows.items():
        row.how = f"{row.how}; at most {slowest[key]:.0f} s"
    return list(rows.values())
