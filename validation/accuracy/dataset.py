"""Find labelled pictures in a directory, by looking at how it is laid out.

Every picture gets its true label, or the directory is refused: a wrong label would only show as a low accuracy.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import UsageError, counted, shown
from models.picture_files import SUFFIXES, Listing
from validation.accuracy import imagenet

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
    real: bool = False
    """Whether the labels are those of ReaL."""
    remarks: tuple[str, ...] = ()
    """What a reader of the figures must know, for instance that pictures are missing."""


def find_dataset(
    directory: Path,
    classes: Sequence[str] | None,
    *,
    is_imagenet: bool,
    real: Path | None = None,
    devkit: Path | None = None,
) -> Dataset:
    """Find the pictures below a directory, and their labels.

    The layouts are: one folder per class, named by class name, by class index (compared as numbers) or by WordNet id;
    and the flat folder of ImageNet's validation pictures.

    Args:
        directory: where the pictures are.
        classes: the class names of the model, in order; None, which is refused, if they are not known.
        is_imagenet: whether they are the classes of ImageNet-1k in their usual order.
        real: `real.json` of ReaL, which gives the pictures of the flat layout several labels, or none.
        devkit: the development kit of ILSVRC 2012, for the labels of the flat layout.

    Raises:
        UsageError: the layout is not known, or a label would be a guess.
    """
    _require_directory(directory)
    if classes is None:
        raise UsageError(
            "the model has no class list, without which a label would be a guess: give it with --labels, one line per "
            "class."
        )
    listing = Listing.of(directory)
    if listing.folders and listing.pictures:
        raise UsageError(
            f"{directory} contains folders, and beside them {counted(len(listing.pictures), 'picture')} without a "
            "label: expected either one folder per class, or the flat folder of ImageNet's validation pictures."
        )
    if listing.pictures:
        found = _flat(directory, listing.pictures, is_imagenet=is_imagenet, real=real, devkit=devkit)
    elif real is not None or devkit is not None:
        raise UsageError("--real and --devkit are for the flat folder of ImageNet's validation pictures.")
    elif not listing.folders:
        raise UsageError(f"{directory} contains no pictures: expected files that end in {', '.join(SUFFIXES)}.")
    else:
        layout, labels = _labels_of(listing.folders, classes, is_imagenet=is_imagenet)
        found = _in_folders(directory, layout, listing.folders, labels, len(classes))
    if not found.pictures:
        raise UsageError(f"{directory} contains no picture with a label.")
    return found


def find_classes(directory: Path, order: Sequence[str] | None = None) -> tuple[tuple[str, ...], Dataset]:
    """Find pictures in one folder per class; return the folders' names as the class list, and the pictures.

    The names are in the given order; without one, names that are all numbers are sorted as numbers, others as text.

    Raises:
        UsageError: the layout is another, there are fewer than two classes, or a name cannot be a line of a class list.
    """
    _require_directory(directory)
    listing = Listing.of(directory)
    if listing.pictures or len(listing.folders) < 2:
        raise UsageError(
            f"{directory} contains {counted(len(listing.pictures), 'picture')} and "
            f"{counted(len(listing.folders), 'folder')}: expected one folder per class, at least two, and no pictures "
            "beside them."
        )
    names = [folder.name for folder in listing.folders]
    unusable = [name for name in names if not name.isprintable() or name != name.strip()]
    if unusable:
        raise UsageError(f"folders cannot be lines of a class list: {_some(unusable)}. Rename them.")
    if order is not None:
        names.sort(key=order.index)
    elif all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    labels = {name: index for index, name in enumerate(names)}
    layout = "one folder per class"
    return tuple(names), _in_folders(directory, layout, listing.folders, labels, len(names))


def _require_directory(directory: Path) -> None:
    if not os.path.isdir(directory):  # noqa: PTH112 (unlike Path.is_dir it does not raise in an unreadable folder)
        what = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise UsageError(f"--data {directory} {what}: expected labelled pictures.")


def _labels_of(folders: Sequence[Path], classes: Sequence[str], *, is_imagenet: bool) -> tuple[str, dict[str, int]]:
    """Return how folders are named, in words, and the class index of each."""
    names = [folder.name for folder in folders]
    places = _by_name(names, classes)
    named = {name: indices[0] for name, indices in places.items() if len(indices) == 1}
    numbered = {name: int(name) for name in names if name.isascii() and name.isdigit()}
    if len(named) == len(names):
        if len(numbered) == len(names) and numbered != named:
            raise UsageError(
                "the folders' names are both class names and class indices, of different classes: rename the folders."
            )
        return "one folder per class, named by class name", _each_once(named)
    if len(numbered) == len(names):
        return "one folder per class, named by class index", _by_number(_each_once(numbered), len(classes))
    if all(_WORDNET.fullmatch(name) for name in names):
        return "one folder per class, named by WordNet id", _by_wordnet_id(names, is_imagenet=is_imagenet)
    several = [f"{name} (classes {', '.join(map(str, found))})" for name, found in places.items() if len(found) > 1]
    if several:
        raise UsageError(f"folders name several classes: {_some(several)}. Name them by class index.")
    unknown = [name for name in names if not places[name]]
    raise UsageError(
        f"{len(unknown)} of {len(names)} folders match no class of the model: {_some(unknown)}. Expected its class "
        f"names ({_some(classes)}), class indices from 0, or WordNet ids."
    )


def _by_name(names: Sequence[str], classes: Sequence[str]) -> dict[str, list[int]]:
    """Return the classes that each folder names, by the whole line of a class or by one of its words."""
    places: dict[str, set[int]] = {}
    for index, line in enumerate(classes):
        for word in {line, *line.split(",")}:
            places.setdefault(_plain(word), set()).add(index)
    return {name: sorted(places.get(_plain(name), ())) for name in names}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _each_once(labels: dict[str, int]) -> dict[str, int]:
    counts = Counter(labels.values())
    twice = sorted(name for name, index in labels.items() if counts[index] > 1)
    if twice:
        raise UsageError(f"several folders are of the same class: {_some(twice)}. Expected one folder per class.")
    return labels


def _by_number(numbers: dict[str, int], count: int) -> dict[str, int]:
    found = sorted(numbers.values())
    beyond = [number for number in found if number >= count]
    if len(found) > 1 and found == list(range(1, len(found) + 1)):
        reason = (
            f"they run from 1 to {found[-1]}: labels that are off by one, or ILSVRC ids, which are another order. "
            f"Expected class indices from 0 to {count - 1}; if class 0 has no pictures, name the folders by class name."
        )
    elif beyond == [count]:
        reason = f"classes from {found[0]} to {count}: with a background class, which the model lacks."
    elif beyond:
        reason = f"the model has classes 0 to {count - 1}, found {_some(map(str, beyond))}."
    else:
        return numbers
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
    directory: Path, layout: str, folders: Sequence[Path], labels: Mapping[str, int], count: int
) -> Dataset:
    pictures: list[Picture] = []
    problems: list[str] = []
    others: list[Path] = []
    for folder in folders:
        listing = Listing.of(folder)
        if listing.folders:
            problems.append(f"{folder} contains folders: expected only pictures of one class.")
        elif not listing.pictures:
            problems.append(f"{folder} contains no picture: remove empty class folders.")
        pictures += [Picture(file, (labels[folder.name],)) for file in listing.pictures]
        others += listing.others
    if problems:
        more = f"\n... and {len(problems) - _MOST_NAMED:,} more." if len(problems) > _MOST_NAMED else ""
        raise UsageError("\n".join(problems[:_MOST_NAMED]) + more)
    occurring = tuple(sorted(labels.values()))
    part = len(occurring) < count
    remarks = [f"{len(occurring):,} of the model's {count:,} classes occur"] if part else []
    if others:
        remarks.append(f"not named as pictures: {counted(len(others), 'file')}, left out, the first {others[0].name}")
    if count == imagenet.CLASSES and not part:
        remarks += _uneven(pictures)
    return Dataset(directory, layout, tuple(pictures), occurring if part else None, remarks=tuple(remarks))


def _uneven(pictures: Sequence[Picture]) -> Iterator[str]:
    """Say where classes have different numbers of pictures, as no ImageNet validation set does."""
    counts: dict[int, int] = {}
    for picture in pictures:
        counts[picture.labels[0]] = counts.get(picture.labels[0], 0) + 1
    most = max(counts.values())
    fewer = [index for index, count in counts.items() if count < most]
    if fewer:
        missing = sum(most - counts[index] for index in fewer)
        have = counted(len(fewer), "class has", "classes have")
        yield f"{have} fewer than {counted(most, 'picture')}: {missing:,} may be missing"


def _flat(
    directory: Path, files: Sequence[Path], *, is_imagenet: bool, real: Path | None, devkit: Path | None
) -> Dataset:
    numbers = {file: imagenet.number_of(file.name) for file in files}
    others = [file.name for file, number in numbers.items() if number is None or not 1 <= number <= imagenet.PICTURES]
    if others:
        raise UsageError(
            f"{directory} is a flat folder with {counted(len(others), 'picture')} whose label is not known: "
            f"{_some(others)}. Expected one folder per class, or ILSVRC2012_val_00000001.JPEG and so on."
        )
    if not is_imagenet:
        raise UsageError(
            f"{directory} contains ImageNet's validation pictures, and the model's class list is another, or not "
            "known: give it with --labels."
        )
    truth: Callable[[int], tuple[int, ...]]
    if real is not None and devkit is not None:
        raise UsageError("--real and --devkit exclude each other: give one source of labels.")
    if real is None:
        labels = imagenet.validation_labels() if devkit is None else imagenet.read_devkit(devkit)
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
        remarks.append(f"without a label in ReaL: {counted(len(pictures) - len(labelled), 'picture')}, left out")
    return Dataset(directory, layout, labelled, real=real is not None, remarks=tuple(remarks))


def _why_fewer(count: int) -> str:
    if count == imagenet.PICTURES - imagenet.BLACKLISTED:
        return "as many as without the devkit's blacklist; published figures count all 50,000"
    return f"{imagenet.PICTURES - count:,} are missing"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _MOST_NAMED:,} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(shown(name) for name in listed[:_MOST_NAMED]) + more
