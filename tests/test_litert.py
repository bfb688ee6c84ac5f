"""The int8 file of LiteRT: what it stores, that it computes in float32, and how it is written."""

import fnmatch
import math
from dataclasses import replace

import numpy as np
import pytest

from export.formats import litert
from export.formats.litert_editor import _ALIGNMENT
from models.catalog import ALL_HANDLES, HANDLES, TESTING_HANDLES
from models.errors import MixerError
from models.records.tolerances import EXPORT_TOLERANCES
from models.rotation import MOST_INPUTS, Rotation
from validation.formats.runtimes import RunnableModel
from validation.formats.weights import read_kernels
from validation.parity.images import Inputs
from validation.parity.oracle import OracleOutputs

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
CHECKPOINT = TESTING_HANDLES[CLASSIFIER].checkpoint


@pytest.fixture
def file(tiny_exports):
    return tiny_exports / f"{CLASSIFIER}-litert" / "2" / "model_int8.tflite"


@pytest.fixture(scope="module")
def kernels(tiny_source):
    with np.load(tiny_source / CHECKPOINT.object) as arrays:
        return {name: arrays[name] for name in arrays.files if name.endswith("/kernel")}


@pytest.mark.parametrize(("inputs", "size"), [(1, 1), (49, 1), (48, 16), (768, 128), (3072, 128), (384, 128)])
def test_a_rotation_is_exact_and_undone(inputs, size):
    rotation = Rotation.of(inputs)
    matrix = rotation.matrix
    assert matrix.shape == (size, size)
    assert size <= MOST_INPUTS
    np.testing.assert_array_equal(matrix, matrix.T)
    product = matrix @ matrix
    np.testing.assert_array_equal(product, np.eye(size) * product[0, 0])
    assert np.frexp(product[0, 0])[0] == np.frexp(abs(matrix[0, 0]))[0] == 0.5  # powers of two
    kernel = np.random.default_rng(1).standard_normal((5, inputs), np.float32)
    np.testing.assert_allclose(rotation.unrotate(rotation.rotate(kernel)), kernel, rtol=1e-12)


def test_a_rotation_spreads_an_outlier():
    kernel = np.zeros((1, 128), np.float32)
    kernel[0, 7] = 1
    assert np.ptp(np.abs(Rotation.of(128).rotate(kernel))) == 0


def test_the_file_stores_every_kernel_under_its_name_within_half_a_step(file, kernels):
    for name, found in read_kernels(file, kernels).items():
        precise = "token_mixing" in name or "stem" in name
        assert found.values.dtype == (np.float16 if precise else np.int8)
        assert found.rotated != precise
        assert found.steps_from(kernels[name]) <= (0 if precise else 0.501)
        np.testing.assert_allclose(found.dequantise(), kernels[name], rtol=0, atol=0.05 * np.abs(kernels[name]).max())


@pytest.mark.parametrize(
    ("names", "sensitive"),
    [
        (HANDLES, {"token_mixing", "stem"}),
        (fnmatch.filter(ALL_HANDLES, "mixer_s16_*"), {"token_mixing", "stem"}),
        (fnmatch.filter(ALL_HANDLES, "mixer_s32_*"), {"token_mixing"}),
        (fnmatch.filter(ALL_HANDLES, "mixer_s8_*"), {"stem"}),
    ],
    ids=["mixer", "S/16", "S/32", "S/8"],
)
def test_sensitive_kernels_are_float16_while_the_file_is_a_tenth_larger_than_a_quarter_at_most(names, sensitive):
    assert names
    for name in names:
        sizes = {array: math.prod(shape) for array, shape in ALL_HANDLES[name].arrays.items()}
        kernels = {
            array: np.broadcast_to(np.float32(0), size) for array, size in sizes.items() if array.endswith("/kernel")
        }
        precise = litert._precise(kernels)
        assert {part for part in ("token_mixing", "stem") if any(part in one for one in precise)} == sensitive
        stored = sum(size * (2 if one in precise else 1 if one in kernels else 4) for one, size in sizes.items())
        assert stored < 1.1 * sum(sizes.values())


def test_a_kernel_that_is_off_by_a_step_is_noticed(file, kernels):
    for name, found in read_kernels(file, kernels).items():
        values = found.values.copy()
        values.flat[5] += 1
        assert replace(found, values=values).steps_from(kernels[name]) > 0.51
        assert found.steps_from(kernels[name][..., 1:]) == np.inf


def test_nothing_is_rounded_at_run_time_and_constants_are_aligned(file):
    from ai_edge_litert import schema_py_generated as schema

    content = np.fromfile(file, np.uint8)
    model = schema.ModelT.InitFromPackedBuf(content.tobytes(), 0)
    (graph,) = model.subgraphs
    small = {schema.TensorType.INT8, schema.TensorType.FLOAT16}
    readers = {
        model.operatorCodes[operation.opcodeIndex].builtinCode
        for operation in graph.operators
        for number in operation.inputs
        if graph.tensors[number].type in small
    }
    assert readers == {schema.BuiltinOperator.DEQUANTIZE}
    tables = schema.Model.GetRootAs(content, 0)
    for index in range(tables.BuffersLength()):
        data = tables.Buffers(index).DataAsNumpy()
        if isinstance(data, np.ndarray):
            assert (data.ctypes.data - content.ctypes.data) % _ALIGNMENT == 0


def test_a_kernel_that_the_converter_changed_is_named(tiny_build, monkeypatch):
    saved_model = tiny_build / f"{EXTRACTOR}-graph" / "2"
    content = litert._convert(saved_model, "float32")
    factor = litert._factor
    monkeypatch.setattr(litert, "_factor", lambda kernel, array: None if array.ndim == 4 else factor(kernel, array))
    with pytest.raises(MixerError, match="the float32 file does not contain stem/kernel as they are"):
        litert._with_smaller_kernels(content, saved_model)


def test_a_scaled_kernel_is_recognised_and_another_is_not():
    kernel = np.random.default_rng(2).standard_normal((4, 6), np.float32)
    assert litert._factor(kernel / 49, kernel) == pytest.approx(1 / 49, rel=1e-6)
    assert litert._factor(np.zeros_like(kernel), np.zeros_like(kernel)) == 1
    assert litert._factor(kernel, kernel[:, ::-1]) is None
    assert litert._factor(kernel, kernel.T) is None


def test_a_convolution_too_large_for_float16_has_an_int8_scale_for_each_output_and_computes_in_float32(
    tiny_build, tiny_source, tmp_path, monkeypatch, kernels
):
    monkeypatch.setattr(litert, "_ALWAYS", 0)
    monkeypatch.setattr(litert, "_ROOM", 0.05)
    saved_model, path = tiny_build / f"{CLASSIFIER}-graph" / "2", tmp_path / "model_int8.tflite"
    path.write_bytes(litert._with_smaller_kernels(litert._convert(saved_model, "float32"), saved_model))
    found = read_kernels(path, kernels)
    stem = found["stem/kernel"]
    assert (stem.values.dtype, stem.rotated, len(stem.scales)) == (np.int8, False, 32)
    assert stem.steps_from(kernels["stem/kernel"]) <= 0.501
    assert {one.values.dtype for name, one in found.items() if "token_mixing" in name} == {np.dtype(np.float16)}
    images = Inputs.gate(CHECKPOINT.architecture.image_size).images
    dequantised = {name: one.dequantise() for name, one in found.items()}
    expected = OracleOutputs.compute(tiny_source / CHECKPOINT.object, images, replaced=dequantised).logits
    errors = np.abs(RunnableModel.open("litert", path).run(images) - expected).max(axis=1) / expected.std(axis=1)
    assert 0 < errors.max() < EXPORT_TOLERANCES["int8"]["own_weights_relative"].limit
