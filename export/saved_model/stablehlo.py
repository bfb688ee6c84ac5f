"""Lower the StableHLO artifacts of a SavedModel for older TensorFlow, without changing what they compute.

`jax.export` writes artifacts in the current version of StableHLO, with debug locations. TensorFlow reads no artifact
newer than its own StableHLO, and reports this only at the first call, not when it loads the model. The artifact is the
`module` attribute of each `XlaCallModule` node, in forward and gradient functions. Each artifact is

1. read back (StableHLO guarantees five years of backward compatibility,
   https://github.com/openxla/stablehlo/blob/main/docs/compatibility.md),
2. stripped of debug locations, which newer encodings contain and which include paths of the machine that made it,
3. written again as version `STABLEHLO_VERSION`, which fails if an operation did not exist in that version, and
4. marked with `XLA_CALL_MODULE_VERSION`.

An artifact with custom calls is refused, because nothing is known about where they run. The only exception is the check
of the symbolic batch size (`shape_assertion`), which is removed: TensorFlow 2.13 does not implement it, and the
SavedModel checks its input itself (`export.saved_model.writer`).
"""

import re
from collections.abc import Iterator

from jax.extend.mlir import ir, passmanager
from jax.extend.mlir.dialects import stablehlo
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from models.errors import MixerError, shown

STABLEHLO_VERSION = "0.9.0"
"""The oldest version that can be written: TensorFlow 2.13 reads nothing newer, 2.14 and 2.15 nothing after 0.14.0."""

XLA_CALL_MODULE_VERSION = 5
"""The op's version attribute: the oldest that TensorFlow 2.21 accepts, and the newest that 2.13 accepts.

Later versions add features that are not used here: checks that can be turned off (6), shape assertions (7), a mark on
modules with unknown sizes (8), and a different order of effects (9).
"""

SHAPE_ASSERTION = "shape_assertion"

PLAIN = "strip-debuginfo"
"""The pass for every artifact; tried first."""

EXPANDED = (
    "func.func(stablehlo-legalize-composite-to-call),inline,symbol-dce,"
    f"stablehlo-compatibility-expander{{target={STABLEHLO_VERSION}}},{PLAIN}"
)
"""The passes for an artifact with later operations or composites, such as `tan`, `lax.erf`, `asin` or `top_k`: each is
replaced by the operations that it consists of, where `STABLEHLO_VERSION` has them."""


_REFUSED = (ValueError, RuntimeError, ir.MLIRError)
"""The exceptions that MLIR's Python bindings raise."""


def lower_artifacts(saved_model: SavedModel) -> int:
    """Lower every artifact of a SavedModel, in place.

    Returns:
        The number of artifacts lowered.

    Raises:
        MixerError: an artifact contains something that is not known to run in all supported TensorFlow releases.
    """
    lowered = 0
    for node in _xla_call_modules(saved_model):
        node.attr["module"].s = _lower_artifact(node.attr["module"].s)
        node.attr["version"].i = XLA_CALL_MODULE_VERSION
        lowered += 1
    return lowered


def _lower_artifact(artifact: bytes) -> bytes:
    """Return a portable StableHLO artifact as `STABLEHLO_VERSION`, without debug locations.

    Raises:
        MixerError: the artifact contains more than StableHLO or an unknown custom call, or cannot be written in that
            version.
    """
    with ir.Context() as context:
        stablehlo.register_dialect(context)
        stablehlo.register_stablehlo_passes()
        said: list[str] = []

        def note(found: ir.Diagnostic) -> bool:  # else it would be printed
            said.append(str(found.message))
            return True

        context.attach_diagnostic_handler(note)
        try:
            return _written(_read(context, artifact), PLAIN)
        except _REFUSED:
            said.clear()
        try:
            return _written(_read(context, artifact), EXPANDED)
        except _REFUSED as error:
            raise MixerError(
                f"the exported function cannot be written as StableHLO {STABLEHLO_VERSION}, which TensorFlow 2.13 "
                f"reads{_lacks(said)}. Write the model without it. (A batched gather or scatter comes from the "
                "gradient of top_k, for one: such a function is exported without its gradient.)"
            ) from error


def _read(context: ir.Context, artifact: bytes) -> ir.Module:
    """Read an artifact without its custom calls, again for each attempt: a failed one may have changed the module."""
    try:
        module = stablehlo.deserialize_portable_artifact(context, artifact)
    except _REFUSED as error:
        raise MixerError(
            f"the exported function cannot be read back ({error}): it is not an artifact, or contains more than "
            "StableHLO, such as the sharding of a linear solver. Write the model without it."
        ) from error
    calls = list(_custom_calls(module.operation))
    unknown = sorted(set(map(_target, calls)) - {SHAPE_ASSERTION})
    if unknown:
        raise MixerError(
            f"the exported function calls {', '.join(unknown)}, and on which platforms that runs is unknown. Write the "
            "model without it."
        )
    for call in calls:
        call.erase()
    return module


def _written(module: ir.Module, passes: str) -> bytes:
    passmanager.PassManager.parse(f"builtin.module({passes})").run(module.operation)
    return bytes(stablehlo.serialize_portable_artifact(module, STABLEHLO_VERSION))


def _lacks(said: list[str]) -> str:
    """Return the words for the operations or types that are missing, according to MLIR's diagnostics."""
    names = re.findall(r"vhlo\.(\w+?)(?:_v\d+)?\b", " ".join(text.partition(":")[0] for text in said))
    found = sorted({shown(name) for name in names} - {"func"})
    return f": that version has no such {' or '.join(found)}" if found else ""


def _xla_call_modules(saved_model: SavedModel) -> Iterator[NodeDef]:
    for meta_graph in saved_model.meta_graphs:
        graph = meta_graph.graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            yield from (node for node in nodes if node.op == "XlaCallModule")


def _custom_calls(operation: ir.Operation) -> Iterator[ir.Operation]:
    if operation.name == "stablehlo.custom_call":
        yield operation
    for region in operation.regions:
        for block in region.blocks:
            for child in block.operations:
                yield from _custom_calls(child.operation)


def _target(call: ir.Operation) -> str:
    return ir.StringAttr(call.attributes["call_target_name"]).value
