"""Lower the StableHLO artifacts of a SavedModel to what older TensorFlow reads, without changing what they compute.

`jax.export` writes an artifact for the newest reader: in today's StableHLO, with debug locations. TensorFlow reads no
artifact newer than its own StableHLO, and says so at the first call only, never at loading. The artifact lies in the
`module` attribute of each `XlaCallModule` node, forward and gradient. Each is

1. read back (StableHLO promises five years of backward compatibility,
   https://github.com/openxla/stablehlo/blob/main/docs/compatibility.md),
2. stripped of debug locations, which newer encodings carry and which hold paths of the machine that made it,
3. written again in the version `STABLEHLO_VERSION`, which fails if an operation did not exist then, and
4. marked with `XLA_CALL_MODULE_VERSION`.

An artifact that calls anything but its own operations is refused: nothing could be said of where it runs. Only the
check of the symbolic batch (`shape_assertion`) is known, and dropped: TensorFlow 2.13 does not implement it, and the
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
"""The oldest that can be written: TensorFlow 2.13 reads no newer one, 2.14 and 2.15 none after 0.14.0."""

XLA_CALL_MODULE_VERSION = 5
"""The op's version attribute: the oldest that TensorFlow 2.21 takes, and the newest that 2.13 does.

The later ones add what is not used here: checks that can be turned off (6), shape assertions (7), a mark on modules
with unknown sizes (8), and another order of effects (9).
"""

SHAPE_ASSERTION = "shape_assertion"

PLAIN = "strip-debuginfo"
"""The passes that every artifact goes through."""

EXPANDED = (
    "func.func(stablehlo-legalize-composite-to-call),inline,symbol-dce,"
    f"stablehlo-compatibility-expander{{target={STABLEHLO_VERSION}}},{PLAIN}"
)
"""Those for one that holds later operations and composites, such as `tan`, `lax.erf`, `asin` or `top_k`: each is
replaced by what it is made of, where that can be said in `STABLEHLO_VERSION`."""


_REFUSED = (ValueError, RuntimeError, ir.MLIRError)
"""What MLIR's Python raises."""


class LoweringError(MixerError):
    """An artifact that cannot be made readable for the promised TensorFlow releases."""


def lower_artifacts(saved_model: SavedModel) -> int:
    """Lower every artifact of a SavedModel, in place.

    Returns:
        The number of artifacts lowered.

    Raises:
        LoweringError: an artifact does something that is not known to run everywhere.
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
        LoweringError: it holds more than StableHLO or a custom call that is not known, or cannot be written in that
            version.
    """
    with ir.Context() as context:
        stablehlo.register_dialect(context)
        stablehlo.register_stablehlo_passes()
        said: list[str] = []

        def note(found: ir.Diagnostic) -> bool:  # which would be printed
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
            raise LoweringError(
                f"the exported function cannot be written as StableHLO {STABLEHLO_VERSION}, which TensorFlow 2.13 "
                f"reads{_lacks(said)}. Write the model without it. (A batched gather or scatter comes from the "
                "gradient of top_k, for one: such a function is exported without its gradient.)"
            ) from error


def _read(context: ir.Context, artifact: bytes) -> ir.Module:
    """Read an artifact without its custom calls, each time anew: an attempt to write it may leave it changed."""
    try:
        module = stablehlo.deserialize_portable_artifact(context, artifact)
    except _REFUSED as error:
        raise LoweringError(
            f"the exported function cannot be read back ({error}): it is no artifact, or holds more than "
            "StableHLO, such as the sharding of a linear solver. Write the model without it."
        ) from error
    calls = list(_custom_calls(module.operation))
    unknown = sorted(set(map(_target, calls)) - {SHAPE_ASSERTION})
    if unknown:
        raise LoweringError(
            f"the exported function calls {', '.join(unknown)}: nothing is known of where that runs. Write the "
            "model without it."
        )
    for call in calls:
        call.erase()
    return module


def _written(module: ir.Module, passes: str) -> bytes:
    passmanager.PassManager.parse(f"builtin.module({passes})").run(module.operation)
    return bytes(stablehlo.serialize_portable_artifact(module, STABLEHLO_VERSION))


def _lacks(said: list[str]) -> str:
    """Return which operations or types MLIR's diagnostics name."""
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
