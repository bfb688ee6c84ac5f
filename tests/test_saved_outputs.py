"""The evidence beside a report: the outputs as they were."""

from dataclasses import fields

import numpy as np
import pytest

from validation.parity.check import Findings
from validation.parity.images import Inputs
from validation.parity.outputs import Expected
from validation.parity.saved_outputs import SavedOutputs
from validation.parity.scale import Scale

RANDOM = np.random.default_rng(0)
EVIDENCE = SavedOutputs(
    names=("noise", "near tie ü"),
    saved_model=RANDOM.standard_normal((2, 5)).astype(np.float32),
    jax=RANDOM.standard_normal((2, 5)).astype(np.float32),
    oracle=RANDOM.standard_normal((2, 5)),
    scale=RANDOM.uniform(1, 2, 2),
    images=RANDOM.integers(0, 256, (2, 4, 4, 3), np.uint8),
)


def assert_same(found, expected):
    assert found.names == expected.names
    for field in fields(SavedOutputs)[1:]:
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_what_is_written_is_what_is_read(tmp_path):
    path = tmp_path / "2.evidence.npz"
    path.write_bytes(EVIDENCE.to_bytes())
    assert_same(SavedOutputs.read(path), EVIDENCE)


def test_equal_evidence_gives_equal_bytes():
    assert EVIDENCE.to_bytes() == EVIDENCE.to_bytes()


def test_no_array_is_a_pickle(tmp_path):
    (tmp_path / "e.npz").write_bytes(EVIDENCE.to_bytes())
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.kind for name in arrays.files} == {
            "names": "U",
            "saved_model": "f",
            "jax": "f",
            "oracle": "f",
            "scale": "f",
            "images": "u",
        }


def test_a_pickle_is_never_read(tmp_path):
    path = tmp_path / "e.npz"
    np.savez(path, names=np.array([object()]), saved_model=[1.0], jax=[1.0], oracle=[1.0], scale=[1.0])
    with pytest.raises(ValueError, match="allow_pickle=False"):
        SavedOutputs.read(path)


def test_it_holds_the_images_that_the_saved_model_was_run_on():
    expected = Expected(
        names=("a", "b", "c"),
        jax=np.arange(6, dtype=np.float32).reshape(3, 2),
        oracle={"c": np.array([4.5, 5.5]), "b": np.array([2.5, 3.5])},
        classes=True,
        scale=Scale(of=np.array([1.0, 2.0, 3.0]), power=np.ones(3), unit=np.ones(3), turns=np.ones(3, bool)),
    )
    findings = Findings(outputs={name: np.full(2, index, np.float32) for index, name in enumerate("ca")})
    images = np.stack([np.full((224, 224, 3), value, np.float32) for value in (-1, 0.5, 1)])
    found = SavedOutputs.collect(findings, expected, Inputs(expected.names, images))
    assert_same(
        found,
        SavedOutputs(
            names=("a", "c"),
            saved_model=np.array([[1, 1], [0, 0]], np.float32),
            jax=np.array([[0, 1], [4, 5]], np.float32),
            oracle=np.array([[np.nan, np.nan], [4.5, 5.5]]),
            scale=np.array([1.0, 3.0]),
            images=np.stack([np.full((112, 112, 3), value, np.uint8) for value in (0, 255)]),
        ),
    )
