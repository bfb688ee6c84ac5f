"""What a card is about: a proven model, as its manifest, its report and its own files tell it."""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from models.catalog import (
    GRAPH_SUFFIX,
    HANDLES,
    SQUARE_HANDLES,
    TESTING_HANDLES,
    Handle,
    own_handle,
    select_handles,
)
from models.errors import MixerError, UsageError
from models.paths import ModelPaths
from models.records import Manifest
from models.report import Report
from models.signatures import SERVING_DEFAULT, SIGNATURES
from models.tolerances import TOLERANCES

PUBLISHER = re.compile(r"[a-z\d-]+")
"""What TensorFlow Hub takes for a publisher's name."""

ASSETS = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~-]+)*")
"""Where published models are to be had; nothing in it that could end a line or comment of a card."""

MODEL_JSON = "assets.extra/model.json"
WARMUP = "assets.extra/tf_serving_warmup_requests"
"""As `export.extras` and `export.warmup` write them, which bring TensorFlow with them."""


class _Facts(BaseModel):
    # A model made by a later release of this project may say more of itself.
    model_config = ConfigDict(frozen=True, extra="ignore")


class InputFacts(_Facts):
    """The input of a signature; None in `shape` is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    preprocessing: str


class OutputFacts(_Facts):
    """The output of a signature; None in `shape` is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    meaning: str


class SignatureFacts(_Facts):
    """One way into the model."""

    input: InputFacts
    output: OutputFacts


class _ModelFacts(_Facts):
    """What is read of `model.json`."""

    signatures: dict[str, SignatureFacts] = {}
    """Models made before there were several have none."""


@dataclass(frozen=True)
class Where:
    """Who publishes, and below which address: the archive is `<assets>/<handle>/<version>.tar.gz`.

    Raises:
        UsageError: one of the two cannot stand on a card.
    """

    publisher: str
    assets: str

    def __post_init__(self) -> None:
        problems = []
        if not PUBLISHER.fullmatch(self.publisher):
            problems.append(
                f"--publisher {self.publisher!r} is no name that TensorFlow Hub takes: expected lower-case letters, "
                "digits and '-'."
            )
        if not ASSETS.fullmatch(self.assets):
            problems.append(
                f"--assets {self.assets!r} is no address to download from: expected https://HOST/PATH, below which "
                "<handle>/<version>.tar.gz lies (of gs://bucket/prefix: https://storage.googleapis.com/bucket/prefix)."
            )
        if problems:
            raise UsageError("\n".join(problems))

    def address(self, handle: str, version: int, suffix: str) -> str:
        """Return where a file of a published model is."""
        return f"{self.assets}/{handle}/{version}{suffix}"


@dataclass(frozen=True)
class Subject:
    """All that a card may speak of."""

    where: Where
    handle: Handle
    manifest: Manifest
    manifest_sha256: str
    report: Report
    report_sha256: str
    signatures: dict[str, SignatureFacts]
    classes: tuple[str, ...] | None
    """The names of the classes, in the order of the logits; None where the model has no class list."""

    @property
    def archive(self) -> str:
        """Where the model is to be had."""
        return self.where.address(self.manifest.handle, self.manifest.version, ".tar.gz")

    @property
    def page(self) -> str:
        """Where its page is."""
        return self.where.address(self.manifest.handle, self.manifest.version, ".md")

    @property
    def is_catalogued(self) -> bool:
        """Whether it is a model of the collection, and nobody's own."""
        return is_catalogued(self.manifest.handle)

    @property
    def trained(self) -> bool:
        """Whether its weights may be those of the catalog's checkpoint; seeded ones were never trained."""
        return self.manifest.checkpoint.origin in {"original", "unknown"} and not self.handle.checkpoint.testing

    @property
    def fine_tunable(self) -> bool:
        """Whether every variable has JAX's gradient, as the report found."""
        return bool(self.report.fine_tunable)

    @property
    def class_list(self) -> str | None:
        """The path of the class list within the model."""
        return _class_list(self.manifest)

    @property
    def platforms_run(self) -> tuple[str, ...]:
        """The platforms that the report is from, of those that the model was exported for."""
        notes = [note.partition(": exported, not run") for note in self.report.not_checked]
        idle = {name for names, found, _ in notes if found for name in names.split(", ")}
        return tuple(platform for platform in self.manifest.platforms if platform not in idle)


def is_catalogued(name: str) -> bool:
    """Say whether a name, of whichever flavour, is one of the catalog's."""
    try:
        select_handles([name.removesuffix(GRAPH_SUFFIX)])
    except UsageError:
        return False
    return True


def read_subject(destination: ModelPaths, where: Where) -> Subject:
    """Read what a card of a model may say.

    Raises:
        MixerError: it was not converted, not proven (by the full set: without gradients nothing tells whether it can
            be fine-tuned), or its files are not those of its records. Says everything that is in the way.
    """
    manifest, sha256 = _read_manifest(destination)
    report = Report.read(destination.report) if destination.report.is_file() else None
    problems = list(_problems(manifest, sha256, report, destination))
    if problems or report is None:
        said = "".join(f"\n  {problem}" for problem in problems)
        raise MixerError(f"version {destination.version} cannot have a card:{said}")
    handle = _handle(manifest)
    labels = _class_list(manifest)
    return Subject(
        where,
        handle,
        manifest,
        sha256,
        report,
        hashlib.sha256(destination.report.read_bytes()).hexdigest(),
        _signatures(destination, manifest, handle),
        None if labels is None else _names(_read(destination, manifest, labels)),
    )


def _read_manifest(destination: ModelPaths) -> tuple[Manifest, str]:
    if not destination.manifest.is_file():
        raise MixerError(
            f"{destination.manifest} is missing: nothing was converted there. Run `mixer-jax2tf convert "
            f"{destination.handle}` first, or give the --out and --version it was converted with."
        )
    return Manifest.read(destination.manifest), hashlib.sha256(destination.manifest.read_bytes()).hexdigest()


def _problems(manifest: Manifest, sha256: str, report: Report | None, destination: ModelPaths) -> Iterator[str]:
    if (manifest.handle, manifest.version) != (destination.handle, destination.version):
        yield (
            f"its manifest is of {manifest.handle} version {manifest.version}, expected {destination.handle} version "
            f"{destination.version}"
        )
    again = f"`mixer-jax2tf validate {destination.handle} --set full`"
    if report is None:
        yield f"there is no {destination.report.name}: {again} writes it"
        return
    if report.manifest_sha256 != sha256:
        yield f"its report is of another manifest: the model was made anew since; {again} writes a new one"
    if report.verdict != "passed":
        yield f"its report says that the model failed: {'; '.join(report.problems)}"
    for found in report.contradictions(TOLERANCES):
        yield f"its report does not hold what it says ({found}); {again} writes a new one"
    if report.fine_tunable is None:
        yield (
            f"its report (inputs: {report.inputs_set}) tried no gradients, so nothing tells whether it can be "
            f"fine-tuned: {again} does"
        )


def _handle(manifest: Manifest) -> Handle:
    """Return the model of a manifest: of the catalog, or one's own by the architecture that it names."""
    if is_catalogued(manifest.handle):
        name = manifest.handle.removesuffix(GRAPH_SUFFIX)
        return select_handles([name])[0].in_flavour(manifest.flavour)
    rows = (HANDLES | TESTING_HANDLES | SQUARE_HANDLES).values()
    wanted = (manifest.architecture, manifest.head)
    template = next((row for row in rows if (row.checkpoint.architecture.name, row.head) == wanted), None)
    if template is None:
        raise MixerError(
            f"its manifest names the architecture {manifest.architecture!r}, which is none of the catalog's: was it "
            "made by a later release?"
        )
    classes = manifest.num_classes or template.checkpoint.num_classes
    return own_handle(template.in_flavour(manifest.flavour), manifest.handle.removesuffix(GRAPH_SUFFIX), classes)


def _class_list(manifest: Manifest) -> str | None:
    return next((name for name in sorted(manifest.files) if name.startswith("assets/")), None)


def _names(content: bytes) -> tuple[str, ...]:
    # Only "\n" ends a name, as for TensorFlow; what is no UTF-8 shows as such.
    return tuple(content.decode(errors="replace").removesuffix("\n").split("\n"))


def _signatures(destination: ModelPaths, manifest: Manifest, handle: Handle) -> dict[str, SignatureFacts]:
    """Return what the model's own `model.json` says; of one that says nothing, what every model has."""
    facts = _ModelFacts()
    if MODEL_JSON in manifest.files:
        try:
            facts = _ModelFacts.model_validate_json(_read(destination, manifest, MODEL_JSON))
        except ValidationError as error:
            raise MixerError(f"{MODEL_JSON} of the model cannot be read: {error}") from error
    plain = SignatureFacts.model_validate(SIGNATURES[SERVING_DEFAULT].facts(handle))
    return facts.signatures or {SERVING_DEFAULT: plain}


def _read(destination: ModelPaths, manifest: Manifest, name: str) -> bytes:
    """Return a small file of the model, from its directory or else its archive, if it is the manifest's."""
    listed = manifest.files[name]
    path: Path = destination.directory / name
    content = path.read_bytes() if path.is_file() else _from_archive(destination.archive, name, listed.size)
    if content is None or hashlib.sha256(content).hexdigest() != listed.sha256:
        raise MixerError(
            f"{path} is {'missing' if content is None else 'not the one that the manifest lists'}: convert the model "
            "again, with --overwrite."
        )
    return content


def _from_archive(path: Path, name: str, size: int) -> bytes | None:
    if not path.is_file():
        return None
    try:
        # Its names are sorted, so that the small files come first.
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name == name and member.isfile() and member.size == size:
                    file = archive.extractfile(member)
                    return None if file is None else file.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise MixerError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error
    return None
