"""Which damage is noticed: single flipped bits and exchanged files, in every kind of file that is written or published.

Two tiny models are made by the command line, checked, described, packed, signed and published to a directory. Then one
bit of one file is flipped, or one file is replaced by that of the other model, and whoever reads the file next is
asked: `mixer-jax2tf verify` and `validation/verify.py`, which must agree, or the reader of the file. Survived: each of
them names the file.
"""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from convert.checkpoints.fetch import Source
from convert.checkpoints.open import OpenCheckpoint
from convert.finetune.features import FeatureFile
from convert.finetune.pictures import Crop
from convert.finetune.pictures import Reader as PictureReader
from convert.finetune.state import Score, State
from convert.pipeline.fine_tuning import FineTuning
from convert.pipeline.finetune import run_finetune
from convert.pipeline.kept_graphs import KeptGraphs
from convert.pipeline.tracing import GraphKey
from convert.pipeline.unfinished import BatchAnswers, Unfinished, state_of
from convert.pipeline.usable_model import find_model
from export.package.verify import verify
from export.publish.policy import PublishPolicy
from export.publish.publish import publish
from export.publish.store import Mirror
from models.catalog import TESTING_HANDLES
from models.digests import Digest, DigestTable
from models.errors import MixerError
from models.formats import FORMATS
from models.records.about import About, AboutRecord
from models.records.accuracy import AccuracyRecord, Measurement
from models.records.layout import ModelPaths
from models.records.published_index import INDEX
from models.storage.files import Hashes
from validation import verify as alone
from validation.accuracy.dataset import Picture
from withstand.rows import Row

ROOT = Path(__file__).parent.parent.parent
NAMES = tuple(TESTING_HANDLES)[:2]
FLIPS, EXCHANGES = 2000, 200

TITLE = "Damage: flipped bits and exchanged files"
REMARK = ""

Reader = Callable[[], tuple[str, ...]]
"""Reads files and returns what each who reads them says of damage; empty text where none is noticed."""


def command(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "convert", *map(str, arguments)], cwd=ROOT, check=True, stdout=sys.stderr)


def make(folder: Path) -> Path:
    """Make and publish two models and their exports; return the directory that they are published in."""
    from convert.checkpoints.synthetic import write_seeded

    for checkpoint in {TESTING_HANDLES[name].checkpoint for name in NAMES}:
        write_seeded(checkpoint, folder / "source")
    out = folder / "build"
    where = ("--source", folder / "source", "--out", out)
    command("convert-all", *NAMES, *where, "--flavour", "both")
    command("validate", *NAMES, *where, "--set", "full")
    command("export", *NAMES, *where, "--to", ",".join(FORMATS))
    for name in NAMES:
        write_more(ModelPaths.of(out, name, 2))
    command("card", *NAMES, "--out", out, "--publisher", "somebody", "--assets", "https://models.example")
    write_key(folder)
    command("package", *NAMES, "--out", out, "--sign-key", folder / "key.pem")
    rules = PublishPolicy(DigestTable.read(), frozenset({"original", "seeded", "unknown"}), allow_dirty=True)
    for name in NAMES:
        publish(ModelPaths.of(out, name, 2), Mirror(folder / "published"), rules)
    return folder / "published"


def write_key(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    plain, kind = serialization.NoEncryption(), serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "key.pem").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "key.pub").write_bytes(private.public_key().public_bytes(pem, kind))


def write_more(paths: ModelPaths) -> None:
    """Write the records that need pictures or a custom model, as their commands would."""
    measured = Measurement(
        data="a folder of pictures for each class",
        data_sha256="a" * 64,
        protocol="paper",
        command=f"mixer-jax2tf accuracy {paths.handle} --data val --protocol paper",
        pictures=100,
        not_decoded=0,
        top1=70,
        top5=90,
        subset_top1=None,
        subset_top5=None,
        remarks=(),
        libraries={},
    )
    digest = Hashes.of(paths.manifest).sha256
    record = AccuracyRecord(handle=paths.handle, version=2, manifest_sha256=digest, measurements=(measured,))
    paths.accuracy.write_bytes(record.to_bytes())
    about = About(license="MIT", training_data="nothing", description=f"Weights of {paths.handle}, made up.")
    said = AboutRecord(handle=paths.handle, version=2, manifest_sha256=digest, about=about)
    paths.about.write_bytes(said.to_bytes())


# --- who is asked ---


def both(path: Path, key: Path | None = None) -> tuple[str, ...]:
    """Return what both verifiers say of a model."""
    check = None if key is None else partial(alone.check_signature, key=key)
    ours = verify(path, check_signature=check).differences
    theirs = alone.verify(str(path), key and str(key))["differences"]
    return "; ".join(ours), "; ".join(theirs)


def refused(read: Callable[[], object]) -> tuple[str, ...]:
    """Return the error of a reader."""
    try:
        read()
    except MixerError as error:
        return (str(error),)
    return ("",)


def features(folder: Path) -> tuple[list[Path], Reader]:
    """Return the features that an unfinished run has computed, and who reads them."""
    from PIL import Image

    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    crops, file, batches = (
        [Crop(path) for path in sorted(folder.glob("?.png"))],
        FeatureFile(folder / "features.bin", 3),
        [],
    )

    def extract(images):
        batches.append(len(images))
        return images.mean((1, 2))

    def fill() -> tuple[str, ...]:
        batches.clear()
        with PictureReader(8) as reader:
            file.fill(crops, extract, reader, 2, lambda *_: None)
        return (f"{file.path.name}: {len(batches)} of 3 batches are computed" if batches else "",)

    fill()
    return [file.path], fill


def kept_graph(folder: Path) -> tuple[list[Path], Reader]:
    """Return a graph that `convert` keeps, and who reads it."""
    kept, key = KeptGraphs.of(folder / "cache"), GraphKey.of(TESTING_HANDLES[NAMES[0]], None)
    key.graph(kept)
    (file,) = kept.folder.glob("*.graph")
    return [file], lambda: ("" if kept.read(key) else f"{file.name} is not used",)


def used(out: Path) -> list[tuple[str, str, list[Path], Reader]]:
    """Return the models that a command reads to use them: where, who is asked, the files, the reader."""
    base = ModelPaths.of(out, NAMES[1], 2).directory
    tuning = FineTuning(base=NAMES[1], name="tuned", data=out / "no pictures", out=out)
    found = [("SavedModel to fine-tune", "`finetune`", files_in(base), lambda: refused(lambda: run_finetune(tuning)))]
    named = {"SavedModel": NAMES[0]} | {kind.title: kind.named(NAMES[0]) for kind in FORMATS.values()}
    for title, name in named.items():
        model = ModelPaths.of(out, name, 2).directory
        read = partial(refused, partial(find_model, str(model), out, 2))
        found.append((f"{title} to classify with", "`classify`", files_in(model), read))
    return found


def readers(folder: Path) -> list[tuple[str, str, list[Path], Reader]]:
    """Return kinds of files that are kept for a next run: where, who is asked, the file, the reader."""
    row = TESTING_HANDLES[NAMES[0]].checkpoint
    cached = folder / "source" / row.object
    hashes = Hashes.of(cached)
    entry = Digest(row.object, "original", hashes.size, hashes.md5, "AAAAAA==", hashes.sha256)
    source = Source(str(folder / "source"), None, DigestTable((entry,)))
    state = folder / "state.npz"
    arrays = [np.arange(1000, dtype=np.float32)]
    State(3, [Score(3, 1.0, 2.0, 3, 4)], [0.5]).save(arrays, state)
    pictures = [[Picture(folder / f"{batch}.jpg", (batch,))] for batch in range(3)]
    run = Unfinished(folder / "run.jsonl")
    for batch in pictures:
        run.add(state_of(batch), BatchAnswers(["b" * 64], [None], 0.5, [0.25], [[[1, 2, 3, 4, 5]]], [[]]))
    lines = run.path.read_bytes()

    def resume() -> tuple[str, ...]:
        found = run.read(pictures)
        run.path.write_bytes(lines)
        return (f"{run.path.name}: {len(found)} of 3 batches are used" if len(found) < 3 else "",)

    return [
        (
            "checkpoint in the cache",
            "`convert`",
            [cached],
            lambda: refused(partial(OpenCheckpoint.of_catalog, row, source)),
        ),
        ("state of fine-tuning", "`finetune`", [state], lambda: refused(lambda: State.read(state))),
        ("graph in the cache", "`convert`: traces again", *kept_graph(folder)),
        ("features of a fine-tuning", "`finetune`: computes again", *features(folder)),
        ("interrupted `accuracy`", "`accuracy`: measures again", [run.path], resume),
    ]


# --- trials ---


def unnamed(said: tuple[str, ...], name: str, what: str) -> str | None:
    """Return what each says of the damage `what`, unless all name the file."""
    if all(name in one for one in said):
        return None
    return f"{what}: {' / '.join(one[:200] or 'nothing is said' for one in said)}"


def flips(row: Row, files: list[Path], read: Reader, count: int, chance: random.Random, shown: Callable[[Path], str]):
    """Flip single bits of files, all equally often, at random places."""
    for trial in range(count):
        file = files[trial % len(files)]
        content = file.read_bytes()
        changed, place, bit = bytearray(content), chance.randrange(len(content)), chance.randrange(8)
        changed[place] ^= 1 << bit
        file.write_bytes(changed)
        try:
            row.count(unnamed(read(), shown(file), f"{file.name}, bit {bit} of byte {place}"))
        finally:
            file.write_bytes(content)


def kinds(published: Path, folder: Path) -> list[tuple[str, list[Path], Reader, Callable[[Path], str]]]:
    """Return what flips are tried on: where, the files, who is asked, the name that must be said."""
    paths, key = ModelPaths.of(published, NAMES[0], 2), folder / "key.pub"
    made = ModelPaths.of(folder / "build", NAMES[0], 2)
    beside = [*paths.required, paths.signature, *paths.described]
    found = [
        (f"published `{file.name}`", [file], partial(both, paths.archive, key), lambda one: one.name) for file in beside
    ]
    index = published / NAMES[0] / INDEX
    found.append((f"published `{INDEX}`", [index], partial(both, paths.archive, key), lambda one: one.name))
    found.append(
        (f"saved outputs, `{made.outputs.name}`", [made.outputs], partial(both, made.directory), lambda one: one.name)
    )
    found += contents(made.directory)
    for kind in FORMATS.values():
        export = ModelPaths.of(folder / "build", kind.named(f"{NAMES[0]}"), 2)
        read = partial(both, export.directory)
        for file in (export.manifest, export.report):
            found.append((f"{kind.title}, `{file.name}`", [file], read, lambda one: one.name))
        found.append((f"{kind.title}, its files", files_in(export.directory), read, lambda one: one.name))
    return found


def files_in(directory: Path) -> list[Path]:
    """Return the files below a directory that have a bit to flip."""
    return sorted(one for one in directory.rglob("*") if one.is_file() and one.stat().st_size)


def contents(directory: Path) -> list[tuple[str, list[Path], Reader, Callable[[Path], str]]]:
    """Return the files of a SavedModel, each of its own kind."""
    name = lambda one: one.relative_to(directory).as_posix()  # noqa: E731
    return [(f"SavedModel, `{name(file)}`", [file], partial(both, directory), name) for file in files_in(directory)]


def exchanges(published: Path, folder: Path, count: int, chance: random.Random) -> Row:
    """Replace one file of a model by that of the other model."""
    row = Row("one file of another model", "published, and in the SavedModel", "each in turn; both verifiers")
    key, pairs = folder / "key.pub", []
    for out in (published, folder / "build"):
        one, other = (ModelPaths.of(out, name, 2) for name in NAMES)
        for paths, source in ((one, other), (other, one)):
            is_build = out != published
            asked = partial(both, paths.directory) if is_build else partial(both, paths.archive, key)
            beside = [paths.folder / INDEX, *paths.required, paths.signature, *paths.described]
            files = [file for file in paths.directory.rglob("*") if file.is_file()] if is_build else beside
            pairs += [(file, source.folder / file.relative_to(paths.folder), asked) for file in files]
    pairs = [one for one in pairs if one[1].is_file() and one[0].read_bytes() != one[1].read_bytes()]
    for trial in range(count):
        file, source, asked = pairs[trial] if trial < len(pairs) else chance.choice(pairs)
        content = file.read_bytes()
        shutil.copyfile(source, file)
        try:
            row.count(unnamed(asked(), file.name, f"{file.name} of {source.parent}"))
        finally:
            file.write_bytes(content)
    return row


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table."""
    published, chance, rows = make(folder), random.Random(0), []  # noqa: S311
    every, kept = kinds(published, folder), [*used(folder / "build"), *readers(folder)]
    count = max(1, round(FLIPS * share / (len(every) + len(kept))))
    for where, files, read, name in every:
        rows.append(Row("one flipped bit", where, "random bit; both verifiers"))
        flips(rows[-1], files, read, count, chance, name)
    for where, asked, files, read in kept:
        rows.append(Row("one flipped bit", where, f"random bit; {asked}"))
        flips(rows[-1], files, read, count, chance, lambda one: one.name)
    return [*rows, exchanges(published, folder, round(EXCHANGES * share), chance)]
