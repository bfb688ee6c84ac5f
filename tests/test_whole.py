"""B/32 in full size, end to end: seeded checkpoint, real object store, real gsutil, SavedModel, parity, README."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import golden
import jax
import numpy as np
import pytest
import tensorflow as tf
from mutations import (
    FULL_SIZE_MUTATIONS,
    LEAST_MARGINS,
    SMALLEST_MARGINS,
    Bench,
    caught_by,
    check_hidden,
    furthest,
    with_head,
)
from programs import run_program
from test_readme import ROOT, SNIPPETS

from convert.checkpoints.synthetic import write_seeded
from convert.cli import main
from models.catalog import BUCKET, CHECKPOINTS, HANDLES
from models.digests import DigestTable
from models.mixer import MlpMixer
from models.params import nest
from models.records.manifest import Manifest
from models.records.report import Report

pytestmark = pytest.mark.whole

CHECKPOINT = CHECKPOINTS["mixer"]["b32_sam"]
NAMES = [handle.name for handle in HANDLES.values() if handle.checkpoint == CHECKPOINT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def bucket(_store, folder):
    """The seeded checkpoint as the public bucket has it, for the real gsutil."""
    # Once originals are recorded, the public bucket's name would rightly be refused for a seeded file.
    entries = tuple(entry for entry in DigestTable.read().entries if entry.origin == "seeded")
    path = write_seeded(CHECKPOINT, folder / "seeded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigestTable, "read", lambda: DigestTable(entries))
        patch.setenv("BOTO_CONFIG", str(_store.boto))
        _store.reset()
        _store.put(BUCKET.removeprefix("gs://"), CHECKPOINT.object, path.read_bytes())
        yield _store


@pytest.fixture(scope="module")
def first_run(bucket, folder):
    """What the first run says of both handles, and how many bytes of objects it had from the store."""
    return convert_all(folder), bucket.served


def convert_all(folder: Path) -> list[dict[str, object]]:
    printed = io.StringIO()
    with pytest.raises(SystemExit) as exit_, contextlib.redirect_stdout(printed):
        main(["convert-all", *NAMES, "--cache", f"{folder}/cache", "--out", f"{folder}/build/demo/models", "--json"])
    assert exit_.value.code == 0
    return json.loads(printed.getvalue())


def test_both_handles_come_from_one_download_and_pass(first_run, folder):
    outcomes, served = first_run
    assert [(outcome["handle"], outcome["verdict"]) for outcome in outcomes] == [(name, "passed") for name in NAMES]
    assert served == (folder / "seeded" / CHECKPOINT.object).stat().st_size
    for name in NAMES:
        manifest = Manifest.read(folder / "build" / "demo" / "models" / name / "2.manifest.json")
        report = Report.read(folder / "build" / "demo" / "models" / name / "2.report.json")
        assert (manifest.checkpoint.origin, report.verdict, report.origin) == ("seeded", "passed", "seeded")
        assert manifest.checkpoint.url == f"{BUCKET}/{CHECKPOINT.object}"
        assert manifest.parameters == HANDLES[name].parameters
        weights = manifest.files["variables/variables.data-00000-of-00001"].size
        assert manifest.files["saved_model.pb"].size < weights / 100


def test_second_run_transfers_and_converts_nothing(first_run, bucket, folder):
    bucket.reset()
    outcomes = convert_all(folder)
    assert {outcome["verdict"] for outcome in outcomes} == {"kept"}
    assert bucket.served == 0


@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize("name", ["classify", "load", "tf_keras", "keras3"])
def test_snippet_of_the_readme_runs_as_it_stands(name, folder):
    photographs = Path("validation", "parity", "photographs")
    shutil.copytree(ROOT / photographs, folder / photographs, dirs_exist_ok=True)
    assert run_program(SNIPPETS[name], folder, "alone")  # each prints what it finds


@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_the_golden_ones(name, folder):
    loaded = tf.saved_model.load(str(folder / "build" / "demo" / "models" / name / "2"))
    outputs = loaded(tf.constant(golden.inputs(224).images)).numpy()
    assert golden.problems(golden.read()[name], HANDLES[name], outputs) == []


@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_jax(name, folder):
    handle = HANDLES[name]
    loaded = tf.saved_model.load(str(folder / "build" / "demo" / "models" / name / "2"))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(loaded(tf.constant(images))))
    found = dict(zip((v.name for v in loaded.variables), tape.gradient(loss, loaded.variables), strict=True))

    model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)
    params = nest({v.name.removesuffix(":0"): v.numpy() for v in loaded.variables})
    expected = jax.jit(jax.grad(lambda p: (model.apply({"params": p}, images) ** 2).mean()))(params)
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    # The second bias of token mixing shifts all channels of a token alike, which every later norm undoes: its gradient
    # is zero but for rounding, so differences are also measured against the largest gradient of all.
    noise = 1e-6 * max(np.abs(gradient).max() for _, gradient in leaves)
    for path, gradient in leaves:
        ours = found["/".join(key.key for key in path) + ":0"].numpy()
        np.testing.assert_allclose(ours, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max() + noise)


@pytest.fixture(scope="module")
def bench(bucket, folder):
    return Bench.of(HANDLES[NAMES[0]], folder / "seeded" / CHECKPOINT.object)


@pytest.mark.parametrize("head", ["1000 outputs", "zeros, 2 outputs"])
def test_no_head_hides_what_comes_before_it_in_full_size(head, tmp_path):
    """On weights as after training: what shows least in `tests/mutation_table.py`."""
    bench = with_head(HANDLES[NAMES[0]], "trained-like", head, tmp_path)
    right = check_hidden(bench, "right")
    assert right.problems == ()
    assert furthest(right)[0] < furthest(right)[1] / 3
    for what, margin in LEAST_MARGINS.items():
        difference, limit = furthest(check_hidden(bench, what))
        assert difference >= margin * limit


@pytest.mark.parametrize("name", SMALLEST_MARGINS)
def test_the_mutations_that_show_least_are_caught_in_full_size(name, bench):
    (mutation,) = (one for one in FULL_SIZE_MUTATIONS if one.name == name)
    findings = mutation.run(bench.of_the_same(mutation.on))
    assert caught_by(findings) == mutation.caught_by
    difference, limit = furthest(findings)
    assert difference > 10 * limit
