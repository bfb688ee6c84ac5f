"""Rewrite `saved_model.pb` so that equal models give equal bytes, which all supported TensorFlow releases read.

TensorFlow numbers functions and custom gradients with a counter of the process, so their names depend on what was
traced before; they are renumbered here, in the same order. It also writes a random number into `fingerprint.pb`, which
nothing needs; the file is removed.

A saver restores and saves the variables for readers that run the graph: TensorFlow Serving, C++ and TensorFlow 1's
loader call it (`SaverDef`); TensorFlow 2 restores without it. TensorFlow's own contains an operation that 2.6 does not
know, `DisableCopyOnRead`, and consists of two functions, each of which takes every variable; that is a fifth of the
work of tracing a graph. The one added here consists of plain operations of the graph, as TensorFlow 1 wrote them.
"""

import copy
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.core.protobuf.saver_pb2 import SaverDef
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from export.saved_model.stablehlo import lower_artifacts
from export.saved_model.variables import OBJECTS
from models.errors import MixerError

ARGUMENT_NAME = "_user_specified_name"

COUNTED_FUNCTION = re.compile(r"(?P<base>\w+?)_(?P<count>\d+)")
"""Matches any numbered name, because functions of a loop have no prefix in common: `map_while_body_549`."""

COUNTED_GRADIENT = re.compile(r"(?P<base>CustomGradient)-(?P<count>\d+)")


def rewrite_saved_model(directory: Path) -> int:
    """Lower the artifacts of a SavedModel that TensorFlow just wrote, add a saver and make it canonical, in place.

    Returns:
        The number of artifacts lowered.

    Raises:
        MixerError: an artifact contains something that is not known to run in all supported TensorFlow releases, or
            the file names its variables or refers to its functions in an unknown way.
    """
    path = directory / "saved_model.pb"
    saved_model = SavedModel.FromString(path.read_bytes())
    lowered = lower_artifacts(saved_model)
    for meta_graph in saved_model.meta_graphs:
        _drop_unsaved_gradients(meta_graph)
        if not meta_graph.HasField("saver_def"):
            _add_saver(meta_graph)
        _drop_counted_arguments(meta_graph)
        _number_anew(meta_graph)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    (directory / "fingerprint.pb").unlink(missing_ok=True)
    return lowered


def _add_saver(meta_graph: MetaGraphDef) -> None:
    """Add the saver to a graph that TensorFlow saved without one (`SaveOptions.experimental_skip_saver`)."""
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


def _nodes(meta_graph: MetaGraphDef) -> Iterator[NodeDef]:
    yield from meta_graph.graph_def.node
    for function in meta_graph.graph_def.library.function:
        yield from function.node_def


def _drop_unsaved_gradients(meta_graph: MetaGraphDef) -> None:
    """Drop references to gradients that are not saved.

    TensorFlow marks the VJP's own outputs with a second-order gradient, which it does not save, and would warn whenever
    the model is loaded. A second derivative still raises an error, since an `XlaCallModule` has none.
    """
    saved = {gradient.registered_op_type.encode() for gradient in meta_graph.graph_def.library.registered_gradients}
    for node in _nodes(meta_graph):
        if "_gradient_op_type" in node.attr and node.attr["_gradient_op_type"].s not in saved:
            del node.attr["_gradient_op_type"]


def _drop_counted_arguments(meta_graph: MetaGraphDef) -> None:
    """Drop the names of captured arguments, which also depend on a counter of the process."""
    nodes = (node.attr for node in _nodes(meta_graph))
    arguments = (one.attr for function in meta_graph.graph_def.library.function for one in function.arg_attr.values())
    for attributes in itertools.chain(nodes, arguments):
        if ARGUMENT_NAME in attributes and attributes[ARGUMENT_NAME].s.isdigit():
            del attributes[ARGUMENT_NAME]


def _number_anew(meta_graph: MetaGraphDef) -> None:
    library = meta_graph.graph_def.library
    functions = _renumbered([function.signature.name for function in library.function], COUNTED_FUNCTION)
    gradients = _renumbered(
        [gradient.registered_op_type for gradient in library.registered_gradients], COUNTED_GRADIENT
    )
    names = functions | gradients
    for function in library.function:
        function.signature.name = names[function.signature.name]
        _rename_arguments(function, names)
    for gradient in library.registered_gradients:
        gradient.gradient_func = names[gradient.gradient_func]
        gradient.registered_op_type = names[gradient.registered_op_type]
    for node in _nodes(meta_graph):
        for value in node.attr.values():
            _rename_in_attribute(value, names)
    _rename_in_objects(meta_graph.object_graph_def, names)
    _replace(library.function, sorted(library.function, key=lambda function: str(function.signature.name)))
    _replace(library.registered_gradients, sorted(library.registered_gradients, key=lambda one: str(one.gradient_func)))
    content = meta_graph.SerializeToString(deterministic=True)
    left = [old for old, new in names.items() if re.search(rf"{re.escape(old)}(?!\d)".encode(), content) and old != new]
    if set(left) - set(names.values()):
        raise MixerError(f"saved_model.pb still refers to {', '.join(left)} by its old name, in an unknown place.")


def _renumbered(names: Iterable[str], pattern: re.Pattern[str]) -> dict[str, str]:
    """Return new names by old ones, numbered in the order of the old numbers."""
    found = {name: pattern.fullmatch(name) for name in names}
    order = sorted(found, key=lambda name: (int(match["count"]) if (match := found[name]) else -1, name))
    return {
        name: name[: match.start("count")] + str(index) if (match := found[name]) else name
        for index, name in enumerate(order)
    }


def _rename_arguments(function: FunctionDef, names: Mapping[str, str]) -> None:
    """Rename the arguments that are named after a function: the arguments of a loop that its condition does not use."""
    for argument in function.signature.input_arg:
        old = argument.name
        mentioned = [name for name in names if f"{name}___" in old]
        for name in mentioned:
            argument.name = argument.name.replace(f"{name}___", f"{names[name]}___")
        for node in function.node_def if mentioned else ():
            _replace(node.input, [re.sub(rf"^(\^?){old}(?=:|$)", rf"\1{argument.name}", given) for given in node.input])


def _rename_in_attribute(value: AttrValue, names: Mapping[str, str]) -> None:
    for function in (value.func, *value.list.func) if value.HasField("func") or value.list.func else ():
        if function.name in names:
            function.name = names[function.name]
    if value.s and (text := value.s.decode(errors="replace")) in names:
        value.s = names[text].encode()


def _rename_in_objects(objects: Any, names: Mapping[str, str]) -> None:  # noqa: ANN401 (SavedObjectGraph)
    for old in sorted(objects.concrete_functions):
        if names.get(old, old) != old:
            objects.concrete_functions[names[old]].CopyFrom(objects.concrete_functions[old])
            del objects.concrete_functions[old]
    for node in objects.nodes:
        if node.HasField("function"):
            renamed = [names.get(name, name) for name in node.function.concrete_functions]
            _replace(node.function.concrete_functions, renamed)
        if node.HasField("bare_concrete_function"):
            name = node.bare_concrete_function.concrete_function_name
            node.bare_concrete_function.concrete_function_name = names.get(name, name)
        if node.HasField("captured_tensor"):
            name = node.captured_tensor.concrete_function
            node.captured_tensor.concrete_function = names.get(name, name)


def _replace(repeated: Any, values: Iterable[Any]) -> None:  # noqa: ANN401 (a repeated field)
    copies = [value if isinstance(value, str) else copy.deepcopy(value) for value in values]
    del repeated[:]
    repeated.extend(copies)
