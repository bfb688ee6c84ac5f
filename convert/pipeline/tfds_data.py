"""Data sets of tensorflow-datasets as folders of pictures: `tfds:NAME`, or `tfds:NAME:SPLIT`."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convert.checkpoints.cache import Slot
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.processes import run_apart
from convert.pipeline.progress import Steps, Watch
from models.errors import UsageError, counted, shown
from models.records.provenance import sources_sha256
from models.storage.files import write_atomically
from models.storage.temporary import temporary_folder

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow_datasets.core import DatasetBuilder

PREFIX = "tfds:"
_SPLITS = {"train": ("train",), "evaluate": ("validation", "test", "train")}
_CLASSES = "classes.txt"
_LONGEST = 255
"""Bytes of a name that file systems take."""
_AGAIN = "its files are damaged. Remove them, and prepare the data set again"


def unpack_data(
    data: Path, cache: Path | None, watch: Watch | None = None, *, to_train: bool = False
) -> tuple[Path, tuple[str, ...] | None]:
    """Return the directory of labelled pictures and, of a data set, its class names in the order of its labels.

    A directory is returned as it is. The pictures of a data set are written once into the cache, one folder per class,
    as the files that they were made from.

    Args:
        data: a directory, or `tfds:NAME` or `tfds:NAME:SPLIT` as a path.
        cache: where data sets are unpacked.
        watch: called with the progress.
        to_train: where no split is named, take `train`; else the first of `validation`, `test`, `train` that exists.

    Raises:
        UsageError: tensorflow-datasets is missing, the data set is not prepared, or has no labelled pictures.
    """
    given = os.fspath(data)
    if not given.startswith(PREFIX):
        return data, None
    if find_spec("tensorflow_datasets") is None:
        raise UsageError(
            f"--data {given} needs tensorflow-datasets: install the extra accuracy of this project, for instance "
            "`pip install --editable '.[accuracy]'`."
        )
    name, _, split = given.removeprefix(PREFIX).partition(":")
    if not name:
        raise UsageError(f"--data {given} names no data set: expected tfds:NAME or tfds:NAME:SPLIT.")
    splits = (split,) if split else _SPLITS["train" if to_train else "evaluate"]
    return run_apart(partial(_find, name, splits, cache), watch)


def _find(name: str, splits: tuple[str, ...], cache: Path | None, watch: Watch) -> tuple[Path, tuple[str, ...]]:
    import_frameworks()
    builder = _prepared(name)
    split = next((one for one in splits if one in builder.info.splits), splits[0])
    names = _class_names(builder, name)
    prepared = [(one.name, one.stat()) for one in sorted(Path(builder.data_path).iterdir())]
    files = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in prepared]
    key = hashlib.sha256(repr((str(builder.data_path), files, split, sources_sha256(__file__))).encode()).hexdigest()
    folder = Slot.of(f".tfds/{key[:16]}", cache).file  # no name that a damaged file gives
    if not (folder / _CLASSES).is_file():
        _unpack(builder, split, names, folder, watch)
    return folder / "pictures", names


def _prepared(name: str) -> "DatasetBuilder":
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except Exception as error:  # of several types, also for a malformed name
        reason = shown(str(error).strip().split("\n")[0], 200)
        raise UsageError(
            f"tensorflow-datasets cannot open tfds:{name}: {reason.rstrip('.')}. Expected the name of one of its data "
            "sets."
        ) from error
    if not builder.is_prepared():
        raise UsageError(
            f"tfds:{name} is not prepared in {builder.data_path}: run `tfds build {name}` first, or set TFDS_DATA_DIR "
            "to where it is."
        )
    return builder


def _class_names(builder: "DatasetBuilder", name: str) -> tuple[str, ...]:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise UsageError(
            f"tfds:{name} has the features {', '.join(features) or 'none'}: expected `image` and `label`, a picture "
            "and the index of its class."
        )
    names, listed = tuple(label.names), Path(builder.data_path, "label.labels.txt")
    unusable = [one for one in names if not _can_name_a_folder(one)]
    if unusable:
        raise UsageError(f"tfds:{name} has class names that cannot name folders: {shown(', '.join(unusable))}.")
    if len({*names}) < len(names) or (listed.is_file() and _lines(listed) != names):
        raise UsageError(
            f"{listed} does not list the classes of tfds:{name} ({shown(', '.join(names))}), each once: {_AGAIN}."
        )
    return names


def _can_name_a_folder(name: str) -> bool:
    short = len(name.encode(errors="replace")) <= _LONGEST
    return short and "/" not in name and name.isprintable() and not name.startswith(".") and name == name.strip()


def _lines(path: Path) -> tuple[str, ...]:
    """Return the lines of a file as tensorflow-datasets reads them."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return tuple(line.strip() for line in lines if line.strip())


def _unpack(builder: "DatasetBuilder", split: str, names: tuple[str, ...], folder: Path, watch: Watch | None) -> None:
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        read = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
        count = len(read)
    except Exception as error:
        reason = shown(str(error).strip().split("\n")[0], 200)
        known = ", ".join(builder.info.splits)
        raise UsageError(
            f"no split {split!r} in tfds:{builder.info.name}: {reason} Expected one of {known}."
        ) from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder.parent, f".{folder.name}.") as partial, Steps(watch, 1) as on:
        progress = on.start(f"unpacking {builder.info.full_name}, {split}", "pictures")
        for number, (label, content) in enumerate(_examples(builder, split, read)):
            if label < 0:
                raise UsageError(
                    f"tfds:{builder.info.name}, {split}, has pictures without a label ({label}): give another split."
                )
            if label >= len(names):
                raise UsageError(
                    f"{builder.data_path} has a picture of class {label}, but names "
                    f"{counted(len(names), 'class')}: {_AGAIN}."
                )
            place = partial / "all" / "pictures" / names[label]
            place.mkdir(parents=True, exist_ok=True)
            suffix = ".png" if content.startswith(b"\x89PNG") else ".jpg"
            (place / f"{number:08}{suffix}").write_bytes(content)
            progress(number + 1, count)
        write_atomically(partial / "all" / _CLASSES, "".join(f"{one}\n" for one in names).encode())
        if not (folder / _CLASSES).is_file():  # unless another process was quicker
            shutil.rmtree(folder, ignore_errors=True)
            (partial / "all").replace(folder)
        on.finish(f"unpacked {counted(count, 'picture')} into {folder}")


def _examples(builder: "DatasetBuilder", split: str, read: "tf.data.Dataset") -> Iterator[tuple[int, bytes]]:
    """Yield the label and the file of each picture.

    Raises:
        UsageError: its files are damaged, or have another number of pictures than they say.
    """
    import tensorflow as tf

    try:
        for example in read.as_numpy_iterator():
            yield int(example["label"]), bytes(example["image"])
    except tf.errors.OpError as error:
        reason = shown(error.message.split("}} ")[-1].partition(" [Op:")[0], 200)
        raise UsageError(f"{builder.data_path}, split {split}: {reason}: {_AGAIN}.") from error
