"""Make the SBOM: the packages that a model was made with, in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json).

They are those of the lock that the environment is made from. It contains no times: equal locks give equal bytes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from models.errors import MixerError
from models.records.manifest import Manifest
from models.records.provenance import ROOT

LOCKS = ROOT / ".ci" / "locks"

_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class _Locked:
    """One package of a lock, with the sha256 of each of its files."""

    name: str
    version: str
    hashes: tuple[str, ...]


def make_sbom(manifest: Manifest, locks: Path = LOCKS) -> bytes:
    """Return the SBOM of a model, as JSON.

    Raises:
        MixerError: there is no lock for the model's Python, or it has other libraries than the model was made with.
    """
    python = manifest.libraries.get("python", "unknown")
    lock = locks / f"py{''.join(python.split('.')[:2])}.txt"
    try:
        packages = _read(lock.read_text(encoding="utf-8"))
    except OSError as error:
        raise MixerError(
            f"the lock of the model's Python {python} cannot be read ({error.strerror}: {lock})"
        ) from error
    locked = {one.name: one.version for one in packages}
    used = {name: version for name, version in manifest.libraries.items() if name != "python"}
    others = [f"{name} {version}" for name, version in sorted(used.items()) if locked.get(name) != version]
    if others:
        raise MixerError(f"the model was made with {', '.join(others)}, which {lock.name} does not have")
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": manifest.handle,
                "name": manifest.handle,
                "version": str(manifest.version),
            }
        },
        "components": [
            _component("application", "generic", "python", python),
            _component("application", "generic", "mixer-jax2tf", manifest.pipeline),
            *(_component("library", "pypi", one.name, one.version, *one.hashes) for one in packages),
        ],
    }
    return (json.dumps(bom, indent=1) + "\n").encode()


def _read(lock: str) -> list[_Locked]:
    """Return the packages of a lock in the form of `pip install --require-hashes`."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock)
    found = ((_PIN.match(entry), _HASH.findall(entry)) for entry in entries)
    # A package may be there twice, with other extras.
    return list(dict.fromkeys(_Locked(pin[1].lower(), pin[2], tuple(hashes)) for pin, hashes in found if pin))


def _component(kind: str, where: str, name: str, version: str, *hashes: str) -> dict[str, object]:
    purl = f"pkg:{where}/{name}@{version}"
    files = {
        "type": "distribution",
        "url": f"https://pypi.org/simple/{name}/",
        "hashes": [{"alg": "SHA-256", "content": one} for one in hashes],
    }
    known: dict[str, object] = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return {**known, "externalReferences": [files]} if hashes else known
