"""The two flavours of a SavedModel and where each of them runs: the only table of both."""

from dataclasses import dataclass

from models.catalog import Flavour


@dataclass(frozen=True)
class _FlavourSupport:
    """A flavour, and the range of TensorFlow releases it was proven in (`major.minor`, both ends included)."""

    name: Flavour
    what: str
    lowest: str
    highest: str
    platforms: str

    def runs_in(self, release: str) -> bool:
        """Return whether a TensorFlow release, such as `2.14.1`, is within the range."""
        return _numbers(self.lowest) <= _numbers(release) <= _numbers(self.highest)


def _numbers(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)


FLAVOURS: dict[Flavour, _FlavourSupport] = {
    "native": _FlavourSupport(
        "native",
        "JAX's own lowering as one operation, XlaCallModule",
        "2.13",
        "2.21",
        "where TensorFlow has XLA: CPU, CUDA, ROCm, TPU",
    ),
    "graph": _FlavourSupport(
        "graph",
        "plain TensorFlow operations",
        "2.6",
        "2.21",
        "wherever TensorFlow runs, with or without XLA",
    ),
}
