"""Render TensorFlow Hub's pages: of a model, of the collection, of the publisher."""

from collections.abc import Iterator, Sequence

from export.cards.collection import COLLECTION, COLLECTION_SUMMARY
from export.cards.facts import CardFacts
from export.cards.markdown import render
from export.cards.publisher import Publisher
from export.cards.tfhub_rules import HUB
from models.catalog import LICENSE, Head

COLLECTION_VERSION = 1
"""The only number that TensorFlow Hub accepts: a collection has one page, which is overwritten."""

TASKS: dict[Head, str] = {"classification": "image-classification", "fe": "image-feature-vector"}
DATASETS = {"ImageNet-1k": "imagenet-ilsvrc-2012-cls", "ImageNet-21k": "imagenet-21k"}
"""TensorFlow Hub's names for the datasets that the catalog's checkpoints were trained on."""

_TEMPLATE = "tfhub.md"


def render_module(subject: CardFacts) -> str:
    """Return the page of a model."""
    manifest = subject.manifest
    return render(
        _TEMPLATE,
        title=f"Module {subject.where.publisher}/{manifest.handle}/{manifest.version}",
        description=subject.summary,
        metadata=list(_metadata(subject)),
        body="model.md",
        model=subject,
    )


def _metadata(subject: CardFacts) -> Iterator[tuple[str, str]]:
    training = subject.handle.checkpoint.training
    yield "asset-path", subject.archive
    yield "task", TASKS[subject.handle.head]
    yield "fine-tunable", str(subject.fine_tunable).lower()
    yield "format", "saved_model_2"
    yield "network-architecture", "mixer"
    if subject.trained and training.data in DATASETS:
        yield "dataset", DATASETS[training.data]
    if training.license == LICENSE:
        yield "license", LICENSE.lower()


def render_collection(where: Publisher, members: Sequence[CardFacts]) -> str:
    """Return the page of the collection with these models."""
    data = [member.handle.checkpoint.training.data for member in members if member.trained]
    metadata = [
        *(("task", task) for task in dict.fromkeys(TASKS[member.handle.head] for member in members)),
        *(("dataset", name) for name in dict.fromkeys(DATASETS[one] for one in data if one in DATASETS)),
        ("network-architecture", "mixer"),
    ]
    return render(
        _TEMPLATE,
        title=f"Collection {where.publisher}/{COLLECTION}/{COLLECTION_VERSION}",
        description=COLLECTION_SUMMARY,
        metadata=metadata,
        body="collection.md",
        members=members,
        hub=f"{HUB}/{where.publisher}",
    )


def render_publisher(where: Publisher) -> str:
    """Return the page of the publisher, of whom only the name is known here."""
    return render(
        _TEMPLATE,
        title=f"Publisher {where.publisher}",
        description=f"Publisher of {COLLECTION}.",
        metadata=(),
        body="publisher.md",
        publisher=where.publisher,
        collection=COLLECTION,
    )
