"""Verify a model, given as a SavedModel's directory or archive, against the records beside it.

This needs neither JAX nor TensorFlow, and does not run the model. An archive is read without unpacking it to disk.
"""

import glob
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from export.install import refuse_aside
from export.package.consistency import Records
from export.package.facts import ModelFacts
from export.package.provenance import Statement
from models.errors import MixerError, UsageError, counted, printable, shown
from models.records.about import AboutRecord
from models.records.accuracy import AccuracyRecord
from models.records.contents import Described, compare_files, digest_files
from models.records.formats import read_manifest, read_report
from models.records.layout import ARCHIVE_SUFFIX, ModelPaths
from models.records.manifest import Manifest
from models.records.published_index import INDEX, Index
from models.records.report import Report
from models.signatures import MODEL_JSON
from models.storage.archives import MOST_BYTES, digest_archive
from models.storage.files import Hashes

_SPARE = 1 << 24  # bytes read beyond the size in the manifest, to report what they are
_LONGEST = 500  # characters of a reported difference
_MOST_NAMED = 5


@dataclass(frozen=True)
class _Verification:
    """The result of verifying a model."""

    path: Path
    kind: Literal["directory", "archive"]
    handle: str | None
    """None if the manifest cannot be read."""
    version: int | None
    checked: tuple[str, ...]
    """What agrees, in words."""
    not_checked: tuple[str, ...]
    """What could not be checked, because a file is missing; not an error in itself."""
    differences: tuple[str, ...]
    """Everything that is wrong; empty if and only if the verdict is `same`."""

    @property
    def verdict(self) -> Literal["same", "different"]:
        """Whether the model is the one that its manifest, report and provenance describe, and passed its check."""
        return "different" if self.differences else "same"


_Record = TypeVar("_Record")


class _Findings:
    """The results so far."""

    def __init__(self, hashes: dict[str, Hashes]) -> None:
        self.hashes = hashes
        self.checked: list[str] = []
        self.not_checked: list[str] = []
        self.differences: list[str] = []

    def add(self, what: str, differences: list[str]) -> None:
        """Record that something was checked, or else its differences."""
        self.differences += differences
        if not differences:
            self.checked.append(what)

    def read(self, read: Callable[[], _Record]) -> _Record | None:
        """Return a record; if it cannot be read, record a difference and return None."""
        try:
            return read()
        except MixerError as error:
            self.differences.append(str(error))
            return None


def verify(
    path: Path,
    *,
    handle: str | None = None,
    hashes: dict[str, Hashes] | None = None,
    check_signature: Callable[[Path, Path], str | None] | None = None,
) -> _Verification:
    """Check the directory or archive of a SavedModel or an export against its manifest, report, provenance and index.

    The manifest must be beside it as `<name>.manifest.json`; the others are checked where they exist.

    Args:
        path: the directory or the archive.
        handle: the handle that its records must name; None to accept any.
        hashes: gets the hashes of the files beside the model, by name, each read once.
        check_signature: returns what is wrong with the signature (the second path) of the provenance (the first), or
            None; without it, the signature is not checked.

    Raises:
        UsageError: the path is neither, or has no manifest beside it; or files of it are moved aside.
        MixerError: a file cannot be read.
    """
    refuse_aside(ModelPaths(path.absolute().parent, path.absolute().name.removesuffix(ARCHIVE_SUFFIX)))
    siblings = ModelPaths.around(path)
    if not siblings.manifest.is_file():
        raise UsageError(_no_manifest(path, siblings))
    findings = _Findings({} if hashes is None else hashes)
    try:
        records = _read(path, siblings, handle, findings)
    except OSError as error:
        raise MixerError(f"{error.filename or path} cannot be read ({error.strerror or error}).") from error
    _judge(records, findings)
    _judge_signature(siblings, check_signature, findings)
    manifest = records.manifest
    return _Verification(
        path,
        "directory" if path.is_dir() else "archive",
        None if manifest is None else shown(manifest.handle),
        None if manifest is None else manifest.version,
        tuple(findings.checked),
        tuple(findings.not_checked),
        tuple(printable(one, _LONGEST) for one in findings.differences),
    )


def _no_manifest(path: Path, siblings: ModelPaths) -> str:
    """Return in words that there is no manifest, and which models below the path may be meant."""
    below = [one.directory if one.directory.is_dir() else one.archive for one in ModelPaths.within(path)]
    models = [str(one) for one in below if one.exists()]
    if models:
        more = f", ... ({len(models)} in all)" if len(models) > _MOST_NAMED else ""
        return f"{path} is no model, but contains some: give {' or '.join(models[:_MOST_NAMED])}{more}."
    return (
        f"{siblings.manifest} is missing, so there is nothing to compare {path} with: download the manifest from where "
        "the model was published, and put it beside the model."
    )


def _read(path: Path, siblings: ModelPaths, handle: str | None, findings: _Findings) -> Records:
    """Read the model and the records beside it."""
    manifest = findings.read(lambda: read_manifest(siblings.manifest))
    whole = _check_contents(path, siblings, manifest, findings)
    index = siblings.folder / INDEX
    is_archive = not path.is_dir()
    for file in sorted(siblings.folder.glob(f"{glob.escape(siblings.stem)}.*")):
        if file.is_file() and file.name not in findings.hashes and (is_archive or file != siblings.archive):
            findings.hashes[file.name] = Hashes.of(file)
    return Records(
        siblings,
        manifest,
        handle,
        int(siblings.stem) if re.fullmatch("[0-9]{1,18}", siblings.stem) else None,
        findings.read(lambda: read_report(siblings.report)) if siblings.report.is_file() else None,
        findings.read(lambda: AboutRecord.read(siblings.about)) if siblings.about.is_file() else None,
        findings.read(lambda: AccuracyRecord.read(siblings.accuracy)) if siblings.accuracy.is_file() else None,
        findings.read(lambda: ModelFacts.read(path, manifest)) if whole and manifest is not None else None,
        findings.read(lambda: Statement.read(siblings.provenance)) if siblings.provenance.is_file() else None,
        findings.read(lambda: Index.read(index)) if index.is_file() else None,
        findings.hashes,
        is_archive,
    )


def _check_contents(path: Path, siblings: ModelPaths, manifest: Manifest | None, findings: _Findings) -> bool:
    """Compare the model's files with the manifest, and return whether they are the same."""
    most = MOST_BYTES if manifest is None else manifest.size + _SPARE
    try:
        if path.is_dir():
            found: Mapping[str, Described] = digest_files(path, most)
        else:
            archive = digest_archive(path, most)
            found = archive.files
            findings.hashes[siblings.archive.name] = archive.whole
    except MixerError as error:
        findings.differences.append(str(error))
        return False
    if manifest is None:
        return False
    differences = compare_files(manifest.files, found)
    what = f"{counted(len(manifest.files), 'file')}, {manifest.size:,} bytes, as listed in {siblings.manifest.name}"
    findings.add(what, differences)
    return not differences


def _judge(records: Records, findings: _Findings) -> None:
    """Record what the records say, and where they contradict each other or the files."""
    paths, differences = records.paths, records.differences()
    findings.differences += differences["asked"]
    _judge_report(records, differences.get("report", []), findings)
    if records.about is not None:
        findings.add(f"{paths.about.name} is of this manifest", differences["about"])
    if records.accuracy is not None:
        what = ", ".join(counted(one.pictures, "picture") for one in records.accuracy.measurements)
        findings.add(f"{paths.accuracy.name} is of this manifest: measured on {what}", differences["accuracy"])
    if records.facts is not None:
        findings.add(f"{MODEL_JSON} agrees with {paths.manifest.name}", differences["facts"])
    if records.provenance is not None:
        findings.add(f"{paths.provenance.name} binds {', '.join(records.provenance.bound)}", differences["provenance"])
        findings.not_checked += records.not_bound
    elif not paths.provenance.is_file():
        findings.not_checked.append(
            f"there is no {paths.provenance.name}, so who packed the model, and from what, is unknown"
        )
    if records.index is not None:
        listed = ", ".join(records.index.versions.get(paths.stem, ()))
        findings.add(f"{INDEX} lists {listed}", differences["index"])


def _judge_signature(paths: ModelPaths, check: Callable[[Path, Path], str | None] | None, findings: _Findings) -> None:
    name, signed = paths.signature.name, paths.provenance.name
    if check is None:
        if paths.signature.is_file():
            findings.not_checked.append(f"the signature {name}: give the publisher's public key with --key")
        return
    wrong = f"{name} or {signed}, which it signs, is missing"
    if paths.signature.is_file() and paths.provenance.is_file():
        wrong = check(paths.provenance, paths.signature) or ""
    findings.add(f"{name} is a signature of {signed} by the key", [wrong] if wrong else [])


def _judge_report(records: Records, differences: list[str], findings: _Findings) -> None:
    report, name = records.report, records.paths.report.name
    if report is None:
        if not records.paths.report.is_file():
            findings.not_checked.append(f"there is no {name}, so whether the model passed the parity check is unknown")
        return
    if report.verdict != "passed":
        differences = [*differences, f"{name} says that the model failed: {'; '.join(report.problems)}"]
    differences += [f"{name} contradicts itself: {found}" for found in report.contradictions()]
    inputs = f" (inputs: {report.inputs_set})" if isinstance(report, Report) else ""
    findings.add(f"{name} is of this manifest and says that the model passed{inputs}", differences)
