"""Lower the StableHLO artifacts of a SavedModel to what older TensorFlow reads, without changing what they compute.

`jax.export` writes an artifact for the newest reader: in today's StableHLO, with debug locations. TensorFlow reads no
artifact newer than its own StableHLO, and says so at the first call only, never at loading. The artifact lies in the
`module` attribute of each `XlaCallModule` node, forward and gradient. Each is

1. read back (StableHLO promises five years of backward compatibility,
   https://github.com/openxla/stablehlo/blob/main/docs/compatibility.md),
2. stripped of debug locations, which newer encodings carry and which hold paths of the machine that made it,
3. written again in the version `STABLEHLO_VERSION`, which fails if an operation did not exist then, and
4. marked with `XLA_CALL_MODULE_VERSION`.

TensorFlow also marks the VJP's own outputs with a gradient of second order, which it does not save; it would warn of
that at every loading. The mark is dropped: a second derivative is refused all the same, since an `XlaCallModule` has
none.

An artifact that calls anything but its own operations is refused: nothing could be said of where it runs. Only the
check of the symbolic batch (`shape_assertion`) is known; every reader implements it.
"""

from collections.abc import Iterator
from pathlib import Path

from jax.extend.mlir import ir, passmanager
from jax.extend.mlir.dialects import stablehlo
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from models.errors import MixerError

STABLEHLO_VERSION = "0.14.0"
"""Read by every TensorFlow from 2.14 on: from 0.15.0 on the encoding is one that 2.15 cannot read."""

XLA_CALL_MODULE_VERSION = 8
"""The op's version attribute that goes with it; 9, for the same contents, is refused by TensorFlow 2.15 and older."""

KNOWN_CUSTOM_CALLS = frozenset({"shape_assertion"})


class LoweringError(MixerError):
    """An artifact that cannot be made readable for the promised TensorFlow releases."""


def lower_saved_model(directory: Path) -> int:
    """Lower every artifact in `saved_model.pb`, in place, and drop the fingerprint, which names other bytes.

    Returns:
        The number of artifacts lowered.

    Raises:
        LoweringError: an artifact does something that is not known to run everywhere.
    """
    path = directory / "saved_model.pb"
    saved_model = SavedModel.FromString(path.read_bytes())
    lowered = 0
    for node in _xla_call_modules(saved_model):
        node.attr["module"].s = lower_artifact(node.attr["module"].s)
        node.attr["version"].i = XLA_CALL_MODULE_VERSION
        lowered += 1
    _drop_unsaved_gradients(saved_model)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    (directory / "fingerprint.pb").unlink(missing_ok=True)
    return lowered


def lower_artifact(artifact: bytes) -> bytes:
    """Return a portable StableHLO artifact as `STABLEHLO_VERSION`, without debug locations.

    Raises:
        LoweringError: it holds more than StableHLO or a custom call that is not known, or cannot be written in that
            version.
    """
    with ir.Context() as context:
        stablehlo.register_dialect(context)
        try:
            module = stablehlo.deserialize_portable_artifact(context, artifact)
        except (ValueError, RuntimeError, ir.MLIRError) as error:
            raise LoweringError(
                f"the exported function cannot be read back ({error}): it is no artifact, or holds more than "
                "StableHLO, such as the sharding of a linear solver. Write the model without it."
            ) from error
        unknown = sorted(set(_custom_calls(module.operation)) - KNOWN_CUSTOM_CALLS)
        if unknown:
            raise LoweringError(
                f"the exported function calls {', '.join(unknown)}: only {', '.join(sorted(KNOWN_CUSTOM_CALLS))} "
                "is known to run in every TensorFlow. Write the model without it."
            )
        passmanager.PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)
        try:
            return bytes(stablehlo.serialize_portable_artifact(module, STABLEHLO_VERSION))
        except (ValueError, RuntimeError, ir.MLIRError) as error:
            raise LoweringError(
                f"the exported function cannot be written as StableHLO {STABLEHLO_VERSION}, which TensorFlow 2.14 "
                f"reads: {error}"
            ) from error


def _xla_call_modules(saved_model: SavedModel) -> Iterator[NodeDef]:
    for meta_graph in saved_model.meta_graphs:
        graph = meta_graph.graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            yield from (node for node in nodes if node.op == "XlaCallModule")


def _drop_unsaved_gradients(saved_model: SavedModel) -> None:
    for meta_graph in saved_model.meta_graphs:
        library = meta_graph.graph_def.library
        saved = {gradient.registered_op_type.encode() for gradient in library.registered_gradients}
        for function in library.function:
            for node in function.node_def:
                if "_gradient_op_type" in node.attr and node.attr["_gradient_op_type"].s not in saved:
                    del node.attr["_gradient_op_type"]


def _custom_calls(operation: ir.Operation) -> Iterator[str]:
    if operation.name == "stablehlo.custom_call":
        yield ir.StringAttr(operation.attributes["call_target_name"]).value
    for region in operation.regions:
        for block in region.blocks:
            for child in block.operations:
                yield from _custom_calls(child.operation)
