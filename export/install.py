"""Install a model as `<out>/<handle>/<version>` with the files beside it, completely or not at all."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

from models.errors import MixerError, UsageError, advice_on
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.selection import command_for
from models.signatures import EXTRAS
from models.storage.files import write_atomically
from models.storage.temporary import PARTIAL, left_folders, locked, sweep, sweep_files, temporary_folder, uninterrupted

_LOG = logging.getLogger(__name__)

_CARD = b"# Module "
_ASIDE = "old"
"""The folder of the old version while it is replaced, beside the stage."""


def refuse_to_replace(paths: ModelPaths, record: type[Manifest] = Manifest, *, overwrite: bool) -> None:
    """Refuse to go on if the model exists and may not be replaced.

    Args:
        paths: where a model is to be installed.
        record: the type that the manifest of a replaced one must have; only a SavedModel may lack a manifest.
        overwrite: whether to replace a model with only files that were written here.

    Raises:
        UsageError: the model, or anything else of its name, exists, and `overwrite` is not given or it is something
            else or contains other files.
    """
    if not os.path.lexists(paths.directory):
        return
    if not overwrite:
        raise UsageError(f"{paths.directory} exists already: give another --version, or --overwrite to replace it.")
    expected = _of_a_model if record is Manifest else _of_nothing
    try:
        listed = record.read(paths.manifest).files
    except MixerError:
        if not (record is Manifest and (paths.directory / "saved_model.pb").is_file()):
            lacks = "is not a SavedModel" if record is Manifest else "has no manifest of an export beside it"
            raise UsageError(
                f"{paths.directory} {lacks}, so it is not replaced: move it away, or give another --out."
            ) from None
        listed = {}
    found = (path.relative_to(paths.directory) for path in paths.directory.rglob("*") if path.is_file())
    strange = sorted(path.as_posix() for path in found if not (path.as_posix() in listed or expected(path)))
    if strange:
        raise UsageError(
            f"{paths.directory} contains files that were not written with it ({', '.join(strange[:5])}), so it is not "
            "replaced: move them away, or give another --out."
        )


def _of_this_make(paths: ModelPaths) -> tuple[Path, ...]:
    """Return the files beside a model that belong to it alone, each before the files that it was made from.

    Files that only have such a name are left out: an archive without provenance, or a page that is not a card.
    """
    archive = (paths.archive,) if paths.provenance.is_file() else ()
    card = (paths.card,) if paths.card.is_file() and _starts_as_a_card(paths.card) else ()
    records = (paths.about, paths.accuracy, paths.report, paths.manifest)
    packed = (paths.signature, paths.provenance, *archive, paths.sbom)
    return tuple(path for path in (paths.outputs, *card, *packed, *records) if path.is_file())


def _starts_as_a_card(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_CARD)) == _CARD


def _of_nothing(_: Path) -> bool:
    return False


def _of_a_model(path: Path) -> bool:
    """Return whether a SavedModel may contain a file of this relative path."""
    folders = ("variables", "assets", EXTRAS)
    return path.as_posix() in {"saved_model.pb", "fingerprint.pb"} or (
        len(path.parts) == 2 and path.parts[0] in folders
    )


def prepare_out(out: Path) -> None:
    """Make the output directory, and make sure that it is writable.

    Raises:
        UsageError: it cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out, ".writable-"):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to the output directory {out} ({error.strerror}): give another one, or make it writable."
        ) from error


def tidy(destination: ModelPaths) -> None:
    """Remove temporary files of processes that have ended, and restore an old version that was not yet replaced.

    Files of a running process are left alone. Files from earlier releases are only reported: their names contain just a
    process id, so their owner may still run, and they may be the only copy of a model.

    Raises:
        MixerError: something cannot be read or moved.
    """
    with _translate_os_errors(destination):
        if any(left_folders(destination.folder, _prefix(destination))) or _lock_of(destination).exists():
            with suppress(OSError), locked(_lock_of(destination), None, needed=False):
                sweep(destination.folder, _prefix(destination), _rescue)
        sweep_files(destination.folder)
        _name_left_by_earlier_releases(destination.folder, destination.stem)


@cache
def _name_left_by_earlier_releases(folder: Path, stem: str) -> None:
    pattern = re.compile(rf"\.{re.escape(stem)}(\..+)?\.(partial|old)-\d{{1,9}}(-\w+)?")
    names = [path.name for path in folder.iterdir() if pattern.fullmatch(path.name)] if folder.is_dir() else []
    if names:
        _LOG.warning(
            "an earlier release of this program was interrupted and left %s in %s: `old` contains a model that was "
            "being replaced, `partial` an incomplete one. Move back what you need, and delete the rest.",
            ", ".join(sorted(names)),
            folder,
        )


def refuse_aside(paths: ModelPaths) -> None:
    """Refuse to check a version that a process is replacing, or was ended while replacing.

    Raises:
        UsageError: files of the version are moved aside.
    """
    for folder in left_folders(paths.folder, _prefix(paths)):
        if any((folder / _ASIDE).glob("*")):
            raise UsageError(
                f"files of {paths.directory} are in {folder / _ASIDE}: another process is replacing them, or was "
                f"interrupted. If none is running, `{command_for('validate', paths.handle)} --out {paths.out} "
                f"--version {paths.stem}` moves them back."
            )


@contextmanager
def held(destination: ModelPaths, *, to_make: bool = False) -> Iterator[None]:
    """Lock a version during the block, after tidying it; wait for another process that has locked it.

    Args:
        destination: the version.
        to_make: whether to make its folder; a missing folder is not locked.

    Raises:
        MixerError: the folder cannot be made, read or locked.
    """

    def awaited() -> None:
        _LOG.warning("another process is using %s: waiting for it", destination.directory)

    with ExitStack() as stack:
        with _translate_os_errors(destination):
            if to_make:
                destination.folder.mkdir(parents=True, exist_ok=True)
            if destination.folder.is_dir():
                stack.enter_context(locked(_lock_of(destination), awaited, needed=False))
        tidy(destination)
        yield


@contextmanager
def kept(destination: ModelPaths) -> Iterator[None]:
    """Let no process replace files of a version during the block, which only reads them.

    Where the folder cannot be written, nothing is locked: a read-only disk, another user's model.

    Raises:
        MixerError: the folder cannot be read or locked.
    """
    with held(destination) if os.access(destination.folder, os.W_OK) else nullcontext():
        yield


@contextmanager
def staged(destination: ModelPaths) -> Iterator[Path]:
    """Yield an empty directory to write into, on the destination's disk, and remove what is left of it at the end.

    The version is locked meanwhile.

    Raises:
        MixerError: writing failed, here or in the block.
    """
    prefix = _prefix(destination)
    with (
        held(destination, to_make=True),
        _translate_os_errors(destination),
        temporary_folder(destination.folder, prefix, rescue=_rescue) as folder,
    ):
        stage = folder / "new"
        stage.mkdir()
        yield stage


@contextmanager
def _translate_os_errors(destination: ModelPaths) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MixerError(
            f"could not write {destination.directory} ({error.strerror or error}): nothing was left there; "
            f"{advice_on(error)}, or give another --out."
        ) from error


def _prefix(destination: ModelPaths) -> str:
    return f".{destination.stem}{PARTIAL}"


def _lock_of(destination: ModelPaths) -> Path:
    return destination.folder / f".{destination.stem}.lock"


def install(stage: Path, destination: ModelPaths, manifest: Manifest, *, overwrite: bool) -> None:
    """Move a finished stage to its destination, after its manifest, so that a directory without manifest is not ours.

    An old version is moved aside first, with the files that belong to it (manifest, report, archive, card, ...), and is
    deleted afterwards; if anything fails in between, everything is moved back.

    Raises:
        UsageError: the destination exists, and `overwrite` is not given or it must not be replaced.
    """
    refuse_to_replace(destination, type(manifest), overwrite=overwrite)
    aside, replaces = stage.with_name(_ASIDE), os.path.lexists(destination.directory)
    with uninterrupted():
        try:
            if replaces:
                aside.mkdir()
                # The directory last: once it is aside, any files in its place are those of the new version.
                for path in (*_of_this_make(destination), destination.directory):
                    path.rename(aside / path.name)
            _place(stage, destination, manifest)
        except BaseException:
            _rescue(stage.parent)
            raise


def _place(stage: Path, destination: ModelPaths, manifest: Manifest) -> None:
    try:
        for path in (destination.report, destination.about, destination.accuracy, destination.outputs):
            path.unlink(missing_ok=True)
        write_atomically(destination.manifest, manifest.to_bytes())
        stage.rename(destination.directory)
    except BaseException:
        destination.manifest.unlink(missing_ok=True)
        raise


def _rescue(folder: Path) -> None:
    """Move the old version back from a temporary folder, unless the new version is in place."""
    aside = folder / _ASIDE
    if not aside.is_dir():
        return
    destination = ModelPaths(folder.parent, folder.name[1:].rpartition(PARTIAL)[0])
    if os.path.lexists(aside / destination.stem):
        if os.path.lexists(destination.directory):
            aside.rename(folder / "replaced")  # atomic: if killed during deletion, no part of it is restored
            return
        destination.manifest.unlink(missing_ok=True)
    for path in sorted(aside.iterdir()):  # the directory first
        path.rename(destination.folder / path.name)
