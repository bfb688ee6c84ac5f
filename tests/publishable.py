"""Models to pack and publish that no framework has to make: some files, and records that speak well of them."""

import hashlib
import random

from export.destination import Destination
from export.manifest import digest_files
from models.catalog import TESTING_HANDLES
from models.records import CheckpointRecord, Manifest, Report

HANDLE = next(iter(TESTING_HANDLES))
CHECKPOINT = TESTING_HANDLES[HANDLE].checkpoint
WEIGHTS = "variables/variables.data-00000-of-00001"


def write_model(out, *, handle=HANDLE, version=2, size=20_000, seed=0, report=None, checkpoint=None, **changes):
    """Write a model of `size` bytes of weights with manifest and report; `changes` are of the manifest."""
    destination = Destination(out, handle, version)
    directory = destination.directory
    files = {
        "saved_model.pb": b"graph",
        "fingerprint.pb": b"",
        WEIGHTS: random.Random(seed).randbytes(size),  # noqa: S311
        "variables/variables.index": b"index",
        "assets/labels.txt": "a\nü\n".encode(),
    }
    for name, content in files.items():
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
        "libraries": {"python": "3.11.7", "jax": "0.10.2"},
        "pipeline": "0.1.0",
        "pipeline_sha256": "5" * 64,
        "git_commit": "c" * 40,
        "git_dirty": False,
    }
    manifest = Manifest(**(fields | changes))
    destination.manifest.write_bytes(manifest.to_bytes())
    write_report(destination, manifest, **(report or {}))
    return destination


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
    problems = changes.get("problems", ())
    fields = {
        "handle": manifest.handle,
        "version": manifest.version,
        "flavour": manifest.flavour,
        "origin": manifest.checkpoint.origin,
        "manifest_sha256": hashlib.sha256(manifest.to_bytes()).hexdigest(),
        "inputs_set": "gate",
        "inputs_sha256": "b" * 64,
        "comparisons": (),
        "variables": {"compared": 1, "different": ()},
        "gradients": None,
        "fine_tunable": None,
        "depth": (),
        "consumer": (),
        "reference": None,
        "not_checked": (),
        "tolerances": {},
        "problems": problems,
        "verdict": "failed" if problems else "passed",
        "libraries": {},
        "validator_sha256": "d" * 64,
    }
    destination.report.write_bytes(Report(**(fields | changes)).to_bytes())


def tree(folder):
    """What lies below a folder: contents by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
