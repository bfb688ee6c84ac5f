"""Render TensorFlow Hub's pages: of a model, of the collection, of the publisher."""

from collections.abc import Iterable, Sequence

from export.cards.collection import COLLECTION, COLLECTION_SUMMARY, collection_sections
from export.cards.facts import CardFacts, Publisher
from export.cards.sections import sections, summarise
from export.cards.tfhub_rules import read_page
from models.catalog import LICENSE, Head
from models.errors import UsageError
from models.markdown import Markdown, fill, section

COLLECTION_VERSION = 1
"""The only number that TensorFlow Hub accepts: a collection has one page, which is overwritten."""

TASKS: dict[Head, str] = {"classification": "image-classification", "fe": "image-feature-vector"}
DATASETS = {"ImageNet-1k": "imagenet-ilsvrc-2012-cls", "ImageNet-21k": "imagenet-21k"}
"""TensorFlow Hub's names for the datasets that the catalog's checkpoints were trained on."""


def render_module(subject: CardFacts) -> str:
    """Return the page of a model."""
    manifest = subject.manifest
    title = f"# Module {subject.where.publisher}/{manifest.handle}/{manifest.version}"
    return _page(title, summarise(subject), _metadata(subject), sections(subject))


def _page(title: str, description: str, metadata: Sequence[tuple[str, str]], parts: Iterable[Markdown]) -> str:
    head = [title, fill("{it}", it=description)]
    if metadata:
        head.append("\n".join(f"<!-- {key}: {value} -->" for key, value in metadata))
    return "\n\n".join((*head, *parts)) + "\n"


def _metadata(subject: CardFacts) -> list[tuple[str, str]]:
    handle = subject.handle
    training = handle.checkpoint.training
    metadata = [
        ("asset-path", subject.archive),
        ("task", TASKS[handle.head]),
        ("fine-tunable", str(subject.fine_tunable).lower()),
        ("format", "saved_model_2"),
        ("network-architecture", "mixer"),
    ]
    if subject.trained and training.data in DATASETS:
        metadata.append(("dataset", DATASETS[training.data]))
    if training.license == LICENSE:
        metadata.append(("license", LICENSE.lower()))
    return metadata


def where_of(text: str) -> Publisher | None:
    """Return who publishes a model and where, according to its page; None if the page cannot be one of ours."""
    page = read_page(text)
    publisher, _, rest = page.name.partition("/")
    path = (page.metadata.get("asset-path") or [""])[0]
    if page.kind != "Module" or not path.endswith(f"/{rest}.tar.gz"):
        return None
    try:
        return Publisher(publisher, path.removesuffix(f"/{rest}.tar.gz"))
    except UsageError:
        return None


def render_collection(where: Publisher, members: Sequence[CardFacts]) -> str:
    """Return the page of the collection with these models."""
    handles = [member.handle for member in members]
    data = [member.handle.checkpoint.training.data for member in members if member.trained]
    metadata = [
        *(("task", task) for task in dict.fromkeys(TASKS[handle.head] for handle in handles)),
        *(("dataset", name) for name in dict.fromkeys(DATASETS[one] for one in data if one in DATASETS)),
        ("network-architecture", "mixer"),
    ]
    title = f"# Collection {where.publisher}/{COLLECTION}/{COLLECTION_VERSION}"
    return _page(title, COLLECTION_SUMMARY, metadata, collection_sections(members))


def render_publisher(where: Publisher) -> str:
    """Return the page of the publisher, of whom only the name is known here."""
    said = fill(
        "{publisher} publishes the models of the collection {collection}: MLP-Mixers in TensorFlow, converted by "
        "mixer-jax2tf, with a report of what was checked beside each.",
        publisher=where.publisher,
        collection=COLLECTION,
    )
    return _page(f"# Publisher {where.publisher}", f"Publisher of {COLLECTION}.", (), [section("Details", said)])
