"""What JAX computes from a checkpoint."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from convert.checkpoints.reader import load_checkpoint
from convert.checkpoints.synthetic import write_seeded
from models.catalog import TESTING_HANDLES
from models.mixer import MlpMixer
from validation.parity import reference
from validation.parity.images import Inputs
from validation.parity.oracle import OracleOutputs
from validation.parity.reference import Reference, apply_both

CHECKPOINT = next(iter(TESTING_HANDLES.values())).checkpoint
ARCHITECTURE = CHECKPOINT.architecture


@pytest.fixture(scope="module")
def inputs():
    return Inputs.gate(ARCHITECTURE.image_size)


@pytest.fixture(scope="module")
def images(inputs):
    return inputs.images


@pytest.fixture
def traces(monkeypatch):
    """Count how often the model is traced; compiled functions of other tests are forgotten."""
    reference._compiled.cache_clear()
    seen = []

    class Counting(MlpMixer):
        def apply(self, *arguments, **options):
            seen.append(self.architecture)
            return super().apply(*arguments, **options)

    monkeypatch.setattr(reference, "MlpMixer", Counting)
    yield seen
    reference._compiled.cache_clear()


def seeded(folder, name=CHECKPOINT.name, **changes):
    checkpoint = replace(CHECKPOINT, name=name, **changes)
    path = write_seeded(checkpoint, folder / name)
    loaded = load_checkpoint(path, checkpoint.architecture, num_classes=checkpoint.num_classes)
    return checkpoint, path, loaded.params


def test_logits_and_features_are_those_of_the_two_models(tmp_path, inputs, images):
    checkpoint, path, params = seeded(tmp_path)
    found = Reference.compute(checkpoint, path, params, inputs, ("blank",))
    classifier, extractor = MlpMixer(ARCHITECTURE, 1000), MlpMixer(ARCHITECTURE, None)
    without_head = {name: value for name, value in params.items() if name != "head"}
    logits = jax.jit(classifier.apply)({"params": params}, images)
    features = jax.jit(extractor.apply)({"params": without_head}, images)
    assert found.logits.shape == (4, 1000)
    assert found.features.shape == (4, 32)
    for name, ours, theirs in (("logits", found.logits, logits), ("features", found.features, features)):
        difference = np.abs(ours - np.asarray(theirs)).max(axis=1)
        assert (difference <= 1e-6 * np.abs(ours).max(axis=1)).all(), name


def test_outputs_are_float32_of_numpy(tmp_path, inputs):
    found = Reference.compute(*seeded(tmp_path), inputs, ("blank",))
    assert {type(found.logits), type(found.features)} == {np.ndarray}
    assert {found.logits.dtype, found.features.dtype} == {np.dtype(np.float32)}
    assert np.isfinite(found.logits).all()
    assert (found.logits.std(axis=1) > 0.1).all()


def test_the_oracle_is_run_on_the_images_named(tmp_path, inputs, images):
    checkpoint, path, params = seeded(tmp_path)
    found = Reference.compute(checkpoint, path, params, inputs, ("coffee.png", "noise"))
    expected = OracleOutputs.compute(path, images[[3, 0]])
    assert found.inputs is inputs
    assert found.oracle_names == ("coffee.png", "noise")
    assert (found.oracle.logits.shape, found.oracle.logits.dtype) == ((2, 1000), np.float64)
    assert np.array_equal(found.oracle.logits, expected.logits)
    assert np.array_equal(found.oracle.features, expected.features)
    assert np.abs(found.oracle.logits - found.logits[[3, 0]]).max() < 1e-5 * found.logits.std()


def test_an_image_does_not_depend_on_its_neighbours(tmp_path, images):
    checkpoint, _, params = seeded(tmp_path)
    together = apply_both(checkpoint, params, images)[0]
    alone = np.concatenate([apply_both(checkpoint, params, images[i : i + 1])[0] for i in range(4)])
    assert np.abs(together - alone).max() < 1e-5 * together.std()


def test_each_head_gets_its_outputs(tmp_path, inputs):
    both = Reference.compute(*seeded(tmp_path), inputs, ("blank",))
    logits, features = both.for_head("classification"), both.for_head("fe")
    assert logits.names == features.names == inputs.names
    assert logits.jax is both.logits
    assert features.jax is both.features
    assert (logits.classes, features.classes) == (True, False)
    assert logits.oracle.keys() == features.oracle.keys() == {"blank"}
    assert np.array_equal(logits.oracle["blank"], both.oracle.logits[0])
    assert np.array_equal(features.oracle["blank"], both.oracle.features[0])


def test_an_image_that_is_not_there_is_no_input_of_the_oracle(tmp_path, inputs):
    with pytest.raises(ValueError, match="not in tuple"):
        Reference.compute(*seeded(tmp_path), Inputs(inputs.names[:1], inputs.images[:1]), ("blank",))


def test_checkpoints_of_one_shape_share_one_trace(tmp_path, inputs, traces):
    first = Reference.compute(*seeded(tmp_path), inputs, ("blank",))
    second = Reference.compute(*seeded(tmp_path, "other"), inputs, ("blank",))
    assert len(traces) == 1
    assert not np.array_equal(first.logits, second.logits)


def test_another_number_of_classes_is_traced_by_itself(tmp_path, inputs, traces):
    Reference.compute(*seeded(tmp_path), inputs, ("blank",))
    training = replace(CHECKPOINT.training, num_classes=10)
    few = Reference.compute(*seeded(tmp_path, "few", training=training), inputs, ("blank",))
    assert len(traces) == 2
    assert few.logits.shape == (4, 10)


def test_another_architecture_is_traced_by_itself(tmp_path, inputs, traces):
    Reference.compute(*seeded(tmp_path), inputs, ("blank",))
    deeper = replace(ARCHITECTURE, name="Ti/8 deeper", num_blocks=3)
    Reference.compute(*seeded(tmp_path, "deeper", architecture=deeper), inputs, ("blank",))
    assert [architecture.num_blocks for architecture in traces] == [2, 3]
