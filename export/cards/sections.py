"""Render the sections of a model's card, which all card formats share: the model, its inputs and outputs, its use."""

from collections.abc import Iterator

from export.cards import figures
from export.cards.errata import Erratum, corrections_of, was_in_version_1
from export.cards.facts import WARMUP, CardFacts
from export.package.facts import SignatureFacts
from models.catalog import LICENSE
from models.citations import CITATIONS, VERSION_1_PAGE
from models.flavours import FLAVOURS
from models.markdown import Markdown, block, bullets, code, fill, link, section, table, warning
from models.preprocessing import Evaluation

ORIGINS = {
    "seeded": "SEEDED WEIGHTS, NEVER TRAINED: made up to test the conversion. What this model says of an image means "
    "nothing. Do not use it for anything but tests.",
    "unknown": "UNKNOWN WEIGHTS: no digest of the original checkpoint is recorded, so nothing says whether these are "
    "its weights.",
    "own": "Somebody's own weights, not of the collection: what they were trained on is not known here.",
}
"""The warning at the top of a card, by the origin of a checkpoint that is not a recorded original."""

SHOWN_CLASSES = 3
"""Number of classes shown from each end of the class list."""


def summarise(subject: CardFacts) -> str:
    """Describe the model in one line of plain text."""
    handle, manifest = subject.handle, subject.manifest
    kind = "classifier" if handle.head == "classification" else "feature extractor"
    outputs = f"{handle.outputs:,} {'logits' if handle.head == 'classification' else 'features'}"
    size = manifest.image_size
    said = f"MLP-Mixer {manifest.architecture} as an image {kind}: {outputs} of an image of {size} x {size} pixels"
    if subject.trained:
        training = handle.checkpoint.training
        said += f"; trained on {training.data}, {training.method}"
    loud = ORIGINS["seeded"].partition(":")[0]
    return f"{loud}. {said}." if manifest.checkpoint.origin == "seeded" else f"{said}."


def sections(subject: CardFacts) -> Iterator[Markdown]:
    """Yield all sections of a model's card, in order."""
    yield _overview(subject)
    yield _interface(subject)
    if subject.handle.head == "classification":
        yield _classes(subject)
    yield usage(subject)
    yield _platforms(subject)
    yield figures.fine_tuning(subject)
    yield figures.parity(subject)
    yield figures.accuracy(subject)
    yield _changes(subject)
    yield _licence(subject)
    yield figures.provenance(subject)


def _overview(subject: CardFacts) -> Markdown:
    handle, manifest = subject.handle, subject.manifest
    architecture, training = handle.checkpoint.architecture, handle.checkpoint.training
    origin = manifest.checkpoint.origin
    what = fill(
        "{name} of {paper}: {blocks} blocks, {channels} channels, patches of {patch} x {patch} pixels, "
        "{parameters} parameters{without}. It is a TensorFlow SavedModel of the {flavour} flavour ({means}).",
        name=f"Mixer {architecture.name}",
        paper=link("MLP-Mixer", training.papers[0]),
        blocks=str(architecture.num_blocks),
        channels=str(architecture.hidden_dim),
        patch=str(architecture.patch_size),
        parameters=f"{manifest.parameters:,}",
        without=", without the head" if handle.head == "fe" else "",
        flavour=code(manifest.flavour),
        means=FLAVOURS[manifest.flavour].what,
    )
    trained = fill(
        "Trained on {data}, {method}. The weights are those of {object} of {source}.",
        data=training.data,
        method=training.method,
        object=code(manifest.checkpoint.object),
        source=link("the authors' repository", training.source),
    )
    return section(
        "Overview",
        warning(ORIGINS[origin]) if origin in ORIGINS else "",
        what,
        trained if subject.trained else "",
    )


def _interface(subject: CardFacts) -> Markdown:
    rows = [_row(name, facts) for name, facts in subject.signatures.items()]
    evaluation = Evaluation(subject.manifest.image_size).what
    notes = [
        fill("Called as an object, the model takes and gives what {name} does.", name=code("serving_default")),
        fill(
            "Input: RGB. {name} takes float32 in [-1, 1], so (pixel - 127.5) / 127.5 of pixels from 0 to 255; as in "
            "the authors' evaluation, before that: {steps}.",
            name=code("serving_default"),
            steps=evaluation,
        ),
        _meaning(subject),
    ]
    if any(facts.input.dtype == "string" for facts in subject.signatures.values()):
        notes.append(
            Markdown(
                "**A broken image fails its whole batch.** A signature that takes encoded images decodes them within "
                "the model, and TensorFlow fails the call if one cannot be decoded: in a server that batches the "
                "requests of several clients, all of theirs. Check images before, or do not batch across clients."
            )
        )
    if WARMUP in subject.manifest.files:
        notes.append(fill("TensorFlow Serving warms up with the requests in {file}.", file=code(WARMUP)))
    columns = ("signature", "input", "what goes in", "output", "what comes out")
    return section("Input and output", table(columns, rows), bullets(*notes))


def _row(name: str, facts: SignatureFacts) -> tuple[str, ...]:
    given, gives = facts.input, facts.output
    return (
        code(name),
        code(f"{given.name}: {given.dtype} {_shape(given.shape)}"),
        given.preprocessing,
        code(f"{gives.name}: {gives.dtype} {_shape(gives.shape)}"),
        gives.meaning,
    )


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('batch' if size is None else str(size) for size in shape)}]"


def _meaning(subject: CardFacts) -> Markdown:
    if subject.handle.head == "fe":
        return fill(
            "Output: the mean of the tokens after the last norm, {n} features.", n=f"{subject.handle.outputs:,}"
        )
    return fill(
        "Output: {n} raw logits, one a class, not probabilities. With which loss the head was trained is not "
        "published, so probabilities made of them are for display only.",
        n=f"{subject.handle.outputs:,}",
    )


def _classes(subject: CardFacts) -> Markdown:
    names, path = subject.classes, subject.class_list
    if names is None or path is None:
        return section("Classes", "No class list comes with this model.")
    last = len(names) - SHOWN_CLASSES
    rows = [(str(n), name) for n, name in enumerate(names) if n < SHOWN_CLASSES or n >= last]
    said = fill(
        "The names of the {count} classes, one a line in the order of the logits, are in {path} of the model; "
        "{attribute} leads there. The first and the last:",
        count=f"{len(names):,}",
        path=code(path),
        attribute=code("model.labels.asset_path"),
    )
    return section("Classes", said, table(("#logit", "class"), rows))


def usage(subject: CardFacts, address: str | None = None) -> Markdown:
    """Return the section on use: a complete program, which needs only a photograph.

    Args:
        subject: the model.
        address: where the program loads the model from; None for its published archive.
    """
    size = subject.manifest.image_size
    lines = [
        "import tensorflow as tf",
        "import tensorflow_hub as hub",
        "",
        f'model = hub.load("{address or subject.archive}")',
        'pixels = tf.image.decode_image(tf.io.read_file("photo.jpg"), channels=3, expand_animations=False)',
        f"images = (tf.image.resize(pixels, ({size}, {size}))[tf.newaxis] - 127.5) / 127.5",
    ]
    if subject.handle.head == "fe":
        lines += ["features = model(images)", "print(features.shape)"]
    else:
        lines += ["logits = model(images)"]
        lines += _named_classes() if subject.classes else ["print(tf.math.top_k(logits[0], k=5).indices)"]
    lines += _decoded_within(subject)
    return section("Use", block("\n".join(lines), "python"))


def _named_classes() -> list[str]:
    return [
        r'names = tf.strings.split(tf.io.read_file(model.labels.asset_path), "\n")',
        "for index in tf.math.top_k(logits[0], k=5).indices:",
        "    print(names[index].numpy().decode())",
    ]


def _decoded_within(subject: CardFacts) -> Iterator[str]:
    for name, facts in subject.signatures.items():
        if facts.input.dtype == "string":
            given = f'{facts.input.name}=tf.io.read_file("photo.jpg")[tf.newaxis]'
            yield "# Or with the authors' own preprocessing, within the model:"
            yield f'print(model.signatures["{name}"]({given})["{facts.output.name}"].shape)'


def _platforms(subject: CardFacts) -> Markdown:
    flavour, manifest = FLAVOURS[subject.manifest.flavour], subject.manifest
    run = subject.platforms_run
    items = [
        f"TensorFlow {flavour.lowest} to {flavour.highest}, {flavour.platforms}.",
        f"Exported for: {', '.join(manifest.platforms)}.",
        f"Run for the report on: {', '.join(run) or 'none'}.",
        *(f"Not checked by this project: {note}." for note in subject.report.not_checked),
    ]
    return section("Where it runs", bullets(*items))


def _changes(subject: CardFacts) -> Markdown:
    name, reference = subject.manifest.handle, subject.report.reference
    known = fill("{page} of the collection", page=link("version 1", VERSION_1_PAGE))
    if not subject.is_catalogued:
        return section("What changed since version 1", fill("This model was not in {page}.", page=known))
    whose = "" if subject.trained else " of the model with the original weights"
    first = (
        fill("What the page in {page} had wrong{whose}:", page=known, whose=Markdown(whose))
        if was_in_version_1(name)
        else fill("New: {page} had no module of this name. Of its sister it had wrong:", page=known)
    )
    compared = (
        Markdown("Version 1 itself was not compared with this version: its files were not at hand.")
        if reference is None
        else fill(
            "Against {name} (sha256 {sha256}) outputs, signatures and variables are {verdict}. {differences}",
            name=code(reference.name),
            sha256=code(reference.sha256),
            verdict="the same" if reference.verdict == "same" else "not all the same:",
            differences="; ".join(reference.differences),
        )
    )
    new = bullets(
        *map(_correction, corrections_of(subject.handle)),
        "New: a report of how far the outputs are from JAX's, digests of every file, equal bytes from equal inputs.",
        *_new_signatures(subject),
    )
    return section("What changed since version 1", first, new, compared)


def _correction(correction: Erratum) -> Markdown:
    source = fill(" ({source})", source=link("source", correction.source)) if correction.source else Markdown("")
    return fill("It said: {was}. Right is: {now}{source}.", was=correction.was, now=correction.now, source=source)


def _new_signatures(subject: CardFacts) -> Iterator[Markdown]:
    new = [name for name in subject.signatures if name != "serving_default"]
    if new:
        names = Markdown(", ".join(map(code, new)))
        yield fill("New signatures beside {default}: {names}.", default=code("serving_default"), names=names)


def _licence(subject: CardFacts) -> Markdown:
    training = subject.handle.checkpoint.training
    if training.license != LICENSE:
        return section("Licence and citation", "The licence of the weights is its owner's to say; none is known here.")
    said = fill(
        "Weights: {licence}, by the authors of {source}. Cite:",
        licence=training.license,
        source=link(training.source.removeprefix("https://"), training.source),
    )
    return section(
        "Licence and citation", said, block("\n".join(CITATIONS[paper] for paper in training.papers), "bibtex")
    )
