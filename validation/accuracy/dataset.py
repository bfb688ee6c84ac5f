"""Find labelled pictures in a directory, by looking at how it is laid out.

Every picture gets its true label, or the directory is refused: a wrong label would only show as a low accuracy.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import UsageError, shown
from validation.accuracy import imagenet

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings, in lower case, of the files that are pictures."""

_WORDNET = re.compile(r"n\d{8}")
_MOST_NAMED = 8


@dataclass(frozen=True)
class Picture:
    """A picture with its true labels: class indices, several only in ReaL."""

    path: Path
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures, sorted by path."""

    directory: Path
    layout: str
    """What the directory was taken for, in words."""
    pictures: tuple[Picture, ...]
    subset: tuple[int, ...] | None = None
    """The classes that occur, where they are fewer than the model's; answers may also be counted among these alone."""
    remarks: tuple[str, ...] = ()
    """What a reader of the figures must know, for instance that pictures are missing."""


def find_dataset(
    directory: Path,
    classes: Sequence[str] | None,
    *,
    is_imagenet: bool,
    real: Path | None = None,
) -> Dataset:
    """Find the pictures below a directory, and their labels.

    The layouts are: a folder a class, named by class name, by class index (compared as numbers) or by WordNet id; and
    the flat folder of ImageNet's validation pictures.

    Args:
        directory: where the pictures are.
        classes: the class names of the model, in order; None if they are not known.
        is_imagenet: whether they are the classes of ImageNet-1k in their usual order.
        real: `real.json` of ReaL, which gives the pictures of the flat layout several labels, or none.

    Raises:
        UsageError: the layout is not known, or a label would be a guess.
    """
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        raise UsageError(f"--data {directory} {what}: expected labelled pictures.")
    folders, files = _look(directory)
    if folders and files:
        raise UsageError(
            f"{directory} contains folders and {len(files):,} pictures beside them, which have no label: expected "
            "either a folder a class, or the flat folder of ImageNet's validation pictures."
        )
    if files:
        return _flat(directory, files, is_imagenet=is_imagenet, real=real)
    if real is not None:
        raise UsageError("--real is for the flat folder of ImageNet's validation pictures.")
    if not folders:
        raise UsageError(f"{directory} contains no pictures: expected files that end in {', '.join(SUFFIXES)}.")
    layout, labels = _labels_of(folders, classes, is_imagenet=is_imagenet)
    return _in_folders(directory, layout, folders, labels, None if classes is None else len(classes))


def _look(directory: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the pictures in a directory, sorted, without hidden ones."""
    try:
        entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror or error}.") from error
    folders = [entry for entry in entries if entry.is_dir()]
    return folders, [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]


def _labels_of(
    folders: Sequence[Path], classes: Sequence[str] | None, *, is_imagenet: bool
) -> tuple[str, dict[str, int]]:
    """Return how folders are named, in words, and the class index of each."""
    names = [folder.name for folder in folders]
    by_name = {} if classes is None else _by_name(names, classes)
    if len(by_name) == len(names):
        return "a folder a class, named by class name", by_name
    if all(name.isascii() and name.isdigit() for name in names):
        return "a folder a class, named by class index", _by_number(names, None if classes is None else len(classes))
    if all(_WORDNET.fullmatch(name) for name in names):
        return "a folder a class, named by WordNet id", _by_wordnet_id(names, is_imagenet=is_imagenet)
    if classes is None:
        raise UsageError("the folders are named by classes, and the model has no class list: give it with --labels.")
    unknown = [name for name in names if name not in by_name]
    raise UsageError(
        f"{len(unknown)} of {len(names)} folders are no classes of the model: {_some(unknown)}. Expected its class "
        f"names ({_some(classes)}), class indices from 0, or WordNet ids."
    )


def _by_name(names: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """Return the class of each folder that is named by the whole line of a class, or by one word that only it has."""
    places: dict[str, set[int]] = {}
    for index, line in enumerate(classes):
        for word in {line, *line.split(",")}:
            places.setdefault(_plain(word), set()).add(index)
    found = {name: places.get(_plain(name), set()) for name in names}
    return {name: next(iter(indices)) for name, indices in found.items() if len(indices) == 1}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _by_number(names: Sequence[str], count: int | None) -> dict[str, int]:
    numbers = {name: int(name) for name in names}
    twice = sorted(name for name in names if list(numbers.values()).count(numbers[name]) > 1)
    if twice:
        raise UsageError(f"folders stand for the same class: {_some(twice)}. Expected one folder a class.")
    if count is None:
        return numbers
    beyond = sorted(number for number in numbers.values() if number >= count)
    if not beyond:
        return numbers
    if min(numbers.values()) == 1 and beyond == [count]:
        reason = (
            f"they run from 1 to {count}: labels that are off by one, or ILSVRC ids, which are another order. Expected "
            f"class indices from 0 to {count - 1}."
        )
    elif beyond == [count]:
        reason = f"{len(numbers)} classes from 0 to {count}: with a background class, which this model does not have."
    else:
        reason = f"the model has classes 0 to {count - 1}, found {_some(map(str, beyond))}."
    raise UsageError(f"the folders are not the model's class indices: {reason}")


def _by_wordnet_id(names: Sequence[str], *, is_imagenet: bool) -> dict[str, int]:
    if not is_imagenet:
        raise UsageError(
            "the folders are named by WordNet id, whose order is known for the class list of ImageNet-1k: this model's "
            "class list is another, or not known (give it with --labels)."
        )
    index_of = {name: index for index, name in enumerate(imagenet.wordnet_ids())}
    unknown = [name for name in names if name not in index_of]
    if unknown:
        raise UsageError(
            f"{len(unknown)} of {len(names)} folders are not among ImageNet-1k's classes: {_some(unknown)}."
        )
    return {name: index_of[name] for name in names}


def _in_folders(
    directory: Path, layout: str, folders: Sequence[Path], labels: Mapping[str, int], count: int | None
) -> Dataset:
    pictures, problems = [], []
    for folder in folders:
        below, files = _look(folder)
        if below:
            problems.append(f"{folder} contains folders: expected only pictures of one class.")
        elif not files:
            problems.append(f"{folder} contains no picture: remove empty class folders.")
        pictures += [Picture(file, (labels[folder.name],)) for file in files]
    if problems:
        more = f"\n... and {len(problems) - _MOST_NAMED:,} more." if len(problems) > _MOST_NAMED else ""
        raise UsageError("\n".join(problems[:_MOST_NAMED]) + more)
    occurring = tuple(sorted(labels.values()))
    part = count is not None and len(occurring) < count
    remarks = [f"{len(occurring):,} of the model's {count:,} classes occur"] if part else []
    if count == imagenet.CLASSES and len(occurring) == count:
        remarks += _uneven(pictures)
    return Dataset(directory, layout, tuple(pictures), occurring if part else None, tuple(remarks))


def _uneven(pictures: Sequence[Picture]) -> Iterator[str]:
    """Say where classes have different numbers of pictures, as no ImageNet validation set does."""
    counts: dict[int, int] = {}
    for picture in pictures:
        counts[picture.labels[0]] = counts.get(picture.labels[0], 0) + 1
    most = max(counts.values())
    fewer = [index for index, count in counts.items() if count < most]
    if fewer:
        missing = sum(most - counts[index] for index in fewer)
        yield f"{len(fewer):,} classes have fewer than {most:,} pictures: {missing:,} may be missing"


def _flat(directory: Path, files: Sequence[Path], *, is_imagenet: bool, real: Path | None) -> Dataset:
    numbers = {file: imagenet.number_of(file.name) for file in files}
    others = [file.name for file, number in numbers.items() if number is None or not 1 <= number <= imagenet.PICTURES]
    if others:
        raise UsageError(
            f"{directory} is a flat folder with {len(others):,} pictures whose label is not known: {_some(others)}. "
            "Expected a folder a class, or ILSVRC2012_val_00000001.JPEG and so on."
        )
    if not is_imagenet:
        raise UsageError(
            f"{directory} contains ImageNet's validation pictures, and the model's class list is another, or not "
            "known: give it with --labels."
        )
    truth: Callable[[int], tuple[int, ...]]
    if real is None:
        labels = imagenet.validation_labels()
        layout, truth = "ImageNet's validation pictures", lambda number: (labels[number - 1],)
    else:
        several = imagenet.read_real(real)
        layout, truth = "ImageNet's validation pictures with the labels of ReaL", lambda number: several[number - 1]
    pictures = [Picture(file, truth(number)) for file, number in numbers.items() if number is not None]
    labelled = tuple(picture for picture in pictures if picture.labels)
    remarks = []
    if len(files) != imagenet.PICTURES:
        remarks.append(f"{len(files):,} of {imagenet.PICTURES:,} pictures: {_why_fewer(len(files))}")
    if len(labelled) < len(pictures):
        remarks.append(f"{len(pictures) - len(labelled):,} pictures without a label in ReaL are left out")
    return Dataset(directory, layout, labelled, remarks=tuple(remarks))


def _why_fewer(count: int) -> str:
    if count == imagenet.PICTURES - imagenet.BLACKLISTED:
        return "the devkit's blacklist was applied, which the published figures do not"
    return f"{imagenet.PICTURES - count:,} are missing"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _MOST_NAMED:,} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(shown(name) for name in listed[:_MOST_NAMED]) + more
