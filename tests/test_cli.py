"""The command line: each command, each error, on tiny models."""

import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import typer

import export.saved_model.manifest
import export.saved_model.writer
import validation.parity.report
from convert.checkpoints.synthetic import _seeded_arrays, write_seeded
from convert.cli import catalog as catalog_commands
from convert.cli import main
from convert.cli.program import app, commands
from convert.pipeline import batch, job
from models.catalog import BUCKET, HANDLES, TESTING_HANDLES
from models.digests import Digest, DigestTable
from models.records.manifest import Manifest
from models.records.provenance import sources_sha256
from models.records.report import Report
from models.records.tolerances import TOLERANCES
from models.storage.gsutil import StoredObject
from models.storage.gsutil_errors import StoreUnreachableError
from validation import gate

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
CHECKPOINT = TESTING_HANDLES[CLASSIFIER].checkpoint
ABSENT = "mixer_b32_sam_fe"
"""A handle whose checkpoint is not in the sources of these tests."""

WEIGHTS = "variables/variables.data-00000-of-00001"


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out, parse_constant=pytest.fail)

    @property
    def verdicts(self):
        return {outcome["handle"]: outcome["verdict"] for outcome in self.json}


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line in this process; whatever goes wrong, no traceback is shown."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        if "--debug" not in arguments:
            assert "Traceback" not in printed.err + printed.out
        return Result(exit_.value.code or 0, printed.out, printed.err)

    yield call
    for package in ("convert", "export", "models", "validation"):
        logging.getLogger(package).handlers.clear()
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.mark.parametrize("package", ["convert", "export", "models", "validation"])
def test_warnings_of_each_package_are_the_programs_and_escaped(run, package, capsys):
    assert run("list").status == 0
    logging.getLogger(f"{package}.module").warning("waiting for \x1b[2J")
    assert capsys.readouterr().err == "mixer-jax2tf: waiting for \\x1b[2J\n"


@pytest.fixture
def conversions(monkeypatch):
    """Count the SavedModels that are written."""
    written = []
    real = export.saved_model.writer.Graph.write

    def count(graph, arrays, directory, **options):
        written.append(directory.parent.parent.name)
        real(graph, arrays, directory, **options)

    monkeypatch.setattr(export.saved_model.writer.Graph, "write", count)
    return written


@pytest.fixture
def known(monkeypatch):
    """Let the table of digests hold one entry for the tiny checkpoint."""

    def let(*origins, sha256="0" * 64):
        entries = tuple(Digest(CHECKPOINT.object, origin, 1, "", "", sha256) for origin in origins)
        monkeypatch.setattr(DigestTable, "read", classmethod(lambda cls, path=None: cls(entries)))

    return let


def contents(folder):
    """Every file below a folder: its bytes and time of modification."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- list ---


def test_list_prints_a_table_of_the_twelve(run):
    result = run("list")
    assert result.status == 0
    assert all(result.out.count(f"│ {handle} ") == 1 for handle in HANDLES)
    assert not any(handle in result.out for handle in TESTING_HANDLES)
    assert "59,880,472" in result.out
    assert "sam/Mixer-B_16.npz" in result.out
    assert "1000 logits" in result.out
    assert "768 features" in result.out


def test_list_json_tells_all_the_catalog_knows(run):
    rows = run("list", "--json").json
    assert [row["handle"] for row in rows] == list(HANDLES)
    row = rows[0]
    assert row["checkpoint"]["url"].startswith(f"{BUCKET}/")
    assert row["architecture"]["patch_size"] in (16, 32)
    assert {"papers", "license", "training_data", "training_method", "labels", "outputs"} <= row.keys()


def test_list_takes_handles(run):
    rows = run("list", EXTRACTOR, "mixer_l16_i21k_fe", EXTRACTOR, "--json").json
    assert [row["handle"] for row in rows] == [EXTRACTOR, "mixer_l16_i21k_fe"]


# --- usage ---


def test_without_arguments_the_help_is_shown(run):
    result = run()
    shown = result.out + result.err
    assert result.status in (0, 2)
    for command in ("list", "seed", "fetch", "convert", "validate", "convert-all", "--debug"):
        assert command in shown


@pytest.mark.parametrize("columns", ["80", "200"])
@pytest.mark.parametrize("command", ["", *commands().commands])
def test_the_help_of_each_command_shows_every_text_letter_by_letter(command, columns, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    result = run(*([command] if command else []), "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.split()[:2] == ["Usage:", "mixer-jax2tf"]
    registered = typer.main.get_group(app)  # as it was written, before anything is done to it
    one = registered.commands[command] if command else registered
    texts = [*one.help.split("\n\n"), *(text for of in one.params if (text := getattr(of, "help", None)))]
    if not command:
        texts += [other.help.split("\n\n")[0] for other in registered.commands.values()]
    assert [text for text in texts if not _is_shown(text, result.out.splitlines())] == []


def _is_shown(text, lines):
    """Tell whether a text can be read downwards from somewhere, in a column that ends at the border of a panel."""
    first, whole = re.escape(text.split()[0][:10]), "".join(text.split())
    starts = [(row, found.start()) for row, line in enumerate(lines) for found in re.finditer(first, line)]
    columns = ([line[column:].rstrip("│") for line in lines[row:]] for row, column in starts)
    below = ("".join("".join(column).split()) for column in columns)
    return any(read.startswith(whole) for read in below)


@pytest.mark.parametrize("command", ["list", "fetch", "convert", "validate", "convert-all"])
def test_an_unknown_handle_gets_its_nearest_neighbours(command, run):
    result = run(command, "mixer_b16_sam_classificaton", "zzz", "s8*", "no*where")
    assert result.status == 2
    assert result.out == ""
    first, second, *patterns = result.err.splitlines()
    assert first.startswith("mixer-jax2tf: unknown handle 'mixer_b16_sam_classificaton': did you mean ")
    assert "mixer_b16_sam_classification" in first
    assert second == "unknown handle 'zzz': `mixer-jax2tf list` shows the twelve."
    assert patterns == [
        "no handle of the catalog matches 's8*': did you mean '*s8*'?",
        "no handle of the catalog matches 'no*where': `mixer-jax2tf list` shows the twelve.",
    ]


def test_empty_words_are_refused_rather_than_taken_for_the_working_directory(run):
    for words, places in (
        (("accuracy", "", "--data", "", "--out="), "accuracy, --data, --out="),
        (("",), "mixer-jax2tf"),
        (("verify", ""), "verify"),
    ):
        result = run(*words)
        assert (result.status, result.out) == (2, "")
        assert result.err == (
            f"mixer-jax2tf: an empty word after {places}: expected a value. Is a variable of the shell unset?\n"
        )


def test_a_value_may_end_in_an_equals_sign(run, tmp_path):
    result = run("card", CLASSIFIER, "--publisher", "me", "--assets", "https://example.org/m", f"--out={tmp_path}/a=")
    assert "an empty word" not in result.err
    assert f"{tmp_path}/a=" in result.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mixer_b16", "did you mean mixer_b16_sam_classification, mixer_b16_sam_fe, mixer_b16_i1k_classification, ..."),
        ("mixer_b16", "(8 in all)? The pattern '*mixer_b16*' names them all."),
        ("l16_i21k_fe", "did you mean mixer_l16_i21k_fe?"),
        ("mixer_b32_sam_fe-onnx", "is an export, not a handle: give mixer_b32_sam_fe, which it is made from."),
    ],
)
def test_a_near_miss_gets_what_was_meant(given, said, run):
    assert said in run("list", given).err


def test_the_name_of_a_graph_model_is_a_handle(run, tiny_source, tmp_path):
    assert [row["handle"] for row in run("list", "mixer_b32_sam_*-graph", "--json").json] == [
        "mixer_b32_sam_classification-graph",
        "mixer_b32_sam_fe-graph",
    ]
    result = run("convert", f"{EXTRACTOR}-graph", "--source", tiny_source, "--out", tmp_path, "--json")
    assert result.verdicts == {f"{EXTRACTOR}-graph": "converted"}


def test_version_and_short_help(run):
    assert re.fullmatch(r"mixer-jax2tf \S+\n", run("--version").out)
    assert run("-h").out == run("--help").out
    assert run("convert", "-h").out == run("convert", "--help").out
    groups = re.findall(r"╭─ (\w+) ─", run("-h").out)
    assert groups == ["Options", "Look", "Make", "Check", "Publish"]


def test_the_shell_completes_commands_and_handles(run, monkeypatch):
    monkeypatch.setenv("_MIXER_JAX2TF_COMPLETE", "complete_bash")
    for words, found in (("conv", ["convert", "convert-all"]), ("convert mixer_s8", ["mixer_s8_gsam_classification"])):
        monkeypatch.setenv("COMP_WORDS", f"mixer-jax2tf {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        assert run().out.split()[: len(found)] == found


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("list", "--jsn"), "No such option: --jsn"),
        (("classify",), "Missing argument 'MODEL'."),
        (("validate", "--set", "half"), "Invalid value for '--set': "),
        *((("validate", "--memory", size), "Invalid value for '--memory': ") for size in ("0", "nan", "inf", "1e300")),
        (("convert", "--version", "0"), "Invalid value for '--version': "),
        (("nonsense",), "No such command 'nonsense'."),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_json_tells_what_is_wrong_with_the_command_itself(words, why, run):
    result = run(*words, "--json")
    assert result.status == 2
    (problem,) = result.json["problems"]
    assert problem.startswith(why)
    assert "Usage:" in result.err
    assert run(*words).out == ""


def test_json_tells_why_a_command_failed(run, tmp_path):
    result = run("package", "nope", "--out", tmp_path, "--json")
    assert result.status == 2
    assert result.err == f"mixer-jax2tf: {result.json['problems'][0]}\n"


def test_variables_give_the_defaults_of_source_and_out(run, tiny_source, tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_JAX2TF_SOURCE", str(tiny_source))
    monkeypatch.setenv("MIXER_JAX2TF_OUT", str(tmp_path / "models"))
    assert run("convert", EXTRACTOR).status == 0
    assert (tmp_path / "models" / EXTRACTOR / "2.manifest.json").is_file()
    for command in ("convert", "export", "package", "classify"):
        assert "MIXER_JAX2TF_OUT" in run(command, "-h").out


@pytest.mark.parametrize("version", ["0", "-1", "abc", "1.5", ""])
@pytest.mark.parametrize("command", ["convert", "validate", "convert-all"])
def test_a_bad_version_is_refused(command, version, run, tmp_path):
    result = run(command, CLASSIFIER, "--version", version, "--out", tmp_path / "out")
    assert result.status == 2
    assert "--version" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("convert", "--flavour", "plain"), "native"),
        (("convert", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
        (("seed",), "DIR"),
    ],
)
def test_a_word_that_means_nothing_is_refused(arguments, text, run):
    result = run(*arguments)
    assert result.status == 2
    assert text in result.err


@pytest.mark.parametrize("command", ["fetch", "convert", "validate", "convert-all"])
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("s3://mixer_models", "s3 is not supported"),
        ("gs://", "does not name a bucket"),
        ("no/such/folder", "does not exist"),
        (__file__, "is a file"),
    ],
)
def test_a_source_that_is_no_source_is_refused(command, source, text, run, tmp_path):
    out = () if command == "fetch" else ("--out", tmp_path / "out")
    result = run(command, CLASSIFIER, "--source", source, *out)
    assert result.status == 2
    assert text in result.err
    assert "expected gs://bucket" in result.err
    assert not (tmp_path / "out").exists()


def test_debug_shows_where_a_usage_error_comes_from(run):
    result = run("list", "zzz", "--debug")
    assert result.status == 2
    assert "Traceback" in result.err
    assert "UsageError" in result.err
    assert result.err.endswith("mixer-jax2tf: unknown handle 'zzz': `mixer-jax2tf list` shows the twelve.\n")


def test_debug_shows_why_a_handle_failed(run, tmp_path):
    result = run("--debug", "convert-all", CLASSIFIER, "--source", tmp_path, "--out", tmp_path / "out")
    assert result.status == 1
    assert "Traceback" in result.err
    assert "_from_directory" in result.err


def test_a_mistake_in_the_program_is_called_one(run, monkeypatch):
    def fail(_):
        raise RuntimeError("some detail")

    monkeypatch.setattr(catalog_commands, "select_handles", fail)
    result = run("list")
    assert result.status == 1
    assert "unexpected RuntimeError: some detail" in result.err
    assert "--debug shows the traceback" in result.err


# --- seed and fetch ---


def test_seed_writes_the_buckets_layout_and_keeps_what_is_there(run, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog_commands, "CHECKPOINTS", {"mixer": {CHECKPOINT.name: CHECKPOINT}})
    first = run("seed", tmp_path / "seeded")
    assert first.status == 0
    before = contents(tmp_path)
    assert list(before) == [f"seeded/{CHECKPOINT.object}"]
    assert CHECKPOINT.object in first.err
    assert "MB" in first.err
    if DigestTable.read().find(CHECKPOINT.object, "seeded"):
        assert run("seed", tmp_path / "seeded").status == 0
        assert contents(tmp_path) == before


def test_seed_leaves_a_foreign_file_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog_commands, "CHECKPOINTS", {"mixer": {CHECKPOINT.name: CHECKPOINT}})
    path = tmp_path / CHECKPOINT.object
    path.parent.mkdir()
    path.write_bytes(b"mine")
    result = run("seed", tmp_path)
    assert result.status == 1
    assert f"{path} exists, and differs from the synthetic checkpoint" in result.err
    assert path.read_bytes() == b"mine"


def test_seed_below_a_file_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog_commands, "CHECKPOINTS", {"mixer": {CHECKPOINT.name: CHECKPOINT}})
    (tmp_path / "file").write_text("")
    result = run("seed", tmp_path / "file")
    assert result.status == 2
    assert f"cannot write to the output directory {tmp_path / 'file'} (" in result.err


@pytest.mark.parametrize("command", ["fetch", "convert", "convert-all"])
def test_a_cache_that_cannot_be_made_is_refused_before_any_work(command, run, tmp_path):
    (tmp_path / "file").write_text("")
    out = () if command == "fetch" else ("--out", tmp_path / "out")
    result = run(command, ABSENT, "--source", "gs://some_bucket", "--cache", tmp_path / "file", *out)
    assert (result.status, f"cannot write the cache {tmp_path / 'file'}: " in result.err) == (2, True), result.err


def test_fetch_uses_a_directory_in_place(run, tiny_source):
    result = run("fetch", *TESTING_HANDLES, "--source", tiny_source, "--json")
    assert result.status == 0
    (row,) = result.json
    path = tiny_source / CHECKPOINT.object
    assert (row["object"], row["path"], row["transferred"]) == (CHECKPOINT.object, str(path), 0)
    assert row["size"] == path.stat().st_size


def test_fetch_prints_a_table(run, tiny_source):
    result = run("fetch", CLASSIFIER, "--source", tiny_source)
    assert result.status == 0
    assert CHECKPOINT.object in result.out
    assert "0.0 MB" in result.out


def test_fetch_tells_what_is_missing_and_does_the_rest(run, tiny_source):
    result = run("fetch", ABSENT, CLASSIFIER, "--source", tiny_source, "--json")
    assert result.status == 1
    found, missing = result.json
    assert (found["object"], found["problems"]) == (CHECKPOINT.object, [])
    assert (missing["object"], len(missing["problems"])) == ("sam/Mixer-B_32.npz", 1)
    assert missing["problems"][0] in result.err
    assert f"sam/Mixer-B_32.npz is missing in {tiny_source}" in result.err


@pytest.mark.whole  # it traces a graph of full size
def test_a_store_that_cannot_be_reached_is_asked_once(run, tmp_path, monkeypatch):
    asked = []

    def stat(url, state):
        asked.append(url)
        raise StoreUnreachableError(f"{url}: the store cannot be reached. Check the network.\n  gsutil: said")

    monkeypatch.setattr(StoredObject, "of", stat)
    for words in (["fetch"], ["convert", "--out", tmp_path / "out"], ["outdated", "--published", tmp_path]):
        result = run(*words, "--source", "gs://some_bucket", "--cache", tmp_path, "--json")
        problems = [problem for row in result.json for problem in row["problems"]]
        assert len(asked) == 1
        assert problems[0] == f"{asked[0]}: the store cannot be reached. Check the network.\n  gsutil: said"
        again = f"not tried, as an earlier attempt failed ({asked.pop()}: the store cannot be reached)."
        assert set(problems[1:]) - {problems[0]} == {again}


def test_record_is_for_originals_only(run, tiny_source):
    before = DigestTable.read()
    result = run("fetch", CLASSIFIER, "--record", "--source", tiny_source)
    assert result.status == 2
    assert f"--record reads the originals, from {BUCKET} only; --source is {tiny_source}" in result.err
    assert DigestTable.read() == before


# --- convert, validate, convert-all ---


def test_convert_then_validate_then_convert_all(run, tiny_source, tmp_path, conversions, known):
    known("seeded", sha256=sha256_of(tiny_source / CHECKPOINT.object))
    out = tmp_path / "new" / "out"
    places = (*TESTING_HANDLES, "--source", tiny_source, "--out", out, "--version", 7, "--json")

    converted = run("convert", *places)
    assert converted.status == 0
    assert converted.verdicts == {CLASSIFIER: "converted", EXTRACTOR: "converted"}
    for handle in TESTING_HANDLES:
        assert {path.name for path in (out / handle).iterdir()} == {"7", "7.manifest.json"}
        manifest = Manifest.read(out / handle / "7.manifest.json")
        assert (manifest.handle, manifest.version) == (handle, 7)
        assert manifest.checkpoint.origin == "seeded"

    validated = run("validate", *places)
    assert validated.status == 0
    assert validated.verdicts == {CLASSIFIER: "passed", EXTRACTOR: "passed"}
    assert {Report.read(path).verdict for path in out.glob("*/7.report.json")} == {"passed"}

    before = contents(out)
    kept = run("convert-all", *places)
    assert kept.verdicts == {CLASSIFIER: "kept", EXTRACTOR: "kept"}
    assert contents(out) == before
    assert sorted(conversions) == sorted([CLASSIFIER, EXTRACTOR])  # side by side, in either order


def test_the_table_tells_what_became_of_the_handles(run, tiny_source, build, tmp_path, monkeypatch, known):
    known("seeded", sha256=sha256_of(tiny_source / CHECKPOINT.object))
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = run("validate", *TESTING_HANDLES, "--source", tiny_source, "--out", build)
    assert result.status == 0
    header = "handle origin parameters size seconds worst difference agreement verdict"
    assert header.split() == re.findall(r"[a-z]+", next(line for line in result.out.splitlines() if "handle" in line))
    row = next(line for line in result.out.splitlines() if CLASSIFIER in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:3] == [CLASSIFIER, "seeded", "47,416"]
    assert re.search(r"│ +\d\.\de-0\d +│ +100% +│ passed +│", row)
    lines = summary.read_text().splitlines()
    assert lines[0].startswith("| handle | origin | parameters | size |")
    assert lines[2].startswith(f"| {CLASSIFIER} | seeded | 47,416 | ")
    assert len(lines) == 4


@pytest.mark.parametrize(("origins", "origin"), [((), "unknown"), (("original",), "original")])
def test_the_origin_is_that_of_the_digest_table(origins, origin, run, tiny_source, tmp_path, known):
    known(*origins, sha256=sha256_of(tiny_source / CHECKPOINT.object))
    result = run("convert-all", EXTRACTOR, "--source", tiny_source, "--out", tmp_path, "--json")
    assert [outcome["origin"] for outcome in result.json] == [origin]
    assert Manifest.read(tmp_path / EXTRACTOR / "2.manifest.json").checkpoint.origin == origin
    assert Report.read(tmp_path / EXTRACTOR / "2.report.json").origin == origin


def test_a_file_that_differs_from_the_recorded_original_is_refused(run, tiny_source, tmp_path, known):
    known("original")
    result = run("convert", CLASSIFIER, "--source", tiny_source, "--out", tmp_path / "out")
    assert result.status == 1
    assert f"expected that of the recorded original, {'0' * 64}" in result.err
    assert "fetch --record" in result.err
    assert contents(tmp_path / "out") == {}


def test_jax_runs_once_for_both_heads(run, tiny_source, build, monkeypatch):
    computed = []
    real = gate.Reference.compute

    def count(checkpoint, *arguments, **options):
        computed.append(checkpoint.name)
        return real(checkpoint, *arguments, **options)

    monkeypatch.setattr(gate.Reference, "compute", count)
    assert run("validate", *TESTING_HANDLES, "--source", tiny_source, "--out", build).status == 0
    assert computed == [CHECKPOINT.name]


def test_convert_refuses_what_exists_and_names_all_of_it(run, tiny_source, build, conversions):
    before = contents(build)
    result = run("convert", *TESTING_HANDLES, "--source", tiny_source, "--out", build)
    assert result.status == 2
    for handle in TESTING_HANDLES:
        assert str(build / handle / "2") in result.err
    assert "--overwrite to replace" in result.err
    assert contents(build) == before
    assert conversions == []


def test_overwrite_replaces(run, tiny_source, build):
    before = contents(build)
    result = run("convert", CLASSIFIER, "--source", tiny_source, "--out", build, "--overwrite")
    assert result.status == 0
    after = contents(build)
    assert before.keys() - after.keys() == {f"{CLASSIFIER}/2.report.json", f"{CLASSIFIER}/2.evidence.npz"}
    assert after.keys() <= before.keys()
    assert after[f"{CLASSIFIER}/2/{WEIGHTS}"][0] == before[f"{CLASSIFIER}/2/{WEIGHTS}"][0]
    assert after[f"{CLASSIFIER}/2/{WEIGHTS}"][1] != before[f"{CLASSIFIER}/2/{WEIGHTS}"][1]
    assert sorted(path.name for path in (build / CLASSIFIER).iterdir()) == ["2", "2.manifest.json"]


@pytest.mark.parametrize("command", ["convert", "validate"])
def test_a_missing_checkpoint_fails_its_handles_only(command, run, tiny_source, build, tmp_path):
    out = build if command == "validate" else tmp_path / "out"
    result = run(command, ABSENT, EXTRACTOR, "--source", tiny_source, "--out", out, "--json")
    assert result.status == 1
    assert result.verdicts == {ABSENT: "failed", EXTRACTOR: "converted" if command == "convert" else "passed"}
    assert "1 of 2 handles failed" in result.err
    assert f"{ABSENT}: sam/Mixer-B_32.npz is missing in {tiny_source}" in result.err
    assert not (out / ABSENT).exists()
    assert all(outcome["seconds"] > 0 for outcome in result.json)


@pytest.mark.parametrize("written", [("--out", "my models"), ("--out=my models",)])
def test_advice_has_the_places_that_the_command_was_given(written, run, tiny_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("validate", EXTRACTOR, "--source", tiny_source, *written)
    assert f"Run `mixer-jax2tf convert {EXTRACTOR} --source {tiny_source} --out 'my models'` first" in result.err
    result = run("package", EXTRACTOR, *written)  # which has no --source
    assert f"Run `mixer-jax2tf convert {EXTRACTOR} --out 'my models'` first" in result.err
    assert f"Run `mixer-jax2tf convert {EXTRACTOR}` first" in run("package", EXTRACTOR).err
    result = run("package", EXTRACTOR, *written, "--version", 4)
    assert f"Run `mixer-jax2tf convert {EXTRACTOR} --out 'my models' --version 4` first" in result.err


def test_a_library_that_logs_does_not_make_our_messages_appear_twice():
    """As absl does, which TensorFlow logs by: it gives the root a handler if there is none."""
    said = "logging.basicConfig(); [logging.getLogger(name).warning(name) for name in ('export.install', 'another')]"
    code = f"""import logging, sys
from convert.cli import main
try:
    main(["list", "nope"])
except SystemExit:
    {said}"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("export.install") == 1
    assert "mixer-jax2tf: export.install" in done.stderr
    assert "mixer-jax2tf: another" in done.stderr  # what other libraries warn of is still shown


def test_empty_words_are_named_by_the_words_before(run):
    assert "an empty word after classify, '': expected a value" in run("classify", "", "").err


def test_an_unexpected_exception_fails_its_handle_only(run, tiny_source, tmp_path, monkeypatch):
    real = export.saved_model.writer.Graph.write

    def fail(graph, arrays, directory, **options):
        real(graph, arrays, directory, **options)
        if "head/bias" in arrays:
            raise RuntimeError("some detail")

    monkeypatch.setattr(export.saved_model.writer.Graph, "write", fail)
    result = run("convert-all", *TESTING_HANDLES, "--source", tiny_source, "--out", tmp_path, "--json")
    assert result.status == 1
    assert result.verdicts == {CLASSIFIER: "failed", EXTRACTOR: "passed"}
    assert f"{CLASSIFIER}: unexpected RuntimeError: some detail" in result.err
    assert list((tmp_path / CLASSIFIER).iterdir()) == []


def test_an_unexpected_exception_while_reading_fails_its_handles_only(run, tiny_source, build, monkeypatch):
    real = job.OpenCheckpoint.of_catalog

    def fail(checkpoint, source, **progress):
        if checkpoint.name != CHECKPOINT.name:
            raise RuntimeError("some detail")
        return real(checkpoint, source, **progress)

    monkeypatch.setattr(job.OpenCheckpoint, "of_catalog", fail)
    result = run("validate", ABSENT, EXTRACTOR, "--source", tiny_source, "--out", build, "--json")
    assert result.status == 1
    assert result.verdicts == {ABSENT: "failed", EXTRACTOR: "passed"}
    assert f"{ABSENT}: unexpected RuntimeError: some detail" in result.err


# --- bad checkpoints ---


def arrays(**changes):
    return {name: values.copy() for name, values in _seeded_arrays(replace(CHECKPOINT, **changes))}


def saved(content):
    def write(path):
        np.savez(path, **content)

    return write


def wrong_architecture(path):
    wide = replace(CHECKPOINT.architecture, hidden_dim=40)
    saved(arrays(architecture=wide))(path)


def too_many_classes(path):
    saved(arrays(training=replace(CHECKPOINT.training, num_classes=21843)))(path)


def half_precision(path):
    content = arrays()
    content["stem/bias"] = content["stem/bias"].astype(np.float16)
    saved(content)(path)


def with_nan(path):
    content = arrays()
    content["head/kernel"][3, 4] = np.nan
    saved(content)(path)


def with_objects(path):
    saved(arrays() | {"head/bias": np.array([{}] * 1000, dtype=object)})(path)


def truncated(path):
    saved(arrays())(path)
    path.write_bytes(path.read_bytes()[:-5000])


def damaged(path):
    saved(arrays())(path)
    flip(path)


BAD_CHECKPOINTS = [
    (truncated, "the file is truncated"),
    (lambda path: path.write_bytes(b""), "it is empty"),
    (lambda path: path.write_bytes(b"<html>Not found</html>"), "it is a web page or a server's answer"),
    (lambda path: path.write_bytes(bytes(range(200, 250))), "it is not an archive"),
    (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "it is a pickle, which is never loaded"),
    (with_objects, "pickled objects are never loaded"),
    (wrong_architecture, "found (40,), expected (32,)"),
    (too_many_classes, "found (21843,), expected (1000,)"),
    (half_precision, "stem/bias: found float16 (<f2), expected float32"),
    (with_nan, "head/kernel: found 1 NaN and 0 infinite of 32,000 values"),
    (damaged, "damaged (1):"),
]


@pytest.mark.parametrize(("make", "text"), BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_told_and_nothing_is_written(make, text, run, tmp_path):
    path = tmp_path / "source" / CHECKPOINT.object
    path.parent.mkdir(parents=True)
    make(path)
    out = tmp_path / "out"
    result = run("convert-all", *TESTING_HANDLES, "--source", tmp_path / "source", "--out", out, "--json")
    assert result.status == 1
    assert result.verdicts == {CLASSIFIER: "failed", EXTRACTOR: "failed"}
    assert str(path) in result.err
    assert text in result.err
    assert list(out.iterdir()) == []


# --- outputs that cannot be ---


@pytest.mark.parametrize("command", ["convert", "convert-all"])
def test_an_output_below_a_file_is_refused(command, run, tiny_source, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(command, CLASSIFIER, "--source", tiny_source, "--out", tmp_path / "file" / "out")
    assert result.status == 2
    assert f"cannot write to the output directory {tmp_path / 'file' / 'out'} (Not a directory)" in result.err


def test_a_disk_that_is_too_small_is_told_before_any_work(run, tmp_path, monkeypatch, conversions):
    class Usage:
        free = 1_000_000

    source = tmp_path / "source"
    source.mkdir()  # empty: had any work begun, it would have failed for that
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    result = run("convert-all", *TESTING_HANDLES, "--source", source, "--out", tmp_path / "out")
    assert result.status == 2
    assert "has 1.0 MB free, but 17.0 MB are needed" in result.err
    assert list((tmp_path / "out").iterdir()) == []
    assert conversions == []


def test_the_disk_need_of_all_twelve_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "run_batch", lambda *_: [])
    result = run("convert-all", "--source", tmp_path, "--out", tmp_path / "out")
    needed = sum(4 * handle.parameters + (8 << 20) for handle in HANDLES.values())
    said = rf"{needed / 1e6:,.1f} MB (of disk space needed|are needed: free some space)"  # the latter on a small disk
    assert re.search(said, result.err)


def test_a_write_that_fails_leaves_nothing(run, tiny_source, tmp_path, monkeypatch):
    def full(graph, arrays, directory, **options):
        (directory / "half").write_text("half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.saved_model.writer.Graph, "write", full)
    result = run("convert", CLASSIFIER, "--source", tiny_source, "--out", tmp_path)
    assert result.status == 1
    assert "(No space left on device): nothing was left there" in result.err
    assert list((tmp_path / CLASSIFIER).iterdir()) == []


def test_a_directory_of_the_users_own_is_left_alone(run, tiny_source, tmp_path, conversions):
    directory = tmp_path / CLASSIFIER / "2"
    directory.mkdir(parents=True)
    (directory / "thesis.txt").write_text("the only copy")
    before = contents(tmp_path)
    places = (CLASSIFIER, "--source", tiny_source, "--out", tmp_path)
    plain = run("convert-all", *places)
    assert (plain.status, conversions) == (2, [])
    assert f"exists already: {directory}" in plain.err
    forced = run("convert-all", *places, "--overwrite")
    assert (forced.status, conversions) == (2, [])
    assert "is not a SavedModel, so it is not replaced" in forced.err
    assert contents(tmp_path) == before


def test_a_model_without_its_manifest_is_not_replaced_unasked(run, tiny_source, build, conversions):
    (build / CLASSIFIER / "2.manifest.json").unlink()
    before = contents(build)
    result = run("convert-all", *TESTING_HANDLES, "--source", tiny_source, "--out", build)
    assert (result.status, conversions) == (2, [])
    assert f"exists already: {build / CLASSIFIER / '2'}. " in result.err
    assert contents(build) == before


# --- doing again only what is not right ---


def test_the_second_run_converts_nothing(run, tiny_source, build, conversions):
    before = contents(build)
    result = run("convert-all", *TESTING_HANDLES, "--source", tiny_source, "--out", build, "--json")
    assert result.status == 0
    assert result.verdicts == {CLASSIFIER: "kept", EXTRACTOR: "kept"}
    assert all(outcome["worst"] < TOLERANCES["max_relative"].limit for outcome in result.json)
    assert conversions == []
    assert contents(build) == before


def set_aside(build, *left):
    """Leave what a process leaves that was killed as it moved the classifier aside, before it had moved these."""
    folder = build / CLASSIFIER
    moved = [path for path in folder.iterdir() if path.name not in left]
    aside = folder / (".2.partial-" + "0" * 16) / "old"
    aside.mkdir(parents=True)
    (aside.parent / "lock").touch()
    for path in moved:
        path.rename(aside / path.name)


TO_READ = {
    "package": ["package", CLASSIFIER],
    "card": ["card", CLASSIFIER, "--publisher", "p", "--assets", "https://p.example/a"],
    "publish": ["publish", CLASSIFIER, "--to", "elsewhere", "--dry-run"],
    "validate": ["validate", CLASSIFIER],
}


@pytest.mark.parametrize("left", [(), ("2",)], ids=["all of it", "all but its directory"])
@pytest.mark.parametrize("command", TO_READ)
def test_what_a_killed_process_left_aside_is_put_back_by_each_command(command, left, run, tiny_source, build):
    before = contents(build / CLASSIFIER)
    set_aside(build, *left)
    options = ["--source", tiny_source] if command == "validate" else []
    result = run(*TO_READ[command], *options, "--out", build)
    assert not re.search("there is no converted model|unknown handle", result.err)
    after = contents(build / CLASSIFIER)
    assert before.keys() <= after.keys()
    assert not [name for name in after if name.startswith(".")]
    if command in ("package", "validate"):  # the others refuse a seeded checkpoint, checked by the gate set only
        assert result.status == 0, result.err


def test_ones_own_model_that_a_killed_process_left_aside_is_found(run, build):
    shutil.copytree(build / CLASSIFIER, build / "flowers")
    (build / CLASSIFIER).rename(build / "elsewhere")
    (build / "flowers").rename(build / CLASSIFIER)
    set_aside(build)
    (build / CLASSIFIER).rename(build / "flowers")
    result = run("package", "flowers", "--out", build)
    assert "unknown handle" not in result.err
    assert (build / "flowers" / "2.manifest.json").is_file()


@pytest.mark.parametrize("left", [(), ("2",)], ids=["all of it", "all but its directory"])
def test_verify_says_that_something_is_aside_and_what_puts_it_back(left, run, build):
    set_aside(build, *left)
    before = contents(build)
    result = run("verify", build / CLASSIFIER / "2")
    assert result.status == 2
    assert f"files of {build / CLASSIFIER / '2'} are in " in result.err
    assert f"`mixer-jax2tf validate {CLASSIFIER} --out {build} --version 2` moves them back" in result.err
    assert contents(build) == before


HOLDING = """
import sys
from pathlib import Path
from export.install import held
from models.records.layout import ModelPaths

build, name = Path(sys.argv[1]), sys.argv[2]
with held(ModelPaths.of(build, name, 2), to_make=True):
    print("held", flush=True)
    sys.stdin.readline()
    for path in (build / "elsewhere").iterdir():
        path.rename(build / name / path.name)
"""


def test_what_another_process_makes_meanwhile_is_awaited_and_kept(run, tiny_source, build, conversions):
    (build / CLASSIFIER).rename(build / "elsewhere")
    command = [sys.executable, "-c", HOLDING, build, CLASSIFIER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"

        class Handler(logging.Handler):
            def emit(self, record):
                said.append(record.getMessage())
                process.communicate("go on\n")

        said, handler, logger = [], Handler(), logging.getLogger("export.install")
        logger.addHandler(handler)
        try:
            result = run("convert-all", CLASSIFIER, "--source", tiny_source, "--out", build, "--json")
        finally:
            logger.removeHandler(handler)
    assert said == [f"another process is using {build / CLASSIFIER / '2'}: waiting for it"]
    assert result.verdicts == {CLASSIFIER: "kept"}
    assert conversions == []


def drop_report(build):
    (build / CLASSIFIER / "2.report.json").unlink()


def fail_report(build):
    path = build / CLASSIFIER / "2.report.json"
    path.write_text(path.read_text().replace('"verdict": "passed"', '"verdict": "failed"'))


def forge_report(build):
    """Let a figure speak against the verdict that stands beside it."""
    path = build / CLASSIFIER / "2.report.json"
    report = Report.read(path)
    checks = (one.model_copy(update={"measured": 9.9}) if one.name == "max_relative" else one for one in report.checks)
    path.write_bytes(report.model_copy(update={"checks": tuple(checks)}).to_bytes())


def damage_weights(build):
    flip(build / CLASSIFIER / "2" / WEIGHTS)


def replace_outputs(build):
    """Leave what a check leaves that is killed between its outputs and its report."""
    (build / CLASSIFIER / "2.evidence.npz").write_bytes(b"those of another check")


def drop_a_file(build):
    (build / CLASSIFIER / "2" / "saved_model.pb").unlink()


def add_a_file(build):
    (build / CLASSIFIER / "2" / "stray").write_text("")


def change_pipeline(build):
    path = build / CLASSIFIER / "2.manifest.json"
    manifest = Manifest.read(path)
    path.write_bytes(manifest.model_copy(update={"pipeline_sha256": "0" * 64}).to_bytes())


def drop_directory(build):
    shutil.rmtree(build / CLASSIFIER / "2")


@pytest.mark.parametrize(
    "change",
    [drop_report, fail_report, forge_report, damage_weights, replace_outputs, drop_a_file, change_pipeline,
     drop_directory],
)  # fmt: skip
def test_only_what_is_not_right_is_made_anew(change, run, tiny_source, build, conversions):
    before = contents(build)
    change(build)
    result = run("convert-all", *TESTING_HANDLES, "--source", tiny_source, "--out", build, "--json")
    assert result.status == 0, result.err
    assert result.verdicts == {CLASSIFIER: "passed", EXTRACTOR: "kept"}
    assert conversions == [CLASSIFIER]
    after = contents(build)
    assert after.keys() == before.keys()
    assert after[f"{CLASSIFIER}/2/{WEIGHTS}"][0] == before[f"{CLASSIFIER}/2/{WEIGHTS}"][0]
    assert all(after[name] == before[name] for name in before if name.startswith(EXTRACTOR))


def test_a_file_that_the_user_put_into_a_model_is_never_deleted(run, tiny_source, build, conversions):
    add_a_file(build)
    before = contents(build)
    for more in ((), ("--overwrite",)):
        result = run("convert-all", *TESTING_HANDLES, "--source", tiny_source, "--out", build, *more)
        assert (result.status, conversions) == (2, [])
        assert "files that were not written with it (stray), so it is not replaced: move them away" in result.err
    assert contents(build) == before


def test_another_checkpoint_makes_the_handle_anew(run, build, tmp_path, conversions):
    write_seeded(replace(CHECKPOINT, name="other"), tmp_path / "source")
    result = run("convert-all", EXTRACTOR, "--source", tmp_path / "source", "--out", build, "--json")
    assert (result.status, conversions) == (0, [EXTRACTOR])
    manifest = Manifest.read(build / EXTRACTOR / "2.manifest.json")
    assert manifest.checkpoint.sha256 == sha256_of(tmp_path / "source" / CHECKPOINT.object)


# --- validate ---


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_validate_without_a_manifest_tells_what_to_run(place, run, tiny_source, tmp_path):
    result = run("validate", CLASSIFIER, "--source", tiny_source, "--out", tmp_path / place)
    assert result.status == 1
    assert f"{CLASSIFIER}/2.manifest.json is missing: there is no converted model" in result.err
    assert f"Run `mixer-jax2tf convert {CLASSIFIER}` first" in result.err


def spoil_manifest(build):
    (build / CLASSIFIER / "2.manifest.json").write_text("{}")


def test_a_manifest_that_is_none_is_told(run, tiny_source, build):
    spoil_manifest(build)
    result = run("validate", *TESTING_HANDLES, "--source", tiny_source, "--out", build, "--json")
    assert result.status == 1
    assert result.verdicts == {CLASSIFIER: "failed", EXTRACTOR: "passed"}
    assert "2.manifest.json is not a readable manifest of schema 1" in result.err


def change_labels(build):
    path = build / CLASSIFIER / "2" / "assets" / "labels_1k.txt"
    path.write_text(path.read_text().replace("goldfish", "silverfish"))


def drop_labels(build):
    (build / CLASSIFIER / "2" / "assets" / "labels_1k.txt").unlink()


def swap_models(build):
    shutil.rmtree(build / CLASSIFIER)
    shutil.copytree(build / EXTRACTOR, build / CLASSIFIER)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (damage_weights, f"{WEIGHTS} has sha256 "),
        (damage_weights, "does not load: DataLossError"),
        (drop_a_file, "saved_model.pb is missing, but the manifest lists it"),
        (add_a_file, "stray is not listed in the manifest"),
        (change_labels, "assets/labels_1k.txt has "),
        (drop_labels, "assets/labels_1k.txt is missing, but the manifest lists it"),
        (drop_directory, "does not load: OSError: SavedModel file does not exist"),
        (swap_models, f"the manifest is of {EXTRACTOR}, expected {CLASSIFIER}"),
    ],
)
def test_validate_finds_what_was_tampered_with(change, text, run, tiny_source, build):
    change(build)
    result = run("validate", *TESTING_HANDLES, "--source", tiny_source, "--out", build, "--json")
    assert result.status == 1
    assert result.verdicts == {CLASSIFIER: "failed", EXTRACTOR: "passed"}
    assert text in result.err
    report = Report.read(build / CLASSIFIER / "2.report.json")
    assert report.verdict == "failed"
    assert any(text in problem for problem in report.problems)


def test_validate_against_another_checkpoint_fails(run, build, tmp_path):
    write_seeded(replace(CHECKPOINT, name="other"), tmp_path / "source")
    result = run("validate", EXTRACTOR, "--source", tmp_path / "source", "--out", build)
    assert result.status == 1
    assert "made from a checkpoint of sha256" in result.err
    assert "28 variables differ" in result.err
    assert "max_relative" in result.err
    assert f"│ {EXTRACTOR}" in result.out
    assert "│ failed" in result.out


def test_validate_refuses_a_file_for_a_directory(run, tiny_source, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("validate", CLASSIFIER, "--source", tiny_source, "--out", tmp_path / "file")
    assert result.status == 2
    assert f"--out {tmp_path / 'file'} is not a directory" in result.err


def test_a_model_copied_to_another_version_fails(run, tiny_source, build):
    shutil.copytree(build / EXTRACTOR / "2", build / EXTRACTOR / "3")
    shutil.copy(build / EXTRACTOR / "2.manifest.json", build / EXTRACTOR / "3.manifest.json")
    result = run("validate", EXTRACTOR, "--source", tiny_source, "--out", build, "--version", 3)
    assert result.status == 1
    assert "the manifest is of version 2, expected 3" in result.err


def test_a_handle_that_could_not_be_checked_fails_in_the_junit_file_whatever_its_old_report(run, build, tmp_path):
    (tmp_path / "source" / CHECKPOINT.object).parent.mkdir(parents=True)
    (tmp_path / "source" / CHECKPOINT.object).write_bytes(b"")
    result = run("validate", EXTRACTOR, "--source", tmp_path / "source", "--out", build, "--set", "full", "--json")
    assert (result.status, result.verdicts) == (1, {EXTRACTOR: "failed"})
    assert 'failures="1"' in (build / "parity.xml").read_text()
    assert "it is empty" in (build / "parity.xml").read_text()


@pytest.mark.parametrize(("task", "at_a_time"), [("convert", 2), ("convert-all", 1)])
def test_replacing_needs_room_for_the_largest_that_are_written_at_a_time(
    task, at_a_time, run, tiny_source, build, monkeypatch
):
    monkeypatch.setattr(batch, "run_batch", lambda *_: [])
    result = run(task, *TESTING_HANDLES, "--source", tiny_source, "--out", build, "--overwrite", "--flavour", "both")
    sizes = sorted(4 * handle.parameters + (8 << 20) for handle in TESTING_HANDLES.values())
    assert f"{sum(sizes[-1:] * at_a_time) / 1e6:,.1f} MB of disk space needed" in result.err


# --- one's own Mixer ---


@pytest.fixture
def own(tmp_path):
    """A Mixer of one's own: the tiny architecture, ten classes."""
    training = replace(CHECKPOINT.training, num_classes=10)
    path = write_seeded(replace(CHECKPOINT, name="flowers", training=training), tmp_path / "own")
    return path.rename(tmp_path / "flowers.npz")


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "flowers.txt"
    path.write_text("".join(f"flower {index}\n" for index in range(10)))
    return path


def test_ones_own_mixer_is_converted_and_checked(run, own, labels, tmp_path):
    out = tmp_path / "out"
    options = ("--checkpoint", own, "--name", "flowers", "--out", out, "--json")
    result = run("convert-all", CLASSIFIER, *options, "--labels", labels)
    assert result.status == 0
    assert result.verdicts == {"flowers": "passed"}
    assert result.json[0]["origin"] == "own"
    assert result.json[0]["agreement"] == 1.0
    manifest = Manifest.read(out / "flowers" / "2.manifest.json")
    assert (manifest.handle, manifest.num_classes, manifest.checkpoint.origin) == ("flowers", 10, "own")
    assert manifest.checkpoint.sha256 == sha256_of(own)
    assert manifest.checkpoint.object == "flowers.npz"
    assert Report.read(out / "flowers" / "2.report.json").origin == "own"
    assert (out / "flowers" / "2" / "assets" / "flowers.txt").read_bytes() == labels.read_bytes()
    model = tf.saved_model.load(str(out / "flowers" / "2"))
    assert model(tf.zeros((5, 32, 32, 3))).shape == (5, 10)

    assert run("validate", CLASSIFIER, *options).verdicts == {"flowers": "passed"}
    refused = run("convert", CLASSIFIER, *options)
    assert refused.status == 2
    assert f"exists already: {out / 'flowers' / '2'}" in refused.err


def test_a_custom_model_is_checked_by_its_name(run, own, labels, tmp_path, build):
    out = tmp_path / "out"
    made = run("convert", CLASSIFIER, "--checkpoint", own, "--name", "flowers", "--labels", labels, "--out", out)
    assert made.status == 0
    result = run("validate", "flowers", "--out", out)
    assert result.status == 2
    assert (
        f"give the checkpoint that it was made from, --checkpoint FILE (it was flowers.npz, sha256 {sha256_of(own)}"
        in (result.err)
    )
    other = run("validate", "flowers", "--out", out, "--checkpoint", write_seeded(CHECKPOINT, tmp_path / "other"))
    assert (other.status, f"but flowers was made from flowers.npz, sha256 {sha256_of(own)}" in other.err) == (2, True)
    assert run("validate", "flowers", "--checkpoint", own, "--out", out, "--json").verdicts == {"flowers": "passed"}
    labels.write_text(labels.read_text().replace("flower 1", "rose"))
    wrong = run("validate", "flowers", "--checkpoint", own, "--labels", labels, "--out", out)
    assert (wrong.status, f"--labels {labels} is not the class list of {out / 'flowers' / '2'}" in wrong.err) == (
        2,
        True,
    )


@pytest.mark.parametrize("kind", ["prefix", "headless"])
def test_features_of_a_file_with_a_prefix_or_without_a_head_are_checked(kind, run, own, tmp_path):
    with np.load(own) as arrays:
        prefix = "opt/target/" if kind == "prefix" else ""
        kept = {f"{prefix}{name}": value for name, value in arrays.items() if prefix or not name.startswith("head/")}
        np.savez(tmp_path / "other.npz", **kept)
    options = ["--checkpoint", tmp_path / "other.npz", "--name", "other", "--out", tmp_path / "out", "--json"]
    options += ["--strip-prefix", prefix] if prefix else []
    assert run("convert-all", EXTRACTOR, *options).verdicts == {"other": "passed"}
    if not prefix:
        refused = run("convert", CLASSIFIER, *options, "--overwrite")
        assert "The file has no head, which a classifier needs: give the handle that ends in _fe" in refused.err


def test_a_head_of_zeros_is_told(run, own, tmp_path):
    with np.load(own) as arrays:
        np.savez(tmp_path / "zero.npz", **dict(arrays) | {"head/kernel": np.zeros_like(arrays["head/kernel"])})
    options = ("--checkpoint", tmp_path / "zero.npz", "--name", "zero", "--out", tmp_path / "out")
    assert "head/kernel is all zeros" in run("convert", CLASSIFIER, *options).err


def test_ones_own_mixer_is_kept_and_another_of_that_name_refused(run, own, tmp_path, conversions):
    options = ("convert-all", EXTRACTOR, "--name", "flowers", "--out", tmp_path / "out", "--json", "--checkpoint")
    assert run(*options, own).verdicts == {"flowers": "passed"}
    before = contents(tmp_path / "out")
    assert run(*options, own).verdicts == {"flowers": "kept"}
    other = write_seeded(replace(CHECKPOINT, name="trees"), tmp_path / "trees")
    refused = run(*options, other)
    assert (refused.status, conversions) == (1, ["flowers"])
    assert f"{tmp_path / 'out' / 'flowers' / '2'} exists already" in refused.err
    assert contents(tmp_path / "out") == before


def test_seeded_weights_stay_seeded_under_any_name(run, tiny_source, tmp_path):
    file = tiny_source / CHECKPOINT.object
    options = ("--checkpoint", file, "--name", "mine", "--out", tmp_path)
    assert run("convert", EXTRACTOR, *options).status == 0
    assert Manifest.read(tmp_path / "mine" / "2.manifest.json").checkpoint.origin == "seeded"


def test_a_feature_extractor_takes_no_class_list(run, own, labels, tmp_path):
    options = ("--checkpoint", own, "--name", "flowers", "--labels", labels, "--out", tmp_path / "out")
    result = run("convert", EXTRACTOR, *options)
    assert result.status == 2
    assert f"--labels is for classifiers: {EXTRACTOR} gives features" in result.err


def test_ones_own_mixer_as_features_without_labels(run, own, tmp_path):
    out = tmp_path / "out"
    result = run("convert-all", EXTRACTOR, "--checkpoint", own, "--name", "flowers-fe", "--out", out, "--json")
    assert result.verdicts == {"flowers-fe": "passed"}
    assert Manifest.read(out / "flowers-fe" / "2.manifest.json").num_classes is None
    assert not list((out / "flowers-fe" / "2").rglob("*.txt"))


def test_a_class_list_of_any_size_is_not_read(run, own, labels, tmp_path):
    os.truncate(labels, 1 << 40)
    options = ("--checkpoint", own, "--name", "flowers", "--labels", labels)
    result = run("convert", CLASSIFIER, *options, "--out", tmp_path / "out")
    assert result.status == 1
    assert f"{labels} has more than 10,000 bytes, the most that was expected" in result.err


def test_a_name_reaches_the_terminal_escaped(run, tmp_path):
    result = run("verify", tmp_path / "\x1b[31mred\u202e")
    assert result.status == 2
    assert r"\x1b[31mred\u202e" in result.err
    assert all(line.isprintable() for line in result.err.split("\n"))


@pytest.mark.parametrize("lines", [9, 11, 0])
def test_labels_of_another_length_are_refused(lines, run, own, labels, tmp_path):
    labels.write_text("a flower\n" * lines)
    options = ("--checkpoint", own, "--name", "flowers", "--labels", labels)
    result = run("convert", CLASSIFIER, *options, "--out", tmp_path / "out")
    assert result.status == 1
    assert f"{labels} has {lines} lines, expected one for each of the 10 classes of {own}" in result.err
    assert contents(tmp_path / "out") == {}


def test_labels_that_are_no_text_are_refused(run, own, labels, tmp_path):
    labels.write_bytes(b"\xff\xfe\n" * 10)
    options = ("--checkpoint", own, "--name", "flowers", "--labels", labels)
    result = run("convert", CLASSIFIER, *options, "--out", tmp_path / "out")
    assert result.status == 1
    assert f"{labels} is not UTF-8 text" in result.err


@pytest.mark.parametrize(
    ("handles", "options", "text"),
    [
        ((CLASSIFIER,), ("--checkpoint", "x.npz"), "needs both --checkpoint FILE and --name NAME"),
        ((CLASSIFIER,), ("--name", "x"), "needs both --checkpoint FILE and --name NAME"),
        ((CLASSIFIER,), ("--labels", "x.txt"), "needs both --checkpoint FILE and --name NAME"),
        ((CLASSIFIER,), ("--checkpoint", "x.npz", "--name", CLASSIFIER), "is a name of the catalog"),
        ((CLASSIFIER,), ("--checkpoint", "x.npz", "--name", "mixer_b16_sam_fe"), "is a name of the catalog"),
        ((CLASSIFIER,), ("--checkpoint", "x.npz", "--name", "../x"), "'../x' cannot name a model"),
        ((CLASSIFIER,), ("--checkpoint", "x.npz", "--name", ""), "an empty word after --name"),
        ((CLASSIFIER, EXTRACTOR), ("--checkpoint", "x.npz", "--name", "x"), "--checkpoint takes one HANDLE"),
        ((), ("--checkpoint", "x.npz", "--name", "x"), "--checkpoint takes one HANDLE"),
        (
            (CLASSIFIER,),
            ("--checkpoint", "x.npz", "--name", "x", "--labels", "no.txt"),
            "--labels no.txt is not a file",
        ),
    ],
)
def test_ones_own_mixer_must_be_named_well(handles, options, text, run, tmp_path):
    result = run("convert", *handles, *options, "--out", tmp_path / "out")
    assert result.status == 2
    assert text in result.err
    assert not (tmp_path / "out").exists()


def test_ones_own_file_must_be_a_mixer_of_that_architecture(run, own, tmp_path):
    missing = run("convert", CLASSIFIER, "--checkpoint", "no.npz", "--name", "x", "--out", tmp_path / "out")
    assert missing.status == 2
    assert "--checkpoint no.npz does not exist" in missing.err
    other = run("convert", "mixer_b16_sam_fe", "--checkpoint", own, "--name", "x", "--out", tmp_path / "out")
    assert other.status == 1
    assert f"{own} is not a checkpoint of B/16" in other.err
    assert contents(tmp_path / "out") == {}


# --- as a process ---


def environment(tmp_path):
    """The environment without what these tests, or the machine that runs them, put into it."""
    dropped = ("TF_CPP_MIN_LOG_LEVEL", "JAX_PLATFORMS", "GITHUB_STEP_SUMMARY", "COLUMNS", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"MIXER_JAX2TF_CACHE": str(tmp_path / "cache")}


@pytest.mark.whole
def test_a_process_says_what_it_does_and_nothing_else(tiny_source, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "convert", "convert-all", *TESTING_HANDLES, "--source", tiny_source]
    result = subprocess.run(
        [*command, "--out", out, "--json"], env=environment(tmp_path), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert [outcome["verdict"] for outcome in json.loads(result.stdout)] == ["passed", "passed"]
    ours = r"\S+ MB of disk space needed in |importing |loading |tracing |converting |checking |mixer_\w+: passed in "
    lines = result.stderr.splitlines()
    assert [line for line in lines if not re.match(f"{ours}|written: |not checked: ", line)] == []
    assert "not checked: cuda, rocm, tpu: exported, not run" in lines
    assert not (tmp_path / "cache").exists()


def test_an_error_of_a_process_is_one_message(tmp_path):
    command = [sys.executable, "-m", "convert", "list", "mixer_b16"]
    result = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("mixer-jax2tf: unknown handle 'mixer_b16'")
    assert len(result.stderr.splitlines()) == 1


WAITING = """
import pathlib, signal, sys, threading, time
from convert.cli import main
from convert.pipeline import convert_handle

signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell may have started the tests with Ctrl-C ignored
handles, marker = sys.argv.pop(1).split(","), pathlib.Path(sys.argv.pop(1))
install, met = convert_handle.install, threading.Barrier(len(handles))

def wait_before(stage, destination, *arguments, **options):
    if destination.handle in handles:
        met.wait()
        marker.touch()
        time.sleep(600)
    install(stage, destination, *arguments, **options)

convert_handle.install = wait_before
main()
"""


def interrupt_before(handles, number, arguments, tmp_path):
    """Run the command line in a process, and send it a signal when these are written, in as many threads, not placed.

    There they wait until the signal ends them.
    """
    marker = tmp_path / "marker"
    command = [sys.executable, "-c", WAITING, ",".join(handles), marker, *arguments]
    with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True) as process:
        while not marker.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    again = "to run the same command again, give --overwrite" if arguments[0] == "convert" else "run the same command"
    assert f"interrupted: finished work is kept; {again}" in err
    return process.returncode


@pytest.mark.whole
def test_ctrl_c_ends_with_130_and_leaves_nothing_half_made(tiny_source, tmp_path):
    arguments = ["convert-all", CLASSIFIER, "--source", tiny_source, "--out", tmp_path / "out"]
    assert interrupt_before([CLASSIFIER], signal.SIGINT, arguments, tmp_path) == 130
    assert list((tmp_path / "out" / CLASSIFIER).iterdir()) == []


@pytest.mark.whole
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_what_convert_writes_in_threads_of_their_own(number, status, tiny_source, tmp_path):
    out = tmp_path / "out"
    arguments = ["convert", *TESTING_HANDLES, "--flavour", "both", "--source", tiny_source, "--out", out]
    first, second = CLASSIFIER, TESTING_HANDLES[CLASSIFIER].in_flavour("graph").name
    assert interrupt_before([first, second], number, arguments, tmp_path) == status
    assert [list((out / handle).iterdir()) for handle in (first, second)] == [[], []]
    assert {path.name for path in out.iterdir()} == {first, second}


@pytest.mark.whole
def test_sigterm_ends_with_143_and_the_next_run_goes_on(run, tiny_source, tmp_path, conversions, monkeypatch):
    # This process may have read the sources long before that one: read them again, as the next process would.
    for module in (export.saved_model.manifest, validation.parity.report):
        monkeypatch.setattr(module, "sources_sha256", sources_sha256.__wrapped__)
    out = tmp_path / "out"
    arguments = ["convert-all", *TESTING_HANDLES, "--source", tiny_source, "--out", out]
    assert interrupt_before([EXTRACTOR], signal.SIGTERM, arguments, tmp_path) == 143
    whole = {"2", "2.evidence.npz", "2.manifest.json", "2.report.json"}
    assert {path.name for path in (out / CLASSIFIER).iterdir()} == whole
    assert list((out / EXTRACTOR).iterdir()) == []

    again = run(*arguments, "--json")
    assert again.verdicts == {CLASSIFIER: "kept", EXTRACTOR: "passed"}
    assert conversions == [EXTRACTOR]
    assert {path.name for path in (out / EXTRACTOR).iterdir()} == whole
