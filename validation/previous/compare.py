"""Compare two versions of a handle: the SavedModel made now, and an earlier published one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.records.check import Check
from models.records.report import PublishedComparison, PublishedVariables
from validation.parity.images import Inputs
from validation.parity.outputs import Expected, Outputs, compare_outputs
from validation.previous.inspect import ENTRY, Fingerprint, Inspection, Tensors
from validation.previous.open import Published

MOST_NAMES = 5
"""Most names of variables in a message; the record has them all."""


def compare_versions(directory: Path, published: Published, inputs: Inputs, expected: Expected) -> PublishedComparison:
    """Compare the SavedModel in `directory` with a published one: outputs, signatures, variables.

    If one of them cannot be loaded, read or run, that is a difference like any other.

    Args:
        directory: the SavedModel made now.
        published: the earlier one; its variables and tensors may have other names.
        inputs: the images that both are run on.
        expected: the outputs expected of the model made now; gives the scale, and whether the outputs are logits.
    """
    theirs = Inspection.of(published.directory, inputs.images)
    ours = Inspection.of(directory.resolve(), inputs.images)
    differences = [f"{published.name} {problem}" for problem in theirs.problems]
    differences += [f"this version {problem}" for problem in ours.problems]
    outputs, signatures, variables = None, None, None
    if ours.outputs is not None and theirs.outputs is not None:
        outputs, wrong = _compare_outputs(ours.outputs, theirs.outputs, inputs.names, expected)
        differences += wrong
    if ours.signatures is not None and theirs.signatures is not None:
        signatures = tuple(_signature_differences(ours, theirs))
        differences += signatures
    if ours.variables is not None and theirs.variables is not None:
        variables = _match_variables(ours.variables, theirs.variables)
        differences += _variable_differences(variables)
    return PublishedComparison(
        name=published.name,
        kind=published.kind,
        sha256=published.sha256,
        outputs=outputs,
        signatures=signatures,
        variables=variables,
        differences=tuple(differences),
        verdict="different" if differences else "same",
    )


def _compare_outputs(
    ours: Outputs, theirs: Outputs, names: tuple[str, ...], expected: Expected
) -> tuple[tuple[Check, ...] | None, list[str]]:
    if ours.shape != theirs.shape or ours.ndim != 2 or len(ours) != len(names):
        return None, [f"outputs: shape {ours.shape}, in the published version {theirs.shape}"]
    if not np.isfinite(theirs).all():
        odd = [name for name, row in zip(names, theirs, strict=True) if not np.isfinite(row).all()]
        return None, [f"outputs: the published version's are not finite on {', '.join(odd)}"]
    published = replace(expected, names=names, jax=theirs, oracle={})
    checks = compare_outputs(ENTRY, ours, published, np.arange(len(names))).checks
    return checks, [f"outputs: {problem}" for check in checks for problem in check.problems]


def _signature_differences(ours: Inspection, theirs: Inspection) -> Iterator[str]:
    """Yield the differences that a consumer of the published version would notice; an added signature is none."""
    here, there = ours.signatures or {}, theirs.signatures or {}
    for name in sorted(there):
        if name not in here:
            yield f"signature {name}: only in the published version"
        else:
            pairs = {
                "takes": (here[name].takes, there[name].takes),
                "returns": (here[name].returns, there[name].returns),
            }
            for verb, (now, then) in pairs.items():
                if now != then:
                    yield f"signature {name}: {verb} {_listed(now)}, in the published version {_listed(then)}"


def _listed(tensors: Tensors) -> str:
    return "; ".join(f"{name}: {dtype} {shape}" for name, (dtype, shape) in sorted(tensors.items())) or "nothing"


def _match_variables(ours: Sequence[Fingerprint], theirs: Sequence[Fingerprint]) -> PublishedVariables:
    """Find an equal counterpart for each of our variables: by name where that is possible, otherwise by contents."""
    named = _only_names(ours).keys() & _only_names(theirs).keys()
    theirs_named = _only_names(theirs)
    different = [one.name for one in ours if one.name in named and one.contents != theirs_named[one.name].contents]
    free = Counter(one.contents for one in theirs if one.name not in named)
    for one in ours:
        if one.name in named:
            continue
        if free[one.contents]:
            free[one.contents] -= 1
        else:
            different.append(one.name)
    left_over = []
    for one in theirs:
        if one.name not in named and free[one.contents]:
            free[one.contents] -= 1
            left_over.append(str(one))
    return PublishedVariables(
        count=len(ours),
        published=len(theirs),
        same_name=len(named),
        equal=len(ours) - len(different),
        different=tuple(sorted(different)),
        left_over=tuple(sorted(left_over)),
    )


def _only_names(variables: Sequence[Fingerprint]) -> dict[str, Fingerprint]:
    """Return the variables whose name is unique, by name."""
    counts = Counter(one.name for one in variables)
    return {one.name: one for one in variables if counts[one.name] == 1}


def _variable_differences(found: PublishedVariables) -> Iterator[str]:
    if found.different:
        yield (
            f"variables: {len(found.different)} of {found.count} have no equal counterpart in the published version: "
            f"{_shortened(found.different)}"
        )
    if found.left_over:
        yield (
            f"variables: {len(found.left_over)} of the published version's {found.published} have none here: "
            f"{_shortened(found.left_over)}"
        )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
