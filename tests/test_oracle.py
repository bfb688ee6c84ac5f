"""The oracle is an independent Mixer: it shares no code, and agrees with Flax where Flax computes in float64 too."""

import ast
from pathlib import Path

import jax
import numpy as np
import pytest

import validation.parity.oracle
from convert.checkpoints.reader import load_checkpoint
from models.catalog import TESTING_HANDLES
from models.mixer import MlpMixer
from validation.parity.images import Inputs
from validation.parity.oracle import OracleOutputs, trace_oracle

HANDLES = tuple(TESTING_HANDLES.values())
CHECKPOINT = HANDLES[0].checkpoint
IMAGES = Inputs.gate(CHECKPOINT.architecture.image_size).images


@pytest.fixture(scope="module")
def path(tiny_source):
    return tiny_source / CHECKPOINT.object


@pytest.mark.parametrize("handle", HANDLES, ids=lambda handle: handle.head)
def test_it_agrees_with_flax_in_float64(handle, path):
    architecture = handle.checkpoint.architecture
    params = load_checkpoint(path, architecture, num_classes=CHECKPOINT.num_classes).for_head(handle.head)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda array: array.astype(np.float64), params)
        model = MlpMixer(architecture, handle.num_classes)
        expected = np.asarray(jax.jit(model.apply)({"params": double}, IMAGES.astype(np.float64)))
    assert expected.dtype == np.float64
    outputs = OracleOutputs.compute(path, IMAGES)
    found = outputs.logits if handle.head == "classification" else outputs.features
    assert np.abs(found - expected).max() < 1e-12 * expected.std()


def test_it_names_the_steps_in_order(path):
    steps = [(name, values.shape) for name, values in trace_oracle(path, IMAGES)]
    architecture = CHECKPOINT.architecture
    tokens = (len(IMAGES), architecture.tokens, architecture.hidden_dim)
    blocks = [(f"MixerBlock_{index}", tokens) for index in range(architecture.num_blocks)]
    assert steps == [
        ("stem", tokens),
        *blocks,
        ("pre_head_layer_norm", tokens),
        ("features", (len(IMAGES), architecture.hidden_dim)),
        ("head", (len(IMAGES), CHECKPOINT.num_classes)),
    ]


def test_it_shares_no_code_with_the_project():
    tree = ast.parse(Path(validation.parity.oracle.__file__).read_text(encoding="utf-8"))
    imported = {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    imported |= {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    assert imported == {"collections", "concurrent", "dataclasses", "numpy", "os", "pathlib", "threadpoolctl"}


def test_it_never_loads_a_pickle(tmp_path):
    np.savez(tmp_path / "pickled.npz", **{"stem/kernel": np.array([object()], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        OracleOutputs.compute(tmp_path / "pickled.npz", IMAGES)
