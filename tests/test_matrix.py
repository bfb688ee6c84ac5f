"""The matrix: what counts as failed, what is written down, and the real thing in a few releases."""

import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command import status_of

from convert.pipeline import matrix as making
from models.catalog import DEFAULT_VERSION, HANDLES, TESTING_HANDLES
from models.errors import MixerError
from models.flavours import FLAVOURS
from models.markdown import markdown_table
from validation import consumer, doctor
from validation.compatibility import matrix
from validation.compatibility.environments import RELEASES, EnvironmentMissingError, Release
from validation.compatibility.matrix import NEEDED, Cell, Matrix, Model, _Row, _Use, run_matrix
from validation.compatibility.tables import markdown_lines, tabulate, uses_in_markdown
from validation.consumer import LIMIT
from validation.uses import REMEDIES

ROOT = Path(__file__).parent.parent
NEWEST = [name for name, release in RELEASES.items() if not release.candidate][-1]
FE = "mixer_ti8_seeded_fe"


def cell(flavour="graph", architecture="Ti/8", *, promised=True, failure=None, doctor=None, worst=1e-6, uses=()):
    runs = failure is None
    return Cell(
        handle=f"a_{flavour}",
        architecture=architecture,
        flavour=flavour,
        promised=promised,
        passed=31,
        absent=(),
        worst=worst if runs else None,
        failure=failure,
        doctor=runs if doctor is None else doctor,
        uses=uses,
    )


def use(name, status="passed", detail="as it was"):
    return _Use(name=name, status=status, detail=detail)


def row(*cells, release="2.14", **facts):
    return _Row(release=release, **{"tensorflow": f"{release}.1"} | facts, cells=cells)


def whole(*rows):
    return Matrix(date="2026-01-01", platform="Linux x86_64", rows=rows)


@pytest.mark.parametrize(
    ("given", "verdict", "problem"),
    [
        (cell(), "runs", None),
        (cell(failure="load: no"), "failed", "a_graph should run in this release, but does not: load: no"),
        (cell(promised=False, failure="load: no"), "no, not promised", None),
        (cell(promised=False), "runs, not promised", None),
        (cell(doctor=False), "runs", "a_graph: the doctor says that it cannot run, but the result is: it runs"),
        (
            cell(promised=False, failure="load: no", doctor=True),
            "no, not promised",
            "a_graph: the doctor says that it can run, but the result is: load: no",
        ),
        (cell(uses=(use("LiteRT", "remedied"), use("tf2onnx", "refused"), use("Adam", "absent"))), "runs", None),
        (
            cell(uses=(use("LiteRT"), use("tf2onnx", "failed", "no"))),
            "runs",
            "a_graph runs, but fails in use: tf2onnx: no",
        ),
        (cell(promised=False, uses=(use("LiteRT", "failed"),)), "runs, not promised", None),
    ],
)
def test_what_counts_as_failed(given, verdict, problem):
    assert (given.verdict, given.problem) == (verdict, problem)
    problems = whole(row(cell()), row(given, release="2.12")).problems
    assert problems == ([] if problem is None else [f"TensorFlow 2.12.1: {problem}"])


def test_a_release_that_is_not_here_fails_nothing_but_one_that_broke_does():
    missing = _Row(release="2.6", not_run="no Python 3.9 here")
    assert whole(missing, row(cell())).problems == []
    assert whole(missing).problems == ["nothing was run: 2.6: no Python 3.9 here"]
    broken = _Row(release="2.12", broken="`uv pip install` failed")
    assert whole(broken, row(cell())).problems == ["TensorFlow 2.12: `uv pip install` failed"]


# --- one release, with what the consumer and the doctor say made up ---


@pytest.fixture
def surroundings(monkeypatch, tmp_path):
    """Let the consumer and the doctor say this, in an environment that nothing was installed in."""
    state = {"checks": [], "can_run": True, "open": 0, "made": 0, "error": None, "converters": 0}

    @contextmanager
    def environment(release, python):
        if state["error"]:
            raise EnvironmentMissingError(state["error"])
        state["open"], state["made"] = state["open"] + 1, state["made"] + 1
        try:
            yield tmp_path / "python"
        finally:
            state["open"] -= 1

    def run_consumer(directory, **options):
        assert state["open"] == 1
        return {"tensorflow": "2.14.1", "python": "3.11.7", "numpy": "1.26.4", "keras": None, "checks": state["checks"]}

    def add_converters(release, python):
        state["converters"] += 1

    monkeypatch.setattr(Release, "installed", environment)
    monkeypatch.setattr(Release, "add_converters", add_converters)
    monkeypatch.setattr(matrix, "run_consumer", run_consumer)
    monkeypatch.setattr(matrix, "_ask_doctor", lambda directory, python: {"can_run": state["can_run"]})
    monkeypatch.setattr(Release, "find_python", lambda _: Path(sys.executable))
    return state


def check(name, status="passed", worst=1e-6):
    return {"name": name, "status": status, "detail": "as it was", "worst": worst}


def model(flavour="graph", folder=Path()):
    return Model(
        f"a_{flavour}", "Ti/8", flavour, folder, folder / "inputs.npy", folder / "expected.npy", folder / "scale.npy"
    )


def run(*models, releases=("2.14",), keep=lambda matrix: None):
    lines = []
    chosen = [RELEASES[name] for name in releases]
    return run_matrix(chosen, models, started=lines.append, finished=lines.append, keep=keep), lines


@pytest.mark.parametrize(
    ("release", "flavour", "checks", "failure"),
    [
        ("2.14", "native", [check(name) for name in NEEDED], None),
        ("2.14", "native", [check("load", "failed")], "load: as it was"),
        ("2.12", "native", [check("load", "failed")], "load: as it was"),
        ("2.14", "graph", [check(name) for name in NEEDED] + [check("NaN", "failed", 2.0)], "NaN: as it was"),
        ("2.14", "graph", [check(name) for name in NEEDED[:-1]], "gradients: not checked"),
        ("2.14", "graph", [check(NEEDED[0], "absent")] + [check(name) for name in NEEDED[1:]], "load: not checked"),
        ("2.14", "graph", [], "load: not checked"),
    ],
)
def test_a_cell_takes_every_check_of_the_consumer(surroundings, release, flavour, checks, failure):
    surroundings.update(checks=checks, can_run=failure is None)
    found, _ = run(model(flavour), releases=[release])
    (only,) = found.rows[0].cells
    assert only.failure == failure
    assert only.promised == FLAVOURS[flavour].runs_in(release)
    assert bool(found.problems) == (only.promised and failure is not None)
    assert surroundings["open"] == 0


def test_one_environment_a_release_serves_all_models(surroundings):
    surroundings["checks"] = [*map(check, NEEDED), check("uint8", "accepted", None), check("hub.load", "absent", None)]
    found, lines = run(model("native"), model(), releases=["2.14", "2.15"])
    assert surroundings["made"] == 2
    assert [(one.release, one.tensorflow, one.numpy, one.keras) for one in found.rows] == [
        ("2.14", "2.14.1", "1.26.4", None),
        ("2.15", "2.14.1", "1.26.4", None),
    ]
    only = found.rows[0].cells[0]
    assert (only.passed, only.absent, only.worst) == (5, ("hub.load",), 1e-6)
    assert lines[:3] == [
        "installing TensorFlow 2.14",
        "TensorFlow 2.14: a_native",
        "TensorFlow 2.14.1: a_native: runs: 5 checks, worst difference 1.0e-06",
    ]


@pytest.fixture
def trials(surroundings, monkeypatch):
    """Let the uses say this too; whether converters were installed by then is kept."""
    plain, installed = matrix.run_consumer, []

    def run_consumer(directory, *, uses=False, **options):
        if not uses:
            assert not surroundings["converters"]  # the consumer runs where the release is alone
            return plain(directory, **options)
        installed.append(surroundings["converters"])
        return {"checks": [check("load"), check("LiteRT", "remedied"), check("no JAX, no Flax")]}

    monkeypatch.setattr(matrix, "run_consumer", run_consumer)
    return installed


@pytest.mark.parametrize(("used", "runs"), [(True, True), (True, False), (False, True)])
def test_uses_are_tried_on_the_models_that_are_chosen_and_run(surroundings, trials, used, runs):
    surroundings.update(checks=[check(name, "passed" if runs else "failed") for name in NEEDED], can_run=runs)
    found, _ = run(replace(model(), used=used), replace(model("native"), used=used))
    expected = (use("LiteRT", "remedied"),) if used and runs else ()
    assert [cell.uses for cell in found.rows[0].cells] == [expected, expected]
    assert trials == ([1, 1] if used and runs else [])


def test_uses_are_tried_even_where_converters_cannot_be_installed(surroundings, trials, monkeypatch):
    surroundings["checks"] = [*map(check, NEEDED)]

    def refuse(release, python):
        raise EnvironmentMissingError("no index")

    monkeypatch.setattr(Release, "add_converters", refuse)
    found, lines = run(replace(model(), used=True))
    assert found.rows[0].cells[0].uses == (use("LiteRT", "remedied"),)
    assert "TensorFlow 2.14: no index" in lines


def test_without_its_python_a_release_is_not_run(surroundings, monkeypatch):
    monkeypatch.setattr(Release, "find_python", lambda _: None)
    found, lines = run(model(), releases=["2.6"])
    assert found.rows[0].not_run == "no Python 3.9 or 3.8 here"
    assert lines == ["TensorFlow 2.6: no Python 3.9 or 3.8 here"]
    assert surroundings["made"] == 0


def test_what_cannot_be_installed_fails_unless_it_is_a_candidate(surroundings):
    surroundings["error"] = "no index"
    found, _ = run(model(), releases=["2.14", "2.22.0rc0"])
    assert [(one.broken, one.not_run) for one in found.rows] == [("no index", None), (None, "no index")]
    assert found.problems == ["TensorFlow 2.14: no index"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_the_environment_goes_when_the_consumer_is_interrupted(surroundings, monkeypatch, error):
    def fail(directory, **options):
        raise error

    monkeypatch.setattr(matrix, "run_consumer", fail)
    with pytest.raises(error):
        run(model())
    assert (surroundings["made"], surroundings["open"]) == (1, 0)


# --- models that are run, in this very environment ---


@pytest.fixture(params=["this process", pytest.param("processes", marks=pytest.mark.whole)])
def here(request, monkeypatch, tmp_path_factory):
    """Take the tests' own Python for an environment of any release; in `make test`, this process itself."""

    @contextmanager
    def environment(release, python):
        yield Path(sys.executable)

    def ask_doctor(directory, python):
        return {"can_run": all(finding.status != "problem" for finding in doctor._examine(directory))}

    def try_here(directory, otherwise):
        trial = doctor._Trial(directory, tmp_path_factory.mktemp("trial") / "result")
        try:
            trial._call(tf)
        except Exception as error:  # TensorFlow raises any of a dozen types
            return doctor._Finding("trial", "problem", str(error), otherwise)
        return doctor._Finding("trial", "ok", "")

    monkeypatch.setattr(Release, "installed", environment)
    if request.param == "this process":
        monkeypatch.setattr(matrix, "run_consumer", consume_here)
        monkeypatch.setattr(matrix, "_ask_doctor", ask_doctor)
        monkeypatch.setattr(doctor, "_look_at_trial", try_here)


def consume_here(directory, *, inputs, expected, scale, uses=False, **_):
    """Make the consumer's checks that must pass in this process, and return them as the consumer writes them."""
    if uses:  # they have tests of their own
        return {"checks": []}
    given = {"inputs": np.load(inputs), "expected": np.load(expected), "scale": np.load(scale)}
    on = consumer._Subject(directory=str(directory), tf=tf, limit=LIMIT, **given)
    checks = []
    for name in NEEDED:
        checks.append(consumer._attempt(name, on))
        if checks[0]["status"] == "failed":
            break
    return {"tensorflow": tf.__version__, "numpy": np.__version__, "keras": None, "checks": checks}


def test_a_broken_model_gives_a_failing_cell(here, tiny_build, tmp_path):
    graph = TESTING_HANDLES[FE].in_flavour("graph").name
    directory = shutil.copytree(tiny_build / graph / str(DEFAULT_VERSION), tmp_path / "model")
    path = directory / "variables" / "variables.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:1000])
    np.save(tmp_path / "inputs.npy", np.zeros((1, 32, 32, 3), np.float32))
    np.save(tmp_path / "expected.npy", np.zeros((1, 32), np.float32))
    np.save(tmp_path / "scale.npy", np.ones(1))
    found, _ = run(replace(model("graph", tmp_path), directory=directory))
    (only,) = found.rows[0].cells
    assert (only.verdict, only.doctor) == ("failed", False)
    assert only.failure.startswith("load: ")
    assert len(found.problems) == 1


def test_the_command_makes_models_runs_them_and_writes_what_came_of_it(here, tmp_path, capsys):
    options = ["--releases", NEWEST, "--flavour", "graph", "--out", tmp_path]
    assert status_of("matrix", FE, *options, "--json") == 0
    printed = capsys.readouterr()
    found = Matrix.read(tmp_path / "matrix.json")
    assert json.loads(printed.out) == found.model_dump(mode="json")
    (only,) = found.rows[0].cells
    assert (only.handle, only.verdict, only.doctor) == (f"{FE}-graph", "runs", True)
    assert 0 < only.worst <= LIMIT
    assert f"{FE}-graph: runs: " in printed.err
    assert status_of("matrix", "--markdown", "--out", tmp_path) == 0
    assert f"| {found.rows[0].tensorflow} | " in capsys.readouterr().out


def test_a_model_that_gives_other_outputs_than_jax_fails_the_command(here, tmp_path, capsys, monkeypatch):
    from validation.parity import reference

    right = reference.apply_both
    monkeypatch.setattr(reference, "apply_both", lambda *given: tuple(1.001 * value for value in right(*given)))
    assert status_of("matrix", FE, "--releases", NEWEST, "--flavour", "graph", "--out", tmp_path) == 1
    printed = capsys.readouterr()
    assert f"{FE}-graph should run in this release, but does not: signatures: over the limit of 5e-05" in printed.err
    assert "failed" in printed.out


def test_a_subset_of_the_releases_renews_their_rows_and_keeps_the_others(surroundings, monkeypatch, tmp_path):
    old = row(cell("graph", worst=1e-7), release="2.12")
    old_day = Matrix(date="2020-01-01", platform=matrix.describe_platform(), rows=(old, row(cell(), release="2.14")))
    path = tmp_path / "matrix.json"
    named = TESTING_HANDLES[FE].in_flavour("graph").name
    of_this = [
        one.model_copy(update={"cells": (one.cells[0].model_copy(update={"handle": named}),)}) for one in old_day.rows
    ]
    old_day.model_copy(update={"rows": tuple(of_this)}).write(path)
    surroundings["checks"] = [check(name) for name in NEEDED]
    monkeypatch.setattr(
        making,
        "make_and_run",
        lambda *given: run(replace(model(), handle=named), releases=["2.6", "2.14"], keep=given[-2])[0],
    )
    options = ["--flavour", "graph", "--out", tmp_path]
    assert status_of("matrix", FE, "--releases", "2.6,2.14", *options) == 0
    found = Matrix.read(path)
    assert [one.release for one in found.rows] == ["2.6", "2.12", "2.14"]
    assert [one.date for one in found.rows] == [found.date, "2020-01-01", found.date]
    assert found.rows[1].cells == of_this[0].cells
    assert found.rows[2].tensorflow == "2.14.1"
    assert "- 2.12.1: measured on 2020-01-01" in list(markdown_lines(found))
    assert status_of("matrix", FE, *options) == 0  # all of them: nothing of before is left
    assert [one.release for one in Matrix.read(path).rows] == ["2.6", "2.14"]


@pytest.mark.parametrize("options", [[], ["--releases", "2.14,2.15"]], ids=["all", "some"])
def test_what_was_run_before_an_interruption_is_kept(surroundings, monkeypatch, tmp_path, options):
    surroundings["checks"] = [check(name) for name in NEEDED]
    environment, named = Release.installed, TESTING_HANDLES[FE].in_flavour("graph").name

    def stop(release, python):
        if release.name == "2.15":
            raise KeyboardInterrupt
        return environment(release, python)

    monkeypatch.setattr(Release, "installed", stop)
    before = cell("graph").model_copy(update={"handle": named})
    earlier = Matrix(
        date="2020-01-01",
        platform=matrix.describe_platform(),
        rows=tuple(row(before, release=name, tensorflow="0") for name in ("2.12", "2.14", "2.15")),
    )
    earlier.write(tmp_path / "matrix.json")
    monkeypatch.setattr(
        making,
        "make_and_run",
        lambda *given: run(replace(model(), handle=named), releases=["2.14", "2.15"], keep=given[-2]),
    )
    assert status_of("matrix", FE, "--flavour", "graph", "--out", tmp_path, *options) == 130
    kept = Matrix.read(tmp_path / "matrix.json")
    assert [(one.release, one.tensorflow) for one in kept.rows] == [("2.12", "0"), ("2.14", "2.14.1"), ("2.15", "0")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"platform": "Plan9 vax"}, r"is of other platform, .*: found Plan9 vax, expected "),
        ({}, r"is of other models, .*: found a_graph, expected mixer_ti8_seeded_fe-graph"),
    ],
)
def test_rows_of_another_kind_are_not_mixed(monkeypatch, tmp_path, capsys, change, said):
    handle = TESTING_HANDLES[FE].in_flavour("graph").name if change else "a_graph"
    cells = cell().model_copy(update={"handle": handle})
    earlier = Matrix(date="2020-01-01", platform=matrix.describe_platform(), rows=(row(cells),))
    earlier.model_copy(update=change).write(tmp_path / "matrix.json")
    monkeypatch.setattr(making, "make_and_run", lambda *_: pytest.fail("was run"))
    options = ["--releases", "2.14", "--flavour", "graph", "--out", tmp_path]
    assert status_of("matrix", FE, *options) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


def test_bad_usage_is_refused_before_any_work(tmp_path, capsys):
    assert status_of("matrix", "--releases", "2.12,1.15") == 2
    assert "the matrix has no TensorFlow release 1.15" in capsys.readouterr().err
    assert status_of("matrix", "mixer_x") == 2
    assert status_of("matrix", "--source", tmp_path / "nowhere") == 2
    assert status_of("matrix", "--markdown", "--out", tmp_path) == 1
    assert "matrix.json is not a readable matrix" in capsys.readouterr().err


def test_no_handle_means_both_tiny_and_both_of_b32(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(making, "make_and_run", lambda chosen, *_: (seen.extend(chosen), whole(row(cell())))[1])
    assert status_of("matrix", "--out", tmp_path) == 0
    names = [*TESTING_HANDLES, "mixer_b32_sam_classification", "mixer_b32_sam_fe"]
    assert [handle.name for handle in seen] == names


# --- the table ---

SHOWN = whole(
    _Row(release="2.6", not_run="no Python 3.9 or 3.8 here"),
    row(
        cell("native", promised=False, failure="load: Op 'X' is missing in binary running on vm. Make sure"),
        cell(worst=2e-6),
        cell("graph", worst=3e-6),
        release="2.12",
        python="3.11.7",
        numpy="1.23.5",
        keras="2.12.0",
    ),
    row(cell("native"), cell(failure="gradients: no")),
    row(cell("native", promised=False), cell(), release="2.22"),
)


def test_the_table_has_a_row_a_release_and_a_column_a_kind_of_model():
    columns, rows = tabulate(SHOWN)
    assert columns == ["TensorFlow", "Python", "NumPy", "Keras", "native, Ti/8", "graph, Ti/8"]
    assert rows == [
        ["2.6", "", "", "", "not run", "not run"],
        ["2.12.1", "3.11.7", "1.23.5", "2.12.0", "no", "3.0e-06"],
        ["2.14.1", "", "", "", "1.0e-06", "failed"],
        ["2.22.1", "", "", "", "(1.0e-06)", "1.0e-06"],
    ]


def test_below_the_table_stand_the_ranges_and_the_reasons():
    lines = list(markdown_lines(SHOWN))
    assert "Measured on 2026-01-01 (Linux x86_64, CPU)" in lines[2]
    below = [line for line in lines if line.startswith("- ")]
    assert [line.split(":")[0] for line in below[:2]] == ["- `native`", "- `graph`"]
    assert below[2:] == [
        "- 2.6: not run, no Python 3.9 or 3.8 here",
        "- native in 2.12.1: `load: Op 'X' is missing`",
        "- graph in 2.14.1: `gradients: no`",
    ]


def test_the_table_of_uses_tells_flavours_apart_where_they_differ():
    trained = use("Adam, exported again", "remedied")
    broken = use("LiteRT", "failed", "ConverterError: no")
    uses = whole(
        row(cell("native", promised=False, failure="load: no"), cell(uses=(trained, broken)), release="2.12"),
        row(cell("native", uses=(trained, use("tf2onnx", "refused"))), cell(uses=(trained, use("tf2onnx")))),
        row(cell(uses=(trained,)), cell("graph", uses=(use("Adam, exported again"),)), release="2.15"),
    )
    lines = list(uses_in_markdown(uses))
    assert [line for line in lines if line.startswith("| ")] == [
        "| TensorFlow | Adam, exported again | LiteRT | tf2onnx |",
        "| :-- | :-- | :-- | :-- |",
        "| 2.12.1 | remedy | **failed** |  |",
        "| 2.14.1 | remedy |  | native: no, graph: yes |",
        "| 2.15.1 | remedy |  |  |",
    ]
    assert lines[-1] == "- LiteRT, graph in 2.12.1: `ConverterError: no`"
    assert f"- Adam, exported again: {REMEDIES['Adam, exported again']}" in lines
    assert list(uses_in_markdown(whole(row(cell())))) == []


def test_a_record_is_read_as_written(tmp_path):
    SHOWN.write(tmp_path / "deep" / "matrix.json")
    assert Matrix.read(tmp_path / "deep" / "matrix.json") == SHOWN
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(MixerError, match=r"other\.json is not a readable matrix of schema 1"):
        Matrix.read(tmp_path / "other.json")


def test_the_page_shows_a_whole_matrix_that_keeps_what_is_promised():
    """The figures stand there alone: the part is read back, and has to be what the program would write of them."""
    page = (ROOT / "validation" / "COMPATIBILITY.md").read_text(encoding="utf-8")
    part = re.search(r"<!-- matrix -->\n(.*?)<!-- end matrix -->", page, flags=re.DOTALL)[1]
    lines = part.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    columns, rows = table[0], table[2:]
    kinds = [
        (name, size) for size in ("Ti/8", HANDLES["mixer_b32_sam_fe"].checkpoint.architecture.name) for name in FLAVOURS
    ]
    assert set(columns[4:]) == {f"{flavour}, {size}" for flavour, size in kinds}
    assert part.count(markdown_table([*columns[:4], *(f"#{name}" for name in columns[4:])], rows)) == 1
    # TensorFlow calls its candidates 2.22.0-rc0, the index 2.22.0rc0.
    found = [f"{line[0].replace('-', '')}." for line in rows]
    releases = [next(name for name in RELEASES if version.startswith(f"{name}.")) for version in found]
    assert releases == [name for name in RELEASES if name in releases]
    assert {name for name, release in RELEASES.items() if not release.candidate} <= set(releases)
    for release, line in zip(releases, rows, strict=True):
        for kind, found in zip(columns[4:], line[4:], strict=True):
            promised = FLAVOURS[kind.split(",")[0]].runs_in(release)
            assert re.fullmatch(r"\d\.\de-\d\d" if promised else r"no|not run|\(\d\.\de-\d\d\)", found), (release, kind)
            assert not promised or float(found) <= LIMIT
    written = whole(row(cell()))
    ranges = [line for line in markdown_lines(written) if line.startswith("- ")]
    assert [line for line in lines if line.startswith("- ")][:2] == ranges
    dated = written.model_copy(update={"date": re.search(r"Measured on (\d{4}-\d\d-\d\d)", part)[1]})
    assert lines[:5] == list(markdown_lines(dated))[:5]


def test_the_page_shows_what_came_of_each_use_and_nothing_failed():
    page = (ROOT / "validation" / "COMPATIBILITY.md").read_text(encoding="utf-8")
    part = re.search(r"<!-- uses -->\n(.*?)<!-- end uses -->", page, flags=re.DOTALL)[1]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:2] == "| "]
    columns, rows = table[0], table[2:]
    assert columns == ["TensorFlow", *REMEDIES]
    assert part.count(markdown_table(columns, rows)) == 1
    word = "(yes|remedy|no|not installed)"
    for found in (cell for row in rows for cell in row[1:]):
        assert re.fullmatch(f"{word}|native: {word}, graph: {word}", found), found
    tried = [use(name, "remedied") for name in REMEDIES]
    day = re.search(r"Tried on (\d{4}-\d\d-\d\d)", part)[1]
    written = list(uses_in_markdown(whole(row(cell(uses=tuple(tried)))).model_copy(update={"date": day})))
    lines = part.splitlines()
    assert lines[:5] == written[:5]
    assert [line for line in lines if line.startswith("- ")] == [line for line in written if line.startswith("- ")]


# --- the real thing ---


@pytest.mark.matrix
def test_the_matrix_is_real(tmp_path):
    """2.12 (`graph` alone is promised), 2.14 and the newest, or the releases that MATRIX names (2.12,2.14)."""
    releases = os.environ.get("MATRIX", f"2.12,2.14,{NEWEST}")
    assert status_of("matrix", *TESTING_HANDLES, "--releases", releases, "--out", tmp_path) == 0
    found = Matrix.read(tmp_path / "matrix.json")
    assert [one.release for one in found.rows] == releases.split(",")
    for one in found.rows:
        assert one.tensorflow.replace("-", "").startswith(one.release), one.not_run  # 2.22.0-rc0 is 2.22.0rc0
        assert len(one.cells) == 2 * len(TESTING_HANDLES)
        for each in one.cells:
            promised = FLAVOURS[each.flavour].runs_in(one.release)
            assert each.verdict == ("runs" if promised else "no, not promised")
