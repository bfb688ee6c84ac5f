"""Loaded models and starting ones against the clock: who takes part, and who is sent off; never seconds."""

import io
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from convert.checkpoints.synthetic import write_seeded
from convert.cli import main
from models.catalog import DEFAULT_VERSION, HANDLES, TESTING_HANDLES
from models.errors import MixerError, UsageError
from validation.benchmark import inference, startup, startup_probe
from validation.benchmark.engine_worker import _serve
from validation.benchmark.engines import ENGINES, Engine, OpenModel
from validation.benchmark.inference import _image_flops, _large_products, _largest_difference, measure_model
from validation.benchmark.records import InferenceBenchmark, StartBenchmark
from validation.benchmark.startup import _start_once, measure_starts
from validation.parity.oracle import OracleOutputs

CLASSIFIER = next(iter(TESTING_HANDLES))
HANDLE = TESTING_HANDLES[CLASSIFIER]
VERSION = str(DEFAULT_VERSION)


def silent(text):
    pass


def measure(*paths, **options):
    given = {"batches": (1, 2), "threads": 1, "repeats": 1, "started": silent, "finished": silent}
    return measure_model(HANDLE, dict(paths), **given | options)


def test_operations_are_those_of_the_paper():
    """B/16: 12.6 and L/16: 44.6 thousand million multiplications, as counted by others (timm, kecam)."""
    giga = {name: _image_flops(HANDLES[f"mixer_{name}_classification"]) / 2e9 for name in ("b16_i1k", "l16_i1k")}
    assert giga == pytest.approx({"b16_i1k": 12.6, "l16_i1k": 44.6}, rel=0.01)
    sizes = HANDLE.checkpoint.architecture
    mixing = 2 * sizes.tokens * sizes.hidden_dim * (sizes.tokens_mlp_dim + sizes.channels_mlp_dim)
    stem = 3 * sizes.patch_size**2 * sizes.tokens * sizes.hidden_dim
    assert _image_flops(HANDLE) == 2 * (stem + sizes.num_blocks * mixing + sizes.hidden_dim * 1000)


def test_the_largest_products_are_those_of_channel_mixing():
    sizes = HANDLES["mixer_b16_i1k_fe"].checkpoint.architecture
    assert _large_products(sizes, 8) == [(1568, 768, 3072), (1568, 3072, 768), (2048, 2048, 2048)]


def test_a_difference_is_over_the_spread_of_each_image():
    wanted = np.array([[0.0, 2.0], [0.0, 200.0]])
    assert _largest_difference(wanted, wanted + np.array([0.0, 0.1])) == pytest.approx(0.1)
    assert _largest_difference(wanted, wanted[:1]) == float("inf")
    assert _largest_difference(wanted, wanted * float("nan")) == float("inf")


def test_the_worker_answers_line_by_line(tmp_path):
    np.save(tmp_path / "i.npy", np.ones((2, 3), np.float32))
    asked = [{"run": str(tmp_path / "i.npy"), "to": str(tmp_path / "o.npy")}, {"run": str(tmp_path / "i.npy")}]
    answers = io.StringIO()
    _serve(OpenModel(lambda images: 2 * images), map(json.dumps, [*asked, {"multiply": [1, 2, 3]}]), answers)
    first, *said = map(json.loads, answers.getvalue().splitlines())
    assert first == {"open": True}
    assert said[0]["seconds"] > 0
    assert said[2] == {"seconds": None}
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), np.full((2, 3), 2.0))


@pytest.mark.parametrize("name", ["jax", "pytorch"])
def test_an_engine_of_arrays_gives_the_oracles_outputs_or_says_what_it_needs(name, tiny_source):
    engine = ENGINES[name]
    path = engine.path(Path("models"), HANDLE, DEFAULT_VERSION, tiny_source / HANDLE.checkpoint.object)
    if not engine.here:
        with pytest.raises(UsageError, match=r"PyTorch needs torch, .* install the extra bench of this project"):
            engine.require()
        return
    engine.require()
    images = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    opened = engine.open(HANDLE, path, 1)
    assert _largest_difference(OracleOutputs.compute(path, images).logits, opened.run(images)) < 5e-5
    assert opened.multiply(2, 3, 4) > 0


def onnx(models):
    """An engine that starts without TensorFlow, with a model among these."""
    engine = ENGINES["onnx"]
    return engine, engine.path(models, HANDLE, DEFAULT_VERSION, Path())


@pytest.mark.whole
def test_a_wrong_peer_is_not_timed(tiny_source, tiny_exports, tmp_path):
    """The checkpoint is another one than the models were made from."""
    with np.load(tiny_source / HANDLE.checkpoint.object) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["head/bias"][7] += 0.01
    np.savez(tmp_path / "other.npz", **arrays)
    found = measure((ENGINES["jax"], tmp_path / "other.npz"), onnx(tiny_exports))
    jax, peer = found.model.engines
    assert jax.failure is None
    assert {batch: len(seconds) for batch, seconds in jax.seconds.items()} == {1: 8, 2: 4}
    assert peer.seconds == {}
    assert peer.failure.startswith("not timed, since its outputs differ from JAX's by ")
    assert peer.failure.endswith(", allowed 5e-05")
    assert peer.difference > 5e-5
    assert found.product > 0


@pytest.mark.whole
def test_a_model_that_is_not_there_is_told_and_the_others_go_on(tiny_source, tmp_path):
    checkpoint = tiny_source / HANDLE.checkpoint.object
    told = []
    found = measure((ENGINES["jax"], checkpoint), onnx(tmp_path / "none"), finished=told.append)
    jax, absent = found.model.engines
    assert jax.seconds[2]
    assert absent.failure.startswith(f"{ENGINES['onnx'].title} ended with status 1: ")
    assert "none" in absent.failure
    assert told[0].endswith("onnx failed")


def test_without_jax_nothing_is_held_against_it(tiny_exports, tmp_path):
    found = measure((ENGINES["jax"], tmp_path / "none.npz"), onnx(tiny_exports))
    assert [bool(one.failure) for one in found.model.engines] == [True, True]
    assert found.model.engines[1].failure == "not run, since there is nothing to compare it with: jax failed"
    assert found.product is None


@pytest.mark.whole
def test_an_engine_that_dies_on_the_way_is_told(tiny_source, monkeypatch):
    asked = []
    real = inference._Race._ask

    def ask(self, name, ask, request):
        asked.append(request)
        if len(asked) == 2:  # what ends the process: no file of that name
            request = {"run": "nowhere.npy"}
        return real(self, name, ask, request)

    monkeypatch.setattr(inference._Race, "_ask", ask)
    found = measure((ENGINES["jax"], tiny_source / HANDLE.checkpoint.object))
    assert "ended with status 1: FileNotFoundError" in found.model.engines[0].failure
    assert found.model.engines[0].seconds == {}


@pytest.mark.whole
def test_every_engine_runs_with_as_many_threads_on_as_many_cores(tiny_source, monkeypatch):
    seen = []

    def see(self, name, ask, request):
        (child,) = [
            pid for pid in _children(os.getpid()) if "engine_worker" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        seen.append(len(os.sched_getaffinity(child)))
        return ask(request)

    monkeypatch.setattr(inference._Race, "_ask", see)
    measure((ENGINES["jax"], tiny_source / HANDLE.checkpoint.object), threads=1)
    assert set(seen) == {1}


def _children(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


STAND_IN = """
import pathlib, runpy, sys, types

def load(directory):
    if not pathlib.Path(directory, "saved_model.pb").exists():
        raise OSError(f"no model in {directory}")
    return lambda images: sum(range(100_000)) and images

images = types.SimpleNamespace(numpy=lambda: None)
model = types.SimpleNamespace(load=load)
sys.modules["tensorflow"] = types.SimpleNamespace(saved_model=model, zeros=lambda shape: images)
runpy.run_path("PROBE", run_name="__main__")
"""
"""The program that starts a model, with something in the place of TensorFlow."""


@pytest.mark.parametrize("stands_in", [True, pytest.param(False, marks=pytest.mark.whole)], ids=["stand-in", "real"])
def test_starting_is_measured_step_by_step_and_a_model_that_does_not_start_is_told(
    stands_in, tiny_build, tmp_path, monkeypatch
):
    if stands_in:
        program = tmp_path / "stand_in.py"
        program.write_text(STAND_IN.replace("PROBE", startup_probe.__file__))
        monkeypatch.setattr(startup, "startup_probe", SimpleNamespace(__file__=program))
    models = {HANDLE: tiny_build / CLASSIFIER / VERSION, HANDLE.in_flavour("graph"): tmp_path}
    sides = measure_starts(models, 1, started=silent, finished=silent)
    assert [(side.handle, side.flavour, len(side.runs)) for side in sides] == [
        (CLASSIFIER, "native", 1),
        (CLASSIFIER, "graph", 0),
    ]
    (run,) = sides[0].runs
    assert min(run.interpreter, run.imports, run.load, run.first, run.second) > 0
    assert 0 < run.prepared < run.first
    assert "gave no outputs (status 1): " in sides[1].failure
    with pytest.raises(MixerError, match="gave no outputs"):
        _start_once(HANDLE, tmp_path)


@pytest.mark.whole
def test_the_command_measures_the_engines_that_are_chosen(tiny_source, tiny_exports, tmp_path):
    """Those that start without TensorFlow; nothing is missing of what they need."""
    chosen = ["jax", "onnx", "openvino"]
    options = ["--source", tiny_source, "--models", tiny_exports, "--out", tmp_path, "--repeats", "1", "--batches", "1"]
    sides = [f"--side={name}" for name in chosen]
    with pytest.raises(SystemExit) as exit_:
        main([*map(str, ["bench", CLASSIFIER, "--part", "inference", *sides, *options])])
    assert exit_.value.code == 0
    found = InferenceBenchmark.read(tmp_path / "inference.json")
    (model,) = found.models
    assert sorted(one.name for one in model.engines) == chosen
    for one in model.engines:
        assert one.failure is None
        assert len(one.seconds[1]) == 8
        assert one.name == "jax" or one.difference <= 5e-5
    assert found.product > 0
    assert [path.name for path in tmp_path.iterdir()] == ["inference.json"]


@pytest.mark.whole
def test_the_command_makes_what_is_missing_and_measures_every_engine(tiny_build, tmp_path, capsys):
    """Those that are not installed are told, before and after."""
    models = shutil.copytree(tiny_build, tmp_path / "models")
    write_seeded(HANDLE.checkpoint, tmp_path / "source")
    options = ["--source", tmp_path / "source", "--models", models, "--out", tmp_path / "out", "--repeats", "1"]
    with pytest.raises(SystemExit) as exit_:
        main(
            list(map(str, ["bench", CLASSIFIER, "--part", "inference", "--part", "start", "--batches", "1", *options]))
        )
    absent = [engine for engine in ENGINES.values() if not engine.here]
    assert exit_.value.code == 0
    said = " ".join(capsys.readouterr().err.split())
    for engine in absent:
        assert f"{engine.title} will not be measured: install the extra {engine.extra}" in said
        assert f"not measured: {engine.title}: not installed: install the extra {engine.extra}" in said
    found = InferenceBenchmark.read(tmp_path / "out" / "inference.json")
    (model,) = found.models
    assert sorted(one.name for one in model.engines) == sorted(ENGINES)
    for one in model.engines:
        assert bool(one.failure) == (ENGINES[one.name] in absent), one.failure
        assert one.failure or len(one.seconds[1]) == 8
        assert one.failure or one.name == "jax" or one.difference <= 5e-5
    assert found.product > 0
    started = StartBenchmark.read(tmp_path / "out" / "start.json")
    assert [(side.flavour, len(side.runs)) for side in started.sides] == [("native", 1), ("graph", 1)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["inference.json", "start.json"]


def test_an_engine_says_where_its_library_comes_from():
    assert [name for name, engine in ENGINES.items() if engine.extra is None] == ["jax", "native", "graph"]
    assert isinstance(ENGINES["pytorch"], Engine)
    assert ENGINES["onnx"].path(Path("m"), HANDLE, 2, Path("c")) == Path("m", f"{CLASSIFIER}-onnx", "2", "model.onnx")
