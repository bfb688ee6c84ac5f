"""Handles share what does not depend on the weights, and release what others need the memory for."""

import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import export.saved_model.writer
from convert.checkpoints.fetch import Source
from convert.checkpoints.open import OpenCheckpoint
from convert.checkpoints.reader import LoadedCheckpoint
from convert.pipeline import tracing
from convert.pipeline.convert_handle import Item
from convert.pipeline.frameworks import imports_passed_over
from models.catalog import SQUARE_HANDLES, TESTING_HANDLES
from models.digests import DigestTable
from models.errors import MixerError
from models.params import flatten, nest
from models.records.layout import ModelPaths
from models.records.manifest import CheckpointRecord
from validation.parity.depth import apply_steps
from validation.parity.outputs import relative_distance

EXTRACTOR = next(handle for handle in TESTING_HANDLES.values() if handle.head == "fe")


@pytest.fixture
def traced(monkeypatch):
    """Count the graphs that are traced."""
    made = []
    real = export.saved_model.writer.Graph.trace

    def count(*arguments, **options):
        made.append(options["image_size"])
        return real(*arguments, **options)

    monkeypatch.setattr(export.saved_model.writer.Graph, "trace", count)
    tracing._TRACED.clear()
    yield made
    tracing._TRACED.clear()


def opened(handle, seed):
    """Return another checkpoint of the same architecture."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in handle.checkpoint.arrays.items()}
    loaded = LoadedCheckpoint(nest(arrays), 1000, f"{seed:064x}", 1)
    record = CheckpointRecord(
        name="other", object="other.npz", url="file:other.npz", sha256=f"{seed:064x}", size=1, origin="own"
    )
    return OpenCheckpoint(handle.checkpoint, None, loaded, record, load=lambda: loaded)


def write(handle, seed, out):
    destination = ModelPaths.of(out, f"{handle.name}_{seed}", 1)
    Item(handle, destination, None).write(opened(handle, seed), overwrite=False)
    return destination.directory


def test_a_hundred_checkpoints_of_one_architecture_need_one_graph(traced, tmp_path):
    directories = [write(EXTRACTOR, seed, tmp_path) for seed in range(100)]
    assert len(traced) == 1
    assert len({(directory / "saved_model.pb").read_bytes() for directory in directories}) == 1
    variables = {(directory / "variables" / "variables.data-00000-of-00001").read_bytes() for directory in directories}
    assert len(variables) == 100


def test_a_graph_made_for_other_weights_gives_the_bytes_of_one_made_for_these(traced, tmp_path):
    write(EXTRACTOR, 1, tmp_path / "first")
    second = write(EXTRACTOR, 2, tmp_path / "first")
    tracing._TRACED.clear()
    alone = write(EXTRACTOR, 2, tmp_path / "alone")
    assert len(traced) == 2
    names = [path.relative_to(alone) for path in alone.rglob("*") if path.is_file()]
    assert len(names) > 3
    assert all((alone / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.whole
def test_each_architecture_head_and_flavour_has_a_graph_of_its_own(traced, tmp_path):
    handles = [*TESTING_HANDLES.values(), *SQUARE_HANDLES.values()]
    for handle in (*handles, *(handle.in_flavour("graph") for handle in handles)):
        write(handle, 1, tmp_path)
    assert len(traced) == 2 * len(handles) == 8


def test_a_feature_extractor_is_written_without_the_head(tmp_path):
    import tensorflow as tf

    model = tf.saved_model.load(str(write(EXTRACTOR, 3, tmp_path)))
    expected = flatten(opened(EXTRACTOR, 3).loaded.for_head("fe"))
    found = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


# --- what was released is read again ---


def brought(tiny_source):
    source = Source(str(tiny_source), None, DigestTable.read())
    return OpenCheckpoint.of_catalog(EXTRACTOR.checkpoint, source)


def test_parameters_that_were_released_are_freed_and_read_again(tiny_source):
    checkpoint = brought(tiny_source)
    before = {name: array.tobytes() for name, array in flatten(checkpoint.loaded.params).items()}
    gone = weakref.ref(checkpoint.loaded)
    checkpoint.release()
    assert gone() is None
    assert {name: array.tobytes() for name, array in flatten(checkpoint.loaded.params).items()} == before
    assert checkpoint.loaded is checkpoint.loaded


def test_a_checkpoint_that_changed_meanwhile_is_refused(tiny_source, tmp_path):
    source = Path(shutil.copytree(tiny_source, tmp_path / "source"))
    checkpoint = brought(source)
    arrays = dict(np.load(checkpoint.path))
    np.savez(checkpoint.path, **(arrays | {"head/bias": arrays["head/bias"] + 1}))
    assert checkpoint.loaded.sha256 == checkpoint.record.sha256
    checkpoint.release()
    with pytest.raises(MixerError, match=r"changed while it was in use: sha256 \w+, expected \w+\. Wait until"):
        _ = checkpoint.loaded


# --- the steps ---


@pytest.mark.parametrize("handle", [EXTRACTOR, EXTRACTOR.in_flavour("graph")], ids=["native", "graph"])
def test_the_graph_of_all_steps_serves_every_checkpoint(handle, traced, tmp_path):
    import tensorflow as tf

    architecture = handle.checkpoint.architecture
    for seed in (1, 2):
        graph = steps_of(handle).graph()
        (tmp_path / str(seed)).mkdir()
        graph.write(flatten(opened(handle, seed).loaded.for_head("fe")), tmp_path / str(seed))
    assert len(traced) == 1
    images = np.ones((2, architecture.image_size, architecture.image_size, 3), np.float32)
    found = [tf.saved_model.load(str(tmp_path / seed))(tf.constant(images)) for seed in "12"]
    expected = jax.jit(apply_steps(architecture, None))(opened(handle, 2).loaded.for_head("fe"), images)
    assert found[0].keys() == found[1].keys() == expected.keys()
    for name, value in expected.items():
        assert relative_distance(flat(found[1][name].numpy()), flat(value), flat(value).std(axis=1)) < 1e-4
        assert relative_distance(flat(found[0][name].numpy()), flat(value), flat(value).std(axis=1)) > 1e-2


def steps_of(handle):
    return replace(tracing.GraphKey.of(handle, None), steps=True)


def flat(activations):
    return np.asarray(activations).reshape(len(activations), -1)


def test_the_graph_of_all_steps_carries_no_gradient():
    """It would be as much work as all the rest of it, and nobody looks at it."""
    assert b"vjp" in tracing.GraphKey.of(EXTRACTOR, None).graph().saved_model
    assert b"vjp" not in steps_of(EXTRACTOR).graph().saved_model


def test_the_collector_sees_all_there_is_again_after_a_batch_unless_the_caller_had_it_pass_over_some(
    monkeypatch, freeze_count
):
    import gc

    monkeypatch.setattr(gc, "get_freeze_count", freeze_count)
    gc.unfreeze()  # what the tests import: see conftest
    with imports_passed_over():
        assert freeze_count() > 0
    assert freeze_count() == 0
    gc.freeze()
    with imports_passed_over():
        assert freeze_count() > 0
    assert freeze_count() > 0
