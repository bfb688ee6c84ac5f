"""Keep traced graphs between runs: of a model, only the variables depend on the weights.

<cache>/.graphs/<sha256 of the key>.graph

An entry is used only if everything that its graph may depend on is the same: all sources of this project, the class
list, sizes, head and flavour, and the releases of Python and of the libraries that trace and serialize. One that is
damaged is traced again and replaced. The folder is readable by its owner alone; the entries used least recently go when
it grows beyond `MOST_BYTES`.
"""

import hashlib
import json
import logging
import os
import platform
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from convert.checkpoints.cache import Slot
from models.records.provenance import sources_sha256
from models.storage.files import read_small, sha256_of, written_whole

if TYPE_CHECKING:
    from convert.pipeline.tracing import GraphKey
    from export.saved_model.writer import Graph

MOST_BYTES = 256 << 20
"""Bytes that all entries may take together; a graph takes one to three megabytes."""

_SOURCES = ("convert", "export", "models", "validation")
_LIBRARIES = ("jax", "jaxlib", "flax", "tensorflow", "ml_dtypes", "numpy", "protobuf")
_MOST_OF_ONE = 64 << 20
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptGraphs:
    """The graphs that are kept in a cache."""

    folder: Path
    sources: str
    """The digest of this project's sources when the program started: what it has imported since may be newer."""

    @classmethod
    def of(cls, cache: Path | None) -> Self:
        """Return the graphs in this cache; by default in the user's."""
        return cls(Slot.of(".graphs", cache).file, sources_sha256(*_SOURCES))

    def read(self, key: "GraphKey") -> "Graph | None":
        """Return the graph of a key; None if there is none, or if it is damaged or may be read by others."""
        facts = self._facts(key)
        path = self._path(facts)
        try:
            if not self._is_private():
                return None
            content = read_small(path, _MOST_OF_ONE)
            graph = _parse(content, facts)
            os.utime(path)  # used now
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever is wrong with it, the graph can be traced
            _LOG.debug("%s is not used (%s: %s)", path, type(error).__name__, error)
            return None
        _LOG.debug("read the graph from %s", path)
        return graph

    def store(self, key: "GraphKey", graph: "Graph") -> None:
        """Keep a graph, unless this project's sources have changed since the program started."""
        facts = self._facts(key)
        try:
            if sources_sha256.__wrapped__(*_SOURCES) != self.sources:
                return
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._is_private():
                return
            with written_whole(self._path(facts)) as file:
                file.write(_serialize(graph, facts))
            self._shrink()
        except OSError as error:  # for example a full disk: it is traced again next time
            _LOG.debug("the graph is not kept (%s)", error)

    def _facts(self, key: "GraphKey") -> dict[str, Any]:
        """Return everything that a graph may depend on."""
        from google.protobuf.internal import api_implementation  # there is no public API

        return {
            "architecture": asdict(key.architecture),
            "num_classes": key.num_classes,
            "flavour": key.flavour,
            "labels": None if key.labels is None else [key.labels.name, sha256_of(key.labels)],
            "sources": self.sources,
            "python": platform.python_version(),
            "protobuf_implementation": api_implementation.Type(),
            **{name: metadata.version(name) for name in _LIBRARIES},
        }

    def _path(self, facts: Mapping[str, Any]) -> Path:
        return self.folder / f"{hashlib.sha256(_json(facts)).hexdigest()}.graph"

    def _is_private(self) -> bool:
        """Return whether nobody else can write to the folder or read it."""
        found = self.folder.stat()
        private = found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
        if not private:
            _LOG.warning(
                "graphs are traced again, as %s may be changed by others: expected a folder of your own with mode "
                "0700. Remove it, and it is made again.",
                self.folder,
            )
        return private

    def _shrink(self) -> None:
        """Delete the entries used least recently, until the others take at most `MOST_BYTES`."""
        entries = []
        for path in self.folder.glob("*.graph"):
            with suppress(FileNotFoundError):  # another process deleted it
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= size


def _serialize(graph: "Graph", facts: Mapping[str, Any]) -> bytes:
    """Return an entry: the sha256 of the rest, a line of JSON that describes it, and the parts of the graph."""
    layout, parts = graph.layout, [graph.saved_model]
    described = []
    for name, value in layout.others.items():
        parts.append(value if isinstance(value, bytes) else value.tobytes())
        described.append([name, "bytes" if isinstance(value, bytes) else value.dtype.str])
    header = {"key": facts, "names": list(layout.names.items()), "others": described, "sizes": list(map(len, parts))}
    rest = _json(header) + b"\n" + b"".join(parts)
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def _parse(content: bytes, facts: Mapping[str, Any]) -> "Graph":
    """Return the graph of an entry.

    Raises:
        ValueError: it is damaged, or the graph of another key.
    """
    import numpy as np

    from export.saved_model.variables import Layout
    from export.saved_model.writer import Graph

    digest, _, rest = content.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        raise ValueError("its sha256 is not the one at its beginning")
    line, _, body = rest.partition(b"\n")
    header = json.loads(line)
    if _json(header["key"]) != _json(facts):
        raise ValueError("it is the graph of another key")
    parts, begin = [], 0
    for size in header["sizes"]:
        parts.append(body[begin : begin + size])
        begin += size
    others = {
        name: part if dtype == "bytes" else np.frombuffer(part, np.dtype(dtype))[0]
        for (name, dtype), part in zip(header["others"], parts[1:], strict=True)
    }
    return Graph(parts[0], Layout(dict(header["names"]), others))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
