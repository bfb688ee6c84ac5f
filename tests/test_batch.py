"""Many handles in one process: what is done side by side, and what is read into the same memory."""

import threading

import numpy as np
import pytest

from convert.checkpoints import open as open_module
from convert.checkpoints.fetch import Source
from convert.checkpoints.synthetic import write_seeded
from convert.pipeline import batch, convert_handle
from convert.pipeline.job import Batch
from models.catalog import SQUARE_HANDLES, TESTING_HANDLES
from models.digests import DigestTable
from models.errors import MixerError, UsageError
from models.params import flatten

HANDLES = (*TESTING_HANDLES.values(), *SQUARE_HANDLES.values())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two checkpoints, of two architectures."""
    folder = tmp_path_factory.mktemp("two")
    for checkpoint in {handle.checkpoint for handle in HANDLES}:
        write_seeded(checkpoint, folder)
    return folder


def converted(source, out, handles=HANDLES):
    work = Batch("convert", handles, Source(str(source), None, DigestTable.read()), out, 2)
    batch.check_batch(work)
    return batch.run_batch(work)


def test_both_heads_of_a_checkpoint_are_written_side_by_side(source, tmp_path, monkeypatch):
    together, real = threading.Barrier(batch.WRITERS, timeout=60), convert_handle.Item.write

    def write(item, *arguments, **options):
        together.wait()  # passes only with as many at a time
        return real(item, *arguments, **options)

    monkeypatch.setattr(convert_handle.Item, "write", write)
    found = converted(source, tmp_path)
    assert [outcome.handle for outcome in found] == [handle.name for handle in HANDLES]
    assert {outcome.verdict for outcome in found} == {"converted"}


def test_a_head_that_fails_leaves_the_one_beside_it_alone(source, tmp_path, monkeypatch):
    real = convert_handle.Item.write

    def write(item, *arguments, **options):
        if item.handle.head == "classification":
            raise MixerError("no room for heads")
        return real(item, *arguments, **options)

    monkeypatch.setattr(convert_handle.Item, "write", write)
    found = {outcome.handle: outcome for outcome in converted(source, tmp_path)}
    failed = [name for name, outcome in found.items() if outcome.problems == ("no room for heads",)]
    assert failed == [handle.name for handle in HANDLES if handle.head == "classification"]
    assert {found[handle.name].verdict for handle in HANDLES if handle.head == "fe"} == {"converted"}
    assert {path.name for path in tmp_path.iterdir()} == found.keys() - set(failed)


def test_one_checkpoint_is_read_into_the_memory_of_the_one_before(source, tmp_path, monkeypatch):
    blocks, real = [], open_module.load_checkpoint

    def load(*arguments, **options):
        loaded = real(*arguments, **options)
        block = {id(array.base) for array in flatten(loaded.params).values() if array.base is not None}
        blocks.append((block, options["room"]))
        return loaded

    monkeypatch.setattr(open_module, "load_checkpoint", load)
    converted(source, tmp_path)
    (first, room), (second, same) = blocks
    assert room is same
    assert first & second == {id(room._block)}


def test_what_was_read_into_the_same_memory_has_its_own_values(source, tmp_path):
    import tensorflow as tf

    converted(source, tmp_path)
    for handle in HANDLES:
        model = tf.saved_model.load(str(tmp_path / handle.name / "2"))
        expected = np.load(source / handle.checkpoint.object)
        for variable in model.variables:
            np.testing.assert_array_equal(variable.numpy(), expected[variable.name.removesuffix(":0")], strict=True)


def test_an_output_that_tensorflow_cannot_read_is_refused(source, tmp_path):
    with pytest.raises(UsageError, match="path with brackets, which TensorFlow reads as a pattern"):
        converted(source, tmp_path / "a [b]")
    assert [*tmp_path.iterdir()] == []
