"""Render Hugging Face's cards: `README.md` with a YAML header, for a model's folder and for the whole repository.

The header has the fields of https://github.com/huggingface/huggingface_hub (`modelcard.md`) that apply to these models.
There is no `model-index`: a measured accuracy is in the text of the card. Nor is there a `base_model`, which names a
model on the Hub, nor a `library_name`: the Hub's libraries load models of their own, not any SavedModel.

`ModelCardData` of huggingface_hub would write the same header; but it checks no field, and comes with the extra `hub`,
which cards do not need.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, cast

import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from export.cards.collection import COLLECTION, COLLECTION_SUMMARY, COLLECTION_TITLE
from export.cards.facts import CardFacts
from export.cards.markdown import render
from models.catalog import Head

FILE = "README.md"

Pipeline = Literal["image-classification", "image-feature-extraction"]

_License = Literal[
    "apache-2.0",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "mit",
    "unknown",
]
"""The Hub's identifiers of licences: SPDX's in lower case."""

PIPELINES: dict[Head, Pipeline] = {"classification": "image-classification", "fe": "image-feature-extraction"}
DATASETS = {"ImageNet-1k": "imagenet-1k", "ImageNet-21k": "imagenet-21k"}
TAGS = ("tensorflow", "saved-model", COLLECTION, "vision")

_PARTS = re.compile(r"---\n(?P<header>.*?\n)---\n(?P<body>.*)", re.DOTALL)
_KEY = re.compile(r"^([\w-]+):", re.MULTILINE)

Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/-]*$")]


class _Header(BaseModel):
    """The fields that are used here; any other is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    license: _License
    pipeline_tag: Pipeline
    tags: list[Word] = Field(min_length=1)
    datasets: list[Word] = Field(default=[], min_length=1)

    def to_text(self) -> str:
        """Return the header as YAML, without empty fields."""
        return str(yaml.safe_dump({name: value for name, value in self.model_dump().items() if value}, sort_keys=False))


@dataclass(frozen=True)
class Card:
    """A card, for a model or for the repository."""

    text: str

    @classmethod
    def of_model(cls, subject: CardFacts, repository: str | None = None) -> Self:
        """Render the card of a model; of the `owner/repo` that it is published in, where that is known."""
        manifest = subject.manifest
        header = _header(
            [subject],
            license_=cast(_License, subject.license.lower()),
            pipeline=PIPELINES[subject.handle.head],
        )
        title = f"{manifest.handle}, version {manifest.version}"
        return cls(_with_header(header, title, subject.summary, body="model.md", model=subject, repository=repository))

    @classmethod
    def of_collection(cls, members: Sequence[CardFacts]) -> Self:
        """Render the card of the repository that contains these models, each in its own folder."""
        heads = {member.handle.head for member in members}
        pipeline = PIPELINES["classification" if "classification" in heads else "fe"]
        header = _header(members, license_="apache-2.0", pipeline=pipeline)
        return cls(_with_header(header, COLLECTION_TITLE, COLLECTION_SUMMARY, body="collection.md", members=members))

    @property
    def problems(self) -> list[str]:
        """The errors in it; empty if there are none."""
        found = _PARTS.fullmatch(self.text)
        if found is None:
            return ["it does not begin with a header in YAML between two lines of ---"]
        return [*_header_problems(found["header"]), *_body_problems(found["body"])]


def _header(members: Sequence[CardFacts], *, license_: _License, pipeline: Pipeline) -> _Header:
    data = dict.fromkeys(member.handle.checkpoint.training.data for member in members if member.trained)
    seeded = any(member.manifest.checkpoint.origin == "seeded" for member in members)
    tags = [*TAGS, *(["seeded-weights"] if seeded else [])]
    known = [DATASETS[one] for one in data if one in DATASETS]
    return _Header(license=license_, pipeline_tag=pipeline, tags=tags, **({"datasets": known} if known else {}))


def _with_header(header: _Header, title: str, description: str, *, body: str, **values: object) -> str:
    return render("hugging_face.md", header=header.to_text(), title=title, description=description, body=body, **values)


def _header_problems(text: str) -> list[str]:
    keys = _KEY.findall(text)
    twice = sorted({key for key in keys if keys.count(key) > 1})  # YAML silently takes the last one
    said = [f"{', '.join(twice)} occurs twice in the header"] if twice else []
    try:
        _Header.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        return [*said, f"its header is not YAML: {' '.join(str(error).split())}"]
    except ValidationError as error:
        return said + [f"{'.'.join(map(str, one['loc'])) or 'its header'}: {one['msg']}" for one in error.errors()]
    return said


def _body_problems(text: str) -> list[str]:
    lines = [line for line in text.split("\n") if line]
    if not lines or not lines[0].startswith("# "):
        return [f"below its header comes {lines[0][:100] if lines else ''!r}, expected a title: # ..."]
    return [] if len(lines) > 1 else ["there is nothing below its title"]
