"""The stages share what does not depend on the weights."""

import numpy as np
import pytest

import export.saved_model
from convert.checkpoint import LoadedCheckpoint
from convert.cli import graphs, stages
from export.destination import Destination
from models.catalog import SQUARE_HANDLES, TESTING_HANDLES
from models.params import flatten, nest
from models.records import CheckpointRecord

EXTRACTOR = next(handle for handle in TESTING_HANDLES.values() if handle.head == "fe")


@pytest.fixture
def traced(monkeypatch):
    """Count the graphs that are traced."""
    made = []
    real = export.saved_model.trace

    def count(*arguments, **options):
        made.append(options["image_size"])
        return real(*arguments, **options)

    monkeypatch.setattr(export.saved_model, "trace", count)
    graphs.forget()
    yield made
    graphs.forget()


def material(handle, seed):
    """Return another checkpoint of the same architecture."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in handle.checkpoint.arrays.items()}
    loaded = LoadedCheckpoint(nest(arrays), 1000, f"{seed:064x}", 1)
    record = CheckpointRecord(
        name="other", object="other.npz", url="file:other.npz", sha256=f"{seed:064x}", size=1, origin="own"
    )
    return stages.Material(handle.checkpoint, None, loaded, record)


def write(handle, seed, out):
    destination = Destination(out, f"{handle.name}_{seed}", 1)
    stages.write(handle, material(handle, seed), destination, labels=None, overwrite=False)
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
    graphs.forget()
    alone = write(EXTRACTOR, 2, tmp_path / "alone")
    assert len(traced) == 2
    names = [path.relative_to(alone) for path in alone.rglob("*") if path.is_file()]
    assert len(names) > 3
    assert all((alone / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_each_architecture_head_and_flavour_has_a_graph_of_its_own(traced, tmp_path):
    handles = [*TESTING_HANDLES.values(), *SQUARE_HANDLES.values()]
    for handle in (*handles, *(handle.in_flavour("graph") for handle in handles)):
        write(handle, 1, tmp_path)
    assert len(traced) == 2 * len(handles) == 8


def test_a_feature_extractor_is_written_without_the_head(tmp_path):
    import tensorflow as tf

    model = tf.saved_model.load(str(write(EXTRACTOR, 3, tmp_path)))
    expected = flatten(material(EXTRACTOR, 3).loaded.for_head("fe"))
    found = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
