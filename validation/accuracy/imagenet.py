"""The order of ImageNet-1k's classes, and the labels of its validation pictures.

Both come from the wheel of tensorflow-datasets, and are read from the installed package, which is not imported, or from
the development kit of ILSVRC 2012. Class
indices are positions in the sorted WordNet ids, as in every model of this project; the ILSVRC ids of the devkit are
another, 1-based order.
"""

import hashlib
import json
import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from models.errors import MixerError, UsageError, counted, shown

CLASSES, PICTURES = 1000, 50_000
BLACKLISTED = 1762
"""Pictures that the devkit lists as ambiguous; the evaluations of the original models count them."""

REAL_LABELLED = 46_837
"""Pictures that have labels in ReaL; the others are left out."""

_WORDNET_SHA256 = "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"
_TRUTH_SHA256 = "313fc3f23c864dde9183c9a368809065765dd1b657a6904fded44e3e46d34604"
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_LEAST_AGREEMENT = 0.8  # of ReaL with the original labels: about 0.9, and 0.001 if shifted


def number_of(file_name: str) -> int | None:
    """Return the number, from 1, of a validation picture by its name; None for other names."""
    match = _NAME.fullmatch(file_name)
    return int(match[1]) if match else None


@cache
def wordnet_ids() -> tuple[str, ...]:
    """Return the WordNet id of each class, in order.

    Raises:
        UsageError: tensorflow-datasets is not installed.
        MixerError: its list is another one.
    """
    return tuple(_read("labels.txt", CLASSES, _WORDNET_SHA256))


def validation_labels(*, real: Path | None = None, devkit: Path | None = None) -> tuple[tuple[int, ...], ...]:
    """Return the class indices of each validation picture, in the order of the file names: one, or those of ReaL.

    Args:
        real: `real.json` of ReaL, which has several labels for a picture, or none for those to leave out.
        devkit: the development kit of ILSVRC 2012: `ILSVRC2012_devkit_t12`, or its folder `data`. Without any, the
            labels are those that come with tensorflow-datasets.

    Raises:
        UsageError: both are given, a file is missing or another one, or tensorflow-datasets is not installed.
        MixerError: the list of tensorflow-datasets is another one.
    """
    if real is not None and devkit is not None:
        raise UsageError("--real and --devkit exclude each other: give one source of labels.")
    if real is not None:
        return _read_real(real)
    return tuple((label,) for label in (_original_labels() if devkit is None else _read_devkit(devkit)))


@cache
def _original_labels() -> tuple[int, ...]:
    index_of = {name: index for index, name in enumerate(wordnet_ids())}
    return tuple(index_of[name] for name in _read("validation_labels.txt", PICTURES, _TRUTH_SHA256))


def _read_real(path: Path) -> tuple[tuple[int, ...], ...]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} is not a readable JSON file: {reason}. Expected ReaL's real.json.") from error
    wrong = [one for one in found if not _are_labels(one)] if isinstance(found, list) else [found]
    if wrong or len(found) != PICTURES:
        count = f"{len(found):,} entries" if isinstance(found, list) else "no list"
        other = f", one of them {shown(json.dumps(wrong[0]))}" if wrong else ""
        raise UsageError(
            f"{path} is not ReaL's real.json: {count}{other}; expected {PICTURES:,} lists of class indices from 0 to "
            "999."
        )
    labelled = [(labels, truth) for labels, truth in zip(found, _original_labels(), strict=True) if labels]
    agreeing = sum(truth in labels for labels, truth in labelled) / max(1, len(labelled))
    if agreeing < _LEAST_AGREEMENT:
        raise UsageError(
            f"{path} contains the original label of only {agreeing:.1%} of the pictures, expected about 90 %: its "
            "entries are shifted, or in another order than the file names."
        )
    return tuple(tuple(labels) for labels in found)


def _are_labels(entry: object) -> bool:
    return isinstance(entry, list) and all(isinstance(label, int) and 0 <= label < CLASSES for label in entry)


def _read_devkit(directory: Path) -> tuple[int, ...]:
    """Read the development kit's ground truth: ILSVRC ids; `meta.mat` says which WordNet id each is."""
    if not directory.is_dir():
        what = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise UsageError(f"--devkit {directory} {what}: expected the folder ILSVRC2012_devkit_t12.")
    data = directory / "data" if (directory / "data").is_dir() else directory
    try:
        ids = _read_synsets(data / "meta.mat")
        truth = [int(line) for line in (data / _GROUND_TRUTH).read_text(encoding="ascii").split()]
    except Exception as error:  # SciPy raises many types for what is damaged
        raise UsageError(
            f"{directory} is not the development kit of ILSVRC 2012: {error}. Expected data/meta.mat and "
            f"data/{_GROUND_TRUTH}, as in ILSVRC2012_devkit_t12.tar.gz."
        ) from error
    if len(ids) != CLASSES or len(truth) != PICTURES or not {*truth} <= ids.keys():
        raise UsageError(
            f"{directory} has {counted(len(ids), 'class')} and {counted(len(truth), 'label')}: expected {CLASSES:,} "
            f"and {PICTURES:,}, each label the ILSVRC id of a class."
        )
    index_of = {wordnet_id: index for index, wordnet_id in enumerate(sorted(ids.values()))}
    return tuple(index_of[ids[label]] for label in truth)


def _read_synsets(path: Path) -> dict[int, str]:
    """Return the WordNet id of each ILSVRC id from 1 to 1000; the others are groups of classes."""
    from scipy.io import loadmat

    synsets = loadmat(path, squeeze_me=True)["synsets"]
    found = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
    return {number: wordnet_id for number, wordnet_id in found.items() if 1 <= number <= CLASSES}


def _read(name: str, count: int, sha256: str) -> list[str]:
    spec = find_spec("tensorflow_datasets")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "ImageNet's labels come with tensorflow-datasets, which this environment does not have: install the extra "
            "accuracy of this project, for instance `pip install --editable '.[accuracy]'`."
        )
    path = Path(spec.submodule_search_locations[0], "datasets", "imagenet2012", name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MixerError(f"{path} cannot be read: {error.strerror}. Install tensorflow-datasets 4.9.10.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise MixerError(
            f"{path} has sha256 {found}, expected {sha256}: it is not the list that was checked. Install "
            "tensorflow-datasets 4.9.10."
        )
    lines = content.decode().split()
    if len(lines) != count:
        raise MixerError(f"{path} has {counted(len(lines), 'line')}, expected {count:,}.")
    return lines
