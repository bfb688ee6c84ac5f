"""JAX's settings and releases: those of the process change nothing of what is traced, and are the same afterwards."""

import hashlib

import jax
import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from convert.pipeline import tracing
from convert.pipeline.tracing import GraphKey
from export.saved_model.settings import SETTINGS, fixed_settings
from models.catalog import TESTING_HANDLES

EXTRACTOR = next(handle for handle in TESTING_HANDLES.values() if handle.head == "fe")
WRITTEN = {"graph": "024f875e5410438a", "native": "062275ec8c30815c"}
"""Digests of what every JAX and Python of the lock files writes; another TensorFlow may write something else."""

OTHER = {
    "jax_enable_x64": True,
    "jax_disable_jit": True,
    "jax_default_matmul_precision": "highest",
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_error_checking_behavior_nan": "raise",
    "jax_no_tracing": True,
    "eager_constant_folding": True,
}


@pytest.fixture
def other_settings():
    """Let this process have other settings than those that are fixed."""
    before = {name: jax.config.values[name] for name in OTHER}
    for name, value in OTHER.items():
        jax.config.update(name, value)
    tracing._TRACED.clear()
    yield
    tracing._TRACED.clear()
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("flavour", ["native", "graph"])
def test_what_is_traced_is_the_same_whatever_the_process_has_set(flavour, other_settings, tiny_build):
    handle = EXTRACTOR.in_flavour(flavour)
    expected = (tiny_build / handle.name / "2" / "saved_model.pb").read_bytes()
    assert GraphKey.of(handle, None).graph().saved_model == expected


def test_settings_are_those_of_the_process_again_afterwards(other_settings):
    before = dict(jax.config.values)
    with pytest.raises(KeyError), fixed_settings():
        assert all(jax.config.values[name] != value for name, value in OTHER.items())
        raise KeyError
    assert dict(jax.config.values) == before


def test_the_settings_are_those_of_this_release_or_of_an_earlier_one():
    """A name that no release has would be passed over without a word."""
    assert len(SETTINGS.keys() - jax.config.values.keys()) <= 1


def digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


def test_the_graph_flavour_is_the_same_file_with_every_jax(tiny_build):
    assert digest((tiny_build / f"{EXTRACTOR.name}-graph" / "2" / "saved_model.pb").read_bytes()) == WRITTEN["graph"]


def test_the_native_flavour_computes_by_the_same_artifact_with_every_jax(tiny_build):
    """Its gradient is another one: JAX changed rules for derivatives."""
    model = SavedModel.FromString((tiny_build / EXTRACTOR.name / "2" / "saved_model.pb").read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    nodes = [node for function in functions for node in function.node_def if node.op == "XlaCallModule"]
    forward = {node.attr["module"].s for node in nodes if "vjp" not in node.name}
    assert [digest(artifact) for artifact in forward] == [WRITTEN["native"]]
