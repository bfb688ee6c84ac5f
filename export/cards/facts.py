"""Read the facts for a card: of a validated model, from its manifest, its report and its own files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from export.cards.publisher import Publisher
from export.package.consistency import Records
from export.package.facts import ModelFacts, SignatureFacts, read_member
from models.catalog import GRAPH_SUFFIX, HANDLES, Handle
from models.citations import ACCURACIES, CitedAccuracy
from models.errors import MixerError
from models.formats import FORMATS, Format
from models.preprocessing import Evaluation
from models.records.about import About, AboutRecord
from models.records.accuracy import AccuracyRecord
from models.records.formats import ExportManifest, ExportReport, read_manifest
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import Report
from models.records.tolerances import TOLERANCES
from models.selection import command_for, handle_of, is_catalogued
from models.signatures import SERVING_DEFAULT, SIGNATURES
from models.storage.files import Hashes, sha256_of

_SEEDED = "SEEDED WEIGHTS, NEVER TRAINED"

_WARNINGS = {
    "seeded": f"{_SEEDED}: made up to test the conversion. What this model says of an image means nothing. Do not use "
    "it for anything but tests.",
    "unknown": "UNKNOWN WEIGHTS: no digest of the original checkpoint is recorded, so nothing says whether these are "
    "its weights.",
    "own": "Somebody's own weights, not of the collection: what they were trained on is not known here.",
}
"""The warning at the top of a card, by the origin of a checkpoint that is not a recorded original."""


@dataclass(frozen=True)
class Export:
    """An export of a model's checkpoint, with the report on it."""

    manifest: ExportManifest
    report: ExportReport

    @property
    def format(self) -> Format:
        """Its format."""
        return FORMATS[self.manifest.format]


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card may mention."""

    where: Publisher
    paths: ModelPaths
    handle: Handle
    manifest: Manifest
    manifest_sha256: str
    report: Report
    report_sha256: str
    signatures: dict[str, SignatureFacts]
    classes: tuple[str, ...] | None
    """The names of the classes, in the order of the logits; None if the model has no class list."""
    accuracy: AccuracyRecord | None = None
    """What this project measured; None if it measured nothing."""
    about: About | None = None
    """What the owner of a custom model says about it."""
    exports: tuple[Export, ...] = ()
    """Those of the same checkpoint that passed."""
    left_out: tuple[str, ...] = ()
    """Why other exports are not among them."""

    @classmethod
    def read(cls, destination: ModelPaths, where: Publisher) -> Self:
        """Read the facts for a model's card.

        Raises:
            MixerError: the model was not converted, not validated with the full set (only that checks gradients, which
                decide whether it can be fine-tuned), or its files differ from its records. Lists all reasons.
        """
        records = _read_records(destination)
        manifest, report = records.manifest, records.report
        problems = list(_problems(records))
        if problems or manifest is None or not isinstance(report, Report):
            said = "".join(f"\n  {problem}" for problem in problems)
            raise MixerError(f"version {destination.version} cannot have a card:{said}")
        handle = handle_of(manifest.handle, manifest.architecture, manifest.head, manifest.num_classes)
        handle = handle.in_flavour(manifest.flavour)
        labels = manifest.class_list
        exports, left_out = _read_exports(destination, manifest)
        return cls(
            where,
            destination,
            handle,
            manifest,
            records.found[destination.manifest.name].sha256,
            report,
            records.found[destination.report.name].sha256,
            _signatures(records.facts, handle),
            None if labels is None else _names(read_member(_model(destination), manifest, labels)),
            records.accuracy,
            None if records.about is None or is_catalogued(manifest.handle) else records.about.about,
            exports,
            left_out,
        )

    @property
    def archive(self) -> str:
        """The URL of the model's archive."""
        return self.where.address(self.manifest.handle, self.manifest.version, ".tar.gz")

    @property
    def page(self) -> str:
        """The URL of its page."""
        return self.where.address(self.manifest.handle, self.manifest.version, ".md")

    @property
    def is_catalogued(self) -> bool:
        """Whether it is a model of the catalog, not of a custom checkpoint."""
        return is_catalogued(self.manifest.handle)

    @property
    def trained(self) -> bool:
        """Whether its weights may be those of the catalog's checkpoint; synthetic ones were never trained."""
        return self.manifest.checkpoint.origin in {"original", "unknown"} and not self.handle.checkpoint.testing

    @property
    def warning(self) -> str | None:
        """The warning at the top of its card, unless its checkpoint is an original or described by its owner."""
        if self.about is not None and self.manifest.checkpoint.origin == "own":
            return None
        return _WARNINGS.get(self.manifest.checkpoint.origin)

    @property
    def license(self) -> str:
        """The licence of its weights, as an SPDX identifier; `unknown` if it is not known."""
        return self.handle.checkpoint.training.license if self.about is None else self.about.license

    @property
    def outputs(self) -> str:
        """Number and kind of its outputs."""
        return f"{self.handle.outputs:,} {'logits' if self.handle.head == 'classification' else 'features'}"

    @property
    def summary(self) -> str:
        """The model in one line of plain text."""
        kind = "classifier" if self.handle.head == "classification" else "feature extractor"
        size, training = self.manifest.image_size, self.handle.checkpoint.training
        seeded = f"{_SEEDED}. " if self.manifest.checkpoint.origin == "seeded" else ""
        trained = f"; trained on {training.data}, {training.method}" if self.trained else ""
        trained = trained if self.about is None else f"; trained on {self.about.training_data}"
        return (
            f"{seeded}MLP-Mixer {self.manifest.architecture} as an image {kind}: {self.outputs} of an image of {size} "
            f"x {size} pixels{trained}."
        )

    @property
    def preprocessing(self) -> str:
        """The steps of the authors' evaluation that come before the range of the pixels."""
        return Evaluation(self.manifest.image_size).what

    @property
    def accuracies(self) -> tuple[CitedAccuracy, ...]:
        """The accuracies that others published for its weights."""
        return ACCURACIES.get(self.handle.checkpoint.name, ()) if self.trained else ()

    @property
    def was_in_version_1(self) -> bool:
        """Whether version 1 had a module of this name: it had each handle of the catalog, in one flavour."""
        return self.manifest.handle in HANDLES

    @property
    def fine_tunable(self) -> bool:
        """Whether every variable has JAX's gradient, as the report found."""
        return bool(self.report.fine_tunable)

    @property
    def platforms_run(self) -> tuple[str, ...]:
        """The platforms that the model was exported for and was run on for the report."""
        notes = [note.partition(": exported, not run") for note in self.report.not_checked]
        idle = {name for names, found, _ in notes if found for name in names.split(", ")}
        return tuple(platform for platform in self.manifest.platforms if platform not in idle)


def _read_exports(paths: ModelPaths, manifest: Manifest) -> tuple[tuple[Export, ...], tuple[str, ...]]:
    """Return the exports beside a model that are of its checkpoint and passed, and why others are left out."""
    found, left_out = [], []
    for kind in FORMATS.values():
        place = ModelPaths.of(paths.out, kind.named(paths.handle.removesuffix(GRAPH_SUFFIX)), paths.version)
        if not place.manifest.is_file():
            continue
        try:
            found.append(_read_export(place, manifest))
        except MixerError as error:
            again = f"`{command_for('export', place.handle)}` writes it again"
            left_out.append(f"{place.handle} is left out of the card: {str(error).splitlines()[0]}; {again}")
    return tuple(found), tuple(left_out)


def _read_export(place: ModelPaths, model: Manifest) -> Export:
    """Read an export.

    Raises:
        MixerError: its records cannot be read or contradict each other, it did not pass, or is of another checkpoint.
    """
    manifest, report = ExportManifest.read(place.manifest), ExportReport.read(place.report)
    source = ModelPaths.of(place.out, place.handle.removesuffix(f"-{manifest.format}") + GRAPH_SUFFIX, place.version)
    checks = {
        "its records are of another model": {manifest.handle, report.handle} == {place.handle},
        "its report is of another manifest": report.manifest_sha256 == sha256_of(place.manifest),
        f"its report contradicts itself ({next(report.contradictions(), '')})": not any(report.contradictions()),
        "it failed": report.verdict == "passed",
        "it is of another checkpoint": manifest.checkpoint.sha256 == model.checkpoint.sha256,
        f"it was written from an earlier {source.handle}": not source.manifest.is_file()
        or manifest.source_sha256 == sha256_of(source.manifest),
    }
    for problem, is_right in checks.items():
        if not is_right:
            raise MixerError(problem)
    return Export(manifest, report)


def _model(destination: ModelPaths) -> Path:
    return destination.directory if destination.directory.is_dir() else destination.archive


def _read_records(destination: ModelPaths) -> Records:
    destination.require_manifest()
    manifest = read_manifest(destination.manifest)
    if isinstance(manifest, ExportManifest):
        raise MixerError(
            f"{manifest.handle} is an export, which has no card: give the SavedModel that it was made from, "
            f"{manifest.handle.removesuffix(f'-{manifest.format}')}."
        )
    every = (destination.manifest, destination.report, destination.about, destination.accuracy)
    there = [path for path in every if path.is_file()]
    return Records(
        destination,
        manifest,
        destination.handle,
        destination.version,
        report=Report.read(destination.report) if destination.report in there else None,
        about=AboutRecord.read(destination.about) if destination.about in there else None,
        accuracy=AccuracyRecord.read(destination.accuracy) if destination.accuracy in there else None,
        facts=ModelFacts.read(_model(destination), manifest),
        found={path.name: Hashes.of(path) for path in there},
    )


def _problems(records: Records) -> Iterator[str]:
    destination, report = records.paths, records.report
    again = f"`{destination.validate_command} --set full`"
    for record, differences in records.differences().items():
        hint = f"; {again} writes a new report" if record == "report" else ""
        hint = "; say it again with `mixer-jax2tf convert-all` and --about" if record == "about" else hint
        hint = "; measure it again with `mixer-jax2tf accuracy`" if record == "accuracy" else hint
        yield from (f"{difference}{hint}" for difference in differences)
    if not isinstance(report, Report):
        yield f"there is no {destination.report.name}: {again} writes it"
        return
    if report.verdict != "passed":
        yield f"its report says that the model failed: {'; '.join(report.problems)}"
    for found in report.contradictions(TOLERANCES):
        yield f"its report cannot be relied on ({found}); {again} writes a new one"
    if report.inputs_set != "full":
        yield (
            f"its report (inputs: {report.inputs_set}) tried no gradients, so nothing says whether it can be "
            f"fine-tuned: {again} does"
        )


def _names(content: bytes) -> tuple[str, ...]:
    # Only "\n" ends a name, as in TensorFlow; invalid UTF-8 is shown as replacement characters.
    return tuple(content.decode(errors="replace").removesuffix("\n").split("\n"))


def _signatures(facts: ModelFacts | None, handle: Handle) -> dict[str, SignatureFacts]:
    """Return the signatures in the model's own `model.json`; if it has none, only `serving_default`."""
    plain = SignatureFacts.model_validate(SIGNATURES[SERVING_DEFAULT].facts(handle))
    return (None if facts is None else facts.signatures) or {SERVING_DEFAULT: plain}
