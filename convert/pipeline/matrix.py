"""Make models for the compatibility matrix in each flavour, with JAX's outputs for the same images, and run them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from convert.checkpoints.fetch import Source
from convert.checkpoints.open import OpenCheckpoint
from convert.checkpoints.synthetic import write_seeded
from convert.pipeline.convert_handle import Item
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.progress import Steps, Watch
from models.catalog import DEFAULT_VERSION, Flavour, Handle
from models.errors import counted
from models.records.layout import ModelPaths
from validation.compatibility.environments import select_releases
from validation.compatibility.matrix import Matrix, Model, run_matrix


def make_and_run(
    chosen: Sequence[Handle],
    flavours: Sequence[Flavour],
    releases: Sequence[str],
    source: Source | None,
    keep: Callable[[Matrix], None],
    watch: Watch | None = None,
) -> Matrix:
    """Write the models, and run them in one TensorFlow release after the other.

    Args:
        chosen: the models.
        flavours: those that each is written in.
        releases: none means all.
        source: where checkpoints are read from; None makes synthetic ones.
        keep: called with the results so far, after each release.
        watch: called with each event.
    """
    rows = select_releases(releases)
    if source is not None:
        source.check()
    import_frameworks()
    with (
        TemporaryDirectory(prefix="matrix-") as folder,
        Steps(watch, len(rows) * len(chosen) * len(flavours)) as on,
    ):
        on.start(f"making {counted(len(chosen) * len(flavours), 'model')}")
        models = list(_make(chosen, flavours, Path(folder), source))
        return run_matrix(rows, models, started=on.start, finished=on.finish, keep=keep)


def _make(
    chosen: Sequence[Handle], flavours: Sequence[Flavour], folder: Path, source: Source | None
) -> Iterator[Model]:
    """Write each model in each flavour, with images and JAX's outputs for them, below `folder`."""
    seeded = Source(str(folder))
    for checkpoint in dict.fromkeys(handle.checkpoint for handle in chosen):
        place = None if checkpoint.testing else source  # those of the tests are in no bucket
        if place is None:
            write_seeded(checkpoint, folder)
        yield from _make_of(place or seeded, [one for one in chosen if one.checkpoint == checkpoint], flavours, folder)


def _make_of(source: Source, handles: Sequence[Handle], flavours: Sequence[Flavour], folder: Path) -> Iterator[Model]:
    from validation.parity.images import Inputs
    from validation.parity.reference import apply_both
    from validation.parity.scale import Scale

    row = handles[0].checkpoint
    checkpoint = OpenCheckpoint.of_catalog(row, source)
    inputs = folder / f"{row.name}.npy"
    images = Inputs.gate(row.architecture.image_size).images
    np.save(inputs, images)
    logits, features = apply_both(row, checkpoint.params, images)
    for handle in handles:
        expected, scale = folder / f"{handle.name}.npy", folder / f"{handle.name}.scale.npy"
        outputs, head = (logits, checkpoint.params["head"]) if handle.num_classes else (features, None)
        np.save(expected, outputs)
        np.save(scale, Scale.measure(outputs, features, head).of)
        labels = handle.labels.checked_path() if handle.labels else None
        for flavour in flavours:
            made = handle.in_flavour(flavour)
            item = Item(made, ModelPaths.of(folder / "models", made.name, DEFAULT_VERSION), labels)
            item.write(checkpoint, overwrite=False)
            given = (item.paths.directory, inputs, expected, scale)
            yield Model(made.name, row.architecture.name, flavour, *given, used=row.testing)
