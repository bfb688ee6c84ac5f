"""The check of exported models: right ones pass with room, and each way to be wrong is noticed."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from writing import graph_function, write_saved_model

from convert.checkpoints.reader import load_checkpoint
from export.formats.writer import write_format
from models.catalog import TESTING_HANDLES
from models.formats import FORMATS
from models.params import flatten
from models.records.tolerances import EXPORT_TOLERANCES, TOLERANCES
from validation.formats.check import PLAN, Truth
from validation.formats.runtimes import OPENERS, RunnableModel
from validation.formats.weights import read_kernels
from validation.parity.outputs import _Distances

CLASSIFIER, EXTRACTOR = TESTING_HANDLES.values()
CHECKPOINT = CLASSIFIER.checkpoint
SIZE = CHECKPOINT.architecture.image_size
FILES = [(name, file) for name, kind in FORMATS.items() for file in kind.models]
FULL = [(name, file) for name, file in FILES if FORMATS[name].models[file] == "float32"]
FLOAT32_BIASES = [*FULL, ("litert", "model_int8.tflite")]

each_format = pytest.mark.parametrize("name", FORMATS)
each_file = pytest.mark.parametrize(("name", "file"), FILES)


def problems_of(checks):
    return tuple(problem for check in checks for problem in check.problems)


@pytest.fixture(scope="module")
def truth(tiny_source):
    return Truth.of(tiny_source / CHECKPOINT.object, SIZE, "seeded")


@pytest.fixture
def written(tiny_exports):
    """The directories of both tiny models in each format, by handle and format."""
    handles = (CLASSIFIER, EXTRACTOR)
    return {handle.name: {name: tiny_exports / f"{handle.name}-{name}" / "2" for name in FORMATS} for handle in handles}


def write_wrong(name, folder, params, *, during=nullcontext, function=None):
    """Write a wrong graph SavedModel in a format; return the directory."""
    with during():
        (folder / "model").mkdir()
        write_saved_model(function or graph_function(CLASSIFIER), params, folder / "model", image_size=SIZE)
    (folder / name).mkdir()
    write_format(name, folder / "model", folder / name)
    return folder / name


@pytest.fixture(scope="module")
def params(tiny_source):
    path = tiny_source / CHECKPOINT.object
    return load_checkpoint(path, CHECKPOINT.architecture, num_classes=CHECKPOINT.num_classes).params


@each_format
@pytest.mark.parametrize("handle", [CLASSIFIER, EXTRACTOR], ids=lambda handle: handle.name)
def test_right_models_pass_with_room(name, handle, written, truth):
    checks = truth.check(name, written[handle.name][name], handle)
    assert problems_of(checks) == ()
    assert all(check.has_power for check in checks)
    assert sum(check.name.endswith(" max_relative") for check in checks) == len(FORMATS[name].models) * len(PLAN)
    for check in checks:
        if check.name.endswith(("_relative", " cosine_distance")):
            assert check.measured < check.limit / (1.5 if check.name == "int8 max_relative" else 2.5)


def test_int8_is_compared_with_the_weights_that_it_stores_and_with_the_checkpoints(written, truth):
    for handle in (CLASSIFIER, EXTRACTOR):
        checks = truth.check("litert", written[handle.name]["litert"], handle)
        own, rounded = (
            [check for check in checks if check.name == f"int8 {name}"]
            for name in ("own_weights_relative", "max_relative")
        )
        assert [check.on for check in own] == [check.on for check in rounded]
        assert max(check.measured for check in own) < min(check.measured for check in rounded) / 100


def test_float32_is_held_as_tight_as_tensorflow():
    for name in ("max_relative", "max_ulp", "cosine_distance"):
        assert EXPORT_TOLERANCES["float32"][name].limit == TOLERANCES[name].limit
    assert EXPORT_TOLERANCES["float32"]["tie"].limit == 2 * TOLERANCES["max_relative"].limit


@pytest.mark.parametrize("weights", EXPORT_TOLERANCES)
def test_ties_say_more_than_the_largest_difference(weights):
    """Two logits may each be off by the largest difference: a tie of twice that would make the first class moot."""
    tolerances = EXPORT_TOLERANCES[weights]
    assert tolerances["tie"].limit <= 2 * tolerances["max_relative"].limit
    assert weights == "float32" or tolerances["tie"].limit < tolerances["max_relative"].limit


@each_file
def test_any_number_of_images_gives_the_same(name, file, written, truth):
    model = RunnableModel.open(name, written[CLASSIFIER.name][name] / file)
    together = model.run(truth.inputs.images)
    for index in (2, 0):
        alone = model.run(truth.inputs.images[index : index + 1])
        np.testing.assert_allclose(alone[0], together[index], rtol=0, atol=1e-5 * together[index].std())


@each_file
@pytest.mark.parametrize("shape", [(1, SIZE, SIZE + 8, 3), (SIZE, SIZE, 3)], ids=["wide", "no batch"])
def test_the_runtime_refuses_another_size(name, file, shape, written):
    model = RunnableModel.open(name, written[CLASSIFIER.name][name] / file)
    with pytest.raises((RuntimeError, ValueError, Exception), match=r"(?i)dimension|rank|shape|size|prepare"):
        model.run(np.zeros(shape, np.float32))


@pytest.fixture(scope="module")
def zero_headed(params, tmp_path_factory):
    """What comes out with a kernel of zeros and a bias that float16 does not hold, and the LiteRT files of that."""
    folder = tmp_path_factory.mktemp("zero_headed")
    head = {name: np.full_like(array, 0.1 * (name == "bias")) for name, array in params["head"].items()}
    changed = {**params, "head": head}
    np.savez(folder / "checkpoint.npz", **flatten(changed))
    truth = Truth.of(folder / "checkpoint.npz", SIZE, "own")
    return truth, write_wrong("litert", folder, changed)


def test_a_head_of_zeros_may_have_a_bias_that_is_rounded_where_weights_are(zero_headed):
    truth, directory = zero_headed
    checks = truth.check("litert", directory, CLASSIFIER)
    assert problems_of(checks) == ()
    worst = {}
    for check in checks:
        if check.name.endswith(" max_relative"):
            assert check.power == 0
            worst[check.name] = max(check.measured, worst.get(check.name, 0))
    assert worst["float32 max_relative"] == 0
    assert 0 < worst["float16 max_relative"] < EXPORT_TOLERANCES["float16"]["max_relative"].limit / 5


@pytest.mark.parametrize(("weights", "by"), [("float32", 1e-6), ("float16", 1e-3)])
def test_a_bias_beside_a_head_of_zeros_that_is_off_is_noticed(weights, by, zero_headed):
    truth, directory = zero_headed
    other = replace(truth, outputs=replace(truth.outputs, logits=truth.outputs.logits + by))
    problems = problems_of(other.check("litert", directory, CLASSIFIER))
    assert any(problem.startswith(f"model_{weights}.tflite on ") for problem in problems)


# --- what must be noticed ---


def with_erf():
    """GELU as x/2 (1 + erf(x / sqrt(2))), of operations that every format has.

    Abramowitz and Stegun, 7.1.26: erf to 1.5e-7.
    """

    def gelu(x, approximate):
        z = jnp.abs(x) / np.float32(np.sqrt(2))
        t = 1 / (1 + 0.3275911 * z)
        series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        return (x + jnp.abs(x) * (1 - series * jnp.exp(-z * z))) / 2

    return mock.patch.object(nn, "gelu", gelu)


def with_another_epsilon():
    from models import mixer

    return mock.patch.object(mixer, "LAYER_NORM_EPSILON", 1e-5)


@each_format
def test_gelu_in_its_erf_form_is_noticed_in_float32(name, params, truth, tmp_path):
    directory = write_wrong(name, tmp_path, params, during=with_erf)
    problems = problems_of(truth.check(name, directory, CLASSIFIER))
    (file,) = (file for file, weights in FORMATS[name].models.items() if weights == "float32")
    assert any(problem.startswith(file) and "max_relative" in problem for problem in problems)


@each_format
def test_another_epsilon_is_noticed(name, params, truth, tmp_path):
    directory = write_wrong(name, tmp_path, params, during=with_another_epsilon)
    problems = problems_of(truth.check(name, directory, CLASSIFIER))
    assert {problem.split()[0] for problem in problems} == set(FORMATS[name].models)


@pytest.mark.parametrize("wrong", [with_erf, with_another_epsilon])
def test_a_wrong_computation_is_noticed_in_the_int8_file_whatever_rounding_costs(wrong, params, truth, tmp_path):
    directory = write_wrong("litert", tmp_path, params, during=wrong)
    checks = truth.check("litert", directory, CLASSIFIER)
    assert any(check.problems for check in checks if check.name == "int8 own_weights_relative")


def test_equal_kernels_are_each_stored_and_checked(params, tmp_path):
    """The converter stores equal constants once; a residual branch may well begin with zeros."""
    blocks = {name: value for name, value in params.items() if name.startswith("MixerBlock_")}
    assert len(blocks) > 1
    changed = params | {
        name: block
        | {
            mlp: block[mlp] | {"Dense_1": {key: np.zeros_like(one) for key, one in block[mlp]["Dense_1"].items()}}
            for mlp in ("token_mixing", "channel_mixing")
        }
        for name, block in blocks.items()
    }
    np.savez(tmp_path / "checkpoint.npz", **flatten(changed))
    truth = Truth.of(tmp_path / "checkpoint.npz", SIZE, "own")
    checks = truth.check("litert", write_wrong("litert", tmp_path, changed), CLASSIFIER)
    assert problems_of(checks) == ()


def test_one_int8_weight_changed_is_noticed(written, truth, params, tmp_path):
    directory = shutil.copytree(written[CLASSIFIER.name]["litert"], tmp_path / "litert")
    path = directory / "model_int8.tflite"
    values = read_kernels(path, ["head/kernel"])["head/kernel"].values
    changed = values.copy()
    changed[7, 5] ^= 3
    change_bytes(path, values.tobytes(), changed.tobytes())
    (problem,) = problems_of(truth.check("litert", directory, CLASSIFIER))
    assert problem.startswith("model_int8.tflite: int8 weights_steps ")


def test_an_int8_file_of_an_earlier_version_is_refused_in_words(written, truth, tmp_path):
    directory = shutil.copytree(written[CLASSIFIER.name]["litert"], tmp_path / "litert")
    shutil.copyfile(directory / "model_float32.tflite", directory / "model_int8.tflite")
    (problem,) = problems_of(truth.check("litert", directory, CLASSIFIER))
    assert problem.startswith("model_int8.tflite: does not run: MixerError: it does not store MixerBlock_0/")
    assert problem.endswith("Export it again (--overwrite).")


def test_the_limits_of_rounding_are_wider_for_synthetic_weights(written, truth):
    directory = written[CLASSIFIER.name]["litert"]
    limits = {
        origin: {
            check.limit
            for check in replace(truth, origin=origin).check("litert", directory, CLASSIFIER)
            if check.name == "int8 max_relative"
        }
        for origin in ("seeded", "own")
    }
    assert limits == {"seeded": {0.2}, "own": {0.1}}


def test_another_first_class_is_named_with_how_near_a_tie_it_is(written, truth):
    _, _, logits = truth.choose(CLASSIFIER, ("blank",))
    blank = truth.inputs.names.index("blank")
    first, second = np.argsort(-logits[0])[:2]
    tied = truth.outputs.logits.copy()
    tied[blank, second] = tied[blank, first] * (1 + 1e-9)
    other = replace(truth, outputs=replace(truth.outputs, logits=tied))
    checks = other.check("onnx", written[CLASSIFIER.name]["onnx"], CLASSIFIER)
    said = {check.detail for check in checks if check.name == "float32 top1_disagreement" and "blank" in check.detail}
    assert all(one.startswith(f"blank: first class {first} instead of {second}, whose logit is ") for one in said)
    assert said


def test_openvino_is_also_run_as_most_users_run_it(written, truth, monkeypatch):
    real, opened = OPENERS["openvino"], []
    monkeypatch.setitem(OPENERS, "openvino", lambda path, settings: opened.append(settings) or real(path, settings))
    checks = truth.check("openvino", written[CLASSIFIER.name]["openvino"], CLASSIFIER)
    assert opened == [{"INFERENCE_PRECISION_HINT": "f32"}, {}]  # on many processors both are float32
    (default,) = (check for check in checks if check.name == "float32 default_settings_relative")
    exact = max(check.measured for check in checks if check.name == "float32 max_relative")
    dtype, _, processor = default.detail.partition(" on ")
    assert processor
    assert (default.measured > 100 * exact) == (dtype == "bf16")
    other = replace(truth, outputs=replace(truth.outputs, logits=truth.outputs.logits + truth.outputs.logits.std()))
    checks = other.check("openvino", written[CLASSIFIER.name]["openvino"], CLASSIFIER)
    assert [bool(one.problems) for one in checks if one.name == default.name] == [True]


@each_format
def test_a_sign_of_the_input_is_noticed_in_every_file(name, params, truth, tmp_path):
    right = graph_function(CLASSIFIER)
    directory = write_wrong(name, tmp_path, params, function=lambda params, images: right(params, -images))
    problems = problems_of(truth.check(name, directory, CLASSIFIER))
    assert {problem.split()[0] for problem in problems} == set(FORMATS[name].models)


def change_bytes(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def store_of(name, file):
    """The file that holds the weights of a model's file."""
    return FORMATS[name].companions[0] if FORMATS[name].companions else file


@pytest.mark.parametrize(("name", "file"), FLOAT32_BIASES)
def test_one_weight_changed_in_the_file_is_noticed(name, file, written, truth, params, tmp_path):
    directory = shutil.copytree(written[CLASSIFIER.name][name], tmp_path / name)
    bias = params["MixerBlock_0"]["channel_mixing"]["Dense_0"]["bias"]
    changed = bias.copy()
    changed[3] += 1e-3
    change_bytes(directory / store_of(name, file), bias.tobytes(), changed.tobytes())
    problems = problems_of(truth.check(name, directory, CLASSIFIER))
    assert problems
    assert all(problem.startswith(file) for problem in problems)


def test_one_weight_changed_by_much_is_noticed_in_float16(written, truth, params, tmp_path):
    file = "model_float16.tflite"
    directory = shutil.copytree(written[CLASSIFIER.name]["litert"], tmp_path / "litert")
    bias = params["head"]["bias"].astype(np.float16)
    changed = bias.copy()
    changed[3] += 10
    change_bytes(directory / file, bias.tobytes(), changed.tobytes())
    problems = problems_of(truth.check("litert", directory, CLASSIFIER))
    assert problems
    assert all(problem.startswith(file) for problem in problems)


@pytest.mark.parametrize(("name", "file"), FULL)
def test_nan_is_noticed(name, file, written, truth, params, tmp_path):
    directory = shutil.copytree(written[CLASSIFIER.name][name], tmp_path / name)
    bias = params["head"]["bias"]
    changed = bias.copy()
    changed[3] = np.nan
    change_bytes(directory / store_of(name, file), bias.tobytes(), changed.tobytes())
    problems = problems_of(truth.check(name, directory, CLASSIFIER))
    assert any("max_relative inf is over" in problem for problem in problems)


@each_format
def test_another_model_is_noticed(name, written, truth):
    problems = problems_of(truth.check(name, written[EXTRACTOR.name][name], CLASSIFIER))
    for file in FORMATS[name].models:
        mine = [problem for problem in problems if problem.startswith(file)]
        assert any("gives (('output_0', 'float32', (None, 32)),), expected" in problem for problem in mine)
        assert any("does not run: ValueError: outputs of shape (4, 32), expected (4, 1000)" in one for one in mine)


@each_file
def test_a_file_cut_short_is_noticed(name, file, written, truth, tmp_path):
    directory = shutil.copytree(written[CLASSIFIER.name][name], tmp_path / name)
    path = directory / file
    path.write_bytes(path.read_bytes()[:100])
    problems = problems_of(truth.check(name, directory, CLASSIFIER))
    assert any(problem.startswith(f"{file}: does not run: ") for problem in problems)


@each_file
def test_a_missing_file_is_noticed(name, file, written, truth, tmp_path):
    directory = shutil.copytree(written[CLASSIFIER.name][name], tmp_path / name)
    (directory / file).unlink()
    problems = problems_of(truth.check(name, directory, CLASSIFIER))
    assert any(problem.startswith(f"{file}: does not run: ") for problem in problems)


@pytest.mark.parametrize("weights", EXPORT_TOLERANCES)
@pytest.mark.parametrize("figure", ["max_relative", "max_ulp", "cosine_distance"])
def test_each_limit_is_judged(weights, figure):
    limits = EXPORT_TOLERANCES[weights]
    good = _Distances(max_relative=0, max_ulp=0, cosine_distance=0, top1=1, top5=1, power=1)
    assert problems_of(good.checks("file", limits)) == ()
    if figure not in limits:
        return
    limit = limits[figure].limit
    assert problems_of(replace(good, **{figure: limit}).checks("file", limits)) == ()
    (problem,) = problems_of(replace(good, **{figure: np.nextafter(limit, np.inf)}).checks("file", limits))
    assert f"{figure} {limit:.3g} is over" in problem
    (problem,) = problems_of(replace(good, **{figure: float("nan")}).checks("file", limits))
    assert f"{figure} nan is over" in problem


@pytest.mark.parametrize("weights", EXPORT_TOLERANCES)
def test_another_first_class_is_judged(weights):
    found = _Distances(max_relative=0, max_ulp=0, cosine_distance=0, top1=0.75, top5=1, power=1)
    (problem,) = problems_of(found.checks("file", EXPORT_TOLERANCES[weights], prefix=f"{weights} "))
    assert problem == "file: top1 agrees on 75% of the images, expected all"


def test_the_truth_is_of_the_handles_head(truth):
    _, images, logits = truth.choose(CLASSIFIER, ("blank", "noise"))
    assert images.shape == (2, SIZE, SIZE, 3)
    assert not images[0].any()
    assert logits.shape == (2, CLASSIFIER.outputs)
    other = replace(EXTRACTOR, name="other")
    assert truth.choose(other, ("blank",))[2].shape == (1, other.outputs)
