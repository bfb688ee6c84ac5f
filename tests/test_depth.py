"""Where along the depth a model leaves the oracle."""

import jax
import numpy as np
import pytest

from convert.checkpoints.reader import load_checkpoint
from models.catalog import SQUARE, SQUARE_HANDLES, TESTING_HANDLES
from models.mixer import MlpMixer
from models.records.report import DepthStep
from validation.parity.depth import apply_steps, compare_depth
from validation.parity.images import Inputs
from validation.parity.oracle import trace_oracle

HANDLES = {**TESTING_HANDLES, **SQUARE_HANDLES}


@pytest.fixture(scope="module")
def sources(tiny_source):
    from convert.checkpoints.synthetic import write_seeded

    return {handle: write_seeded(handle.checkpoint, tiny_source) for handle in SQUARE_HANDLES.values()} | {
        handle: tiny_source / handle.checkpoint.object for handle in TESTING_HANDLES.values()
    }


@pytest.fixture
def material(sources):
    def bring(handle):
        architecture = handle.checkpoint.architecture
        loaded = load_checkpoint(sources[handle], architecture, num_classes=handle.checkpoint.num_classes)
        return sources[handle], loaded.for_head(handle.head), Inputs.gate(architecture.image_size).images[[0, 2]]

    return bring


def steps_of(handle, params, images):
    steps = jax.jit(apply_steps(handle.checkpoint.architecture, handle.num_classes))
    return {name: np.asarray(value) for name, value in steps(params, images).items()}


each_handle = pytest.mark.parametrize("handle", HANDLES.values(), ids=HANDLES)


@each_handle
def test_the_steps_are_the_oracles(handle, material):
    path, params, images = material(handle)
    found = steps_of(handle, params, images)
    oracle = dict(trace_oracle(path, images))
    assert found.keys() == oracle.keys() - (set() if handle.head == "classification" else {"head"})
    for name, values in found.items():
        assert values.shape == oracle[name].shape, name
        assert values.dtype == np.float32


@each_handle
def test_the_last_step_is_the_models_output(handle, material):
    _, params, images = material(handle)
    model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)
    expected = np.asarray(jax.jit(model.apply)({"params": params}, images))
    last = steps_of(handle, params, images)["head" if handle.head == "classification" else "features"]
    assert np.abs(last - expected).max() < 1e-5 * expected.std()


@each_handle
def test_jax_stays_near_the_oracle_all_the_way(handle, material):
    path, params, images = material(handle)
    found = steps_of(handle, params, images)
    steps = compare_depth(trace_oracle(path, images), found, found)
    blocks = [f"MixerBlock_{index}" for index in range(handle.checkpoint.architecture.num_blocks)]
    head = ["head"] if handle.head == "classification" else []
    assert [step.name for step in steps] == ["stem", *blocks, "pre_head_layer_norm", "features", *head]
    assert all(0 < step.jax < 1e-5 for step in steps)
    assert all(step.saved_model == step.jax for step in steps)


@pytest.mark.parametrize("block", range(SQUARE.num_blocks))
def test_a_model_leaves_the_oracle_at_the_block_that_is_wrong(block, material):
    handle = SQUARE_HANDLES["mixer_sq8_seeded_classification"]
    path, params, images = material(handle)
    wrong = jax.tree.map(np.copy, params)
    wrong[f"MixerBlock_{block}"]["token_mixing"]["Dense_1"]["kernel"] *= np.float32(1.01)
    right, off = steps_of(handle, params, images), steps_of(handle, wrong, images)
    for steps, good, bad in (
        (compare_depth(trace_oracle(path, images), right, off), "jax", "saved_model"),
        (compare_depth(trace_oracle(path, images), off, right), "saved_model", "jax"),
    ):
        assert all(getattr(step, good) < 1e-5 for step in steps)
        left = [step.name for step in steps if getattr(step, bad) > 1e-4]
        names = [step.name for step in steps]
        assert left == names[names.index(f"MixerBlock_{block}") :]


def test_distances_are_over_the_spread_of_the_oracles_activations():
    truth = np.array([[1.0, 3.0]])
    found = np.array([[1.5, 3.0]], np.float32)
    oracle = [("stem", truth), ("head", truth * 100)]
    assert compare_depth(oracle, {"stem": found}, {"stem": found + np.float32(0.5)}) == (
        DepthStep(name="stem", jax=0.5, saved_model=1.0),
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_far(bad):
    truth = np.array([[1.0, 3.0]])
    found = np.array([[bad, 3.0]], np.float32)
    (step,) = compare_depth([("stem", truth)], {"stem": truth.astype(np.float32)}, {"stem": found})
    assert (step.jax, step.saved_model) == (0.0, np.inf)


def test_activations_without_spread_are_compared_all_the_same():
    truth = np.ones((1, 4))
    (step,) = compare_depth([("stem", truth)], {"stem": np.ones((1, 4), np.float32)}, {"stem": truth * 2})
    assert step.jax == 0
    assert step.saved_model > 1e6
