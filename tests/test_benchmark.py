"""The benchmark of conversion, its targets and its tables: counts and structure, never seconds."""

import json
import os
import re
import runpy
import shutil
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow as tf
from command import status_of
from programs import PLACES

from convert.pipeline import benchmark as benching
from convert.pipeline import benchmark_scale
from models.catalog import B16, HANDLES, L16, TESTING_HANDLES
from models.errors import MixerError
from models.markdown import markdown_table
from validation.benchmark import conversion, preparation, synthetic_models
from validation.benchmark.conversion import (
    Folders,
    Scale,
    Scenario,
    _run_scenario,
    further_handles,
    run_scenarios,
    scenarios,
)
from validation.benchmark.engines import ENGINES
from validation.benchmark.records import (
    QUICK_RATIOS,
    ConversionBenchmark,
    EngineSpeed,
    InferenceBenchmark,
    ModelSpeed,
    QuickBenchmark,
    Side,
    Start,
    StartBenchmark,
    StartSide,
    _Machine,
    circumstances,
)
from validation.benchmark.stopwatch import Run, time_commands
from validation.benchmark.tables import Tables, markdown_lines
from validation.benchmark.targets import Finding, _further_seconds

ROOT = Path(__file__).parent.parent
CLASSIFIER, FE = TESTING_HANDLES
PLACE = Folders(Path("/source"), Path("/kept"), Path("/work"))
ALL = list(HANDLES.values())


def python(code):
    return (sys.executable, "-c", code)


def silent(text):
    pass


# --- the sides ---


def test_further_checkpoints_are_those_whose_graphs_are_known():
    assert further_handles(ALL) == ("mixer_b16_i1k_classification", "mixer_b16_i1k_fe")
    assert further_handles([one for one in ALL if one.head == "fe"]) == tuple(
        f"mixer_{name}_fe" for name in ("b16_i1k", "b16_i21k", "l16_i21k")
    )
    assert further_handles(ALL[:2]) == ()


def test_each_side_works_on_all_handles():
    rows = scenarios(ALL, PLACE, Scale())
    assert len(rows["notebook"].commands) == 12
    assert len(rows["convert"].commands) == len(rows["convert-all"].commands) == len(rows["floor"].commands) == 1
    for name in ("convert", "convert-all"):
        assert set(HANDLES) <= set(rows[name].commands[0])
        assert rows[name].models == (() if name == "convert-all" else tuple(HANDLES))
        assert len(rows[name].reads) == 6
    assert [path.name for path in map(Path, rows["floor"].commands[0]) if path.name in HANDLES] == list(HANDLES)
    assert rows["cp"].commands[0][2:-1] == ("/kept/mixer_b16_i1k_classification", "/kept/mixer_b16_i1k_fe")
    assert "cp" not in scenarios(ALL[:2], PLACE, Scale())


def test_what_the_chosen_sides_need_is_made_once():
    rows = scenarios(ALL, PLACE, Scale())
    words = [" ".join(one) for one in preparation.for_conversion(ALL, PLACE, Scale(), list(rows.values()))]
    assert len([one for one in words if " convert convert " in one]) == 1
    assert len([one for one in words if "scale seed Small/16 0 1 " in one]) == 1
    assert len([one for one in words if "scale convert Small/16 0 100 " in one]) == 1
    assert preparation.for_conversion(ALL, PLACE, Scale(), [rows["notebook"], rows["convert"]]) == []


def test_models_that_are_there_are_not_made_again(tmp_path):
    place = Folders(PLACE.source, tmp_path, PLACE.work)
    handle = HANDLES["mixer_b16_i1k_classification"]
    forms = [*ENGINES]
    assert [one[3] for one in preparation.for_running([handle], place, forms)] == [
        "convert",
        "convert",
        "export",
        "export",
    ]
    for name in (handle.name, f"{handle.name}-onnx"):
        (tmp_path / name / "2").mkdir(parents=True)
    kinds = [one[3:6] for one in preparation.for_running([handle], place, forms)]
    assert kinds == [("convert", "--flavour", "graph"), ("export", "--to", "openvino")]


def test_sides_take_turns_and_what_they_write_is_deleted(tmp_path):
    log = tmp_path / "log"

    def way(name):
        code = f"open({str(log)!r}, 'a').write({name!r}); open({str(tmp_path / name / 'f')!r}, 'x').write('x')"
        return Scenario(name, f"what {name} is", (python(code),), out=tmp_path / name)

    sides = run_scenarios([way("a"), way("b")], 3, started=silent, finished=silent)
    assert log.read_text() == "ababab"
    assert [(side.name, side.what, len(side.runs), side.failure) for side in sides] == [
        ("a", "what a is", 3, None),
        ("b", "what b is", 3, None),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_side_that_fails_says_why_and_is_not_run_again(tmp_path):
    log, told = tmp_path / "log", []
    bad = Scenario(
        "bad", "", (python(f"open({str(log)!r}, 'a').write('x'); raise SystemExit('no disk')"),), out=tmp_path / "o"
    )
    sides = run_scenarios([bad, Scenario("good", "", (python("pass"),))], 2, started=silent, finished=told.append)
    assert log.read_text() == "x"
    assert (sides[0].runs, len(sides[1].runs)) == ((), 2)
    assert sides[0].failure.endswith("ended with status 1: no disk")
    assert sum("bad: failed" in line for line in told) == 1
    assert not (tmp_path / "o").exists()


def test_the_time_is_kept_at_which_a_model_was_finished(tmp_path):
    out = tmp_path / "out"
    code = (
        "import pathlib, time\n"
        "for name in ('a', 'b'):\n"
        f"    folder = pathlib.Path({str(out)!r}, name)\n"
        "    folder.mkdir()\n"
        "    (folder / '2.manifest.json').write_text('')\n"
        "    time.sleep(0.2)"
    )
    run = _run_scenario(Scenario("convert", "", (python(code),), out=out, models=("a", "b", "c")))
    assert list(run.finished) == ["a", "b"]
    assert 0 < run.finished["a"] < run.finished["b"] < run.wall


def test_made_up_models_differ_in_depth_or_in_weights_alone(tmp_path):
    first, second = synthetic_models.rows("Ti/8", 3, 2)
    assert first.architecture == second.architecture
    assert (first.architecture.num_blocks, first.name) == (3, "ti-8-3-0")
    benchmark_scale._seed([first, second], tmp_path)
    one, other = (np.load(tmp_path / row.object) for row in (first, second))
    assert {name: value.shape for name, value in one.items()} == first.arrays
    assert not np.array_equal(one["head/kernel"], other["head/kernel"])


NOT_READ_FROM = (0, 11)
"""The JAX from which on TensorFlow 2.21 loads what the plain steps write, and refuses it at the first call."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "trains"),
    [
        pytest.param(CLASSIFIER, False, id="classification"),
        pytest.param(FE, True, id="fe", marks=pytest.mark.whole),
    ],
)
def test_the_notebook_way_gives_the_same_outputs(name, trains, place, tiny_source, tiny_build, tmp_path, monkeypatch):
    handle = TESTING_HANDLES[name]
    side = scenarios([handle], Folders(tiny_source, tmp_path, tmp_path), Scale())["notebook"]
    if place == "here":
        ((*_, module, given, path, directory),) = side.commands
        monkeypatch.setattr(sys, "argv", [module, given, path, directory])
        runpy.run_module(module, run_name="__main__")
    else:
        time_commands(side.commands, cwd=ROOT)
    theirs, ours = tf.saved_model.load(str(side.out / name)), tf.saved_model.load(str(tiny_build / name / "2"))
    images = tf.random.stateless_uniform((2, 32, 32, 3), (1, 2), -1, 1)
    if jax.__version_info__ >= NOT_READ_FROM:
        with pytest.raises(tf.errors.InvalidArgumentError, match="Cannot deserialize computation"):
            theirs(images)
        return
    np.testing.assert_allclose(theirs(images), ours(images), rtol=1e-4, atol=1e-4)
    expected = nullcontext() if trains else pytest.raises(LookupError, match="does not support gradients")
    with expected, tf.GradientTape() as tape:
        loss = tf.reduce_sum(theirs(images))
        assert trains == (tape.gradient(loss, theirs.params["stem"]["bias"]) is not None)


# --- the command ---


STAND_IN = """
import pathlib, sys
if "--out" in sys.argv:
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    for name in {*sys.argv} & {HANDLES}:
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / "2.manifest.json").touch()
"""
"""Takes the place of `python -m`: of all that is asked of it, it only begins the models that `convert` makes."""


@pytest.mark.parametrize("stands_in", [True, pytest.param(False, marks=pytest.mark.whole)], ids=["stand-in", "real"])
def test_the_command_measures_tiny_models_and_writes_what_came_of_it(
    stands_in, tiny_build, tmp_path, capsys, monkeypatch
):
    """The notebook way runs in a test of its own; `imports` is the floor with nothing to copy."""
    if stands_in:
        code = STAND_IN.replace("HANDLES", ", ".join(map(repr, TESTING_HANDLES)))
        monkeypatch.setattr(conversion, "PYTHON", (sys.executable, "-c", code))
    monkeypatch.setattr(conversion, "Scale", partial(Scale, architecture="Ti/8"))
    sides = ["floor", "convert", "many"]
    options = ["--part", "conversion", "--repeats", "1", "--count", "2", "--out", tmp_path, "--models", tiny_build]
    before = sorted(tiny_build.rglob("*"))
    assert status_of("bench", FE, *options, *(f"--side={side}" for side in sides), "--json") == 0
    printed = capsys.readouterr()
    found = ConversionBenchmark.read(tmp_path / "conversion.json")
    assert json.loads(printed.out) == {"conversion": found.model_dump(mode="json")}
    assert [side.name for side in found.sides] == sides
    assert all(len(side.runs) == 1 and not side.failure for side in found.sides)
    assert list(found.sides[1].runs[0].finished) == [FE]
    assert (found.source, found.handles, found.repeats) == ("seeded", (FE,), 1)
    assert "MB of disk space needed" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["conversion.json"]
    assert sorted(tiny_build.rglob("*")) == before
    assert status_of("bench", "--markdown", "--out", tmp_path) == 0
    assert "| `convert` |" in capsys.readouterr().out


@pytest.mark.parametrize(("before", "status"), [(0.01, 1), (1000.0, 0)])
def test_a_quick_run_names_the_ratios_that_have_grown(before, status, tiny_build, tmp_path, capsys, monkeypatch):
    """Stand-ins take the places of all commands: the ratios are those of their start."""
    code = STAND_IN.replace("HANDLES", ", ".join(map(repr, TESTING_HANDLES)))
    monkeypatch.setattr(conversion, "PYTHON", (sys.executable, "-c", code))
    monkeypatch.setattr(benching, "QUICK", tmp_path / "quick.json")
    monkeypatch.setattr(benching, "QUICK_HANDLES", (FE,))
    old = QuickBenchmark(**circumstances(), repeats=1, handles=(FE,), ratios={"parity over convert": before})
    old.write(tmp_path / "quick.json")
    out = tmp_path / "out"
    assert status_of("bench", "--quick", "--repeats", "1", "--out", out, "--models", tiny_build, "--json") == status
    printed = capsys.readouterr()
    grown = json.loads(printed.out)["grown"]
    assert [one.startswith("parity over convert grew from 0.01 to ") for one in grown] == [True] * status
    assert ("slower than before, or not measured: parity over convert grew" in printed.err) == bool(status)
    found = QuickBenchmark.read(out / "quick.json")
    assert list(found.ratios) == [
        "convert over floor", "convert-kept over floor", "convert-all over convert", "parity over convert"
    ]  # fmt: skip


def test_a_ratio_may_grow_by_a_fifth_and_must_be_measured():
    def quick(**ratios):
        return QuickBenchmark(**CIRCUMSTANCES, handles=(), ratios=ratios)

    before = quick(a=1.0, b=2.0, c=3.0)
    assert quick(a=1.19, b=1.0, c=3.0, d=9.0).regressions(before) == []
    assert quick(a=1.21, b=2.0).regressions(before) == ["c is missing, 3.00 before", "a grew from 1.00 to 1.21"]


def test_the_ratios_in_the_repository_are_those_that_a_quick_run_measures():
    found = QuickBenchmark.read(benching.QUICK)
    assert found.handles == benching.QUICK_HANDLES
    assert list(found.ratios) == [f"{above} over {below}" for above, below in QUICK_RATIOS]


def test_a_side_that_fails_fails_the_command_and_the_others_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(conversion, "PYTHON", (sys.executable, "-c", "raise SystemExit('broken')"))
    options = ["--part", "conversion", "--repeats", "1", "--count", "2", "--out", tmp_path]
    assert status_of("bench", FE, *options, "--side", "convert", "--side", "imports") == 1
    printed = capsys.readouterr()
    assert "not everything was measured.\nimports: `" in printed.err
    assert printed.err.count("ended with status 1: broken") >= 2
    assert "failed" in printed.out
    assert ConversionBenchmark.read(tmp_path / "conversion.json").sides[1].failure


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--side", "swift", "--side", "cp"], "conversion has no side swift: expected some of notebook, "),
        (["--quick", "--side", "floor"], "--quick has its own handles, parts and sides"),
        (["--side", "swift"], "conversion, inference, start has no side swift: expected some of notebook, "),
        (["--side", "cp", "--part", "start"], "start has no side cp: expected some of native, graph"),
        (["--side", "native", "--part", "start", "--part", "conversion"], "--side names no side of conversion"),
        ([FE, "--part", "start"], "start takes only classifiers, but none of the handles is one"),
        (["--batches", "1,x"], "--batches '1,x' is not a list of batch sizes: expected positive numbers"),
        (["--threads", "100000"], "--threads 100000 is more than the"),
        (["--source", "nowhere"], "no such checkpoint: nowhere/imagenet1k/Mixer-B_16.npz, "),
        (["mixer_x"], "unknown handle 'mixer_x'"),
        (["--markdown"], "contains none of conversion.json, inference.json, start.json: run the benchmark first"),
    ],
)
def test_bad_usage_is_refused_before_any_work(options, said, tmp_path, capsys):
    assert status_of("bench", *options, "--out", tmp_path / "out") == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert status_of("bench", "--out", tmp_path / "file" / "out") == 2
    assert f"cannot write to the output directory {tmp_path / 'file' / 'out'} (" in capsys.readouterr().err


def test_a_disk_too_small_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    assert status_of("bench", "--out", tmp_path) == 2
    assert re.search(r"has 1\.0 MB free, but [\d,.]+ MB are needed: free some space", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path, capsys, monkeypatch):
    from validation.benchmark import engines

    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert status_of("bench", "--side", "pytorch", "--out", tmp_path) == 2
    assert list(tmp_path.iterdir()) == []
    err = " ".join(capsys.readouterr().err.split())
    assert "PyTorch needs torch, which this environment does not have: install the extra bench" in err
    monkeypatch.setattr(benching, "find_spec", lambda name: None)
    assert status_of("bench", "--out", tmp_path) == 2
    assert "the benchmark needs psutil: install the extra bench" in capsys.readouterr().err


def test_the_disk_that_is_needed_grows_with_what_is_chosen():
    def need(parts, sides=(), source=None):
        given = (parts, (), sides, 3, (1,), 2, source, None, Path())
        return benching._disk_need(benching.Bench(*given, Scale()))

    whole = sum(4 * handle.parameters for handle in ALL)
    seeds = sum(4 * row.parameters for row in {handle.checkpoint for handle in ALL})
    assert need(("conversion",)) > 2 * whole + seeds
    assert need(("conversion",)) - need(("conversion",), source=Path()) == seeds
    assert need(("conversion",), ["convert"]) == need(("conversion",), ["convert", "floor"]) - whole
    assert need(("conversion",), ["convert"]) < need(("conversion",), ["convert", "many"])
    assert need(("start",)) < need(("conversion",)) < need(("conversion", "inference", "start"))


# --- what is made of it ---

MACHINE = _Machine(processor="A CPU", cores=2, memory=25 * 10**9, platform="Linux x86_64", load=9.0, busy=0.1)
CIRCUMSTANCES = {
    "date": "2026-01-01",
    "machine": MACHINE,
    "libraries": {"python": "3.11.7", "jax": "0.1"},
    "repeats": 3,
}


def run(wall, peak=10**9, **finished):
    return Run(wall=wall, user=wall / 2, system=wall / 4, peak=peak, finished=finished)


def side(name, *walls, **options):
    return Side(name=name, what=f"the side {name}", runs=tuple(run(wall, **options) for wall in walls))


def converted(*sides, further=("c", "d")):
    return ConversionBenchmark(
        **CIRCUMSTANCES, source="seeded", handles=("a", "b", "c", "d"), largest=10**8, outputs=10**9,
        further=further, count=11, blocks=24, sides=sides,
    )  # fmt: skip


WHOLE = converted(
    side("notebook", 100.0, 110.0, 90.0),
    side("imports", 5.0, peak=870 * 10**6),
    side("floor", 10.0),
    side("convert", 20.0, a=3.0, b=4.0, c=4.5, d=6.0),
    side("convert-all", 60.0),
    side("convert-all-jobs", 40.0),
    side("cp", 0.5),
    side("blocks", 15.0),
    side("blocks-twice", 30.0),
    side("many-one", 10.0),
    side("many", 15.0),
    side("many-cp", 2.2),
)


def test_figures_are_ratios_of_medians():
    found = {one.what.split(",")[0]: one for one in Finding.all_of(WHOLE)}
    values = [one.value for one in found.values() if one.value is not None]
    assert values == pytest.approx([0.2, 2.0, 3.0, 2.0, 4.0, 1.0, 0.6, 2.5, 2.5])
    assert [one.met for one in found.values()] == [True, True, None, False, True, False, True, True, True, False]
    assert "24 blocks and twice as many: the time beside importing" in found
    assert "each of 11 small checkpoints" in found
    assert _further_seconds(WHOLE) == 2.0


def test_the_ratios_of_a_quick_run_are_those_of_medians_that_were_measured():
    quick = QuickBenchmark.of(WHOLE)
    assert quick.ratios == {"convert over floor": 2.0, "convert-all over convert": 3.0}
    assert (quick.handles, quick.machine, quick.date) == (WHOLE.handles, WHOLE.machine, WHOLE.date)


def test_what_was_not_measured_has_no_figure():
    some = converted(side("convert", 20.0), Side(name="notebook", what="n", failure="no"), further=())
    assert [one.value for one in Finding.all_of(some)] == [None] * 10
    assert [one.met for one in Finding.all_of(some)] == [None] * 10


def speeds(*engines):
    given = {"handle": "mixer_b16_i1k_classification", "architecture": "B/16", "flops": 25 * 10**9}
    return InferenceBenchmark(**CIRCUMSTANCES, threads=2, product=100e9, models=(ModelSpeed(**given, engines=engines),))


def engine(name, *seconds, **options):
    given = {batch: (each, each + 1, each - 0.1) for batch, each in zip((1, 8, 32), seconds, strict=True)}
    title = ENGINES[name].title
    return EngineSpeed(name=name, title=title, version="1", **{"seconds": given} | options)


RUNNING = speeds(
    engine("jax", 1.0, 2.0, 8.0),
    engine("native", 1.2, 2.1, 8.8, difference=1e-6),
    engine("graph", 1.2, 2.4, 9.0, difference=1e-6),
    EngineSpeed(name="pytorch", title="PyTorch", version=None, failure="not installed: install it"),
)


def test_engines_are_held_against_jax():
    assert [(one.what, round(one.value, 2), one.met) for one in Finding.all_of(RUNNING)] == [
        ("B/16, batch 8: native over JAX", 1.05, True),
        ("B/16, batch 32: native over JAX", 1.1, False),
        ("B/16, batch 1: graph over JAX", 1.2, True),
        ("B/16, batch 8: graph over JAX", 1.2, False),
    ]


@pytest.mark.parametrize(
    ("product", "limit", "said"),
    [
        (100e9, 8 * 25e9 / 1.9, "the fastest seen, 105 GFLOP/s; of matrix products alone: 100"),
        (150e9, 150e9, "the fastest seen, 150 GFLOP/s; of matrix products alone: 150"),
        (None, 8 * 25e9 / 1.9, "the fastest seen, 105 GFLOP/s; of matrix products alone: not measured"),
    ],
)
def test_nothing_exceeds_the_limit(product, limit, said):
    found = RUNNING.model_copy(update={"product": product})
    assert found.limit == pytest.approx(limit)
    tables = Tables.of(found)
    assert tables.title.endswith(f"(the limit: {said})")
    shares = [float(cell.rstrip("%")) for row in tables.rows for cell in row if cell.endswith("%")]
    assert len(shares) == 9
    assert max(shares) <= 100


def test_where_nothing_ran_there_is_no_limit():
    assert speeds().model_copy(update={"product": None}).limit is None


def begun(flavour, **options):
    given = {"interpreter": 0.1, "imports": 4.0, "load": 0.5, "second": 0.3, "prepared": 0.25}
    runs = tuple(Start(first=first, **given) for first in (0.7, 0.9, 0.8))
    name = "mixer_b16_i1k_classification"
    return StartSide(handle=name, architecture="B/16", flavour=flavour, **{"runs": runs} | options)


STARTED = StartBenchmark(**CIRCUMSTANCES, sides=(begun("native"), begun("graph")))


def test_the_first_call_is_held_against_the_second():
    native, graph = Finding.all_of(STARTED)
    for found, flavour, limit in ((native, "native", 1.2), (graph, "graph", 0.5)):
        assert found.what == f"B/16, {flavour}: first call minus the second, seconds"
        assert (found.value, found.met, found.limit) == (pytest.approx(0.5), True, limit)
    assert STARTED.sides[0].runs[0].total == pytest.approx(5.3)


def test_tables_have_a_row_a_side_and_show_what_failed():
    tables = Tables.of(WHOLE.model_copy(update={"sides": (*WHOLE.sides[:3], Side(name="x", what="X", failure="why"))}))
    assert tables.rows[0] == ("the side notebook", "100.0", "90.0 to 110.0", "50.0", "25.0", "1,000", "1.00", "10.00")
    assert tables.rows[1][-2:] == ("", "")
    assert tables.rows[3] == ("X", "failed", *[""] * 6)
    assert tables.failures == ("x: why",)
    tables = Tables.of(RUNNING)
    assert tables.rows[0] == (
        "B/16",
        "JAX, `jit` 1",
        "1.000",
        "1.00",
        "24%",
        "2.000",
        "1.00",
        "95%",
        "8.000",
        "1.00",
        "95%",
    )
    assert tables.title.startswith("A loaded classifier, 2 threads (the limit: the fastest seen, 105 GFLOP/s; ")
    assert tables.rows[3] == ("B/16", "PyTorch", *[""] * 9)
    assert (tables.failures, tables.absent) == ((), ("PyTorch: not installed: install it",))
    tables = Tables.of(StartBenchmark(**CIRCUMSTANCES, sides=(begun("native"), begun("graph", runs=(), failure="no"))))
    given = ("0.10", "4.00", "0.50", "0.80", "0.25", "0.30", "5.40")
    assert tables.rows[0] == ("mixer_b16_i1k_classification", "native", *given)
    assert tables.rows[1][2:] == ("failed", *[""] * 6)


def test_records_are_read_as_written(tmp_path):
    for part, found in (("conversion", WHOLE), ("inference", RUNNING), ("start", STARTED)):
        found.write(tmp_path / f"{part}.json")
    assert benching.read_parts(tmp_path, [*benching.PARTS]) == [WHOLE, RUNNING, STARTED]
    assert benching.read_parts(tmp_path, ["start"]) == [STARTED]
    (tmp_path / "start.json").write_text("{}")
    with pytest.raises(MixerError, match=r"start\.json is not a readable start benchmark of schema 1"):
        benching.read_parts(tmp_path, ["start"])


@pytest.mark.parametrize(
    ("load", "busy", "trial"), [(9.0, 0.1, False), (0.1, 0.9, True), (0.1, None, False), (2.0, None, True)]
)
def test_figures_of_a_busy_machine_are_called_a_trial(load, busy, trial):
    found = WHOLE.model_copy(update={"machine": MACHINE.model_copy(update={"load": load, "busy": busy})})
    said = next(line for line in markdown_lines([found]) if "Measured on" in line)
    assert ("**A trial: the machine was busy with something else.**" in said) == trial


def test_the_machine_is_described():
    machine = circumstances()["machine"]
    assert machine.processor
    assert machine.cores >= 1
    assert machine.memory > 10**9
    assert 0 <= machine.busy <= os.cpu_count()


def test_the_page_shows_what_the_program_writes():
    """The figures stand there alone: with numbers and machine set aside, every line is one that the program writes."""
    page = (ROOT / "validation" / "BENCHMARK.md").read_text(encoding="utf-8")
    part = re.search(r"<!-- bench -->\n(.*?)<!-- end bench -->", page, flags=re.DOTALL)[1]
    assert "failed" not in part
    assert "not measured" not in part
    titles = re.findall(
        r"^\*\*(.*)\.\*\* Measured on \d{4}-\d\d-\d\d, medians of \d+ interleaved runs, on ", part, flags=re.M
    )
    assert [title.split(maxsplit=1)[0] for title in titles] == ["Converting", "A", "From"]
    rows = scenarios(ALL, PLACE, Scale()).values()
    runs = {side.name: side.runs for side in WHOLE.sides}
    sides = [Side(name=row.name, what=row.what, runs=runs.get(row.name, WHOLE.sides[0].runs)) for row in rows]
    example = [
        WHOLE.model_copy(update={"sides": tuple(sides), "handles": tuple(HANDLES), "count": Scale().count}),
        speeds(*(engine(name, 1.0, 2.0, 8.0) for name in ENGINES)),
        STARTED,
    ]
    written = [_shape(line) for line in markdown_lines(example)]
    for line in part.splitlines():
        assert _shape(line) in written, line
    for sizes in (B16, L16):
        assert sizes.name.replace("/", "").lower() in part


def _shape(line):
    line = re.sub(r"(Measured on ).*", r"\1", line)
    line = re.sub(r"mixer_[bl]\d+\w+|[BL]/\d+", "M", line)
    line = re.sub(r"^(\| M \| [A-Za-z, `]+?) [\d.]+(\+\w+)? \|", r"\1 |", line)
    line = re.sub(r"\b(met|missed)\b", "said", line)
    return re.sub(r"[\d][\d.,]*%?", "0", line)


def test_the_tables_are_markdown():
    lines = list(markdown_lines([WHOLE, RUNNING, STARTED]))
    assert lines[0] == "<!-- made by: mixer-jax2tf bench --markdown -->"
    tables = Tables.of(WHOLE)
    assert markdown_table(tables.columns, tables.rows) in "\n".join(lines)
    assert "- PyTorch: not installed: install it" in lines
