"""Models to pack and publish that no framework has to make: some files, and records that speak well of them."""

import hashlib
import json
import random

from reporting import checks, verdict_of

from export.cards.publisher import Publisher
from export.cards.write import write_model_cards
from models.catalog import TESTING_HANDLES
from models.records.contents import digest_files
from models.records.layout import ModelPaths
from models.records.manifest import CheckpointRecord, Manifest
from models.records.report import Report
from models.records.tolerances import TOLERANCES
from models.selection import select_handles

HANDLE = next(iter(TESTING_HANDLES))
CHECKPOINT = TESTING_HANDLES[HANDLE].checkpoint
WEIGHTS = "variables/variables.data-00000-of-00001"
WHERE = Publisher("somebody", "https://models.example/mixers")


def write_model(
    out, *, handle=HANDLE, version=2, size=20_000, seed=0, report=None, checkpoint=None, more=None, **changes
):
    """Write a model of `size` bytes of weights with manifest and report; `changes` are of the manifest.

    `more` are files to write besides, or in the place of those that every model gets; None as contents leaves one out.
    """
    destination = ModelPaths.of(out, handle, version)
    directory = destination.directory
    files = {
        "saved_model.pb": b"graph",
        "fingerprint.pb": b"",
        WEIGHTS: random.Random(seed).randbytes(size),  # noqa: S311
        "variables/variables.index": b"index",
        "assets/labels.txt": "a\nü\n".encode(),
    } | (more or {})
    for name, content in files.items():
        if content is None:
            continue
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    fields = {
        "handle": handle,
        "version": version,
        "flavour": "native",
        "head": "classification",
        "architecture": "Ti/8",
        "image_size": 32,
        "num_classes": 1000,
        "parameters": 1,
        "platforms": ("cpu",),
        "checkpoint": checkpoint_record(**(checkpoint or {})),
        "files": digest_files(directory),
        "libraries": {"python": "3.10.7", "jax": "0.10.2"},
        "pipeline": "0.1.0",
        "pipeline_sha256": "5" * 64,
        "git_commit": "c" * 40,
        "git_dirty": False,
    }
    manifest = Manifest(**(fields | changes))
    destination.manifest.write_bytes(manifest.to_bytes())
    write_report(destination, manifest, **(report or {}))
    return destination


def write_catalogued(out, name, *, flavour="native", checkpoint=None, report=None, **changes):
    """Write a model under a handle of the catalog, with the manifest that it would have; the files are made up."""
    handle = select_handles([name])[0].in_flavour(flavour)
    source, architecture = handle.checkpoint, handle.checkpoint.architecture
    record = {"name": source.name, "object": source.object, "url": source.url} | (checkpoint or {})
    fields = {
        "flavour": flavour,
        "head": handle.head,
        "architecture": architecture.name,
        "image_size": architecture.image_size,
        "num_classes": handle.num_classes,
        "parameters": handle.parameters,
        "platforms": ("cpu", "cuda", "rocm", "tpu"),
    }
    said = {"not_checked": ("cuda, rocm, tpu: exported, not run",)} | (report or {})
    return write_model(out, handle=handle.name, checkpoint=record, report=said, **(fields | changes))


def checkpoint_record(**changes):
    fields = {
        "name": CHECKPOINT.name,
        "object": CHECKPOINT.object,
        "url": f"gs://elsewhere/{CHECKPOINT.object}",
        "sha256": "a" * 64,
        "size": 12,
        "origin": "original",
    }
    return CheckpointRecord(**(fields | changes))


def write_report(destination, manifest, **changes):
    found = changes.pop("checks", None)
    if found is None:
        full, problems = changes.get("inputs_set") != "gate", changes.pop("problems", ())
        power = 0.0 if changes.get("zero_head") else 1.0
        found = checks(head=manifest.head, full=full, problems=problems, power=power)
    fields = {
        "handle": manifest.handle,
        "version": manifest.version,
        "flavour": manifest.flavour,
        "head": manifest.head,
        "origin": manifest.checkpoint.origin,
        "manifest_sha256": hashlib.sha256(manifest.to_bytes()).hexdigest(),
        "inputs_set": "full",
        "inputs_sha256": "b" * 64,
        "images": ("noise", "blank"),
        "checks": found,
        "zero_head": False,
        "fine_tunable": True,
        "depth": (),
        "reference": None,
        "not_checked": (),
        "tolerances": TOLERANCES,
        "verdict": verdict_of(found),
        "libraries": {},
        "validator_sha256": "d" * 64,
    }
    destination.report.write_bytes(Report(**(fields | changes)).to_bytes())


def write_card(destination, where=WHERE):
    """Write what people read of a model."""
    return write_model_cards(destination, where)


def fields_of(record):
    """Return the fields of a record from its bytes, without its own digest: what it was before there was one."""
    fields = json.loads(record)
    fields.pop("record_sha256", None)
    return fields


def change(path, **changes):
    """Change fields of a record."""
    path.write_text(json.dumps(fields_of(path.read_bytes()) | changes))


def tree(folder):
    """What lies below a folder: contents by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
