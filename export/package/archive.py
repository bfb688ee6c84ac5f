"""Pack a validated model as an archive for TensorFlow Hub, with provenance that binds it to the files beside it.

The archive is deterministic: sorted names, `saved_model.pb` at its root, and no times, owners or modes of the machine.
(Another release of ISA-L, or its code for another kind of processor, may compress the same bytes differently; the files
inside stay the same.)
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from isal import isal_zlib

from export.package.consistency import Records
from export.package.facts import ModelFacts
from export.package.provenance import Statement
from export.package.sbom import make_sbom
from export.package.signing import Signer
from models.errors import MixerError, UsageError
from models.progress import Progress
from models.records.check import Tolerance
from models.records.contents import compare_files
from models.records.formats import ExportReport, read_manifest, read_report
from models.records.layout import ModelPaths
from models.records.manifest import FileDigest, Manifest
from models.records.report import Report
from models.records.tolerances import TOLERANCES, export_tolerances
from models.selection import command_for
from models.storage.archives import MOST_OF_HEADERS, most_unpacked
from models.storage.files import Hashes, Hashing, write_atomically, written_whole

COMPRESSION = 1
"""ISA-L's level: as fast as hashing, and no worse than zlib's level 1; trained weights hardly shrink at any level."""

BLOCK = 1 << 18
"""Bytes that are read and compressed at once; another number would give a different archive."""


@dataclass(frozen=True)
class Package:
    """A packed model; `size` (bytes) and `sha256` (hexadecimal) are those of the archive."""

    handle: str
    version: int
    archive: Path
    provenance: Path
    signature: Path | None
    sbom: Path | None
    size: int
    sha256: str
    note: str = ""
    """Why there is no SBOM."""


def refuse_packaged(*destinations: ModelPaths) -> None:
    """Refuse to go on if a model is already packed.

    Raises:
        UsageError: an archive or provenance exists; names all of them.
    """
    taken = [str(path) for one in destinations for path in (one.archive, one.provenance) if os.path.lexists(path)]
    if taken:
        raise UsageError(f"exists already: {', '.join(taken)}. --overwrite replaces it.")


def package_model(
    destination: ModelPaths,
    *,
    overwrite: bool = False,
    sign: Signer | None = None,
    progress: Progress | None = None,
) -> Package:
    """Pack a model that passed its check, and write its SBOM and its provenance beside the archive.

    An old archive is replaced atomically. Its provenance is removed before and written after, so that provenance never
    belongs to another archive.

    Raises:
        UsageError: archive or provenance exists, and `overwrite` is not given.
        MixerError: the model has no manifest or no passing report for it, a file differs from the manifest, or
            something cannot be read or written. A failed check leaves the old files as they were.
    """
    if not overwrite:
        refuse_packaged(destination)
    manifest, bound = _proven(destination)
    with _translate_os_errors(destination.archive), written_whole(destination.archive) as file:
        packed, found = _write_archive(destination.directory, manifest, file, progress)
        differences = compare_files(manifest.files, found)
        if differences:
            said = "".join(f"\n  {difference}" for difference in differences)
            raise MixerError(
                f"{destination.directory} differs from {destination.manifest.name}, so it was not packed:{said}\n"
                f"Convert {destination.handle} again (--overwrite)."
            )
        _refuse_what_nobody_unpacks(manifest, packed.size)
        _refuse_contradictions(Records(destination, manifest, facts=ModelFacts.read(destination.directory, manifest)))
        destination.signature.unlink(missing_ok=True)
        destination.provenance.unlink(missing_ok=True)
    note = _write_sbom(destination, manifest)
    _write_provenance(destination, manifest, {destination.archive.name: packed.sha256, **bound})
    if sign is not None:
        sign(destination.provenance, destination.signature)
    return Package(
        manifest.handle,
        manifest.version,
        destination.archive,
        destination.provenance,
        None if sign is None else destination.signature,
        None if note else destination.sbom,
        packed.size,
        packed.sha256,
        note,
    )


def _write_provenance(destination: ModelPaths, manifest: Manifest, bound: dict[str, str]) -> None:
    with _translate_os_errors(destination.provenance):
        described = {path.name: Hashes.of(path).sha256 for path in destination.described if path.is_file()}
        write_atomically(destination.provenance, Statement.of(manifest, bound | described).to_bytes())


def _write_sbom(destination: ModelPaths, manifest: Manifest) -> str:
    """Write the SBOM, or remove an old one and return why there is none."""
    with _translate_os_errors(destination.sbom):
        try:
            write_atomically(destination.sbom, make_sbom(manifest))
        except MixerError as error:
            destination.sbom.unlink(missing_ok=True)
            return str(error)
    return ""


def _proven(destination: ModelPaths) -> tuple[Manifest, dict[str, str]]:
    """Return a model's manifest, and the sha256 of manifest and report by file name, if the model passed its check."""
    again = f"Run `{command_for('validate', destination.handle)}`"
    destination.require_manifest()
    if not destination.report.is_file():
        raise MixerError(f"{destination.report} is missing: the model was not checked. {again} first.")
    manifest, report = read_manifest(destination.manifest), read_report(destination.report)
    found = {path.name: Hashes.of(path) for path in (destination.manifest, destination.report)}
    _refuse_contradictions(
        Records(destination, manifest, destination.handle, destination.version, report=report, found=found)
    )
    if report.verdict != "passed":
        raise MixerError(f"{destination.report} says that the model {report.verdict}: {'; '.join(report.problems)}.")
    contradictions = list(report.contradictions(_limits(report)))
    if contradictions:
        raise MixerError(f"{destination.report} cannot be trusted: {'; '.join(contradictions)}. {again} first.")
    return manifest, {name: hashes.sha256 for name, hashes in found.items()}


def _limits(report: Report | ExportReport) -> dict[str, Tolerance]:
    """Return today's limits of a report's checks."""
    return export_tolerances(report.format, report.origin) if isinstance(report, ExportReport) else TOLERANCES


def _refuse_contradictions(records: Records) -> None:
    differences = [difference for found in records.differences().values() for difference in found]
    if differences:
        said = "".join(f"\n  {difference}" for difference in differences)
        raise MixerError(
            f"the records of {records.paths.directory} contradict each other, so it was not packed:{said}\n"
            f"Run `{command_for('validate', records.paths.handle)}` again, or convert it again (--overwrite)."
        )


def _refuse_what_nobody_unpacks(manifest: Manifest, packed: int) -> None:
    most = most_unpacked(packed)
    if manifest.size + MOST_OF_HEADERS > most:
        raise MixerError(
            f"the model has {manifest.size:,} bytes, but an archive of {packed:,} bytes is unpacked to {most:,} at "
            "most (a limit against decompression bombs). Share the SavedModel's directory instead."
        )


@contextmanager
def _translate_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MixerError(
            f"could not write {path} ({error.strerror or error}: {error.filename or 'its contents'}): free some space, "
            "or check the permissions."
        ) from error


class _Gzip:
    """Compresses what is written to it in blocks of one size, so that the sizes of writes do not affect the result."""

    def __init__(self, file: "_Hashed | BinaryIO") -> None:
        # 15 is deflate's window; adding 16 selects gzip, with no name or time in the header.
        self._file, self._packer = file, isal_zlib.compressobj(COMPRESSION, wbits=15 + 16)
        self._waiting, self._position = bytearray(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.write(self._packer.compress(bytes(self._waiting)) + self._packer.flush())

    def write(self, chunk: bytes) -> int:
        self._waiting += chunk
        self._position += len(chunk)
        while len(self._waiting) >= BLOCK:
            with memoryview(self._waiting) as waiting:
                self._file.write(self._packer.compress(waiting[:BLOCK]))
            del self._waiting[:BLOCK]
        return len(chunk)

    def tell(self) -> int:
        return self._position


class _Hashed:
    """A file that is written or read sequentially, and hashed meanwhile."""

    def __init__(self, file: BinaryIO, hashing: Hashing, advance: Callable[[int], None] | None = None) -> None:
        self._file, self._hashing, self._advance = file, hashing, advance

    def write(self, chunk: bytes) -> int:
        self._count(chunk)
        return self._file.write(chunk)

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._count(chunk)
        return chunk

    def _count(self, chunk: bytes) -> None:
        self._hashing.update(chunk)
        if self._advance is not None:
            self._advance(len(chunk))


def _write_archive(
    directory: Path, manifest: Manifest, file: BinaryIO, progress: Progress | None
) -> tuple[FileDigest, dict[str, FileDigest]]:
    """Pack all files below a directory, and return the digests of the archive and of the packed files."""
    done, found = 0, {}

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, manifest.size), manifest.size)

    names = [PurePosixPath(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]
    folders = {parent for name in names for parent in name.parents} - {PurePosixPath(".")}
    with (
        Hashing(md5=False) as whole,
        _Gzip(_Hashed(file, whole)) as packed,
        tarfile.TarFile(
            fileobj=packed,  # type: ignore[arg-type] # it has the methods for writing
            mode="w",
            format=tarfile.PAX_FORMAT,
            copybufsize=BLOCK,
        ) as archive,
    ):
        for name in sorted(map(str, {*names, *folders})):
            if PurePosixPath(name) in folders:  # TensorFlow Hub makes only the folders that it lists
                archive.addfile(_member(name, tarfile.DIRTYPE, 0o755))
                continue
            with (directory / name).open("rb") as source, Hashing(md5=False) as content:
                member = _member(name, tarfile.REGTYPE, 0o644)
                member.size = os.fstat(source.fileno()).st_size
                archive.addfile(member, _Hashed(source, content, advance))
            found[name] = FileDigest(sha256=content.sha256(), size=content.size)
    return FileDigest(sha256=whole.sha256(), size=whole.size), found


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, mode
    return member
