"""Find the model that a user names, in any format, and open it for use: images in, logits out."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convert.pipeline.made_models import made_below, nearest, similar
from models.catalog import ALL_HANDLES, GRAPH_SUFFIX
from models.errors import MixerError, UsageError, counted, shown
from models.formats import FORMATS, LABELS, FormatName
from models.records.contents import refuse_changed
from models.records.formats import ExportManifest
from models.records.layout import ARCHIVE_SUFFIX, ModelPaths
from models.records.manifest import Manifest
from models.selection import command_for, is_catalogued
from models.signatures import MODEL_JSON, SERVING_DEFAULT
from models.storage.files import read_small

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.formats.runtimes import RunnableModel

Kind = Literal["saved_model"] | FormatName

_MOST_BYTES = 4 << 20  # of a class list or of model.json
_FORMATS_BY_SUFFIX: dict[str, FormatName] = {
    Path(file).suffix: name for name, one in FORMATS.items() for file in one.models
}


@dataclass(frozen=True)
class UsableModel:
    """A classifier on disk and what is known about it."""

    name: str
    path: Path
    """The SavedModel's directory, or the exported file."""
    kind: Kind
    origin: str | None
    """Origin of its checkpoint, `seeded` for synthetic weights; None if unknown."""
    checkpoint_sha256: str | None
    """Digest of its checkpoint; None if unknown."""
    classes: tuple[str, ...] | None
    """The class names, in the order of the logits; None if unknown."""
    many_labels: bool
    """Whether it was trained with several labels an image (sigmoid), as far as is known."""

    def open(self) -> "RunnableModel":
        """Load the model and check it; see `checked`.

        Raises:
            MixerError: it cannot be loaded, has another interface, or another number of classes than its list.
        """
        from validation.formats.runtimes import RunnableModel

        try:
            model = (
                _open_saved_model(self.path) if self.kind == "saved_model" else RunnableModel.open(self.kind, self.path)
            )
        except MixerError:
            raise
        except Exception as error:  # each runtime raises its own types
            reason = " ".join(str(error).split())
            again = "convert the model again" if self.kind == "saved_model" else "export the model again"
            raise MixerError(
                f"{self.path} cannot be loaded: {shown(reason, 300)}. If it is damaged, {again} (--overwrite)."
            ) from error
        return self.checked(model)

    def checked(self, model: "RunnableModel") -> "RunnableModel":
        """Return a loaded model after checking its interface and the length of its class list.

        Raises:
            MixerError: it has another interface, or another number of classes than its list.
        """
        takes, gives = model.takes[0], model.gives[0]
        sizes = takes[2]
        if takes[1] != "float32" or len(sizes) != 4 or sizes[1] is None or sizes[1] != sizes[2] or sizes[3] != 3:
            raise MixerError(f"{self.path} takes {takes[1]} {sizes}: expected float32 images (None, size, size, 3).")
        if len(gives[2]) != 2:
            raise MixerError(f"{self.path} gives {gives[1]} {gives[2]}: expected logits (None, classes).")
        if self.classes is not None and gives[2][1] not in (None, len(self.classes)):
            raise _other_length(self.classes, self.path, gives[2][1])
        return model


def find_model(given: str, out: Path, version: int, *, labels: Path | None = None) -> UsableModel:
    """Find a classifier by the name of a model below `out`, or by the path of a SavedModel or an exported file.

    Raises:
        UsageError: there is no such model, it is a feature extractor, or `labels` is not a class list.
    """
    given_classes = None if labels is None else read_classes(labels)
    named = ModelPaths.of(out, given, version)
    if "/" not in given and os.path.isdir(named.directory):  # noqa: PTH112
        return _in_directory(named.directory, given_classes)
    path = Path(given)
    if os.path.isdir(path):  # noqa: PTH112 (unlike Path.is_dir it does not raise in an unreadable folder)
        return _in_directory(path, given_classes)
    if os.path.isfile(path):  # noqa: PTH113
        if path.name.endswith(ARCHIVE_SUFFIX):
            raise UsageError(f"{path} is an archive: unpack it into a directory, and give that directory.")
        if path.suffix not in _FORMATS_BY_SUFFIX:
            hint = f" Give {path.parent}." if path.name == "saved_model.pb" else ""
            raise UsageError(
                f"{path} is not a model: expected the directory of a SavedModel, or a file that ends in "
                f"{', '.join(_FORMATS_BY_SUFFIX)}.{hint}"
            )
        return _exported(path, given_classes)
    raise UsageError(_not_found(given, out, version))


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the lines of a class list.

    Raises:
        UsageError: it cannot be read, has an empty line, or is not text.
    """
    try:
        # Only "\n" ends a line, as in TensorFlow.
        lines = read_small(path, _MOST_BYTES).decode("utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path} is not a readable class list: {reason}; expected one line per class.") from error
    if not all(line.strip() for line in lines):
        raise UsageError(f"{path} is not a class list: a line is empty; expected one line per class.")
    return tuple(line.strip() for line in lines)


def _in_directory(path: Path, classes: tuple[str, ...] | None) -> UsableModel:
    if (path / "saved_model.pb").is_file():
        return _saved_model(path, classes)
    for one in FORMATS.values():
        files = [path / file for file in one.models if (path / file).is_file()]
        if files:
            return _exported(files[0], classes)
    versions = sorted(below.name for below in path.glob("*") if below.name.isdigit() and below.is_dir())
    hint = f" Give a version: {', '.join(str(path / one) for one in versions[:5])}." if versions else ""
    raise UsageError(f"{path} contains neither a SavedModel nor an exported file.{hint}")


def _saved_model(path: Path, classes: tuple[str, ...] | None) -> UsableModel:
    facts, paths = _read_facts(path), ModelPaths.around(path)
    name = str(facts.get("handle", path.name))
    if "features" in str(_below(facts, "output", "meaning") or ""):
        raise _extractor(name, paths)
    if paths.manifest.is_file():  # else it was copied elsewhere, or not made here
        again = "Convert the model again (--overwrite)."
        refuse_changed(path, Manifest.read(paths.manifest).files, paths.manifest, again)
    listed = _below(facts, "output", "classes")
    if isinstance(listed, str):
        classes = _same_length(classes, read_classes(path / listed), path)
    origin, sha256 = (_below(facts, "checkpoint", key) for key in ("origin", "sha256"))
    return UsableModel(name, path, "saved_model", origin, sha256, classes, many_labels=_has_many_labels(name))


def _exported(path: Path, classes: tuple[str, ...] | None) -> UsableModel:
    paths, kind = ModelPaths.around(path.parent), _FORMATS_BY_SUFFIX[path.suffix]
    FORMATS[kind].require()
    if not paths.manifest.is_file():  # copied elsewhere, or not made here
        beside = path.with_name(LABELS)
        classes = classes or (read_classes(beside) if beside.is_file() else None)
        return UsableModel(path.name, path, kind, None, None, classes, many_labels=False)
    manifest = ExportManifest.read(paths.manifest)
    if manifest.head == "fe":
        raise _extractor(manifest.handle, paths)
    needed = {name: one for name, one in manifest.files.items() if classes is None or name != LABELS}
    refuse_changed(path.parent, needed, paths.manifest, "Export the model again (--overwrite).")
    own = path.with_name(LABELS)
    if LABELS in manifest.files and own.is_file():
        classes = _same_length(classes, read_classes(own), path)
    checkpoint, name = manifest.checkpoint, manifest.handle.removesuffix(f"-{manifest.format}")
    many = _has_many_labels(name)
    return UsableModel(manifest.handle, path, kind, checkpoint.origin, checkpoint.sha256, classes, many_labels=many)


def _same_length(given: tuple[str, ...] | None, own: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return the class list that is given, or the model's own."""
    if given is not None and len(given) != len(own):
        raise _other_length(given, path, len(own))
    return given or own


def _other_length(classes: tuple[str, ...], path: Path, number: int) -> UsageError:
    return UsageError(
        f"the class list has {counted(len(classes), 'line')}, and {path} has {counted(number, 'class')}: give the list "
        "that it was trained with (--labels)."
    )


def _has_many_labels(name: str) -> bool:
    handle = ALL_HANDLES.get(name.removesuffix(GRAPH_SUFFIX))
    return handle is not None and handle.checkpoint.training.many_labels


def _read_facts(path: Path) -> dict[str, Any]:
    """Return the contents of a SavedModel's `model.json`; empty if it was not made by this project."""
    file = path / MODEL_JSON
    if not file.is_file():
        return {}
    try:
        facts = json.loads(read_small(file, _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise MixerError(f"{file} cannot be read: {error}. Convert the model again.") from error
    return facts if isinstance(facts, dict) else {}


def _below(facts: dict[str, Any], *keys: str) -> Any:  # noqa: ANN401 (as in JSON)
    found: Any = facts
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _extractor(name: str, paths: ModelPaths) -> UsageError:
    """Say that a model has no classes, and name the classifiers beside it."""
    made = made_below(paths.out, paths.version, "classification") if paths.stem.isdecimal() else []
    such = f", such as {', '.join(nearest(name, made))}" if made else ""
    return UsageError(f"{shown(name)} is a feature extractor, which has no classes: give a classifier{such}.")


def _not_found(given: str, out: Path, version: int) -> str:
    expected = "expected a model's name below --out, the directory of a SavedModel, or an exported file."
    made = made_below(out, version, "classification")
    versions = sorted((folder.name for folder in (out / given).glob("*") if folder.name.isdigit()), key=int)
    if "/" not in given and versions:
        return f"{given} has no version {version} below {out}: found {', '.join(versions)} (--version)."
    known = ALL_HANDLES.get(given.removesuffix(GRAPH_SUFFIX))
    if known is not None and known.head == "fe":
        meant = given.replace("_fe", "_classification")
        return f"{given} is a feature extractor, which has no classes: give a classifier. Did you mean {meant}?"
    if is_catalogued(given):
        return (
            f"{ModelPaths.of(out, given, version).directory} does not exist: run "
            f"`{command_for('convert-all', given)}` first, or give the --out and --version of the model."
        )
    for name in FORMATS:
        base = given.removesuffix(f"-{name}")
        if base != given and (base in made or is_catalogued(base)):
            return (
                f"{ModelPaths.of(out, given, version).directory} does not exist: run `mixer-jax2tf export {base} --to "
                f"{name}` first, or give the --out and --version of the export."
            )
    catalogued = [name for name, handle in ALL_HANDLES.items() if handle.head != "fe"]
    near = similar(given.split("/")[0], made) or similar(given, catalogued)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    there = f" Version {version} below {out}: {', '.join(made[:12])}." if made else ""
    return f"no model {given!r}: {expected}{hint}{there}"


def _open_saved_model(path: Path) -> "RunnableModel":
    import tensorflow as tf

    from validation.formats.runtimes import RunnableModel

    model = tf.saved_model.load(str(path))
    if SERVING_DEFAULT not in model.signatures:
        raise MixerError(f"{path} has no signature {SERVING_DEFAULT}: found {', '.join(model.signatures) or 'none'}.")
    serve = model.signatures[SERVING_DEFAULT]
    takes, gives = serve.structured_input_signature[1], serve.structured_outputs
    if len(takes) != 1 or len(gives) != 1:
        found = f"{counted(len(takes), 'input')} and gives {counted(len(gives), 'output')}"
        raise MixerError(f"{path} takes {found}: expected one of each.")

    (entry,), (exit_,) = takes, gives

    def run(images: "NDArray[np.float32]") -> "NDArray[np.float32]":
        # A signature does not keep its model alive, so the model is asked for it each time.
        outputs: NDArray[np.float32] = model.signatures[SERVING_DEFAULT](**{entry: tf.constant(images)})[exit_].numpy()
        return outputs

    def tensor(name: str, spec: Any) -> tuple[str, str, tuple[int | None, ...]]:  # noqa: ANN401 (TensorSpec)
        return name, spec.dtype.name, tuple(spec.shape.as_list())

    return RunnableModel((tensor(entry, takes[entry]),), (tensor(exit_, gives[exit_]),), run)
