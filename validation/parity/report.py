"""The report: the verdict on one SavedModel, bound to its manifest."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from models.records.check import GRAPH, Check
from models.records.manifest import Manifest
from models.records.provenance import VALIDATOR_SOURCES, library_versions, sources_sha256
from models.records.report import DepthStep, InputsSet, PublishedComparison, Report
from models.records.tolerances import TOLERANCES
from validation.parity.check import Findings
from validation.parity.images import Inputs


@dataclass(frozen=True)
class Extras:
    """What was found besides the parity of outputs and variables, most of it by the full set alone."""

    checks: tuple[Check, ...] = ()
    fine_tunable: bool | None = None
    depth: tuple[DepthStep, ...] = ()
    outputs_sha256: str | None = None
    """Of the file of saved outputs, if it was written."""


GATE = Extras()

_USED_BY_CONSUMERS = ("keras", "tf-keras", "tensorflow-hub")
"""Libraries that only `consumer.py` uses."""


def make_report(
    manifest_bytes: bytes,
    findings: Findings,
    inputs: Inputs,
    *,
    inputs_set: InputsSet = "gate",
    extras: Extras = GATE,
    other_problems: Sequence[str] = (),
    zero_head: bool = False,
    reference: PublishedComparison | None = None,
) -> Report:
    """Return the report of these findings on the model of a manifest.

    Args:
        manifest_bytes: the manifest as it is on disk.
        findings: what the parity check measured.
        inputs: the images that it was measured on.
        inputs_set: the name of their set.
        extras: what else was measured.
        other_problems: what else is wrong with the model, for instance files that differ from the manifest.
        zero_head: whether the head's kernel is zero throughout.
        reference: how it compares with an earlier published version; does not affect the verdict.
    """
    manifest = Manifest.model_validate_json(manifest_bytes)
    files = Check(name="files", on="against the manifest", problems=tuple(other_problems))
    checks = (files, *findings.checks, *extras.checks)
    return Report(
        handle=manifest.handle,
        version=manifest.version,
        flavour=manifest.flavour,
        head=manifest.head,
        saved_model_sha256=manifest.saved_model_sha256,
        origin=manifest.checkpoint.origin,
        manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
        inputs_set=inputs_set,
        inputs_sha256=inputs.sha256,
        images=tuple(name for name in inputs.names if name in findings.outputs),
        checks=checks,
        zero_head=zero_head,
        fine_tunable=extras.fine_tunable,
        depth=extras.depth,
        reference=reference,
        outputs_sha256=extras.outputs_sha256,
        not_checked=_not_checked(manifest, inputs_set, traced=any(check.name == GRAPH for check in checks)),
        tolerances=TOLERANCES,
        verdict="failed" if any(check.problems for check in checks) else "passed",
        libraries=_libraries(),
        validator_sha256=sources_sha256(*VALIDATOR_SOURCES),
    ).concluded()


def _not_checked(manifest: Manifest, inputs_set: InputsSet, *, traced: bool) -> tuple[str, ...]:
    others = [platform for platform in manifest.platforms if platform != "cpu"]
    said = [f"{', '.join(others)}: exported, not run"] if others else []
    said += (
        ["gradients, and the ways users call a model: only `--set full` checks them"] if inputs_set == "gate" else []
    )
    said += [] if traced else ["saved_model.pb against a fresh trace: other sources or libraries made the model"]
    return tuple(said)


def _libraries() -> dict[str, str]:
    """Return the versions of the libraries that a check uses, and the device that JAX computes on."""
    import jax  # not needed to read reports

    device = jax.devices()[0]
    used = {name: metadata.version(name) for name in _USED_BY_CONSUMERS}
    where = {"platform": device.platform if device.platform == "cpu" else device.device_kind}
    return library_versions() | used | where


def is_current(report: Report, manifest_bytes: bytes) -> bool:
    """Return whether a report is about this manifest, and was made by the present checks and library versions."""
    return (
        report.manifest_sha256 == hashlib.sha256(manifest_bytes).hexdigest()
        and report.validator_sha256 == sources_sha256(*VALIDATOR_SOURCES)
        and report.libraries == _libraries()
    )
