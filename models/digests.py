"""The digests of known checkpoint files: they tell an original from a seeded file, and a changed file from both.

`models/digests.json` has an entry for each recorded file: `original` from the public bucket, `seeded` from
`mixer-jax2tf seed`. A file without an entry is `unknown`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from models.errors import MixerError
from models.storage.files import read_small, write_atomically

Origin = Literal["original", "seeded", "unknown", "own"]

DIGESTS_FILE = Path(__file__).parent / "digests.json"

_MOST_BYTES = 1 << 20
"""Largest accepted size of the file, which has a few hundred bytes per entry."""


@dataclass(frozen=True)
class Digest:
    """The recorded digests of a file: `md5` and `crc32c` in base64, as in the store, `sha256` in hexadecimal."""

    object: str
    origin: Literal["original", "seeded"]
    size: int
    md5: str
    crc32c: str
    sha256: str


@dataclass(frozen=True)
class DigestTable:
    """All entries; at most one original and one seeded for each object."""

    entries: tuple[Digest, ...]

    @classmethod
    def read(cls, path: Path = DIGESTS_FILE) -> "DigestTable":
        """Read the table from its JSON file.

        Raises:
            MixerError: it cannot be read, or is not such a table.
        """
        from pydantic import ConfigDict, TypeAdapter, ValidationError

        from models.records.manifest import fault_of

        advice = "Restore it (git checkout)."
        try:
            rows = TypeAdapter(tuple[Digest, ...], config=ConfigDict(extra="forbid", strict=True))
            return cls(rows.validate_json(read_small(path, _MOST_BYTES)))
        except OSError as error:
            raise MixerError(f"{path} cannot be read ({error.strerror or error}). {advice}") from error
        except ValidationError as error:
            raise MixerError(f"{path} is not a table of digests: {fault_of(error)}. {advice}") from error

    def write(self, path: Path = DIGESTS_FILE) -> None:
        """Write the table, sorted, so that a change reads well in a diff."""
        rows = sorted((asdict(entry) for entry in self.entries), key=lambda row: (row["object"], row["origin"]))
        write_atomically(path, (json.dumps(rows, indent=1) + "\n").encode())

    def find(self, name: str, origin: str) -> Digest | None:
        """Return the entry of an object (its name in the bucket) and origin, if there is one."""
        return next((entry for entry in self.entries if (entry.object, entry.origin) == (name, origin)), None)

    def with_entry(self, new: Digest) -> "DigestTable":
        """Return a table with `new` as the only entry of its object and origin."""
        kept = (entry for entry in self.entries if (entry.object, entry.origin) != (new.object, new.origin))
        return DigestTable((*kept, new))

    def origin_of(self, name: str, sha256: str) -> Origin:
        """Return the origin of a file with this sha256, read for object `name`; `unknown` without an entry."""
        for entry in self.entries:
            if (entry.object, entry.sha256) == (name, sha256):
                return entry.origin
        return "unknown"
