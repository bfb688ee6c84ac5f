"""Functions for repeated layers: each is written into the graph once, and called for each layer.

TensorFlow loads and optimises a function once, however often it is called, but processes each layer again if all their
operations are in one graph. That is most of the work of a model's first call; so the first call, loading and the first
gradient take about half as long, and the file is smaller.

To keep it from being inlined before anything runs, a function has the attribute that Keras uses for its recurrent
layers: the name of what it implements, of which there might be several implementations to choose from
(`api_implements`, in TensorFlow's `implementation_selector.h`). Converters to other formats drop or ignore it, and
convert the layers one by one. They would refuse a function that is marked as never to be inlined.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from convert.flavours.operand import Operand

IMPLEMENTS = "api_implements"
"""The attribute of a function that names what it implements; functions with equal names may replace each other."""

WORTH_A_FUNCTION = 16
"""Fewest equations of a nested jaxpr that becomes a function; JAX's own small helpers have fewer."""

Write = Callable[[Any, list[Operand], tf.Tensor], list[Operand]]
"""Writes the equations of a closed jaxpr for these operands and this size of the batch; returns its results."""


class SharedLayers:
    """The functions of one graph, keyed by their jaxprs and the shapes of their operands."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._functions: dict[tuple[int, tuple[Any, ...]], Callable[..., list[tf.Tensor]]] = {}
        self._alive: list[Any] = []  # as an `id` is unique only among live objects

    @staticmethod
    def fits(closed: Any) -> bool:  # noqa: ANN401 (a closed jaxpr)
        """Return whether a nested jaxpr is large enough to become a function."""
        return len(closed.jaxpr.eqns) >= WORTH_A_FUNCTION

    def call(self, closed: Any, operands: list[Operand], batch: tf.Tensor) -> list[Operand]:  # noqa: ANN401
        """Call the function of a closed jaxpr with operands; write it first if it is new for these shapes."""
        key = (id(closed), tuple(operand.shape for operand in operands))
        if key not in self._functions:
            self._functions[key] = self._function(closed, operands, batch)
            self._alive.append(closed)
        return [Operand.of(tensor) for tensor in self._functions[key](*(operand.full for operand in operands))]

    def _function(self, closed: Any, operands: list[Operand], batch: tf.Tensor) -> Any:  # noqa: ANN401
        def layer(*tensors: tf.Tensor) -> list[tf.Tensor]:
            given = [Operand(tensor, operand.shape) for tensor, operand in zip(tensors, operands, strict=True)]
            sizes = [tf.shape(one.tensor)[one.shape.index(None)] for one in given if None in one.shape]
            return [result.full for result in self._write(closed, given, sizes[0] if sizes else batch)]

        specs = [tf.TensorSpec(operand.shape, operand.tensor.dtype) for operand in operands]
        # The name contains the shapes: with two models in one graph, a B/16's layer must not replace an L/16's.
        name = "layer of " + ", ".join(str(spec.shape) for spec in specs)
        marked = tf.function(layer, autograph=False, experimental_attributes={IMPLEMENTS: name})
        return marked.get_concrete_function(*specs)
