"""Add the operations that restore and save a SavedModel's variables, for readers that run its graph.

TensorFlow Serving, C++ and TensorFlow 1's loader call them (`SaverDef`); TensorFlow 2 restores without them. TensorFlow
would write two functions, each of which takes every variable; that is a fifth of the work of tracing a graph. These are
plain operations of the graph, as TensorFlow 1 wrote them.
"""

from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from export.saved_model.variables import OBJECTS
from models.errors import MixerError


def add_saver(meta_graph: MetaGraphDef) -> None:
    """Add the saver to a graph that TensorFlow saved without one (`SaveOptions.experimental_skip_saver`).

    Raises:
        MixerError: the graph does not have exactly one string constant, for example in another TensorFlow release.
    """
    there = {node.name: node for node in meta_graph.graph_def.node}
    described = _description(meta_graph)
    objects = TrackableObjectGraph.FromString(described.attr["value"].tensor.string_val[0])
    found = [one for node in objects.nodes for one in node.attributes]
    with tf.Graph().as_default() as graph:
        variables = {one.checkpoint_key: _handle(there[one.full_name]) for one in found}
        saver = _write_saver(variables, tf.raw_ops.Placeholder(dtype=tf.string, shape=[], name=described.name))
        added = tf.compat.v1.train.export_meta_graph(graph=graph, strip_default_attrs=True)
    meta_graph.graph_def.node.extend(node for node in added.graph_def.node if node.name not in there)
    operations = meta_graph.meta_info_def.stripped_op_list.op
    known = {operation.name: operation for operation in (*operations, *added.meta_info_def.stripped_op_list.op)}
    del operations[:]
    operations.extend(known[name] for name in sorted(known))
    meta_graph.saver_def.CopyFrom(saver)


def _description(meta_graph: MetaGraphDef) -> NodeDef:
    """Return the graph's only string constant: the serialized `TrackableObjectGraph`, which names the variables."""
    constants = [one for one in meta_graph.graph_def.node if one.op == "Const"]  # reading an attribute adds it
    texts = [one for one in constants if one.attr["value"].tensor.dtype == tf.string.as_datatype_enum]
    if len(texts) != 1:
        raise MixerError(
            f"TensorFlow saved an unexpected graph: expected one string constant, which names the variables, found "
            f"{len(texts)}. Convert with the TensorFlow of the lock file (`make setup`)."
        )
    return texts[0]


def _handle(node: NodeDef) -> tf.Tensor:
    """Return a stand-in for a variable of the other graph, with the same name, dtype and shape."""
    shape = [dim.size for dim in node.attr["shape"].shape.dim]
    return tf.raw_ops.VarHandleOp(dtype=node.attr["dtype"].type, shape=shape, name=node.name)


def _write_saver(variables: Mapping[str, tf.Tensor], description: tf.Tensor) -> SaverDef:
    """Add the operations that save and restore variables, given as handles by checkpoint key, to the current graph."""
    raw, keys, count = tf.raw_ops, [*variables], len(variables)
    filename = raw.Placeholder(dtype=tf.string, shape=[], name="saver_filename")
    types = [handle.op.get_attr("dtype") for handle in variables.values()]
    found = raw.RestoreV2(
        prefix=filename, tensor_names=keys, shape_and_slices=[""] * count, dtypes=types, name="saver_restore"
    )
    assigned = [
        raw.AssignVariableOp(resource=handle, value=value, name="saver_restore/assign")
        for handle, value in zip(variables.values(), found, strict=True)
    ]
    with tf.control_dependencies(assigned):
        restore = raw.NoOp(name="saver_restore/done")
    values = [
        raw.ReadVariableOp(resource=handle, dtype=dtype, name="saver_save/value")
        for handle, dtype in zip(variables.values(), types, strict=True)
    ]
    written = raw.SaveV2(
        prefix=filename,
        tensor_names=[*keys, OBJECTS],
        shape_and_slices=[""] * (count + 1),
        tensors=[*values, description],
        name="saver_save",
    )
    with tf.control_dependencies([written]):
        save = raw.Identity(input=filename, name="saver_save/done")
    return SaverDef(
        filename_tensor_name=filename.name,
        save_tensor_name=save.name,
        restore_op_name=restore.name,
        version=SaverDef.V2,
    )
