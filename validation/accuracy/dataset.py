"""Find labelled pictures in a directory, by looking at how it is laid out.

Every picture gets its true label, or the directory is refused: a wrong label would only show as a low accuracy.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import UsageError, counted, each
from models.picture_files import SUFFIXES, Listing
from validation.accuracy import imagenet
from validation.accuracy.folders import BY_INDEX, labels_of_folders, some

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

    @classmethod
    def find(
        cls,
        directory: Path,
        classes: Sequence[str] | None,
        *,
        is_imagenet: bool,
        real: Path | None = None,
        devkit: Path | None = None,
    ) -> "Dataset":
        """Find the pictures below a directory, and their labels.

        The layouts are: one folder per class, named by class name, by class index (compared as numbers) or by WordNet
        id; and the flat folder of ImageNet's validation pictures.

        Args:
            directory: where the pictures are.
            classes: the class names of the model, in order; None, which is refused, if they are not known.
            is_imagenet: whether they are the classes of ImageNet-1k in their usual order.
            real: `real.json` of ReaL, which gives the pictures of the flat layout several labels, or none.
            devkit: the development kit of ILSVRC 2012, for the labels of the flat layout.

        Raises:
            UsageError: the layout is not known, or a label would be a guess.
        """
        require_directory(directory)
        if classes is None:
            raise UsageError(
                "the model has no class list, without which a label would be a guess: give it with --labels, one line "
                "per class."
            )
        listing = Listing.of(directory)
        if listing.pictures and not listing.folders:
            found = _flat(directory, listing.pictures, is_imagenet=is_imagenet, real=real, devkit=devkit)
        elif real is not None or devkit is not None:
            raise UsageError("--real and --devkit are for the flat folder of ImageNet's validation pictures.")
        elif not listing.folders:
            raise UsageError(f"{directory} contains no pictures: expected files that end in {', '.join(SUFFIXES)}.")
        else:
            labels: list[tuple[str, dict[str, int]]] = []
            inside = {folder: Listing.of(folder) for folder in listing.folders}
            naming = lambda: labels.append(labels_of_folders(listing.folders, classes, is_imagenet=is_imagenet))  # noqa: E731
            beside = lambda: _refuse_beside_folders(directory, listing)  # noqa: E731
            each([naming, beside, lambda: _refuse_wrong_folders(inside)])
            found = _in_folders(directory, *labels[0], inside, len(classes))
        if not found.pictures:
            raise UsageError(f"{directory} contains no picture with a label.")
        return found

    @classmethod
    def find_classes(cls, directory: Path, order: Sequence[str] | None = None) -> tuple[tuple[str, ...], "Dataset"]:
        """Find pictures in one folder per class; return the folders' names as the class list, and the pictures.

        The names are in the given order; without one, names that are all numbers are sorted as numbers, others as text.

        Raises:
            UsageError: the layout is another, there are fewer than two classes, or a name cannot be a line of a class
                list.
        """
        require_directory(directory)
        listing = Listing.of(directory)
        if listing.pictures or len(listing.folders) < 2:
            raise UsageError(
                f"{directory} contains {counted(len(listing.pictures), 'picture')} and "
                f"{counted(len(listing.folders), 'folder')}: expected one folder per class, at least two, and no "
                "pictures beside them."
            )
        names = [folder.name for folder in listing.folders]
        unusable = [name for name in names if not name.isprintable() or name != name.strip()]
        if unusable:
            raise UsageError(
                f"folders have names that cannot be lines of a class list: {some(map(repr, unusable))}. Rename them: "
                "no line may begin or end with a blank, or contain a character that cannot be printed."
            )
        if order is not None:
            names.sort(key=order.index)
        elif all(name.isascii() and name.isdigit() for name in names):
            names.sort(key=int)
        labels = {name: index for index, name in enumerate(names)}
        inside = {folder: Listing.of(folder) for folder in listing.folders}
        _refuse_wrong_folders(inside)
        return tuple(names), _in_folders(directory, "one folder per class", labels, inside, len(names))


def require_directory(directory: Path) -> None:
    """Refuse pictures that are in no directory.

    Raises:
        UsageError: it does not exist, or is a file.
    """
    if not os.path.isdir(directory):  # noqa: PTH112 (unlike Path.is_dir it does not raise in an unreadable folder)
        what = "is not a directory" if os.path.lexists(directory) else "does not exist"
        away = " Those of a bucket or a site must be downloaded first." if ":/" in str(directory) else ""
        raise UsageError(f"--data {directory} {what}: expected a directory of labelled pictures.{away}")


def _refuse_beside_folders(directory: Path, listing: Listing) -> None:
    if listing.pictures:
        raise UsageError(
            f"{directory} contains folders, and beside them {counted(len(listing.pictures), 'picture')} without a "
            f"label ({some(file.name for file in listing.pictures)}): expected either one folder per class, or the "
            "flat folder of ImageNet's validation pictures."
        )


def _refuse_wrong_folders(folders: Mapping[Path, Listing]) -> None:
    problems = []
    for folder, listing in folders.items():
        if listing.folders:
            problems.append(
                f"{folder} contains folders, expected only pictures of one class: give the directory whose folders "
                f"are the classes as --data{f', perhaps {folder}' if len(folders) < len(listing.folders) else ''}."
            )
        elif not listing.pictures:
            problems.append(f"{folder} contains no picture: remove empty class folders.")
    if problems:
        more = f"\n... and {len(problems) - _MOST_NAMED:,} more." if len(problems) > _MOST_NAMED else ""
        raise UsageError("\n".join(problems[:_MOST_NAMED]) + more)


def _in_folders(
    directory: Path, layout: str, labels: Mapping[str, int], folders: Mapping[Path, Listing], count: int
) -> Dataset:
    pictures = [
        Picture(file, (labels[folder.name],)) for folder, listing in folders.items() for file in listing.pictures
    ]
    others = [file for listing in folders.values() for file in listing.others]
    occurring = tuple(sorted(labels.values()))
    part = len(occurring) < count
    remarks = [f"{len(occurring):,} of the model's {count:,} classes occur"] if part else []
    if part and len(occurring) > 1 and layout == BY_INDEX and occurring == tuple(range(len(occurring))):
        remarks.append("these are its first classes: if the folders have numbers of another list, all labels are wrong")
    if others:
        named = "pictures, the first of them" if len(others) > 1 else "a picture:"
        remarks.append(f"{counted(len(others), 'file')} left out, not named as {named} {others[0].name}")
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
            f"{some(others)}. Expected one folder per class, or ILSVRC2012_val_00000001.JPEG and so on."
        )
    if not is_imagenet:
        raise UsageError(
            f"{directory} contains ImageNet's validation pictures, and the class list here is another, or not known: "
            "give the model's own with --labels."
        )
    labels = imagenet.validation_labels(real=real, devkit=devkit)
    pictures = [Picture(file, labels[number - 1]) for file, number in numbers.items() if number is not None]
    labelled = tuple(picture for picture in pictures if picture.labels)
    remarks = []
    if len(files) != imagenet.PICTURES:
        remarks.append(f"{len(files):,} of {imagenet.PICTURES:,} pictures: {_why_fewer(len(files))}")
    if len(labelled) < len(pictures):
        remarks.append(f"without a label in ReaL: {counted(len(pictures) - len(labelled), 'picture')}, left out")
    layout = f"ImageNet's validation pictures{' with the labels of ReaL' if real is not None else ''}"
    return Dataset(directory, layout, labelled, real=real is not None, remarks=tuple(remarks))


def _why_fewer(count: int) -> str:
    if count == imagenet.PICTURES - imagenet.BLACKLISTED:
        return "as many as without the devkit's blacklist; published figures count all 50,000"
    return f"{imagenet.PICTURES - count:,} are missing"
