"""The class lists: which class each logit of a classifier stands for."""

from dataclasses import dataclass
from pathlib import Path

from models.errors import MixerError
from models.storage.files import sha256_of


@dataclass(frozen=True)
class Labels:
    """A class list: one line per class, in the order of the head's outputs."""

    file: str
    sha256: str
    source: str

    @property
    def path(self) -> Path:
        """Path of the class list in the repository."""
        return Path(__file__).parent / self.file

    def checked_path(self) -> Path:
        """Return the path after checking the file's digest.

        Raises:
            MixerError: the file is not the recorded one.
        """
        found = sha256_of(self.path)
        if found != self.sha256:
            raise MixerError(
                f"{self.path} has sha256 {found}, expected {self.sha256}: the class list was changed. Restore it "
                "(git checkout), or record its new digest in models/labels.py."
            )
        return self.path


_TIMM = "synsets and lemmas of timm 1.0.31, timm/data/_info (Apache-2.0)"
LABELS_1K = Labels("labels_1k.txt", "4eb3da435cf544e4a6f390f62c84cb9c9bb68cf8b14e97f8a063452382e5efd2", _TIMM)
LABELS_21K = Labels("labels_21k.txt", "2d3f16a9c5ff5ad08448ec9e2dfa38a0ae620f645f5831ed3b2da3df5e61cf07", _TIMM)
