"""The accuracy of a SavedModel on labelled pictures, as measured by this project."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.preprocessing import Protocol
from models.records.manifest import Count, Record, SealedRecord


class Measurement(Record):
    """What a SavedModel answered to one set of labelled pictures.

    Counts are of the pictures that could be decoded; `subset_*` count answers among the classes that occur alone, where
    these are fewer than the model's.
    """

    data: str
    """The pictures in words: how they are laid out."""
    data_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the pictures and their labels."""
    protocol: Protocol
    command: str
    """How it was measured; directories are given by their last name."""
    pictures: Annotated[int, Field(gt=0, lt=1 << 63)]
    not_decoded: Count
    top1: Count
    top5: Count
    subset_top1: Count | None
    subset_top5: Count | None
    remarks: tuple[str, ...]
    libraries: dict[str, str]

    @model_validator(mode="after")
    def _is_possible(self) -> "Measurement":
        if (self.subset_top1 is None) != (self.subset_top5 is None):
            raise ValueError("expected both subset_top1 and subset_top5, or neither")
        for top1, top5 in ((self.top1, self.top5), (self.subset_top1 or 0, self.subset_top5 or 0)):
            if not top1 <= top5 <= self.pictures:
                raise ValueError(f"expected top1 <= top5 <= pictures, found {top1}, {top5} and {self.pictures}")
        return self


class AccuracyRecord(SealedRecord):
    """The measurements of one SavedModel, bound to its manifest; one for each set of pictures and protocol."""

    schema_version: Literal[1] = 1
    handle: str
    version: Count
    manifest_sha256: str
    measurements: Annotated[tuple[Measurement, ...], Field(min_length=1)]

    def adding(self, measurement: Measurement) -> "AccuracyRecord":
        """Return the record with a measurement added, in place of an earlier one of the same pictures and protocol."""
        same = (measurement.data_sha256, measurement.protocol)
        kept = [one for one in self.measurements if (one.data_sha256, one.protocol) != same]
        return self.model_copy(update={"measurements": (*kept, measurement)})
