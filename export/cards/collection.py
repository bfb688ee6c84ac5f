"""Render the sections about the collection, which all card formats share, from the models that have cards."""

from collections.abc import Iterable, Iterator, Sequence

from export.cards.errata import CORRECTIONS
from export.cards.facts import CardFacts
from export.cards.sections import ORIGINS
from models.catalog import GRAPH_SUFFIX, LICENSE, MIXER_PAPER, REPOSITORY, SAM_PAPER, VIT_SAM_PAPER
from models.citations import ACCURACIES, VERSION_1_PAGE
from models.flavours import FLAVOURS
from models.markdown import Markdown, bullets, code, fill, link, section, table, warning

COLLECTION = "mlp-mixer"
COLLECTION_TITLE = "MLP-Mixer"
COLLECTION_SUMMARY = (
    "MLP-Mixer image classifiers and feature extractors in TensorFlow, converted from the original JAX checkpoints."
)

_COLUMNS = ("model", "#version", "architecture", "trained on", "output", "fine-tunable", "#difference", "#limit",
            "TensorFlow")  # fmt: skip


def collection_sections(members: Sequence[CardFacts]) -> Iterator[Markdown]:
    """Yield all sections of the collection's card, in order."""
    origins = dict.fromkeys(member.manifest.checkpoint.origin for member in members)
    yield section(
        "Overview",
        *(_warning(origin, members) for origin in origins if origin in ORIGINS),
        fill(
            "The models of {mixer}, with the weights of {source}, as SavedModels. Each was read back from disk and "
            "held against the original in JAX: every variable bit for bit, outputs within a limit. What was measured "
            "is on the page of each model, beside the report that it is from.",
            mixer=link("MLP-Mixer", MIXER_PAPER),
            source=link("its authors' repository", REPOSITORY),
        ),
        "Input: RGB images scaled to [-1, 1]. A classifier gives raw logits and carries its class list; a feature "
        "extractor gives the mean of the tokens after the last norm.",
    )
    yield section(
        "Models",
        table(_COLUMNS, map(_row, members)),
        "The difference is the largest one of an output from JAX's, over the scale of the image's outputs; "
        "the limit is the report's.",
    )
    yield _accuracy(members)
    yield _changes()
    yield section(
        "Licence and references",
        f"Weights: {LICENSE}.",
        bullets(
            link("MLP-Mixer: An all-MLP Architecture for Vision", MIXER_PAPER),
            link("Sharpness-Aware Minimization for Efficiently Improving Generalization", SAM_PAPER),
            link("When Vision Transformers Outperform ResNets", VIT_SAM_PAPER),
            link("Vision Transformer and MLP-Mixer, the original code and checkpoints", REPOSITORY),
        ),
    )


def _warning(origin: str, members: Sequence[CardFacts]) -> Markdown:
    count = sum(member.manifest.checkpoint.origin == origin for member in members)
    return warning(f"{count} of {len(members)} models: {ORIGINS[origin]}")


def _row(member: CardFacts) -> tuple[str, ...]:
    handle, manifest, report = member.handle, member.manifest, member.report
    training, flavour = handle.checkpoint.training, FLAVOURS[manifest.flavour]
    worst, tolerance = report.figure("max_relative"), report.tolerances.get("max_relative")
    return (
        link(manifest.handle, member.page),
        str(manifest.version),
        manifest.architecture,
        f"{training.data}, {training.method}" if member.trained else manifest.checkpoint.origin,
        f"{handle.outputs:,} {'logits' if handle.head == 'classification' else 'features'}",
        "yes" if member.fine_tunable else "no",
        "not measured" if worst is None else f"{worst:.1e}",
        "none" if tolerance is None else f"{tolerance.limit:g}",
        f"{flavour.lowest} to {flavour.highest}",
    )


def _accuracy(members: Iterable[CardFacts]) -> Markdown:
    """Cite accuracies that others published for classifiers with trained weights; the flavours share them."""
    heads = {
        member.handle.checkpoint.name: code(member.manifest.handle.removesuffix(GRAPH_SUFFIX))
        for member in members
        if member.trained and member.handle.head == "classification"
    }
    rows = [
        (model, f"{one.top1:.2f} %", link(one.source, one.url))
        for name, model in heads.items()
        for one in ACCURACIES.get(name, ())
    ]
    here = "Not measured by this project."
    if not rows:
        return section("Accuracy", here)
    said = "What others say of the top-1 accuracy on the validation images of ImageNet-1k:"
    return section("Accuracy", here, said, table(("model", "#top-1", "source"), rows))


def _changes() -> Markdown:
    said = fill("What the pages of {page} had wrong:", page=link("version 1", VERSION_1_PAGE))
    items = [
        fill(
            "They said of {checkpoints} ({heads}): {was}. Right is: {now}{source}.",
            checkpoints=Markdown(", ".join(map(code, one.checkpoints))),
            heads=" and ".join("classifier" if head == "classification" else head for head in one.heads),
            was=one.was,
            now=one.now,
            source=fill(" ({it})", it=link("source", one.source)) if one.source else Markdown(""),
        )
        for one in CORRECTIONS
    ]
    return section("What changed since version 1", said, bullets(*items))
