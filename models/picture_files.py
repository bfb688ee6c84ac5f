"""Find the files of pictures in a folder, and read them."""

from dataclasses import dataclass
from pathlib import Path

from models.errors import MixerError, UsageError

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Endings, in lower case, of the names of pictures."""

MOST_BYTES = 1 << 30
"""Largest accepted file of a picture."""


class PictureError(MixerError):
    """A picture that cannot be used."""


@dataclass(frozen=True)
class Listing:
    """What is in a folder, sorted by name, without hidden entries."""

    folders: tuple[Path, ...]
    """Links to folders are among them."""
    pictures: tuple[Path, ...]
    """Files whose names end as those of pictures do; a broken link too, so that it is named when it is read."""
    others: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> "Listing":
        """List a folder.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
            folders = tuple(entry for entry in entries if entry.is_dir())
            pictures = tuple(entry for entry in entries if entry.suffix.lower() in SUFFIXES and _is_file(entry))
        except OSError as error:
            raise UsageError(f"{folder} cannot be read: {error.strerror or error}.") from error
        known = {*folders, *pictures}
        return cls(folders, pictures, tuple(entry for entry in entries if entry not in known))


def _is_file(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def read_picture(path: Path) -> bytes:
    """Return the contents of a picture's file.

    Raises:
        PictureError: it cannot be read, or is larger than `MOST_BYTES`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > MOST_BYTES:
        raise PictureError(f"it has more than {MOST_BYTES:,} bytes, the most that are accepted")
    return content
