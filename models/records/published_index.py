"""The index of published models: one file per handle, written last, so that all versions it lists are complete."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from models.errors import MixerError, shown
from models.records.manifest import MOST_BYTES, FileDigest, Record, fault_of
from models.storage.files import read_small

INDEX = "index.json"

_VERSION = re.compile("[1-9][0-9]{0,17}")


class ListedFile(FileDigest):
    """One published file; `md5` in base64, as stores report it."""

    md5: str | None = None
    """None in indexes written before this field existed."""


class Index(Record):
    """The versions of a handle that were published completely."""

    schema_version: Literal[1] = 1
    handle: str
    versions: dict[str, dict[str, ListedFile]] = {}  # noqa: RUF012 (pydantic copies it)
    """Version -> name of each of its files -> size and digests."""

    @property
    def latest(self) -> int | None:
        """The highest version; None if none was published."""
        return max(map(int, self.versions), default=None)

    def with_version(self, version: int, files: dict[str, ListedFile]) -> "Index":
        """Return an index that also lists this version."""
        listed = {**self.versions, str(version): files}
        return Index(handle=self.handle, versions={name: listed[name] for name in sorted(listed, key=int)})

    @classmethod
    def parse(cls, content: bytes, where: object) -> Self:
        """Parse an index; errors name `where` as its source.

        Raises:
            MixerError: it is not an index.
        """
        try:
            index = cls.model_validate_json(content)
            if not all(_VERSION.fullmatch(version) for version in index.versions):
                raise MixerError(f"versions must be numbers, found {', '.join(map(shown, sorted(index.versions)[:5]))}")
        except (ValidationError, MixerError) as error:
            said = fault_of(error) if isinstance(error, ValidationError) else error
            raise MixerError(f"{where} is not a readable index of schema 1: {said}") from error
        return index

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an index from its file.

        Raises:
            MixerError: the file is not an index.
        """
        try:
            content = read_small(path, MOST_BYTES)
        except OSError as error:
            raise MixerError(f"{path} cannot be read ({error.strerror}).") from error
        return cls.parse(content, path)
