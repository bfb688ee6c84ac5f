"""Say who publishes the models, and where."""

import re
from dataclasses import dataclass

from models.errors import UsageError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
"""Matches a publisher's name that TensorFlow Hub and Kaggle accept."""

_ASSETS = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]+)*")
"""Matches the URL of published models, without characters that could end a line or comment of a card."""


@dataclass(frozen=True)
class Publisher:
    """Who publishes, and below which URL: archives are at `<assets>/<handle>/<version>.tar.gz`.

    Raises:
        UsageError: the name or the URL cannot be used on a card.
    """

    publisher: str
    assets: str

    def __post_init__(self) -> None:
        problems = []
        if not _NAME.fullmatch(self.publisher):
            problems.append(
                f"--publisher {self.publisher!r} is no name that TensorFlow Hub and Kaggle take: expected at most 100 "
                "lower-case letters, digits and '-', and no '-' at the beginning."
            )
        if not _ASSETS.fullmatch(self.assets):
            problems.append(
                f"--assets {self.assets!r} is no address to download from: expected https://HOST/PATH, below which "
                "<handle>/<version>.tar.gz lies (of gs://bucket/prefix: https://storage.googleapis.com/bucket/prefix)."
            )
        if problems:
            raise UsageError("\n".join(problems))

    def address(self, handle: str, version: int, suffix: str) -> str:
        """Return the URL of a file of a published model."""
        return f"{self.assets}/{handle}/{version}{suffix}"
