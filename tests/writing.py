"""Models for tests, written as the product writes them (a function traced, and its graph with params), and found."""

import hashlib

import numpy as np

from convert.flavours.graph import to_graph
from convert.flavours.native import mixer_apply, to_tensorflow
from export.saved_model.writer import Graph
from models.catalog import DEFAULT_VERSION
from models.params import flatten


def directory_of(build, name):
    """Return the directory of a SavedModel among those that were made."""
    return build / name / str(DEFAULT_VERSION)


def digests(directory):
    """Return the sha256 of each file below a directory, by relative path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def native_function(handle):
    """Return the handle's apply function in TensorFlow, as JAX lowers it."""
    return to_tensorflow(mixer_apply(handle.checkpoint.architecture, handle.num_classes))


def graph_function(handle):
    """Return the handle's apply function as plain TensorFlow operations."""
    return to_graph(mixer_apply(handle.checkpoint.architecture, handle.num_classes))


def write_saved_model(function, params, directory, *, image_size, labels=None):
    """Write a SavedModel of a function and nested params into an existing, empty directory."""
    arrays = {name: np.asarray(value) for name, value in flatten(params).items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    Graph.trace(function, shapes, image_size=image_size, labels=labels).write(arrays, directory, labels=labels)
