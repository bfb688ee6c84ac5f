"""The model of a name in each of several backends."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from convert.checkpoints.fetch import Source
from convert.checkpoints.open import CustomCheckpoint, OpenCheckpoint
from convert.pipeline.usable_model import UsableModel, find_model, read_classes
from models.catalog import ALL_HANDLES, GRAPH_SUFFIX, Handle
from models.errors import UsageError, each
from models.formats import BACKENDS
from models.records.layout import ModelPaths, fine_tuned_checkpoint
from models.records.manifest import Manifest
from models.selection import template_of

if TYPE_CHECKING:
    from validation.formats.runtimes import RunnableModel


@dataclass(frozen=True)
class Contender:
    """A model in one backend."""

    backend: str
    model: UsableModel
    original: "_Original | None" = None
    """What it was made from, for JAX."""

    @property
    def paths(self) -> ModelPaths | None:
        """The paths of a SavedModel that has a manifest; None for what else a model runs from."""
        if self.original is not None or self.model.kind != "saved_model":
            return None
        paths = ModelPaths.around(self.model.path)
        return paths if paths.manifest.is_file() else None

    @property
    def source_path(self) -> Path:
        """The files that it is loaded from, all that are in one folder; for a checkpoint, its place in its source."""
        if self.original is None:
            return self.model.path if self.model.kind == "saved_model" else self.model.path.parent
        custom, source = self.original.custom, self.original.source
        return custom.path if custom else Path(source.place, self.original.handle.checkpoint.object)

    def open(self) -> "RunnableModel":
        """Load it; see `UsableModel.open`."""
        return self.model.checked(self.original.open()) if self.original else self.model.open()


@dataclass(frozen=True)
class _Original:
    """The checkpoint of a handle, to be run in JAX."""

    handle: Handle
    source: Source
    custom: CustomCheckpoint | None = None
    sha256: str | None = None
    """Expected digest of the checkpoint, where it is known."""

    def open(self) -> "RunnableModel":
        if self.custom is None:
            handle, original = self.handle, OpenCheckpoint.of_catalog(self.handle.checkpoint, self.source)
        else:
            handle, original = self.custom.open(self.handle, self.source.digests)
        if self.sha256 is not None and original.record.sha256 != self.sha256:
            raise UsageError(
                f"{original.path} has sha256 {original.record.sha256}, and the model was made from {self.sha256}: give "
                f"the {'--checkpoint' if self.custom else '--source'} that it was made from."
            )
        return _run_in_jax(original, handle)


def find_contenders(
    given: str,
    backends: Sequence[str],
    out: Path,
    version: int,
    *,
    labels: Path | None = None,
    source: Source,
    checkpoint: Path | None = None,
    strip_prefix: str = "",
) -> tuple[Contender, ...]:
    """Find a model in each of several backends; without backends, as it is given.

    Raises:
        UsageError: one cannot be found, or backends are given for a path.
    """
    unknown = [backend for backend in backends if backend not in BACKENDS]
    if unknown:
        raise UsageError(f"no backend {', '.join(map(repr, unknown))}: expected {', '.join(BACKENDS)}.")
    is_handle = given.removesuffix(GRAPH_SUFFIX) in ALL_HANDLES
    if checkpoint is not None and ("jax" not in backends or is_handle):
        why = "a handle's checkpoint comes from --source" if is_handle else "give --backend jax too"
        raise UsageError(f"--checkpoint is for --backend jax of a custom model, and would not be read here: {why}.")
    if not backends:
        model = find_model(given, out, version, labels=labels)
        graph = model.name.endswith(GRAPH_SUFFIX)
        return (Contender(("graph" if graph else "native") if model.kind == "saved_model" else model.kind, model),)
    if "/" in given or Path(given).suffix in (".tflite", ".onnx", ".xml"):
        raise UsageError("--backend takes a model's name below --out: a path is already in one format.")
    name = given.removesuffix(GRAPH_SUFFIX)

    def find(backend: str) -> Contender:
        if backend == "jax":
            return _in_jax(name, out, version, labels, source, (checkpoint, strip_prefix))
        named = {"native": name, "graph": name + GRAPH_SUFFIX}.get(backend, f"{name}-{backend}")
        return Contender(backend, find_model(named, out, version, labels=labels))

    return _comparable(each([partial(find, backend) for backend in dict.fromkeys(backends)]))


def _comparable(contenders: Sequence[Contender]) -> tuple[Contender, ...]:
    """Return the contenders after checking that they are one model: of one checkpoint, with one class list.

    Raises:
        UsageError: they are not.
    """
    digests = {one.backend: one.model.checkpoint_sha256 for one in contenders if one.model.checkpoint_sha256}
    if len(set(digests.values())) > 1:
        said = ", ".join(f"{backend} of {sha256[:12]}" for backend, sha256 in digests.items())
        raise UsageError(f"the backends were made from different checkpoints ({said}): convert and export them again.")
    if len({one.model.classes for one in contenders}) > 1:
        raise UsageError("the backends have different class lists: convert and export them again.")
    known = next(iter(digests.values()), None)
    origin = next((one.model.origin for one in contenders if one.model.origin), None)
    return tuple(
        replace(
            one,
            model=replace(one.model, origin=one.model.origin or origin),
            original=one.original and replace(one.original, sha256=one.original.sha256 or known),
        )
        for one in contenders
    )


def _in_jax(
    name: str, out: Path, version: int, labels: Path | None, source: Source, given: tuple[Path | None, str]
) -> Contender:
    """Return the checkpoint of a handle, or the file that a custom model was made from, to be run in JAX."""
    handle = ALL_HANDLES.get(name)
    if handle is None:
        return _custom_in_jax(name, out, version, labels, source, given)
    if handle.head == "fe":
        raise UsageError(f"{name} is a feature extractor, which has no classes: give a classifier.")
    listed = labels or (handle.labels.checked_path() if handle.labels else None)
    classes = None if listed is None else read_classes(listed)
    many = handle.checkpoint.training.many_labels
    model = UsableModel(name, Path(handle.checkpoint.object), "saved_model", None, None, classes, many_labels=many)
    return Contender("jax", model, _Original(handle, source))


def _custom_in_jax(
    name: str, out: Path, version: int, labels: Path | None, source: Source, given: tuple[Path | None, str]
) -> Contender:
    checkpoint, strip_prefix = given
    if checkpoint is None and (tuned := fine_tuned_checkpoint(out, name)).is_file():
        checkpoint = tuned
    if checkpoint is None:
        raise UsageError(f"--backend jax needs the checkpoint that {name} was made from: --checkpoint FILE.")
    custom = CustomCheckpoint(checkpoint, name, None, strip_prefix)
    custom.refuse_unreadable()
    model = find_model(name, out, version, labels=labels)
    manifest = Manifest.read(ModelPaths.of(out, name, version).manifest)
    template = template_of(manifest.architecture, "classification")
    return Contender("jax", model, _Original(template, source, custom, manifest.checkpoint.sha256))


def _run_in_jax(original: OpenCheckpoint, handle: Handle) -> "RunnableModel":
    import jax
    import numpy as np

    from models.mixer import MlpMixer
    from validation.formats.runtimes import RunnableModel

    architecture = handle.checkpoint.architecture
    size = architecture.image_size
    apply = jax.jit(MlpMixer(architecture, handle.num_classes).apply)
    params = original.for_head("classification")
    return RunnableModel(
        (("images", "float32", (None, size, size, 3)),),
        (("logits", "float32", (None, handle.num_classes)),),
        lambda images: np.asarray(apply({"params": params}, images)),
    )
