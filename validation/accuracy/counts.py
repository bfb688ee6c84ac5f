"""Count right answers, with intervals, and compare two models on the same pictures."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

CONFIDENCE = 1.959963984540054
"""Standard normal quantile of a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Answer:
    """What a model says of a picture: its likeliest classes, first to fifth, beside the true labels."""

    labels: tuple[int, ...]
    top: tuple[int, ...]

    def is_right(self, within: int) -> bool:
        """Return whether a true label is among the first `within` classes."""
        return any(label in self.top[:within] for label in self.labels)


@dataclass(frozen=True)
class Share:
    """How many of how many are right."""

    right: int
    total: int

    @classmethod
    def of(cls, answers: Sequence[Answer], within: int) -> Self:
        """Count the answers with a true label among the first `within` classes."""
        return cls(sum(answer.is_right(within) for answer in answers), len(answers))

    @classmethod
    def by_class(cls, answers: Iterable[Answer]) -> dict[int, Self]:
        """Count the right first classes for each true label; a picture with several labels counts for each."""
        right: dict[int, int] = {}
        total: dict[int, int] = {}
        for answer in answers:
            for label in answer.labels:
                total[label] = total.get(label, 0) + 1
                right[label] = right.get(label, 0) + answer.is_right(1)
        return {label: cls(right[label], total[label]) for label in sorted(total)}

    @property
    def value(self) -> float:
        """The share; 0 of none."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (https://doi.org/10.1080/01621459.1927.10502953)."""
        if not self.total:
            return 0.0, 1.0
        n, p, z = self.total, self.value, CONFIDENCE
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(first: Sequence[Answer], second: Sequence[Answer]) -> tuple[int, int, float]:
    """Compare two models on the same pictures: right only in the first, only in the second, and the exact p-value.

    The p-value is that of McNemar's test (https://doi.org/10.1007/BF02295996): how likely a split at least as uneven
    is, if both models are equally good.
    """
    only_first = sum(a.is_right(1) and not b.is_right(1) for a, b in zip(first, second, strict=True))
    only_second = sum(b.is_right(1) and not a.is_right(1) for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    # The binomials are summed as logarithms, which is exact to about 1e-10 and fast for tens of thousands of pictures.
    every = math.lgamma(n + 1) - (n - 1) * math.log(2)
    tail = math.fsum(
        math.exp(every - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(min(only_first, only_second) + 1)
    )
    return only_first, only_second, min(1.0, tail)
