"""A model as it arrived, a SavedModel's directory or its archive, against what stands beside it.

It needs neither JAX nor TensorFlow, and runs nothing of the model. An archive is read as it is, without unpacking it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.contents import compare_contents
from export.index import INDEX, Index
from export.manifest import digest_files
from export.statement import Statement
from models.archives import MOST_BYTES, digest_archive
from models.errors import MixerError, UsageError, printable, shown
from models.files import FileHashes
from models.paths import ModelPaths
from models.records import Manifest
from models.report import Report

_SPARE = 1 << 24  # bytes beyond those of the manifest that are read, to say what they are
_LONGEST = 500  # characters of a line of what differs


@dataclass(frozen=True)
class Verification:
    """What was found of a model."""

    path: Path
    kind: Literal["directory", "archive"]
    handle: str | None
    """None where the manifest cannot be read."""
    version: int | None
    checked: tuple[str, ...]
    """What agrees with what, in words."""
    not_checked: tuple[str, ...]
    """What could not be checked, because something is not there; no fault in itself."""
    differences: tuple[str, ...]
    """Everything that is not as it should be; empty if and only if the verdict is `same`."""

    @property
    def verdict(self) -> Literal["same", "different"]:
        """Whether the model is the one that its manifest, report and provenance speak of, and passed its check."""
        return "different" if self.differences else "same"


class _Findings:
    """What was found so far."""

    def __init__(self, hashes: FileHashes, *, contents: bool) -> None:
        self.hashes, self.contents = hashes, contents
        self.checked: list[str] = []
        self.not_checked: list[str] = []
        self.differences: list[str] = []

    def add(self, what: str, differences: list[str]) -> None:
        """Note what was checked: as such if it is in order, else what is not."""
        self.differences += differences
        if not differences:
            self.checked.append(what)

    def sha256(self, path: Path) -> str:
        """Return a file's sha256."""
        return self.hashes.of(path).sha256


def verify(path: Path, *, contents: bool = True, hashes: FileHashes | None = None) -> Verification:
    """Check a SavedModel's directory or archive against its manifest, report, provenance and index.

    The manifest must stand beside it as `<name>.manifest.json`; the others are looked at where they are there.

    Args:
        path: the directory or the archive.
        contents: whether to read the model itself; else only what stands beside it is checked.
        hashes: what is known of the files, and gets to know more.

    Raises:
        UsageError: the path is neither, or has no manifest beside it, so that there is nothing to check it against.
        MixerError: a file cannot be read.
    """
    siblings = ModelPaths.around(path)
    if not siblings.manifest.is_file():
        raise UsageError(
            f"{siblings.manifest} is missing, so there is nothing to check {path} against: get it from where the model "
            "was published, and put it beside it."
        )
    findings = _Findings(hashes or FileHashes(), contents=contents)
    try:
        manifest = _check_contents(path, siblings, findings)
        _check_report(siblings, manifest, findings)
        _check_provenance(path, siblings, manifest, findings)
        _check_index(path, siblings, findings)
    except OSError as error:
        raise MixerError(f"{error.filename or path} cannot be read ({error.strerror or error}).") from error
    return Verification(
        path,
        "directory" if path.is_dir() else "archive",
        None if manifest is None else shown(manifest.handle),
        None if manifest is None else manifest.version,
        tuple(findings.checked),
        tuple(findings.not_checked),
        tuple(printable(one, _LONGEST) for one in findings.differences),
    )


def _check_contents(path: Path, siblings: ModelPaths, findings: _Findings) -> Manifest | None:
    try:
        manifest = Manifest.read(siblings.manifest)
    except MixerError as error:
        findings.differences.append(str(error))
        manifest = None
    if siblings.stem.isdigit() and manifest is not None and manifest.version != int(siblings.stem):
        findings.differences.append(
            f"{siblings.manifest.name} is of version {manifest.version}, and named as of version {siblings.stem}"
        )
    if not findings.contents:
        return manifest
    most = MOST_BYTES if manifest is None else manifest.size + _SPARE
    try:
        if path.is_dir():
            found = digest_files(path, most)
        else:
            archive = digest_archive(path, most)
            found = archive.files
            findings.hashes.note(siblings.archive, archive.whole)
    except MixerError as error:
        findings.differences.append(str(error))
        return manifest
    if manifest is not None:
        what = f"{len(manifest.files)} files of {manifest.size:,} bytes are those of {siblings.manifest.name}"
        findings.add(what, compare_contents(manifest.files, found))
    return manifest


def _check_report(siblings: ModelPaths, manifest: Manifest | None, findings: _Findings) -> None:
    name = siblings.report.name
    if not siblings.report.is_file():
        findings.not_checked.append(f"there is no {name}, so nothing tells whether the model was proven")
        return
    try:
        report = Report.read(siblings.report)
    except MixerError as error:
        findings.differences.append(str(error))
        return
    differences, sha256 = [], findings.sha256(siblings.manifest)
    if report.manifest_sha256 != sha256:
        differences.append(
            f"{name} is of a manifest of sha256 {report.manifest_sha256}, but {siblings.manifest.name} has {sha256}"
        )
    if manifest is not None:
        meant = (manifest.handle, manifest.version, manifest.flavour, manifest.checkpoint.origin)
        said = (report.handle, report.version, report.flavour, report.origin)
        if said != meant:
            differences.append(
                f"{name} is of {', '.join(map(str, said))}, the manifest of {', '.join(map(str, meant))}"
            )
    if report.verdict != "passed":
        differences.append(f"{name} says that the model failed: {'; '.join(report.problems)}")
    differences += [f"{name} contradicts itself: {found}" for found in report.contradictions()]
    findings.add(f"{name} says that the model of this manifest passed (inputs: {report.inputs_set})", differences)


def _check_provenance(path: Path, siblings: ModelPaths, manifest: Manifest | None, findings: _Findings) -> None:
    name = siblings.provenance.name
    if not siblings.provenance.is_file():
        findings.not_checked.append(f"there is no {name}, so nothing tells who packed it, and from what")
        return
    try:
        statement = Statement.read(siblings.provenance)
    except MixerError as error:
        findings.differences.append(str(error))
        return
    findings.add(
        f"{name} binds {', '.join(statement.bound)}",
        list(_contradictions(path, siblings, manifest, statement, findings)),
    )
    if siblings.signature.is_file():
        findings.not_checked.append(
            f"the signature {siblings.signature.name}: `model_signing verify key {siblings.provenance} --signature "
            f"{siblings.signature} --public_key KEY` does it"
        )


def _contradictions(
    path: Path, siblings: ModelPaths, manifest: Manifest | None, statement: Statement, findings: _Findings
) -> Iterator[str]:
    name = siblings.provenance.name
    there = [file for file in (siblings.manifest, siblings.report) if file.is_file()]
    for file in (*there, *([siblings.archive] if findings.contents and path.is_file() else [])):
        bound, found = statement.bound.get(file.name), findings.sha256(file)
        if bound is None:
            yield f"{name} does not bind {file.name}"
        elif bound != found:
            yield f"{file.name} has sha256 {found}, but {name} binds {bound}"
    if manifest is None:
        return
    asked = statement.predicate.build_definition.external_parameters
    pairs = (
        ("handle", asked.get("handle"), manifest.handle),
        ("version", asked.get("version"), manifest.version),
        ("flavour", asked.get("flavour"), manifest.flavour),
        ("checkpoint's sha256", statement.checkpoint_sha256, manifest.checkpoint.sha256),
    )
    for what, said, meant in pairs:
        if said != meant:
            yield f"{name} says {what} {said}, the manifest {meant}"


def _check_index(path: Path, siblings: ModelPaths, findings: _Findings) -> None:
    """Compare with the index of the place where the model was published, if it lies there."""
    file = siblings.folder / INDEX
    if not file.is_file():
        return
    try:
        listed = Index.read(file).versions.get(siblings.stem)
    except MixerError as error:
        findings.differences.append(str(error))
        return
    if listed is None:
        findings.not_checked.append(f"{INDEX} does not list version {siblings.stem}: it was not published whole")
        return
    archive = siblings.archive.name
    differences, same = [], []
    for file in sorted(siblings.folder.iterdir()):
        if file.name in listed and (file.name != archive or (findings.contents and path.is_file())):
            found, meant = findings.sha256(file), listed[file.name].sha256
            if found == meant:
                same.append(file.name)
            else:
                differences.append(f"{file.name} has sha256 {found}, {INDEX} lists {meant}")
    findings.add(f"{INDEX} lists {', '.join(same)}", differences)
