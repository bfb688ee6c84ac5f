"""Write the variables of a SavedModel directly from arrays, in TensorFlow's checkpoint format.

`tf.saved_model.save` needs variables, which take the memory of the arrays a second time. The operation and the bytes
are the same (`SaveV2`, https://www.tensorflow.org/api_docs/python/tf/raw_ops/SaveV2).
"""

import errno
import os
import shutil
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The checkpoint key of the serialized `TrackableObjectGraph`, which names the variable of each key."""

PREFIX = "variables/variables"


@dataclass(frozen=True)
class Layout:
    """The contents of a SavedModel's checkpoint, in TensorFlow's order, without the values of the params."""

    names: Mapping[str, str | None]
    """The name of the variable by checkpoint key; None for an entry that is not a parameter."""

    others: Mapping[str, Any]
    """The values of the other entries by checkpoint key: TensorFlow's own counter and, last, the object graph."""

    @classmethod
    def read(cls, directory: Path, parameters: Container[str]) -> Self:
        """Read the layout of a SavedModel that TensorFlow wrote; `parameters` are the names of its params."""
        reader, found = _read(directory)
        names = {key: name if name in parameters else None for key, name in found.items()} | {OBJECTS: None}
        return cls(names, {key: reader.get_tensor(key) for key, name in names.items() if name is None})

    def write(self, arrays: Mapping[str, NDArray[np.float32]], directory: Path) -> None:
        """Write arrays, given by variable name, into the directory of a SavedModel.

        Raises:
            OSError: the variables cannot be written, for example because the disk is full.
        """
        values = {key: self.others[key] if name is None else arrays[name] for key, name in self.names.items()}
        _save(values, directory)


def copy_with_variables(saved_model: Path, directory: Path, changed: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy a SavedModel into a new directory, with new values for some variables, given by name.

    Raises:
        KeyError: the SavedModel has no variable of one of these names.
        OSError: the copy cannot be written, for example because the disk is full.
    """
    layout = Layout.read(saved_model, changed)
    unknown = sorted(changed.keys() - {*layout.names.values()})
    if unknown:
        raise KeyError(f"no variables {', '.join(unknown)}")
    shutil.copytree(saved_model, directory, ignore=shutil.ignore_patterns("variables.*"))
    layout.write(changed, directory)


def _read(directory: Path) -> tuple[Any, dict[str, str]]:
    """Return a reader of a SavedModel's variables, and their names by checkpoint key."""
    reader = tf.train.load_checkpoint(str(directory / PREFIX))
    graph = TrackableObjectGraph.FromString(reader.get_tensor(OBJECTS))
    return reader, {one.checkpoint_key: one.full_name for node in graph.nodes for one in node.attributes}


def _save(values: Mapping[str, Any], directory: Path) -> None:
    (directory / PREFIX).parent.mkdir(exist_ok=True)
    try:
        tf.raw_ops.SaveV2(
            prefix=str(directory / PREFIX),
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=[one if isinstance(one, bytes) else _shared(one) for one in values.values()],
        )
    except tf.errors.OpError as error:
        # The op's message begins with its node and the path: "{{node ...}} path; No space left on device [Op:SaveV2]".
        reason = error.message.rpartition("; ")[2].partition(" [")[0]
        number = next((number for number in errno.errorcode if os.strerror(number) == reason), errno.EIO)
        raise OSError(number, reason) from error


def _shared(array: NDArray[Any]) -> tf.Tensor:
    """Return a tensor that shares memory with an array; `tf.constant` would copy the array twice."""
    return tf.experimental.dlpack.from_dlpack(np.require(array, requirements=["C", "W"]).__dlpack__())
