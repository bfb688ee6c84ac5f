"""Render Kaggle's metadata: a Kaggle model is our collection, and each of its variations is one of our models.

The fields are those of https://github.com/Kaggle/kaggle-cli/blob/main/docs/models_metadata.md. `kaggle models create`
and `kaggle models variations create` read the files; `kagglehub` does not.
"""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from export.cards.collection import COLLECTION, COLLECTION_SUMMARY, COLLECTION_TITLE
from export.cards.facts import CardFacts
from export.cards.markdown import render
from export.cards.publisher import Publisher
from models.catalog import GRAPH_SUFFIX, LICENSE, REPOSITORY
from models.citations import VERSION_1_PAGE

LICENSES = {
    LICENSE: "Apache 2.0",
    "BSD-3-Clause": "BSD-3-Clause",
    "CC-BY-4.0": "Attribution 4.0 International (CC BY 4.0)",
    "CC-BY-NC-4.0": "Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)",
    "CC-BY-NC-SA-4.0": "CC BY-NC-SA 4.0",
    "CC-BY-SA-4.0": "CC BY-SA 4.0",
    "CC0-1.0": "CC0: Public Domain",
    "MIT": "MIT",
}
"""Kaggle's names for licences, by their SPDX identifiers; of `models_metadata.md`."""

MODEL_FILE = "model-metadata.json"
VARIATION_FILE = "model-instance-metadata.json"


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    if re.search(r"INSERT_\w*_HERE", text):
        raise ValueError("it still is the placeholder of Kaggle's template")
    return text


def _licence(text: str) -> str:
    if text not in LICENSES.values():
        raise ValueError(f"it is none of {', '.join(LICENSES.values())}")
    return text


Text = Annotated[str, AfterValidator(_filled)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100), AfterValidator(_filled)]
Day = Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")]
Address = Annotated[str, Field(pattern=r"^(https://\S+)?$")]


class _Metadata(BaseModel):
    """A file for Kaggle; `of` makes it without validation, so that its problems are found like those of other cards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def text(self) -> str:
        """The contents of its file: indented JSON."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n"

    @property
    def problems(self) -> list[str]:
        """The errors in its file; empty if there are none."""
        return self.problems_of(self.text)

    @classmethod
    def problems_of(cls, text: str) -> list[str]:
        """Return the errors in a file of this kind; empty if there are none."""
        try:
            cls.model_validate_json(text)
        except ValidationError as error:
            return [
                f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors()
            ]
        return []


class ModelMetadata(_Metadata):
    """`model-metadata.json`; an empty `publishTime` means the time of the upload."""

    ownerSlug: Slug  # noqa: N815 (Kaggle's names, here and below)
    title: Text
    slug: Slug
    subtitle: str
    isPrivate: StrictBool  # noqa: N815
    description: Text
    publishTime: Day  # noqa: N815
    provenanceSources: str  # noqa: N815

    @classmethod
    def of(cls, where: Publisher, members: Sequence[CardFacts]) -> Self:
        """Return the metadata of the collection with these models; it is private until its owner makes it public."""
        return cls.model_construct(
            ownerSlug=where.publisher,
            title=COLLECTION_TITLE,
            slug=COLLECTION,
            subtitle=COLLECTION_SUMMARY,
            isPrivate=True,
            description=render("collection.md", members=members).strip(),
            publishTime="",
            provenanceSources=f"Weights: {REPOSITORY}. Version 1: {VERSION_1_PAGE}",
        )


class VariationMetadata(_Metadata):
    """`model-instance-metadata.json`."""

    ownerSlug: Slug  # noqa: N815
    modelSlug: Slug  # noqa: N815
    instanceSlug: Slug  # noqa: N815
    framework: Literal["tensorFlow2"]
    overview: Text
    usage: Text
    licenseName: Annotated[str, AfterValidator(_licence)]  # noqa: N815
    fineTunable: StrictBool  # noqa: N815
    trainingData: tuple[Text, ...]  # noqa: N815
    modelInstanceType: Literal["Unspecified", "BaseModel", "KaggleVariant", "ExternalVariant"]  # noqa: N815
    baseModelInstance: str  # noqa: N815
    externalBaseModelUrl: Address  # noqa: N815

    @model_validator(mode="after")
    def _base_fits_the_type(self) -> Self:
        kind = self.modelInstanceType
        for name, base, of in (
            ("baseModelInstance", self.baseModelInstance, "KaggleVariant"),
            ("externalBaseModelUrl", self.externalBaseModelUrl, "ExternalVariant"),
        ):
            if bool(base) != (kind == of):
                raise ValueError(f"{name} is {base!r}, but modelInstanceType {kind!r}: only {of!r} has one")
        return self

    @classmethod
    def of(cls, subject: CardFacts) -> Self | None:
        """Return the metadata of a model; None if its licence is unknown, because Kaggle requires one."""
        training, about = subject.handle.checkpoint.training, subject.about
        if subject.license not in LICENSES:
            return None
        base = training.source if about is None else about.source or ""
        data = (training.data,) if subject.trained else ()
        return cls.model_construct(
            ownerSlug=subject.where.publisher,
            modelSlug=COLLECTION if subject.is_catalogued else subject.manifest.handle.removesuffix(GRAPH_SUFFIX),
            instanceSlug=subject.manifest.handle,
            framework="tensorFlow2",
            overview=subject.summary,
            usage=render("kaggle.md", model=subject).strip(),
            licenseName=LICENSES[subject.license],
            fineTunable=subject.fine_tunable,
            trainingData=data if about is None else (about.training_data,),
            modelInstanceType="ExternalVariant" if base else "BaseModel",
            baseModelInstance="",
            externalBaseModelUrl=base,
        )
