"""What the owner of a custom model says about it: licence, training data, description, accuracy with its source."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from models.errors import UsageError, shown
from models.records.manifest import MOST_BYTES, Count, Record, SealedRecord
from models.storage.files import read_small

License = Literal[
    "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT"
]
"""SPDX identifiers of the licences that the sites where models are published have names for."""

Line = Annotated[str, Field(pattern=r"^[^\s][^\r\n]*$", max_length=500)]
Address = Annotated[str, Field(pattern=r"^https://\S+$", max_length=500)]

_EXPECTED = (
    "license, training_data and description, and perhaps source (an https address) and [[accuracy]] with top1, data "
    "and source"
)


class ClaimedAccuracy(Record):
    """An accuracy that somebody measured, and where that is said."""

    top1: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    """Per cent."""
    data: Line
    """The pictures that it was measured on."""
    source: Line


class About(Record):
    """What is known about a custom model's weights."""

    license: License
    training_data: Line
    description: Annotated[str, Field(pattern=r"\S", max_length=4000)]
    source: Address | None = None
    """Where the weights come from."""
    accuracy: tuple[ClaimedAccuracy, ...] = ()

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read the file that `--about` names: TOML with these fields.

        Raises:
            UsageError: it cannot be read, or has other fields or values; lists all problems.
        """
        try:
            values = tomllib.loads(read_small(path, MOST_BYTES).decode())
        except OSError as error:
            raise UsageError(f"--about {path} cannot be read ({error.strerror or error}).") from error
        except ValueError as error:  # not UTF-8, or not TOML
            raise UsageError(f"--about {path} is not TOML ({error}): expected {_EXPECTED}.") from error
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)
            lines = [f"  {shown('.'.join(map(str, one['loc'])))}: {shown(one['msg'])}" for one in found]
            raise UsageError("\n".join([f"--about {path}: expected {_EXPECTED}.", *lines])) from error


class AboutRecord(SealedRecord):
    """What its owner says of one make of a custom model, bound to its manifest: `<version>.about.json`."""

    ADVICE = "Say it again with `mixer-jax2tf convert-all` and --about."

    schema_version: Literal[2] = 2
    handle: str
    version: Count
    manifest_sha256: str
    about: About
