"""Make the provenance: an in-toto statement that binds a model's archive and the files beside it by their sha256.

Formats: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and https://slsa.dev/spec/v1.0/provenance.
It contains no timestamps: equal inputs, packed by the same builder, give equal bytes.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from models.catalog import BUCKET
from models.errors import MixerError
from models.records.manifest import MOST_BYTES, Manifest, fault_of
from models.storage.files import read_small

BUILD_PAGE = "export/README.md#provenance"
"""The page of the repository that says what a build is and what its parameters mean."""

LOCAL_BUILDER = "urn:mixer-jax2tf:local"
"""The builder outside CI."""

WORKFLOW = re.compile(r"(?P<repository>https?://[^/\s]+/[^/\s]+/[^/\s]+)/[^@\s]+@\S+")
"""The builder in CI: `<server>/<owner>/<repository>/<path of the workflow>@<ref>`."""


class _Part(BaseModel):
    # The formats let readers ignore unknown fields; here, one that nobody wrote is a damaged one.
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class _Resource(_Part):
    """An artifact, identified by name, URI or digest."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, str] | None = None
    annotations: dict[str, str | int | bool] | None = None


class _BuildDefinition(_Part):
    """What was requested, and what it was built from."""

    build_type: str
    external_parameters: dict[str, str | int]
    internal_parameters: dict[str, str] = {}
    resolved_dependencies: tuple[_Resource, ...] = ()


class _Builder(_Part):
    """Who built it."""

    id: str
    version: dict[str, str] = {}


class _RunDetails(_Part):
    """How it was built."""

    builder: _Builder


class _Predicate(_Part):
    """SLSA's description of how something was built."""

    build_definition: _BuildDefinition
    run_details: _RunDetails


class Statement(_Part):
    """An in-toto statement about files."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(validation_alias="_type", serialization_alias="_type")
    subject: tuple[_Resource, ...]
    predicate_type: Literal["https://slsa.dev/provenance/v1"]
    predicate: _Predicate

    @classmethod
    def of(cls, manifest: Manifest, bound: Mapping[str, str], *, builder: str | None = None) -> Self:
        """Return the statement about files that were made from a model.

        Args:
            manifest: the model's manifest.
            bound: the sha256 of each file, by name.
            builder: who made them; None for the current builder.
        """
        builder = builder or _builder()
        definition = _BuildDefinition(
            build_type=_build_type(builder, manifest.git_commit),
            external_parameters={
                "handle": manifest.handle,
                "version": manifest.version,
                "flavour": manifest.flavour,
                "checkpoint": manifest.checkpoint.object,
            },
            internal_parameters={"pipeline": manifest.pipeline, "pipeline_sha256": manifest.pipeline_sha256},
            resolved_dependencies=(_checkpoint(manifest), *_sources(manifest), *_libraries(manifest)),
        )
        made_by = _Builder(id=builder, version={"mixer-jax2tf": manifest.pipeline})
        return cls(
            type="https://in-toto.io/Statement/v1",
            predicate_type="https://slsa.dev/provenance/v1",
            subject=tuple(_Resource(name=name, digest={"sha256": sha256}) for name, sha256 in bound.items()),
            predicate=_Predicate(build_definition=definition, run_details=_RunDetails(builder=made_by)),
        )

    def to_bytes(self) -> bytes:
        """Return the contents of the statement's file: indented JSON, UTF-8."""
        return self.model_dump_json(indent=1, by_alias=True, exclude_none=True).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a statement from its file.

        Raises:
            MixerError: the file cannot be read, or is not such a statement.
        """
        wrong = f"{path} is not a readable in-toto statement with SLSA provenance"
        try:
            return cls.model_validate_json(read_small(path, MOST_BYTES))
        except OSError as error:
            raise MixerError(f"{wrong}: {error.strerror or error}") from error
        except ValidationError as error:
            raise MixerError(f"{wrong}: {fault_of(error)}") from error

    @property
    def bound(self) -> dict[str, str]:
        """The sha256 of each file that it is about, by name; an empty string where it gives none, or several."""
        bound: dict[str, str] = {}
        for subject in self.subject:
            name, sha256 = str(subject.name), (subject.digest or {}).get("sha256", "")
            bound[name] = sha256 if bound.get(name, sha256) == sha256 else ""
        return bound


def _checkpoint(manifest: Manifest) -> _Resource:
    checkpoint = manifest.checkpoint
    # Originals come from the bucket, wherever they were read from; a local path means nothing to others.
    url = f"{BUCKET}/{checkpoint.object}" if checkpoint.origin == "original" else checkpoint.url
    return _Resource(
        name=checkpoint.object,
        uri=url if "://" in url else None,
        digest={"sha256": checkpoint.sha256},
        annotations={"origin": checkpoint.origin, "size": checkpoint.size},
    )


def _sources(manifest: Manifest) -> tuple[_Resource, ...]:
    if manifest.git_commit is None:
        return ()
    dirty = {} if manifest.git_dirty is None else {"dirty": manifest.git_dirty}
    return (_Resource(name="mixer-jax2tf", digest={"gitCommit": manifest.git_commit}, annotations={**dirty}),)


def _libraries(manifest: Manifest) -> tuple[_Resource, ...]:
    return tuple(
        _Resource(uri=f"pkg:{'generic' if name == 'python' else 'pypi'}/{name}@{version}")
        for name, version in sorted(manifest.libraries.items())
    )


def _build_type(builder: str, commit: str | None) -> str:
    """Return the address of the page about builds, at the commit; outside CI, where none is known, its name."""
    workflow = WORKFLOW.fullmatch(builder)
    if workflow is None:
        return f"urn:mixer-jax2tf:{BUILD_PAGE}"
    return f"{workflow['repository']}/blob/{commit or 'HEAD'}/{BUILD_PAGE}"


def _builder() -> str:
    workflow = os.environ.get("GITHUB_WORKFLOW_REF")
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{workflow}" if workflow else LOCAL_BUILDER
