"""Find an image whose two largest logits are nearly equal, so that the smallest error changes the top class."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from validation.parity.images import Images, Inputs

_AROUND = np.array([-0.1, -0.002, 0.002, 0.1])
"""Where the next images are, from the expected place, as shares of the interval."""

POINTS = len(_AROUND)
"""Images tried at once."""

ROUNDS = 5
"""Searches along one line, each finer than the one before."""

Logits = NDArray[np.float32]
Shares = NDArray[np.float64]


def find_near_tie(logits_of: Callable[[Images], Logits], inputs: Inputs) -> Inputs:
    """Search on straight lines between images for the smallest gap between the two largest logits.

    Where the top class changes along a line, there is a tie. The lines go from the first image to each of the others,
    starting with the last, until the top class changes on one.

    Args:
        logits_of: returns the logits `[n, num_classes]` of images; called with `POINTS` images at a time.
        inputs: two images or more.

    Returns:
        The image found, named `near tie`.
    """
    start, best, smallest = inputs.images[0], inputs.images[0], np.inf
    for end in inputs.images[:0:-1]:
        shares: Shares | None = np.linspace(0, 1, POINTS)
        tried, found = np.empty(0), list[Logits]()
        for _ in range(ROUNDS):
            if shares is None:
                break
            images = np.stack([np.float32(1 - share) * start + np.float32(share) * end for share in shares])
            logits = logits_of(images)
            gaps = _gaps(logits)
            if gaps.min() < smallest:
                best, smallest = images[gaps.argmin()], float(gaps.min())
            tried, found = np.concatenate([tried, shares]), [*found, *logits]
            order = tried.argsort(kind="stable")
            shares = _closer(tried[order], np.stack(found)[order])
        if shares is not None:
            break
    return Inputs(("near tie",), np.clip(best, -1, 1)[np.newaxis])


def _gaps(logits: Logits) -> Logits:
    largest = np.sort(logits, axis=1)[:, -2:]
    return largest[:, 1] - largest[:, 0]


def _closer(shares: Shares, logits: Logits) -> Shares | None:
    """Return points around the place where the top class changes; None if it does not change.

    They are close to where the two largest logits would be equal if they were linear between two neighbours.
    """
    first = logits.argmax(axis=1)
    changes = np.flatnonzero(first[1:] != first[:-1])
    if not changes.size:
        return None
    gaps = _gaps(logits)
    left = min(changes, key=lambda index: float(min(gaps[index], gaps[index + 1])))
    low, high, pair = shares[left], shares[left + 1], first[[left, left + 1]]
    before, after = (float(logits[index, pair[0]]) - float(logits[index, pair[1]]) for index in (left, left + 1))
    width = high - low
    middle = low + width * before / max(before - after, np.finfo(np.float64).tiny)
    closer: Shares = np.clip(middle + width * _AROUND, low, high)
    return np.sort(closer)
