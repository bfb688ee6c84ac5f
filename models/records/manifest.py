"""JSON records beside a model, and the manifest: what a SavedModel is and what it was made from.

`convert` writes `<version>.manifest.json` once; `validate` writes `<version>.report.json` (`models.records.report`),
bound to that manifest by its sha256. Neither contains a time: the same inputs give the same bytes.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.catalog import Flavour
from models.digests import Origin
from models.errors import MixerError, shown
from models.storage.files import MOST_FILES, read_small

MOST_BYTES = 1 << 20
"""Largest accepted size of a record: usual ones have a few thousand, and parsing a hostile one takes a hundredfold."""


Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Record(BaseModel):
    """Base of all records: immutable, and read without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    ADVICE: ClassVar[str] = ""
    """What to do where one cannot be read, a sentence."""

    def to_bytes(self) -> bytes:
        """Return the record as stored: indented JSON, UTF-8."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def noun(cls) -> str:
        """Return the record's name in messages: `export report`."""
        return re.sub(r"\B(?=[A-Z])", " ", cls.__name__).lower()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from its file.

        Raises:
            MixerError: the file is not such a record.
        """
        try:
            return cls.parse(read_small(path, MOST_BYTES), path)
        except OSError as error:
            said = f"{path} is not a readable {cls.noun()}: {error.strerror or error}."
            raise MixerError(f"{said} {cls.ADVICE}".strip()) from error
        except MixerError as error:
            raise MixerError(f"{error} {cls.ADVICE}".strip()) from error

    @classmethod
    def parse(cls, content: bytes, where: object) -> Self:
        """Parse a record; errors name `where` as its source.

        Raises:
            MixerError: it is not such a record.
        """
        kind = cls.noun()
        if len(content) > MOST_BYTES:
            raise MixerError(f"{where} has more than {MOST_BYTES:,} bytes, too many for a {kind}.")
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise MixerError(f"{where} is not a readable {kind}{_schema(cls)}: {fault_of(error)}.") from error


_SEAL = re.compile(rb',\n "record_sha256": "([0-9a-f]{64})"\n}\n\Z')


class SealedRecord(Record):
    """A record whose last field, `record_sha256`, is the sha256 of its bytes without that line and the comma before it.

    So damage is noticed where no other record binds this one. It proves nothing about who wrote it.
    """

    def to_bytes(self) -> bytes:
        """Return the record as stored: indented JSON, UTF-8, with its digest."""
        rest = super().to_bytes()
        digest = hashlib.sha256(rest).hexdigest()
        return rest.removesuffix(b"\n}\n") + f',\n "record_sha256": "{digest}"\n}}\n'.encode()

    @classmethod
    def parse(cls, content: bytes, where: object) -> Self:
        """Parse a record; errors name `where` as its source.

        Raises:
            MixerError: it is not such a record, or its digest differs; earlier ones have none.
        """
        if (sealed := _SEAL.search(content)) is not None:
            content = content[: sealed.start()] + b"\n}\n"
            if (found := hashlib.sha256(content).hexdigest()) != sealed[1].decode():
                said = f"its record_sha256 is {sealed[1].decode()}, but the rest of it has {found}"
                raise MixerError(f"{where} is not the {cls.noun()} that was written: {said}.")
        elif b'"record_sha256"' in content:
            raise MixerError(f"{where} is not the {cls.noun()} that was written: it must end with its record_sha256.")
        return super().parse(content, where)


class FileDigest(Record):
    """One file: `sha256` in hexadecimal, `size` in bytes."""

    sha256: str
    size: Count


class CheckpointRecord(Record):
    """The checkpoint that a model was made from."""

    name: str
    object: str
    url: str
    sha256: str
    size: Count
    origin: Origin


class Manifest(Record):
    """What a SavedModel is and what it was made from."""

    schema_version: Literal[1] = 1
    handle: str
    version: Count
    flavour: Flavour
    head: Literal["classification", "fe"]
    architecture: str
    image_size: Count
    num_classes: Count | None
    parameters: Count
    platforms: tuple[str, ...]
    checkpoint: CheckpointRecord
    files: Annotated[dict[str, FileDigest], Field(max_length=MOST_FILES)]
    """By path relative to the SavedModel's directory, in POSIX form."""
    libraries: dict[str, str]
    pipeline: str
    """Version of this project."""
    pipeline_sha256: str
    """Digest of the sources that decide what is written (`models.records.provenance`)."""
    git_commit: str | None
    git_dirty: bool | None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def saved_model_sha256(self) -> str | None:
        """Digest of `saved_model.pb`, the graph; None if there is none."""
        found = self.files.get("saved_model.pb")
        return None if found is None else found.sha256

    @property
    def class_list(self) -> str | None:
        """The path of the class list within the SavedModel."""
        return next((name for name in sorted(self.files) if name.startswith("assets/")), None)


def _schema(record: type[BaseModel]) -> str:
    field = record.model_fields.get("schema_version")
    return "" if field is None else f" of schema {field.default}"


def fault_of(error: ValidationError) -> str:
    """Return the first error on one line, with the number of further ones."""
    found = error.errors(include_url=False, include_context=False)
    # With another schema, all other errors only follow from that.
    first = next((one for one in found if one["loc"] == ("schema_version",)), found[0])
    where, said = shown(".".join(map(str, first["loc"]))), shown(first["msg"])
    if where == "schema_version":
        return f"it has schema {shown(first['input'])}"
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
    return f"{where}: {said}{more}" if where else f"{said}{more}"
