"""`mixer-jax2tf export`: from what stands on disk to a model with manifest and report, and each way to fail."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import run
from mutations import with_erf

from convert.checkpoints.synthetic import write_seeded
from convert.cli import main
from convert.flavours.native import mixer_apply
from convert.pipeline.tracing import _to_flavour
from export.formats import writer as writing
from export.saved_model.writer import Graph
from models import formats
from models.catalog import HANDLES, TESTING_HANDLES
from models.formats import FORMATS
from models.records.formats import ExportManifest, ExportReport
from models.records.manifest import FileDigest, Manifest
from models.records.report import Report
from models.records.tolerances import export_tolerances

ROOT = Path(__file__).parent.parent
CLASSIFIER, EXTRACTOR = TESTING_HANDLES
CHECKPOINT = TESTING_HANDLES[CLASSIFIER].checkpoint
ABSENT = next(iter(HANDLES))

each_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture
def build(tiny_build, tmp_path):
    """The graph flavour of both tiny models, to write beside."""
    out = tmp_path / "build"
    for handle in TESTING_HANDLES:
        shutil.copytree(tiny_build / f"{handle}-graph", out / f"{handle}-graph")
    return out


@pytest.fixture
def export(tiny_source, build, capsys):
    """Run `export`; return its exit status, standard output and standard error."""

    def run(*words, source=tiny_source, out=build):
        with pytest.raises(SystemExit) as exit_:
            main(["export", *map(str, words), "--source", str(source), "--out", str(out)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return exit_.value.code or 0, said.out, said.err

    return run


@each_format
def test_both_models_are_written_and_pass(name, tiny_exports):
    build, outcomes = tiny_exports, json.loads((tiny_exports / f"{name}.json").read_text())
    assert [(one["handle"], one["verdict"], one["problems"]) for one in outcomes] == [
        (f"{handle}-{name}", "passed", []) for handle in TESTING_HANDLES
    ]
    for handle, outcome in zip(TESTING_HANDLES, outcomes, strict=True):
        folder = build / f"{handle}-{name}"
        assert {path.name for path in folder.iterdir()} == {"2", "2.manifest.json", "2.report.json"}
        manifest_bytes = (folder / "2.manifest.json").read_bytes()
        manifest, report = ExportManifest.read(folder / "2.manifest.json"), ExportReport.read(folder / "2.report.json")
        source = (build / f"{handle}-graph" / "2.manifest.json").read_bytes()
        assert manifest.runtime_settings == FORMATS[name].settings
        assert manifest.source_sha256 == hashlib.sha256(source).hexdigest()
        assert (manifest.handle, manifest.format, manifest.flavour) == (f"{handle}-{name}", name, "graph")
        assert manifest.files.keys() == {path.name for path in (folder / "2").iterdir()}
        assert report.manifest_sha256 == hashlib.sha256(manifest_bytes).hexdigest()
        assert report.model_dump(mode="json") == outcome["report"]


@each_format
def test_the_report_says_what_it_rests_on(name, tiny_exports):
    folder = tiny_exports / f"{EXTRACTOR}-{name}"
    report = ExportReport.read(folder / "2.report.json")
    kind = FORMATS[name]
    assert report.tolerances == export_tolerances(name, "seeded")
    assert set(kind.libraries.values()) <= report.libraries.keys()
    assert report.sizes == {file: (folder / "2" / file).stat().st_size for file in (*kind.models, *kind.companions)}
    compared = [check.on for check in report.checks if check.name.endswith(" max_relative")]
    assert {on.split()[0] for on in compared} == set(kind.models)
    assert {on[on.index("(") :] for on in compared} == {"(batch 1)", "(batch 4)"}
    assert list(report.contradictions(export_tolerances(name, "seeded"))) == []
    assert "accelerators: run on the CPU only" in report.not_checked
    assert report.origin == "seeded"


def test_the_table_has_a_line_for_each_file(export):
    status, out, err = export(CLASSIFIER, "--to", "litert")
    assert status == 0
    assert [file for file in FORMATS["litert"].models if file in out] == list(FORMATS["litert"].models)
    assert "not checked: gradients" in err
    lines = {
        cells[3]: cells[5:-1] for line in out.splitlines() if len(cells := [*map(str.strip, line.split("│"))]) == 10
    }
    assert lines["model_float32.tflite"][1:] == ["", "same", "passed"]
    rounded, computed, *said = lines["model_int8.tflite"]
    assert rounded.endswith(" of 0.2")
    assert computed.endswith(" of 5e-05")
    assert said == ["same", "passed, int8 limits"]


def test_the_error_with_the_runtimes_own_settings_is_told_with_the_processor(export):
    status, _, err = export(EXTRACTOR, "--to", "openvino")
    assert status == 0
    assert re.search(r"without INFERENCE_PRECISION_HINT=f32 it computes in \w+ on .+: worst error .+ of 0\.2", err)


def test_a_report_of_an_earlier_version_is_no_longer_enough(tiny_exports):
    """It was judged by the limits of dynamic-range quantisation, which hardly anything exceeds."""
    report = ExportReport.read(tiny_exports / f"{CLASSIFIER}-litert" / "2.report.json")
    checks = tuple(check for check in report.checks if check.name != "int8 own_weights_relative")
    tolerances = {name: one for name, one in report.tolerances.items() if name != "int8 own_weights_relative"}
    tolerances["int8 max_relative"] = tolerances["int8 max_relative"].model_copy(update={"limit": 0.75})
    old = report.model_copy(update={"checks": checks, "tolerances": tolerances})
    said = list(old.contradictions(export_tolerances("litert", "seeded")))
    assert "its limit of int8 max_relative is 0.75, today's is 0.2" in said
    assert any(one.startswith("no check int8 own_weights_relative can tell") for one in said)


def test_a_missing_saved_model_names_the_command_that_makes_it(export, tmp_path):
    status, _, err = export(ABSENT, CLASSIFIER, "--to", "onnx", "--json")
    assert status == 1
    assert f"Run `mixer-jax2tf convert {ABSENT} --flavour graph` first" in err
    assert "1 of 2 exports failed" in err


def test_the_native_flavour_is_not_enough(export, build, tiny_build):
    shutil.rmtree(build / f"{EXTRACTOR}-graph")
    shutil.copytree(tiny_build / EXTRACTOR, build / EXTRACTOR)
    status, _, err = export(EXTRACTOR, "--to", "onnx")
    assert status == 1
    assert "--flavour graph` first" in err


def test_another_checkpoint_than_the_models_is_refused(export, tiny_source, tmp_path):
    arrays = dict(np.load(tiny_source / CHECKPOINT.object))
    arrays["head/bias"] = arrays["head/bias"] + 1
    other = tmp_path / "other" / CHECKPOINT.object
    other.parent.mkdir(parents=True)
    with other.open("wb") as file:
        np.savez(file, **arrays)
    status, _, err = export(EXTRACTOR, "--to", "onnx", source=tmp_path / "other")
    assert status == 1
    assert "give the --source that it was converted from" in err


@pytest.fixture
def own(build, tmp_path, capsys):
    """A Mixer of one's own, of the tiny architecture and ten classes, converted as `flowers`: its checkpoint."""
    training = replace(CHECKPOINT.training, num_classes=10)
    path = write_seeded(replace(CHECKPOINT, name="flowers", training=training), tmp_path / "own")
    options = ["--checkpoint", path, "--name", "flowers", "--flavour", "graph", "--out", build]
    with pytest.raises(SystemExit) as exit_:
        main(list(map(str, ["convert", CLASSIFIER, *options])))
    assert not exit_.value.code
    capsys.readouterr()
    return path


@each_format
def test_ones_own_mixer_is_written_under_its_name(name, export, build, own):
    status, out, err = export(CLASSIFIER, "--to", name, "--checkpoint", own, "--name", "flowers", "--json")
    assert status == 0, err
    assert [(one["handle"], one["verdict"]) for one in json.loads(out)] == [(f"flowers-{name}", "passed")]
    manifest = ExportManifest.read(build / f"flowers-{name}" / "2.manifest.json")
    assert manifest.handle == f"flowers-{name}"
    assert ExportReport.read(build / f"flowers-{name}" / "2.report.json").origin == "own"


def test_ones_own_mixer_needs_its_name_its_model_and_its_checkpoint(export, own, tiny_source):
    status, _, err = export(CLASSIFIER, "--to", "onnx", "--checkpoint", own)
    assert (status, "needs both --checkpoint FILE and --name NAME" in err) == (2, True)
    status, _, err = export(CLASSIFIER, "--to", "onnx", "--checkpoint", own, "--name", "trees")
    assert status == 1
    assert f"convert {CLASSIFIER} --name trees --checkpoint {own} --flavour graph` first" in " ".join(err.split())
    other = tiny_source / CHECKPOINT.object
    status, _, err = export(CLASSIFIER, "--to", "onnx", "--checkpoint", other, "--name", "flowers")
    assert status == 1
    assert "give the --checkpoint that it was converted from" in err


def test_a_file_beside_the_class_list_is_refused(export, build):
    """It might be taken for the list."""
    (build / f"{CLASSIFIER}-graph" / "2" / "assets" / "notes.txt").write_text("mine")
    status, _, err = export(CLASSIFIER, "--to", "onnx")
    assert status == 1
    assert "assets/notes.txt is not listed in 2.manifest.json" in err


def test_a_changed_saved_model_is_refused(export, build):
    path = build / f"{EXTRACTOR}-graph" / "2" / "saved_model.pb"
    path.write_bytes(path.read_bytes() + b"\n")
    status, _, err = export(EXTRACTOR, "--to", "onnx")
    assert status == 1
    assert "2.manifest.json:\n  saved_model.pb has " in err
    assert not (build / f"{EXTRACTOR}-onnx" / "2").exists()


@each_format
def test_a_wrong_export_fails_and_the_other_is_finished(name, export, build, monkeypatch, tiny_source):
    """One weight of the classifier's file is changed while it is written."""
    bias = np.load(tiny_source / CHECKPOINT.object)["head/bias"]
    changed = bias.copy()
    changed[3] += 10
    write = writing.WRITERS[name]

    def write_wrongly(saved_model, directory):
        write(saved_model, directory)
        for path in directory.iterdir():
            path.write_bytes(path.read_bytes().replace(bias.tobytes(), changed.tobytes()))

    monkeypatch.setitem(writing.WRITERS, name, write_wrongly)
    status, out, err = export(*TESTING_HANDLES, "--to", name, "--json")
    assert status == 1
    assert [one["verdict"] for one in json.loads(out)] == ["failed", "passed"]
    assert "1 of 2 exports failed" in err
    assert "max_relative" in err
    report = ExportReport.read(build / f"{CLASSIFIER}-{name}" / "2.report.json")
    assert report.verdict == "failed"
    assert report.problems


@pytest.fixture(scope="module")
def zero_headed(tiny_source, tmp_path_factory):
    """A checkpoint with a head of zeros, and its models by the command line: converted, checked and exported."""
    folder = tmp_path_factory.mktemp("zero_headed")
    with np.load(tiny_source / CHECKPOINT.object) as arrays:
        changed = {name: arrays[name][..., :3] if name.startswith("head/") else arrays[name] for name in arrays.files}
    changed |= {name: np.zeros_like(changed[name]) for name in ("head/kernel", "head/bias")}
    np.savez(folder / "fresh.npz", **changed)
    options = [CLASSIFIER, "--checkpoint", str(folder / "fresh.npz"), "--name", "fresh", "--out", str(folder / "build")]
    for command in (["convert-all", *options, "--flavour", "graph"], ["export", *options, "--to", "onnx"]):
        with pytest.raises(SystemExit) as exit_:
            main(command)
        assert exit_.value.code == 0
    return folder / "build"


def test_a_head_of_zeros_is_named_and_proven_by_a_probing_one(zero_headed):
    report = Report.read(zero_headed / "fresh-graph" / "2.report.json")
    assert (report.verdict, report.zero_head) == ("passed", True)
    compared = list(report.find("max_relative"))
    assert {check.has_power for check in compared if check.probe is None} == {False}
    assert {check.has_power for check in compared if check.probe == "head"} == {True}


def test_an_export_whose_head_hides_errors_is_proven_by_an_export_with_a_probing_head(zero_headed):
    report = ExportReport.read(zero_headed / "fresh-onnx" / "2.report.json")
    assert (report.verdict, report.zero_head) == ("passed", True)
    compared = list(report.find("float32 max_relative"))
    probing = [check for check in compared if check.probe == "head"]
    assert {check.has_power for check in compared if check not in probing} == {False}
    assert [check.has_power for check in probing] == [True] * (len(compared) - len(probing))
    assert 0 < report.figure("float32 max_relative") < report.tolerances["float32 max_relative"].limit / 3
    assert {path.name for path in (zero_headed / "fresh-onnx").iterdir()} == {"2", "2.manifest.json", "2.report.json"}


def test_a_probing_export_that_cannot_be_made_fails_in_the_report(zero_headed, tmp_path, monkeypatch, capfd):
    """The export itself is in place by then."""
    build = Path(shutil.copytree(zero_headed, tmp_path / "build"))
    write = writing.WRITERS["onnx"]

    def write_once(saved_model, directory):
        if saved_model.parent != build / "fresh-graph":
            raise RuntimeError("no room for another")
        write(saved_model, directory)

    monkeypatch.setitem(writing.WRITERS, "onnx", write_once)
    options = (CLASSIFIER, "--checkpoint", zero_headed.parent / "fresh.npz", "--name", "fresh", "--out", build)
    status, _, err = run(capfd, "export", *options, "--to", "onnx", "--overwrite")
    assert status == 1
    assert "cannot be exported with a probing head: " in err
    report = ExportReport.read(build / "fresh-onnx" / "2.report.json")
    assert report.verdict == "failed"
    (problem,) = (one for check in report.find("running") for one in check.problems)
    assert "no room for another" in problem


@pytest.mark.whole
def test_erf_gelu_behind_a_head_of_zeros_is_noticed(zero_headed, tmp_path, capfd):
    """Written as right by a converter that lost its way: the graph of the SavedModel is another than it was."""
    build = Path(shutil.copytree(zero_headed, tmp_path / "build"))
    checkpoint = zero_headed.parent / "fresh.npz"
    shutil.rmtree(build / "fresh-onnx")
    architecture = CHECKPOINT.architecture
    with with_erf():
        graph = Graph.trace(
            _to_flavour("graph")(mixer_apply(architecture, 3)),
            architecture.arrays(3),
            image_size=architecture.image_size,
        )
    path = build / "fresh-graph" / "2" / "saved_model.pb"
    path.write_bytes(graph.saved_model)
    manifest = Manifest.read(build / "fresh-graph" / "2.manifest.json")
    digest = FileDigest(sha256=hashlib.sha256(graph.saved_model).hexdigest(), size=len(graph.saved_model))
    changed = manifest.model_copy(update={"files": manifest.files | {"saved_model.pb": digest}})
    (build / "fresh-graph" / "2.manifest.json").write_bytes(changed.to_bytes())
    options = (CLASSIFIER, "--checkpoint", checkpoint, "--name", "fresh", "--out", build)
    status, _, err = run(capfd, "validate", *options, "--flavour", "graph")
    assert status == 1
    assert "probing head, __call__ on noise, blank, chelsea.png (batch 3): max_relative" in err
    status, _, err = run(capfd, "export", *options, "--to", "onnx")
    assert status == 1
    assert "model.onnx with a probing head on noise" in err


def test_a_converter_that_fails_leaves_nothing(export, build, monkeypatch):
    def fail(saved_model, directory):
        (directory / "model.onnx").write_bytes(b"half")
        raise RuntimeError("no such operation")

    monkeypatch.setitem(writing.WRITERS, "onnx", fail)
    status, _, err = export(EXTRACTOR, "--to", "onnx")
    assert status == 1
    assert "cannot be written as ONNX: RuntimeError: no such operation" in err
    assert list((build / f"{EXTRACTOR}-onnx").iterdir()) == []


def test_what_exists_is_kept_unless_told(export, build):
    assert export(EXTRACTOR, "--to", "openvino")[0] == 0
    status, _, err = export(EXTRACTOR, "--to", "openvino")
    assert status == 2
    assert "exists already" in err
    path = build / f"{EXTRACTOR}-openvino" / "2" / "model.bin"
    before = path.stat().st_ino
    assert export(EXTRACTOR, "--to", "openvino", "--overwrite")[0] == 0
    assert path.stat().st_ino != before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "2" / "notes.txt").write_text("mine"), r"not written with it \(notes.txt\)"),
        (lambda folder: (folder / "2.manifest.json").unlink(), "has no manifest of an export beside it"),
    ],
    ids=["another file", "no manifest"],
)
def test_what_is_not_ours_is_never_replaced(spoil, message, export, build):
    assert export(EXTRACTOR, "--to", "openvino")[0] == 0
    spoil(build / f"{EXTRACTOR}-openvino")
    status, _, err = export(EXTRACTOR, "--to", "openvino", "--overwrite")
    assert status == 2
    assert re.search(message, err)
    assert (build / f"{EXTRACTOR}-openvino" / "2" / "model.bin").is_file()


@each_format
def test_a_missing_library_is_bad_usage(name, export, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda module: None)
    status, _, err = export(EXTRACTOR, "--to", name)
    assert status == 2
    assert f"install the extra {name} of this project" in err


def test_the_format_has_to_be_known(export):
    status, _, err = export(EXTRACTOR, "--to", "tfjs")
    assert status == 2
    assert all(name in err for name in FORMATS)


def test_an_unknown_handle_is_bad_usage(export):
    status, _, err = export("mixer_b32", "--to", "onnx")
    assert status == 2
    assert "did you mean" in err


def test_paths_follow_the_layout():
    from convert.pipeline.export_formats import Exports

    handle = TESTING_HANDLES[CLASSIFIER]
    work = Exports(FORMATS["onnx"], (handle,), None, Path("build"), 7)
    assert work.saved_model(handle).directory == Path(f"build/{CLASSIFIER}-graph/7")
    assert work.destination(handle).directory == Path(f"build/{CLASSIFIER}-onnx/7")
    assert work.destination(handle).report == Path(f"build/{CLASSIFIER}-onnx/7.report.json")


def test_the_pages_table_has_a_line_for_each_file(tiny_exports):
    from export_table import COLUMNS, rows

    page = (Path(__file__).parent.parent / "export" / "FORMATS.md").read_text(encoding="utf-8")
    shown = page.partition("tests/export_table.py OUT b32_sam 2 -->\n")[2].partition("<!-- end exports -->")[0]
    made = list(rows(tiny_exports, CHECKPOINT.name, 2))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()]
    assert lines[0] == [column.removeprefix("#") for column in COLUMNS]
    assert [line[0] for line in lines[2:]] == [row[0] for row in made]
    assert {len(row) for row in made} == {len(COLUMNS)}


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_packed_and_verified(name, tiny_exports, tmp_path, capfd):
    handle = f"{next(iter(TESTING_HANDLES))}-{name}"
    shutil.copytree(tiny_exports / handle, tmp_path / handle)
    status, out, err = run(capfd, "package", handle, "--out", tmp_path, "--json")
    assert (status, json.loads(out)[0]["handle"]) == (0, handle), err
    for path in (tmp_path / handle / "2", tmp_path / handle / "2.tar.gz"):
        status, out, err = run(capfd, "verify", path, "--json")
        found = json.loads(out)
        assert (status, found["verdict"], found["not_checked"]) == (0, "same", []), err
    (tmp_path / handle / "2" / "LICENSE").write_text("mine")
    status, out, err = run(capfd, "verify", tmp_path / handle / "2")
    assert (status, "LICENSE has" in err) == (3, True)


def test_formats_are_given_by_other_names_and_several_at_once(tiny_source, build, capfd):
    handle = next(iter(TESTING_HANDLES))
    options = ("--source", tiny_source, "--out", build, "--json")
    status, out, _ = run(capfd, "export", handle, "--to", "onnx,OpenVINO", *options)
    assert (status, [one["handle"] for one in json.loads(out)]) == (0, [f"{handle}-onnx", f"{handle}-openvino"])
    status, _, err = run(capfd, "export", handle, "--to", "onnx,tflite,tfjs", *options)
    assert status == 2
    assert "--to 'tfjs': no such format; expected one or more of litert, onnx, openvino" in err


def test_where_nothing_was_converted_it_is_said_without_importing_tensorflow(tmp_path):
    code = """import sys
from convert.cli import main
try:
    main(sys.argv[1:])
finally:
    assert "tensorflow" not in sys.modules"""
    words = ("export", CLASSIFIER, "--to", "litert", "--out", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Run `mixer-jax2tf convert {CLASSIFIER} --flavour graph --out {tmp_path}` first" in " ".join(
        done.stderr.split()
    )
    assert "AssertionError" not in done.stderr
