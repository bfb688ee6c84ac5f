"""The last stage: compare the SavedModel on disk with JAX and the oracle, and write the report."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
import tensorflow as tf

from models.catalog import Checkpoint, Handle, Head
from models.params import Params
from models.records.check import GRAPH, Check, MadeOn
from models.records.contents import compare_files, digest_files
from models.records.layout import ModelPaths
from models.records.manifest import CheckpointRecord, Manifest
from models.records.provenance import PIPELINE_SOURCES, library_versions, sources_sha256
from models.records.report import DepthStep, InputsSet, PublishedComparison, Report
from models.storage.files import sha256_of, write_atomically
from models.storage.temporary import uninterrupted
from validation.compatibility.run_consumer import OF_THE_GRAPH, check_consumer
from validation.compatibility.same_graph import find_checks
from validation.memory import keep_large_blocks_apart, release, trim
from validation.parity.check import GATE_ORACLE, GATE_PLAN, check_parity, full_plan, one_line
from validation.parity.depth import apply_steps, compare_depth
from validation.parity.gradients import JaxGradients
from validation.parity.images import Inputs
from validation.parity.near_tie import find_near_tie
from validation.parity.oracle import Values, trace_oracle
from validation.parity.reference import Reference, apply_both
from validation.parity.report import GATE, Extras, make_report
from validation.parity.saved_outputs import SavedOutputs
from validation.previous.compare import compare_versions
from validation.previous.open import Published

SOME_INPUTS = ("noise", "chelsea.png")
"""Inputs of the gradient check and of the comparison along the depth."""


class _Original(Protocol):
    """The checkpoint that models are compared with."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Its row in the catalog."""

    @property
    def path(self) -> Path:
        """Its file."""

    @property
    def prefix(self) -> str:
        """What the names in the file begin with."""

    @property
    def record(self) -> CheckpointRecord:
        """Source, size and sha256 of the file."""

    @property
    def params(self) -> Params:
        """Its params, including the head."""

    def for_head(self, head: Head) -> Params:
        """Return the params of a handle with that head."""

    def release(self) -> None:
        """Free the memory of the params; they are read again when next asked for."""


class Gate:
    """The checks on the handles of one checkpoint: JAX and the oracle run once, when first needed."""

    def __init__(
        self,
        original: _Original,
        inputs_set: InputsSet,
        *,
        trace: Callable[[Handle, Path | None], bytes],
        write_steps: Callable[[Handle, dict[str, np.ndarray], Path], None],
        explain: bool = False,
        published: Published | None = None,
    ) -> None:
        self._original = original
        self._trace = trace
        self._write_steps = write_steps
        self._set = inputs_set
        self._explains = explain
        self._published = published
        if inputs_set == "full":
            keep_large_blocks_apart()

    def check(self, handle: Handle, destination: ModelPaths) -> Report:
        """Check the model at the destination, and write its report.

        Raises:
            MixerError: there is no converted model.
        """
        destination.require_manifest()
        manifest_bytes = destination.manifest.read_bytes()
        manifest = Manifest.read(destination.manifest)
        reference = self._reference
        plan = GATE_PLAN if self._set == "gate" else full_plan(reference.inputs.names)
        findings = check_parity(destination.directory, handle, self._params(handle), reference, plan)
        problems = [
            *self._identity_problems(manifest, handle, destination),
            *compare_files(manifest.files, digest_files(destination.directory)),
        ]
        extras, outputs = replace(GATE, checks=self._check_graph(manifest, handle, destination)), b""
        if findings.comparisons:
            outputs = SavedOutputs.collect(findings, reference.for_head(handle.head), reference.inputs).to_bytes()
            extras = replace(extras, outputs_sha256=hashlib.sha256(outputs).hexdigest())
        if findings.comparisons and (self._set == "full" or self._explains):
            extras, more = self._check_extras(handle, destination, extras)
            problems += more
        report = make_report(
            manifest_bytes,
            findings,
            reference.inputs,
            inputs_set=self._set,
            extras=extras,
            other_problems=problems,
            zero_head=reference.zero_head and handle.head == "classification",
            reference=self._compare_with_published(handle, destination),
        )
        with uninterrupted():  # an earlier report lists other outputs
            if outputs:
                write_atomically(destination.outputs, outputs)
            else:
                destination.outputs.unlink(missing_ok=True)
            write_atomically(destination.report, report.to_bytes())
        return report

    def _compare_with_published(self, handle: Handle, destination: ModelPaths) -> PublishedComparison | None:
        if self._published is None:
            return None
        expected = self._reference.for_head(handle.head)
        return compare_versions(destination.directory, self._published, self._reference.inputs, expected)

    @cached_property
    def _reference(self) -> Reference:
        checkpoint, params = self._original.checkpoint, self._original.params
        size, compute = checkpoint.architecture.image_size, partial(Reference.compute, prefix=self._original.prefix)
        if self._set == "gate":
            return compute(checkpoint, self._original.path, params, Inputs.gate(size), GATE_ORACLE)
        inputs = Inputs.full(size)
        inputs += find_near_tie(lambda images: apply_both(checkpoint, params, images)[0], inputs)
        return compute(checkpoint, self._original.path, params, inputs, inputs.names, probe_stem=True)

    def _identity_problems(self, manifest: Manifest, handle: Handle, destination: ModelPaths) -> list[str]:
        problems = []
        if manifest.handle != handle.name:
            problems.append(f"the manifest is of {manifest.handle}, expected {handle.name}")
        if manifest.flavour != handle.flavour:
            problems.append(f"the manifest is of flavour {manifest.flavour}, expected {handle.flavour}")
        if manifest.version != destination.version:
            problems.append(f"the manifest is of version {manifest.version}, expected {destination.version}")
        if manifest.checkpoint.sha256 != self._original.record.sha256:
            problems.append(
                f"made from a checkpoint of sha256 {manifest.checkpoint.sha256}, compared with one of "
                f"{self._original.record.sha256}"
            )
        return problems

    def _check_graph(self, manifest: Manifest, handle: Handle, destination: ModelPaths) -> tuple[Check, ...]:
        """Compare `saved_model.pb` with a graph traced now, if the same sources and libraries made the model."""
        if (manifest.libraries, manifest.pipeline_sha256) != (library_versions(), sources_sha256(*PIPELINE_SOURCES)):
            return ()
        class_list = None if manifest.class_list is None else destination.directory / manifest.class_list
        expected = hashlib.sha256(self._trace(handle, class_list)).hexdigest()
        same = manifest.saved_model_sha256 == expected
        said = f"saved_model.pb has sha256 {manifest.saved_model_sha256}, but a fresh trace gives {expected}"
        return (Check(name=GRAPH, on="a fresh trace", problems=() if same else (said,)),)

    def _check_extras(self, handle: Handle, destination: ModelPaths, extras: Extras) -> tuple[Extras, list[str]]:
        problems = []
        try:
            extras = replace(extras, depth=self._explain(handle, destination))
        except Exception as error:  # TensorFlow raises several types
            problems.append(f"depth: {one_line(error, destination.directory)}")
        if self._set == "full":
            gradients, consumed = self._check_use(handle, destination)
            fine_tunable = not any(check.problems for check in gradients)
            extras = replace(extras, checks=(*extras.checks, *gradients, *consumed), fine_tunable=fine_tunable)
        return extras, problems

    def _check_use(self, handle: Handle, destination: ModelPaths) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
        """Return the checks of gradients and of the consumer; a report on a model with the same graph may have them."""
        digest = sha256_of(destination.directory / "saved_model.pb")
        made_on = MadeOn(handle=handle.name, saved_model_sha256=digest)
        known = find_checks(destination.out, digest, OF_THE_GRAPH)
        gradients = tuple(check for check in known if check.name != "consumer")
        consumed = tuple(check for check in known if check.name == "consumer")
        gradients = gradients or self._check_gradients(handle, destination, made_on)
        self._make_room()
        expected = self._reference.for_head(handle.head)
        return gradients, check_consumer(destination, self._reference.inputs, expected, made_on, consumed)

    def _make_room(self) -> None:
        """Release what JAX holds: TensorFlow and the consumer need the memory."""
        self._original.release()
        jax.clear_caches()  # type: ignore[no-untyped-call]
        trim()

    def _check_gradients(self, handle: Handle, destination: ModelPaths, made_on: MadeOn) -> tuple[Check, ...]:
        inputs = self._some_inputs()
        features = self._reference.features[[self._reference.inputs.names.index(name) for name in inputs.names]]
        expected = JaxGradients.compute(handle, self._params(handle), inputs, features)
        self._make_room()
        model = tf.saved_model.load(str(destination.directory))
        try:
            found = expected.compare(model, handle).checks
            return tuple(check.model_copy(update={"made_on": made_on}) for check in found)
        except Exception as error:  # TensorFlow raises several types
            said = f"gradients: {one_line(error, destination.directory)}"
            return (Check(name="gradient_relative", on=", ".join(inputs.names), power=0, problems=(said,)),)
        finally:
            release(model)

    def _explain(self, handle: Handle, destination: ModelPaths) -> tuple[DepthStep, ...]:
        """Compare the activations step by step, with the apply function converted again to return all of them.

        That function has no gradients, and uses the model's own variables, so a wrong one shows at its step.
        """
        architecture, images = handle.checkpoint.architecture, self._some_inputs().images
        with tempfile.TemporaryDirectory() as folder:
            self._write_steps(handle, _read_variables(destination), Path(folder))
            again = tf.saved_model.load(folder)
            found = {name: value.numpy() for name, value in again(tf.constant(images)).items()}
            release(again)
        in_jax = jax.jit(apply_steps(architecture, handle.num_classes))(self._params(handle), images)
        return compare_depth(self._oracle_steps, {name: np.asarray(value) for name, value in in_jax.items()}, found)

    @cached_property
    def _oracle_steps(self) -> tuple[tuple[str, Values], ...]:
        return tuple(trace_oracle(self._original.path, self._some_inputs().images, prefix=self._original.prefix))

    def _params(self, handle: Handle) -> Params:
        return self._original.for_head(handle.head)

    def _some_inputs(self) -> Inputs:
        inputs = self._reference.inputs
        return Inputs(SOME_INPUTS, inputs.images[[inputs.names.index(name) for name in SOME_INPUTS]])


def _read_variables(destination: ModelPaths) -> dict[str, np.ndarray]:
    model = tf.saved_model.load(str(destination.directory))
    arrays = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}
    release(model)
    return arrays
