"""Write a SavedModel of the graph flavour as one ONNX file, with the weights named after the checkpoint's arrays.

tf2onnx folds constants in Python, which takes 11 GB of memory for weights of 240 MB; so it converts a graph that has
the weights as inputs, and they are added as initializers afterwards. It also numbers names with a counter of the
process; nodes and tensors are renamed, so that equal models give equal bytes.
"""

import copy
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from models.formats import INPUT_NAME, OUTPUT_NAME

OPSET = 15
"""tf2onnx's own default; ONNX Runtime reads it since 1.10."""

BATCH = "batch"
"""Name of the batch axis, which may have any size."""


def write_onnx(saved_model: Path, path: Path, description: dict[str, str]) -> None:
    """Write the signature `serving_default` of a SavedModel of the graph flavour as an ONNX file with this metadata.

    Raises:
        OSError: the file cannot be written.
    """
    import onnx
    import tf2onnx

    model_in_tensorflow = tf.saved_model.load(str(saved_model))  # kept alive while its variables are needed
    signature = model_in_tensorflow.signatures["serving_default"]
    frozen = convert_variables_to_constants_v2(signature)
    definition = frozen.graph.as_graph_def()
    captures = {placeholder: variable for variable, placeholder in _captures(signature)}
    taken = dict(_take_weights(definition, captures.keys()))
    weights = {name: taken[name] for name in sorted(taken, key=captures.__getitem__)}  # the optimiser's order varies
    (output,) = (tensor.name for tensor in frozen.outputs)
    inputs = [f"{name}:0" for name in (INPUT_NAME, *weights)]
    model, _ = tf2onnx.convert.from_graph_def(
        definition, name="mixer", input_names=inputs, output_names=[output], opset=OPSET
    )
    fixed = {f"{INPUT_NAME}:0": INPUT_NAME, output: OUTPUT_NAME}
    fixed |= {f"{name}:0": variable for name, variable in captures.items()}
    _name_anew(model.graph, fixed)
    del model.graph.input[1:]
    initializers = {fixed[f"{name}:0"]: values for name, values in weights.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in initializers.items())
    onnx.helper.set_model_props(model, description)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _captures(signature: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 (a concrete function)
    """Yield the name of each variable and of its placeholder in the graph."""
    names = {id(variable.handle): variable.name.removesuffix(":0") for variable in signature.variables}
    for handle, placeholder in signature.graph.captures:
        yield names[id(handle)], placeholder.op.name


def _take_weights(definition: Any, names: Container[str]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (a GraphDef)
    """Replace the constants of these names by inputs, and yield their values."""
    for node in definition.node:
        if node.name in names:
            tensor = node.attr["value"].tensor
            yield node.name, tf.make_ndarray(tensor)
            dtype, shape = tensor.dtype, tensor.tensor_shape
            node.ClearField("attr")
            node.op = "Placeholder"
            node.attr["dtype"].type = dtype
            node.attr["shape"].shape.CopyFrom(shape)


def _name_anew(graph: Any, fixed: dict[str, str]) -> None:  # noqa: ANN401 (onnx's GraphProto)
    """Sort the nodes, and name nodes and tensors by their position; tensors in `fixed` get the names given there."""
    nodes = _in_order(graph)
    constants = {initializer.name: copy.deepcopy(initializer) for initializer in graph.initializer}
    used = [name for name in dict.fromkeys(name for node in nodes for name in node.input) if name in constants]
    names = fixed | {name: f"constant_{index}" for index, name in enumerate(used)}
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}_{index}"
        for number, output in enumerate(node.output):
            names.setdefault(output, f"{node.name}_{number}")
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for name in used:
        constants[name].name = names[name]
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
        axes = value.type.tensor_type.shape.dim
        if axes[0].dim_param:
            axes[0].dim_param = BATCH
    for field, values in (("node", nodes), ("initializer", [constants[name] for name in used]), ("value_info", [])):
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _in_order(graph: Any) -> list[Any]:  # noqa: ANN401 (as above)
    """Return copies of the nodes, each after those that it reads from, in an order that depends only on the graph."""
    makers = {output: node for node in graph.node for output in node.output}
    found: dict[str, Any] = {}
    waiting = [output.name for output in graph.output]
    while waiting:
        node = makers.get(waiting[-1])
        before = [] if node is None else [name for name in node.input if name in makers and name not in found]
        if before:
            waiting += reversed(before)
        else:
            name = waiting.pop()
            if node is not None and name not in found:
                found |= dict.fromkeys(node.output, copy.deepcopy(node))
    return list({id(node): node for node in found.values()}.values())
