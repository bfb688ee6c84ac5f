"""Which class each folder of pictures is of, by its name."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from models.errors import UsageError, counted, shown
from validation.accuracy import imagenet

BY_INDEX = "one folder per class, named by class index"

_WORDNET = re.compile(r"n\d{8}")
_MOST_NAMED = 8


def labels_of_folders(
    folders: Sequence[Path], classes: Sequence[str], *, is_imagenet: bool
) -> tuple[str, dict[str, int]]:
    """Return how folders are named, in words, and the class index of each.

    Args:
        folders: one for each class that occurs.
        classes: the class names of the model, in order.
        is_imagenet: whether they are the classes of ImageNet-1k in their usual order.

    Raises:
        UsageError: a folder names no class, several folders name one, or a label would be a guess.
    """
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
        return BY_INDEX, _by_number(_each_once(numbered), len(classes))
    wordnet = {name for name in names if _WORDNET.fullmatch(name)}
    if len(wordnet) == len(names):
        return "one folder per class, named by WordNet id", _by_wordnet_id(names, classes, is_imagenet=is_imagenet)
    several = [f"{name} (classes {', '.join(map(str, found))})" for name, found in places.items() if len(found) > 1]
    if several:
        raise UsageError(f"folders name several classes: {some(several)}. Name them by class index.")
    kinds = {"class name": named, "class index": numbered, "WordNet id": wordnet}
    kind = max(kinds, key=lambda one: len(kinds[one]))
    others = [name for name in names if name not in kinds[kind]]
    if len(others) < len(names):
        raise UsageError(
            f"{len(others)} of {len(names)} folders match no class of the model: {some(others)}. The others are named "
            f"by {kind}: rename these, or move them elsewhere."
        )
    raise UsageError(
        f"{len(names)} of {len(names)} folders match no class of the model: {some(names)}. Expected its class names "
        f"({some(map(repr, classes))}), class indices from 0, or WordNet ids."
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
        raise UsageError(f"several folders are of the same class: {some(twice)}. Expected one folder per class.")
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
        reason = f"the model has classes 0 to {count - 1}, found {some(map(str, beyond))}."
    elif count > imagenet.CLASSES and found == list(range(imagenet.CLASSES)):
        reason = f"they are the indices of ImageNet-1k, and the model has {count:,} classes of another list."
    else:
        return numbers
    raise UsageError(f"the folders are not the model's class indices: {reason}")


def _by_wordnet_id(names: Sequence[str], classes: Sequence[str], *, is_imagenet: bool) -> dict[str, int]:
    if not is_imagenet:
        raise UsageError(
            "the folders are named by WordNet id, whose order is known for the class list of ImageNet-1k alone, and "
            f"the class list here is another, of {counted(len(classes), 'line')}: name the folders by class name or "
            "class index, or give the model's own list (--labels)."
        )
    index_of = {name: index for index, name in enumerate(imagenet.wordnet_ids())}
    unknown = [name for name in names if name not in index_of]
    if unknown:
        raise UsageError(
            f"{len(unknown)} of {len(names)} folders are not among ImageNet-1k's classes: {some(unknown)}."
        )
    return {name: index_of[name] for name in names}


def some(names: Iterable[str]) -> str:
    """Return the first of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _MOST_NAMED:,} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(shown(name) for name in listed[:_MOST_NAMED]) + more
