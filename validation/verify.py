"""Verify a published model against the records beside it, with nothing of this project.

    python verify.py PATH [--key KEY.pub] [--json]

PATH is a SavedModel's directory or its `.tar.gz`; `<name>.manifest.json` must be beside it, and report, provenance,
accuracy, index and so on are checked where they are. A single file for any Python from 3.8: it needs the standard
library and, to check the signature, `cryptography`. Nothing is unpacked, and the model is not run. That the files
belong together proves nothing about who made them; with the publisher's key, the signature does. How a verdict follows
from its figures is judged by `mixer-jax2tf verify` in full; here, a report must only have passed, without a problem and
without a figure over its limit. Exit status: 0 if everything agrees, 2 if something cannot be checked as asked, 3 if
something differs.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import hashlib
import json
import os
import posixpath
import re
import sys
import tarfile
import zlib
from typing import Any, Iterator, List, NamedTuple  # noqa: UP035 (Python 3.8)

MOST_BYTES = 4 << 30  # of an unpacked archive
SMALL, DENSEST, MOST_MORE = 1 << 27, 10, 1 << 29  # always allowed; times and beyond the size of the archive
MOST_AT_ONCE, MOST_OF_HEADERS, MOST_OF_A_RECORD = 1 << 20, 4 << 20, 1 << 20
MOST_FILES, MOST_ATTRIBUTES, SPARE, CHUNK = 1000, 10_000, 1 << 24, 1 << 20
MODEL_JSON, INDEX, ARCHIVE = "assets.extra/model.json", "index.json", ".tar.gz"
LOCAL_BUILDER = "urn:mixer-jax2tf:local"
WORKFLOW = re.compile(r"(?P<repository>https?://[^/\s]+/[^/\s]+/[^/\s]+)/[^@\s]+@\S+")
BUILD_PAGE = "export/README.md#provenance"
BUCKET = "gs://mixer_models"


class UsageError(Exception):
    """Something cannot be checked as asked (exit status 2)."""


class _Harmful(Exception):  # noqa: N818
    """An archive or record that is not read further."""


class _Findings(NamedTuple):
    """What agrees, what could not be checked, and what differs, in words."""

    checked: List[str]  # noqa: UP006 (Python 3.8)
    not_checked: List[str]  # noqa: UP006
    differences: List[str]  # noqa: UP006

    def add(self, what: str, differences: list[str]) -> None:
        """Record that something was checked, or else its differences."""
        self.differences.extend(differences)
        if not differences:
            self.checked.append(what)


def _shown(text: object, most: int = 500) -> str:
    """Return foreign text on one line: escaped and cut."""
    cut = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(text)[:most])
    return cut if len(str(text)) <= most else cut + "..."


# --- records ---

TEXT, NUMBER, OPTIONAL = (str,), (int,), (str, type(None))
FLAVOURS, HEADS, ORIGINS = ("native", "graph"), ("classification", "fe"), ("original", "seeded", "unknown", "own")
MANIFEST: dict[str, Any] = {
    **{"schema_version": (1,), "handle": TEXT, "version": NUMBER, "flavour": FLAVOURS, "head": HEADS},
    **{"architecture": TEXT, "image_size": NUMBER, "num_classes": (int, type(None)), "parameters": NUMBER},
    **{"platforms": (list,), "checkpoint": (dict,), "files": (dict,), "libraries": (dict,), "pipeline": TEXT},
    **{"pipeline_sha256": TEXT, "git_commit": OPTIONAL, "git_dirty": (bool, type(None))},
}
EXPORTED = {"format": TEXT, "source_sha256": TEXT, "runtime_settings": (dict,)}
CHECKPOINT = {"name": TEXT, "object": TEXT, "url": TEXT, "sha256": TEXT, "size": NUMBER, "origin": ORIGINS}
FILE = {"sha256": TEXT, "size": NUMBER}
FIGURE = (float, int, type(None))
CHECK: dict[str, Any] = {
    **{"name": TEXT, "on": TEXT, "measured": (*FIGURE, str), "limit": FIGURE, "power": FIGURE},
    **{"probe": ("head", "stem", None), "problems": (list,), "detail": TEXT, "made_on": (dict, type(None))},
}
VERDICT: dict[str, Any] = {
    **{"schema_version": (2,), "handle": TEXT, "version": NUMBER, "origin": ORIGINS, "manifest_sha256": TEXT},
    **{"inputs_sha256": TEXT, "checks": (list,), "zero_head": (bool,), "not_checked": (list,), "tolerances": (dict,)},
    **{"verdict": ("passed", "failed"), "libraries": (dict,), "validator_sha256": TEXT},
}
REPORT = {
    **{"flavour": FLAVOURS, "head": HEADS, "inputs_set": ("gate", "full"), "images": (list,)},
    **{
        "fine_tunable": (bool, type(None)),
        "depth": (list,),
        "reference": (dict, type(None)),
        "outputs_sha256": OPTIONAL,
        "saved_model_sha256": OPTIONAL,
    },
}
EXPORT_REPORT = {"format": TEXT, "sizes": (dict,)}


def _read_small(path: str) -> bytes:
    """Return the contents of a record."""
    with open(path, "rb") as file:
        content = file.read(MOST_OF_A_RECORD + 1)
    if len(content) > MOST_OF_A_RECORD:
        raise _Harmful(f"{path} has more than {MOST_OF_A_RECORD:,} bytes, too many for a record")
    return content


def _parsed(path: str) -> Any:  # noqa: ANN401
    """Return a record's values: an object of JSON, without a name twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a name appears twice")
        return dict(pairs)

    try:
        found = json.loads(_unsealed(_read_small(path), path).decode("utf-8"), object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as error:
        raise _Harmful(f"{path} is not a readable record: {_shown(error, 200)}") from error
    if not isinstance(found, dict):
        raise _Harmful(f"{path} is not a readable record: expected an object")
    return found


def _unsealed(content: bytes, path: str) -> bytes:
    """Return a record without its own digest, which must be that of the rest; some kinds of record have none."""
    sealed = re.search(rb',\n "record_sha256": "([0-9a-f]{64})"\n}\n\Z', content)
    if sealed is None:
        if b'"record_sha256"' in content:
            raise _Harmful(f"{path} is not the record that was written: it must end with its record_sha256")
        return content
    rest = content[: sealed.start()] + b"\n}\n"
    if hashlib.sha256(rest).hexdigest() != sealed.group(1).decode():
        raise _Harmful(f"{path} is not the record that was written: its record_sha256 is not that of the rest of it")
    return rest


def _require(path: str, where: str, values: Any, fields: dict[str, Any], more: Any = ()) -> None:  # noqa: ANN401
    """Check names and types (or permitted values) of a record's fields; those of `more` may be missing."""
    if not isinstance(values, dict) or not set(fields) - set(more) <= set(values) <= set(fields):
        raise _Harmful(f"{path} is not a readable record: {where} has other fields than expected")
    for name, value in values.items():
        allowed = fields[name]
        fits = type(value) in allowed if isinstance(allowed[0], type) else value in allowed
        if not fits or (type(value) is int and not 0 <= value < 1 << 63):
            raise _Harmful(f"{path} is not a readable record: {where}.{name} is {_shown(value, 100)}")


def _read_manifest(path: str) -> dict[str, Any]:
    """Return the manifest of a SavedModel or of an export."""
    found: dict[str, Any] = _parsed(path)
    fields = {**MANIFEST, **(EXPORTED if "format" in found else {})}
    _require(path, "the manifest", found, fields, ("schema_version", "runtime_settings"))
    _require(path, "checkpoint", found["checkpoint"], CHECKPOINT)
    if len(found["files"]) > MOST_FILES or not all(type(one) is str for one in found["libraries"].values()):
        raise _Harmful(f"{path} is not a readable record: too many files, or a library of no version")
    for name, one in found["files"].items():
        _require(path, f"files.{_shown(name, 100)}", one, FILE)
    return found


def _read_report(path: str) -> dict[str, Any]:
    """Return the report on a SavedModel or on an export."""
    found: dict[str, Any] = _parsed(path)
    fields = {**VERDICT, **(EXPORT_REPORT if "format" in found else REPORT)}
    _require(path, "the report", found, fields, ("schema_version", "outputs_sha256", "saved_model_sha256"))
    for name, one in found["tolerances"].items():
        _require(path, f"tolerances.{_shown(name, 100)}", one, {"limit": (float, int), "reason": TEXT})
    for one in found["checks"]:
        _require(path, "a check", one, CHECK, set(CHECK) - {"name"})
        if one.get("limit") is not None and one["limit"] != found["tolerances"].get(one["name"], {}).get("limit"):
            raise _Harmful(f"{path} contradicts itself: a limit of {_shown(one['name'], 100)} is not its own tolerance")
    return found


def _read_index(path: str) -> dict[str, Any]:
    """Return the list of what is published under a handle."""
    found: dict[str, Any] = _parsed(path)
    _require(path, "the index", found, {"schema_version": (1,), "handle": TEXT, "versions": (dict,)})
    for version, files in found["versions"].items():
        if not re.fullmatch("[1-9][0-9]{0,17}", version) or not isinstance(files, dict):
            raise _Harmful(f"{path} is not a readable record: {_shown(version, 100)} is no version")
        for one in files.values():
            _require(path, "a file", one, {**FILE, "md5": OPTIONAL}, ("md5",))
    return found


# --- files ---


def _digests_of(path: str) -> dict[str, Any]:
    """Return size, sha256 (hexadecimal) and md5 (base64) of a file."""
    sha256, md5, size = hashlib.sha256(), hashlib.new("md5"), 0  # noqa: S324 (as object stores give it)
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return {"size": size, "sha256": sha256.hexdigest(), "md5": base64.b64encode(md5.digest()).decode()}


def _compare(listed: dict[str, Any], found: dict[str, Any], record: str) -> list[str]:
    """Return the differences between listed and found files: dicts of size and digests, by name."""
    differences = []
    for name in sorted(set(listed) | set(found)):
        if name not in found:
            differences.append(f"{_shown(name)} is missing, but {record} lists it")
        elif name not in listed:
            differences.append(f"{_shown(name)} is not listed in {record}")
        else:
            for what in ("size", "sha256", "md5"):
                said, is_there = listed[name].get(what), found[name].get(what)
                if said is not None and is_there is not None and said != is_there:
                    differences.append(f"{_shown(name)} has {what} {is_there}, but {record} lists {_shown(said, 100)}")
                    break
    return differences


def _files_of_directory(path: str, most: int) -> dict[str, Any]:
    """Return size and sha256 of the files below a directory, by their relative paths."""
    names = [os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files]
    names = [name for name in names if os.path.isfile(name)]
    size = sum(map(os.path.getsize, names))
    if len(names) > MOST_FILES or size > most:
        raise _Harmful(f"{path} has {len(names):,} files, {size:,} bytes: more than its manifest lists")
    return {os.path.relpath(name, path).replace(os.sep, "/"): _digests_of(name) for name in names}


class _Stream:
    """The tar stream in a `.tar.gz`, with limits on what is read."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self._file, self._most, self.in_headers, self._headers = file, most, True, 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if not 0 <= size <= MOST_AT_ONCE:
            raise _Harmful("a header claims an impossible number of bytes")
        self._headers += size * self.in_headers
        if self._headers > MOST_OF_HEADERS:
            raise _Harmful("its headers are too long")
        content = self.last = self._file.read(size)
        self.refuse_bomb(self._file.tell())
        if self.in_headers and re.search(rb"\d{65}", content):  # tarfile would take quadratic time
            raise _Harmful("a header has more digits in a row than any number or name of a model")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset."""
        self.refuse_bomb(offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the offset."""
        return self._file.tell()

    def refuse_bomb(self, offset: int) -> None:
        """Refuse to read beyond the limit."""
        if offset > self._most:
            raise _Harmful(f"it unpacks to more than {self._most:,} bytes, too many for an archive of its size")


def _fault_of(member: tarfile.TarInfo, seen: set[str]) -> str | None:
    """Return why a member of an archive is refused."""
    name = posixpath.normpath(member.name)
    if not name.isprintable() or name.startswith("/") or ".." in name.split("/"):
        return "leads out of the archive, or is not printable"
    if not member.isdir() and (member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse()):
        return "is a link, a device, a pipe or a sparse file"
    if not member.isdir() and name in seen:
        return "appears twice"
    return "claims a negative size" if member.size < 0 else None


def _files_of_archive(path: str, most: int, wanted: str) -> tuple[dict[str, Any], bytes]:
    """Return size and sha256 of the files in an archive, and the contents of the wanted one."""
    size, kept, attributes = os.path.getsize(path), b"", 0
    found: dict[str, Any] = {}
    limit = min(MOST_BYTES, max(SMALL, DENSEST * size), size + MOST_MORE, most)
    try:
        with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            stream = _Stream(unpacked, limit)
            with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
                for member in archive:
                    attributes += len(member.pax_headers)
                    fault = _fault_of(member, set(found))
                    if fault or len(found) > MOST_FILES or attributes > MOST_ATTRIBUTES:
                        raise _Harmful(f"'{_shown(member.name, 100)}' {fault or 'is one of too many'}")
                    if member.isdir():
                        continue
                    stream.refuse_bomb(member.offset_data + member.size)
                    stream.in_headers, name = False, posixpath.normpath(member.name)
                    found[name], content = _member_digest(archive, member, keep=name == wanted)
                    kept, stream.in_headers = content or kept, True
                stream.in_headers = False
                _check_end(stream, archive.offset)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError, zlib.error) as error:
        raise _Harmful(f"{path} is refused: it is cut off or damaged: {_shown(error, 200)}") from error
    except _Harmful as error:
        raise _Harmful(f"{path} is refused: {error}") from error
    return found, kept


def _member_digest(archive: tarfile.TarFile, member: tarfile.TarInfo, *, keep: bool) -> tuple[dict[str, Any], bytes]:
    """Return size and sha256 of a file in an archive, and its contents, if it is small and they are to be kept."""
    digest, kept, file = hashlib.sha256(), [], archive.extractfile(member)
    for chunk in iter(lambda: file.read(CHUNK) if file else b"", b""):
        digest.update(chunk)
        if keep and member.size <= MOST_OF_A_RECORD:
            kept.append(chunk)
    return {"size": member.size, "sha256": digest.hexdigest()}, b"".join(kept)


def _check_end(stream: _Stream, offset: int) -> None:
    """Check that only zeros follow the last member; reading to the end also checks gzip's checksum."""
    ahead, length = stream.tell() - offset, 0
    rest = stream.last[-ahead:] if ahead else stream.read(MOST_AT_ONCE)
    while rest:
        if rest.count(0) != len(rest):
            raise _Harmful("something else follows its last member")
        length += len(rest)
        rest = stream.read(MOST_AT_ONCE)
    if length < tarfile.BLOCKSIZE:
        raise _Harmful("its end is missing")


# --- what the records say ---


def _build_type(builder: str, commit: str | None) -> str:
    """Return the address of the page about builds, at the commit; outside CI, where none is known, its name."""
    workflow = WORKFLOW.fullmatch(builder)
    if workflow is None:
        return f"urn:mixer-jax2tf:{BUILD_PAGE}"
    return f"{workflow['repository']}/blob/{commit or 'HEAD'}/{BUILD_PAGE}"


def _provenance_of(manifest: dict[str, Any], builder: str) -> dict[str, Any]:
    """Return what the provenance of a model of this manifest says, apart from the files it binds."""
    checkpoint, libraries = manifest["checkpoint"], sorted(manifest["libraries"].items())
    original = checkpoint["origin"] == "original"
    url = "{}/{}".format(BUCKET, checkpoint["object"]) if original else checkpoint["url"]
    dependencies: list[dict[str, Any]] = [
        {
            "name": checkpoint["object"],
            **({"uri": url} if "://" in url else {}),
            "digest": {"sha256": checkpoint["sha256"]},
            "annotations": {"origin": checkpoint["origin"], "size": checkpoint["size"]},
        }
    ]
    if manifest["git_commit"] is not None:
        dirty = {} if manifest["git_dirty"] is None else {"dirty": manifest["git_dirty"]}
        digest = {"gitCommit": manifest["git_commit"]}
        dependencies.append({"name": "mixer-jax2tf", "digest": digest, "annotations": dirty})
    kinds = ((name, "generic" if name == "python" else "pypi", version) for name, version in libraries)
    dependencies += [{"uri": f"pkg:{kind}/{name}@{version}"} for name, kind, version in kinds]
    asked = {name: manifest[name] for name in ("handle", "version", "flavour")}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _build_type(builder, manifest["git_commit"]),
                "externalParameters": {**asked, "checkpoint": checkpoint["object"]},
                "internalParameters": {name: manifest[name] for name in ("pipeline", "pipeline_sha256")},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": builder, "version": {"mixer-jax2tf": manifest["pipeline"]}}},
        },
    }


def _read_provenance(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a statement, and the sha256 of each file that it is about, by name: empty where it gives several."""
    statement = _parsed(path)
    bound: dict[str, Any] = {}
    try:
        for subject in statement.pop("subject"):
            name, sha256 = str(subject["name"]), str(subject["digest"].get("sha256", ""))
            if set(subject) != {"name", "digest"}:
                raise ValueError("a subject has other fields than expected")
            bound[name] = {"sha256": sha256 if bound.get(name, {"sha256": sha256})["sha256"] == sha256 else ""}
        builder = statement["predicate"]["runDetails"]["builder"]["id"]
        if not isinstance(builder, str):
            raise TypeError("the builder is no text")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _Harmful(f"{path} is not a readable in-toto statement: {_shown(repr(error), 200)}") from error
    return statement, bound


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield each value of a record with its path."""
    if isinstance(value, (dict, list)) and value:
        pairs = value.items() if isinstance(value, dict) else ((str(place), one) for place, one in enumerate(value))
        for name, inner in pairs:
            yield from _flat(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def _contradictions(record: str, pairs: list[tuple[str, Any, Any]], other: str) -> list[str]:
    """Return in words where two records differ: pairs of what, what the one says and what the other."""
    return [
        f"{record} says {_shown(what, 100)} {_shown(repr(said), 200)}, {other} {_shown(repr(meant), 200)}"
        for what, said, meant in pairs
        if (type(said), said) != (type(meant), meant)
    ]


SUFFIXES = {
    **{"archive": ARCHIVE, "manifest": ".manifest.json", "report": ".report.json", "accuracy": ".accuracy.json"},
    **{"about": ".about.json", "card": ".md", "sbom": ".cdx.json", "provenance": ".provenance.json"},
    "signature": ".provenance.json.sig",
}
DESCRIBED = ("about", "accuracy", "card", "sbom")  # bound by the provenance if they existed when the model was packed


class _Model:
    """A model and the records beside it; reading it begins the findings."""

    def __init__(self, path: str) -> None:
        self.path, self.is_archive, self.findings = (
            os.path.abspath(path),
            not os.path.isdir(path),
            _Findings([], [], []),
        )
        if self.is_archive and not (os.path.isfile(path) and path.endswith(ARCHIVE)):
            raise UsageError(f"{path} is neither the directory of a model nor a *{ARCHIVE} made of one.")
        self.folder, name = os.path.split(self.path)
        self.stem = name[: -len(ARCHIVE)] if self.is_archive else name
        self.names = {**{kind: self.stem + suffix for kind, suffix in SUFFIXES.items()}, "index": INDEX}
        if not self.has("manifest"):
            raise UsageError(f"{self.at('manifest')} is missing, so there is nothing to compare {path} with.")
        there = [one for one in sorted(os.listdir(self.folder)) if one.startswith(f"{self.stem}.")]
        there = [one for one in there if self.is_archive or one != self.names["archive"]]
        self.found = {one: _digests_of(file) for one in there if os.path.isfile(file := os.path.join(self.folder, one))}
        self.manifest = self.read("manifest", _read_manifest)

    def at(self, kind: str) -> str:
        """Return the path of a file beside the model."""
        return os.path.join(self.folder, self.names[kind])

    def has(self, kind: str) -> bool:
        """Return whether a file is beside the model."""
        return os.path.isfile(self.at(kind))

    def read(self, kind: str, read: Any) -> Any:  # noqa: ANN401
        """Return a record, or None if it is missing or cannot be read, which is a difference."""
        with self.refusing():
            return read(self.at(kind)) if self.has(kind) else None

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn what is refused into a difference."""
        try:
            yield
        except _Harmful as error:
            self.findings.differences.append(str(error))

    def says(self, kind: str, *pairs: tuple[str, Any, Any]) -> list[str]:
        """Return the differences of a record from the manifest: what, what it says, what the manifest says."""
        known = [one for one in pairs if self.manifest and None not in one[1:]]
        return _contradictions(self.names.get(kind, kind), known, self.names["manifest"])

    def of_manifest(self, name: str) -> Any:  # noqa: ANN401
        """Return a field of the manifest, None if that cannot be read."""
        return self.manifest[name] if self.manifest else None

    def bound(self, sha256: Any, kind: str) -> list[str]:  # noqa: ANN401
        """Return the difference of the manifest from the sha256 that a record gives."""
        name = self.names["manifest"]
        return _compare({name: {"sha256": sha256}}, {name: self.found[name]}, self.names[kind])


def _check_contents(model: _Model) -> None:
    """Compare the model's files with the manifest, and what it says of itself."""
    listed, facts = model.of_manifest("files"), b""
    most = MOST_BYTES if listed is None else sum(one["size"] for one in listed.values()) + SPARE
    with model.refusing():
        if model.is_archive:
            found, facts = _files_of_archive(model.path, most, MODEL_JSON)
        else:
            found = _files_of_directory(model.path, most)
        if listed is None:
            return
        differences = _compare(listed, found, "the manifest")
        model.findings.add(f"{len(listed)} files, as listed in {model.names['manifest']}", differences)
        version = int(model.stem) if re.fullmatch("[0-9]{1,18}", model.stem) else None
        model.findings.differences.extend(model.says("its path", ("version", version, model.manifest["version"])))
        if differences or MODEL_JSON not in listed:
            return
        facts = facts if model.is_archive else _read_small(os.path.join(model.path, *MODEL_JSON.split("/")))
        _check_facts(model, facts)


def _check_facts(model: _Model, content: bytes) -> None:
    """Compare what the model says of itself with the manifest."""
    try:
        facts = json.loads(content.decode("utf-8"))
        checkpoint, shape = facts.get("checkpoint") or {}, (facts.get("input") or {}).get("shape") or []
        output, architecture = facts.get("output") or {}, facts.get("architecture")
        classes = sorted(name for name in model.manifest["files"] if name.startswith("assets/"))
        outputs = (output.get("shape") or [None])[-1]
        pairs = [(name, facts.get(name), model.manifest[name]) for name in ("handle", "version", "parameters")]
        pairs += [
            ("flavour", (facts.get("flavour") or {}).get("name"), model.manifest["flavour"]),
            ("architecture", architecture and re.sub("^Mixer ", "", architecture), model.manifest["architecture"]),
            ("image size", shape[1] if len(shape) == 4 else None, model.manifest["image_size"]),
            ("classes", outputs, model.manifest["num_classes"]),
            ("class list", output.get("classes"), classes[0] if classes else None),
        ]
        of = model.manifest["checkpoint"]
        pairs += [(f"checkpoint.{one}", checkpoint.get(one), of[one]) for one in ("object", "sha256", "origin")]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _Harmful(f"{MODEL_JSON} is not a readable record: {_shown(error, 200)}") from error
    model.findings.add(f"{MODEL_JSON} agrees with {model.names['manifest']}", model.says(MODEL_JSON, *pairs))


def _check_report(model: _Model) -> None:
    """Check that the report is of this manifest, and that the model passed."""
    name, report = model.names["report"], model.read("report", _read_report)
    if report is None:
        if not model.has("report"):
            model.findings.not_checked.append(f"there is no {name}, so whether the model passed is unknown")
        return
    pairs = [(one, report.get(one), model.of_manifest(one)) for one in ("handle", "version", "flavour", "head")]
    pairs += [("origin", report.get("origin"), (model.of_manifest("checkpoint") or {}).get("origin"))]
    graph = (model.of_manifest("files") or {}).get("saved_model.pb", {}).get("sha256")
    pairs += [("sha256 of saved_model.pb", report.get("saved_model_sha256"), graph)]
    differences = model.says("report", *pairs) + model.bound(report.get("manifest_sha256", ""), "report")
    outputs, listed = f"{model.stem}.evidence.npz", report.get("outputs_sha256")
    if listed is not None and outputs in model.found:
        differences += _compare({outputs: {"sha256": listed}}, {outputs: model.found[outputs]}, name)
    if report.get("verdict") != "passed":
        differences.append(f"{name} says that the model {_shown(report.get('verdict'), 100)}")
    checks = report.get("checks")
    for check in checks if isinstance(checks, list) and checks else [None]:
        wrong = _problem_of(check, report.get("saved_model_sha256"))
        if wrong:
            differences.append(f"{name} contradicts itself: {_shown(wrong)}")
    model.findings.add(f"{name} is of this manifest and says that the model passed", differences)


def _problem_of(check: Any, graph: str | None) -> str | None:  # noqa: ANN401
    """Return why a check cannot be as it is in a report that passed, on a graph of this sha256."""
    if not isinstance(check, dict):
        return "it has no checks"
    made_on = check.get("made_on")
    if made_on is not None and made_on.get("saved_model_sha256") != graph:
        return f"{check.get('name')}: made on another saved_model.pb, of sha256 {made_on.get('saved_model_sha256')}"
    measured, limit, power = (check.get(name) for name in ("measured", "limit", "power"))
    if check.get("problems"):
        return f"{check.get('name')}: {check['problems']}"
    if limit is None or (power is not None and not (isinstance(power, (int, float)) and power >= 0.5)):
        return None
    fits = all(isinstance(one, (int, float)) for one in (measured, limit)) and measured <= limit
    return None if fits else f"{check.get('name')}: measured {measured}, over its limit {limit}"


def _check_bound(model: _Model, kind: str) -> None:
    """Check that the measured accuracy, or what the owner says of the model, is of this manifest."""
    record = model.read(kind, _parsed)
    if record is not None:
        pairs = [(one, record.get(one), model.of_manifest(one)) for one in ("handle", "version")]
        differences = model.says(kind, *pairs) + model.bound(record.get("manifest_sha256", ""), kind)
        model.findings.add(f"{model.names[kind]} is of this manifest", differences)


def _compare_listed(model: _Model, listed: Any, found: dict[str, Any], wanted: set[str], record: str) -> list[str]:  # noqa: ANN401
    """Return the differences of files from a record that must list the wanted ones; of a directory, no archive."""
    absent = [f"{one} is not listed in {record}" for one in sorted(wanted - set(listed) - set(model.found))]
    here = {one: digest for one, digest in listed.items() if model.is_archive or one != model.names["archive"]}
    return absent + _compare(here, found, record)


def _check_provenance(model: _Model) -> None:
    """Compare the provenance with the manifest in every field, and with the files that it binds."""
    name, read = model.names["provenance"], model.read("provenance", _read_provenance)
    if read is None:
        if not model.has("provenance"):
            model.findings.not_checked.append(f"there is no {name}, so who packed the model is unknown")
        return
    statement, listed = read
    builder, differences = statement["predicate"]["runDetails"]["builder"]["id"], []
    if model.manifest:
        said, meant = dict(_flat(statement)), dict(_flat(_provenance_of(model.manifest, builder)))
        pairs = [(what, said.get(what), meant.get(what)) for what in sorted(set(said) | set(meant))]
        if builder != LOCAL_BUILDER and not WORKFLOW.fullmatch(builder):
            pairs.append(("builder.id", builder, f"{LOCAL_BUILDER} or the address of a workflow"))
        differences = _contradictions(name, pairs, model.names["manifest"])
    described = {model.names[kind] for kind in DESCRIBED}
    both = described & set(listed) & set(model.found)
    wanted = {model.names[kind] for kind in ("archive", "manifest", "report")}
    seen = {one: digest for one, digest in listed.items() if one not in described - both}
    there = {one: digest for one, digest in model.found.items() if one in wanted | both}
    differences += _compare_listed(model, seen, there, wanted, name)
    model.findings.add(f"{name} binds {_shown(', '.join(listed))}", differences)
    for one in sorted(described - both):
        if one in model.found:
            model.findings.not_checked.append(f"{one} is not bound by {name}, so who wrote it is unknown")
        elif one in listed:
            model.findings.not_checked.append(f"{name} binds {one}, missing here")


def _check_index(model: _Model) -> None:
    """Compare the list of what is published with the files."""
    index = model.read("index", _read_index)
    if index is None:
        return
    differences = model.says("index", ("handle", index["handle"], model.of_manifest("handle")))
    listed = index["versions"].get(model.stem)
    if not listed:
        differences.append(f"{INDEX} does not list version {model.stem}: its publication is incomplete")
    else:
        wanted = {model.names[kind] for kind in ("archive", "manifest", "report", "provenance")}
        differences += _compare_listed(model, listed, model.found, wanted, INDEX)
    model.findings.add(f"{INDEX} lists {_shown(', '.join(listed or ()))}", differences)


# --- the signature ---


def check_signature(statement: Any, bundle: Any, key: Any) -> str | None:  # noqa: ANN401 (paths)
    """Return why a signature (a Sigstore bundle by `model-signing`) is not one of a statement's file; None if it is.

    Raises:
        UsageError: `cryptography` is not installed, or the file is no public key of an elliptic curve.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise UsageError(f"--key needs cryptography ({error}): `pip install cryptography` installs it.") from error
    kinds: dict[str, Any] = {"secp256r1": hashes.SHA256, "secp384r1": hashes.SHA384, "secp521r1": hashes.SHA512}
    try:
        public: Any = serialization.load_pem_public_key(_read_small(key))
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        algorithm = ec.ECDSA(kinds[public.curve.name]())
    except (OSError, ValueError, AttributeError, KeyError, _Harmful) as error:
        raise UsageError(
            f"--key {key} is not a usable public key ({type(error).__name__}: {_shown(error, 200)}): expected a PEM "
            "file with a public key of the curve P-256, P-384 or P-521."
        ) from error
    name = os.path.basename(bundle)
    try:
        signed, payload = _parsed(bundle), "application/vnd.in-toto+json"
        content = base64.b64decode(signed["dsseEnvelope"]["payload"], validate=True)
        signature = base64.b64decode(signed["dsseEnvelope"]["signatures"][0]["sig"], validate=True)
        if signed != _bundle_of(content, signature, payload, hashlib.sha256(pem).hexdigest()):
            return f"{name} is not a bundle of one signature by this key"
        public.verify(
            signature, b"DSSEv1 %d %s %d %s" % (len(payload), payload.encode(), len(content), content), algorithm
        )
        resources = json.loads(content)["predicate"]["resources"]
        expected = [{"digest": _digests_of(statement)["sha256"], "algorithm": "sha256", "name": "."}]
        return None if resources == expected else f"{name} is a signature of another {os.path.basename(statement)}"
    except InvalidSignature:
        return f"{name} is not a signature by this key"
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, _Harmful) as error:
        return f"{name} is not a readable bundle of a signature: {_shown(repr(error), 200)}"


def _bundle_of(content: bytes, signature: bytes, payload: str, hint: str) -> dict[str, Any]:
    """Return the bundle of one signature by a key."""
    encoded = [base64.b64encode(one).decode() for one in (content, signature)]
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": encoded[0],
            "payloadType": payload,
            "signatures": [{"sig": encoded[1], "keyid": ""}],
        },
    }


def _judge_signature(model: _Model, key: str | None) -> None:
    """Check the signature of the provenance with a key, or say that it was not checked."""
    name = model.names["signature"]
    if key is None:
        if model.has("signature"):
            model.findings.not_checked.append(f"the signature {name}: give the publisher's public key with --key")
        return
    signed = model.names["provenance"]
    there = model.has("signature") and model.has("provenance")
    wrong = None if there else f"{name} or {signed}, which it signs, is missing"
    wrong = wrong or check_signature(model.at("provenance"), model.at("signature"), key)
    model.findings.add(f"{name} is a signature of {signed} by the key", [wrong] if wrong else [])


# --- the command ---


def verify(path: str, key: str | None = None) -> dict[str, Any]:
    """Return what agrees, was not checked, and differs, as `mixer-jax2tf verify --json` does.

    Raises:
        UsageError: the path is no model with a manifest beside it, or the key cannot be used.
    """
    model = _Model(path)
    _check_contents(model)
    _check_report(model)
    for kind in ("about", "accuracy"):
        _check_bound(model, kind)
    _check_provenance(model)
    _check_index(model)
    _judge_signature(model, key)
    handle = model.of_manifest("handle")
    return {
        "path": path,
        "kind": "archive" if model.is_archive else "directory",
        "handle": None if handle is None else _shown(handle, 100),
        "version": model.of_manifest("version"),
        "verdict": "different" if model.findings.differences else "same",
        **{name: [_shown(one) for one in found] for name, found in model.findings._asdict().items()},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(description="Verify a published model against the records beside it.")
    parser.add_argument("path", metavar="PATH", help="a SavedModel's directory, or its .tar.gz")
    parser.add_argument(
        "--key", metavar="KEY.pub", help="the publisher's public key (PEM), to check the signature with"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    try:
        found = verify(given.path, given.key)
    except (UsageError, OSError) as error:
        print(f"error: {_shown(error)}", file=sys.stderr)  # noqa: T201
        return 2
    if given.json:
        print(json.dumps(found, indent=1))  # noqa: T201
    else:
        for title, name in (("same", "checked"), ("not checked", "not_checked"), ("DIFFERENT", "differences")):
            for one in found[name]:
                print(f"{title}: {one}")  # noqa: T201
    return 3 if found["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
