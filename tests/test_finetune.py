"""Fine-tuning: the same as JAX with Optax, the same after an interruption, and refusals of bad input."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from colours import write_colours
from command import run

from convert.checkpoints.synthetic import write_seeded
from convert.finetune.features import FeatureFile
from convert.finetune.pictures import Crop, Labelled, Reader
from convert.finetune.recipe import Recipe
from convert.finetune.state import Score, State
from convert.finetune.train import Loop
from convert.pipeline.fine_tuning import prepared_folder
from convert.pipeline.interface import FineTuning, finetune
from models.catalog import HANDLES, TESTING_HANDLES, TINY
from models.errors import MixerError, UsageError
from models.picture_files import PictureError
from models.records.report import Report

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """For reading only."""
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def out(tiny_build, tmp_path):
    """An output directory with the tiny feature extractor."""
    shutil.copytree(tiny_build / EXTRACTOR, tmp_path / "build" / EXTRACTOR)
    return tmp_path / "build"


def command(out, pictures, *words, name="colours"):
    return ("finetune", EXTRACTOR, "--data", pictures, "--name", name, "--out", out, *words)


def files_of(out, name="colours"):
    """The digests of what a run leaves, but for its report and its logs."""
    paths = [*(out / name).rglob("*"), *(out / "finetune" / name).glob("*.npz")]
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file() and not path.name.endswith(".report.json")
    }


def test_the_head_learns_and_the_model_is_proven(out, pictures, tiny_source, capfd):
    status, stdout, err = run(capfd, *command(out, pictures, "--steps", 60, "--json"))
    assert status == 0, err
    said = json.loads(stdout)
    assert (said["classes"], said["trained_on"]) == (["blue", "green", "red"], 33)
    scores = said["scores"]
    assert scores[-1]["loss"] < scores[0]["loss"] / 2
    assert said["models"] == [{"handle": "colours", "verdict": "passed", "problems": []}]
    assert Report.read(out / "colours" / "2.report.json").verdict == "passed"
    assert (out / "colours" / "2" / "assets" / "labels.txt").read_text() == "blue\ngreen\nred\n"
    status, stdout, err = run(capfd, "accuracy", "colours", "--data", pictures, "--out", out, "--json")
    assert status == 0, err
    (found,) = json.loads(stdout)["backends"]
    assert found["countings"][0]["top1"]["value"] >= 0.9
    # The checkpoint is found where the run has left it.
    for arguments in (
        ("validate", "colours"),
        ("accuracy", "colours", "--data", pictures, "--backend", "jax", "--backend", "native"),
    ):
        status, _, err = run(capfd, *arguments, "--out", out)
        assert status == 0, err
    status, _, err = run(capfd, "export", "colours", "--to", "onnx", "--out", out)
    checkpoint = out / "finetune" / "colours" / "colours.npz"
    assert status == 1
    assert f"convert colours --checkpoint {checkpoint} --flavour graph` first" in " ".join(err.split())
    status, _, err = run(
        capfd, "card", "colours", "--publisher", "me", "--assets", "https://example.org/m", "--out", out
    )
    assert status == 1
    assert f"`mixer-jax2tf validate colours --set full --out {out}`" in " ".join(err.split())
    # The params below the head are those of the extractor, bit for bit.
    with np.load(said["checkpoint"]) as tuned, np.load(tiny_source / "testing" / "Mixer-Ti_8.npz") as original:
        assert sorted(tuned.files) == sorted(TINY.arrays(3))
        for name in TINY.arrays(None):
            np.testing.assert_array_equal(tuned[name], original[name])


@pytest.mark.whole
def test_its_card_follows_the_full_set_of_checks(out, pictures, capfd):
    words = ("--steps", 5, "--publisher", "me", "--assets", "https://example.org/m", "--json")
    status, stdout, err = run(capfd, *command(out, pictures, *words))
    assert status == 0, err
    assert str(out / "colours" / "2.md") in json.loads(stdout)["cards"]
    assert Report.read(out / "colours" / "2.report.json").fine_tunable


@pytest.mark.whole
def test_a_run_is_the_same_after_a_kill_and_when_it_is_repeated(out, pictures, tmp_path, capfd):
    words = ("--whole", "--recipe", "bit", "--steps", 12, "--batch-size", 8, "--save-every", 2)
    whole = tmp_path / "undisturbed"
    shutil.copytree(out, whole)
    assert run(capfd, *command(whole, pictures, *words))[0] == 0
    state = out / "finetune" / "colours" / "state.npz"
    child = subprocess.Popen(
        [sys.executable, "-m", "convert", *map(str, command(out, pictures, *words))],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    while not state.exists() and child.poll() is None:
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert State.read(state)[0].step < 12
    assert run(capfd, *command(out, pictures, *words))[0] == 0
    assert files_of(out) == files_of(whole)
    status, _, err = run(capfd, *command(out, pictures, *words))
    assert (status, "colours: kept" in err) == (0, True)
    assert files_of(out) == files_of(whole)


@pytest.mark.whole
def test_other_settings_are_not_mixed_with_a_run(out, pictures, capfd):
    assert run(capfd, *command(out, pictures, "--steps", 2))[0] == 0
    before = files_of(out)
    status, _, err = run(capfd, *command(out, pictures, "--steps", 3))
    assert (status, "a run with other settings (--steps: 2, now 3)" in err) == (2, True)
    assert files_of(out) == before
    status, _, err = run(capfd, *command(out, pictures, "--steps", 3, "--overwrite"))
    assert (status, files_of(out) == before) == (0, False)


@pytest.mark.whole
def test_a_loss_far_above_that_of_guessing_is_said(out, pictures, tmp_path, capfd):
    for name in ("red", "crimson"):
        shutil.copytree(pictures / "red", tmp_path / "data" / name)
    status, _, err = run(capfd, *command(out, tmp_path / "data", "--steps", 3, "--rate", 1e4))
    assert status == 0
    assert "is far above that of guessing, 0.6931: give a lower --rate" in err


def test_a_model_or_a_folder_of_somebody_else_is_not_replaced(out, pictures, capfd):
    shutil.copytree(out / EXTRACTOR, out / "colours")
    status, _, err = run(capfd, *command(out, pictures))
    assert (status, "exists already: " in err) == (2, True)
    (out / "finetune" / "mine").mkdir(parents=True)
    (out / "finetune" / "mine" / "notes.txt").write_text("mine")
    status, _, err = run(capfd, *command(out, pictures, "--overwrite", name="mine"))
    assert (status, "something other than a run" in err) == (2, True)
    assert (out / "finetune" / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--steps", "0", "--held-out", "1.5", "--rate", "nan"),
            "--steps 0: expected 1 to 2,147,483,647.\n--rate nan: expected a positive number.\n--held-out 1.5: ",
        ),
        (("--batch-size", "1000000000"), "--batch-size 1000000000: expected 1 to 4,096."),
        (("--whole", "--crops", "2"), "--crops is for training the head alone"),
        (("--publisher", "me"), "needs both --publisher and --assets"),
    ],
)
def test_options_that_cannot_be_used_are_refused(out, pictures, capfd, words, expected):
    status, _, err = run(capfd, *command(out, pictures, *words))
    assert (status, expected in err) == (2, True), err
    assert not (out / "finetune").exists()


def test_an_extractor_that_is_not_that_of_its_manifest_is_refused(out, pictures, capfd):
    variables = out / EXTRACTOR / "2" / "variables" / "variables.data-00000-of-00001"
    content = bytearray(variables.read_bytes())
    content[len(content) // 2] ^= 1
    variables.write_bytes(content)
    status, _, err = run(capfd, *command(out, pictures))
    assert (status, "variables.data-00000-of-00001 has sha256" in err) == (1, True), err
    assert "Convert the model again (--overwrite)." in err
    assert not (out / "finetune").exists()


def test_names_that_cannot_be_used_are_refused(out, pictures, capfd):
    for name, expected in (
        ("Colours", "cannot name a model"),
        ("finetune", "is what other files below --out are called"),
        ("cards", "is what other files below --out are called"),
        (EXTRACTOR, "is the model to start from"),
        (CLASSIFIER, "is a name of the catalog"),
    ):
        status, _, err = run(capfd, *command(out, pictures, "--overwrite", name=name))
        assert (status, expected in err) == (2, True), err
    for base, expected in (
        (CLASSIFIER, f"starts from a feature extractor: give {EXTRACTOR}"),
        ("mixer_b16_i1k_fe", "convert"),
    ):
        status, _, err = run(capfd, "finetune", base, "--data", pictures, "--name", "n", "--out", out)
        assert (status, expected in err) == (2, True), err
    (out / EXTRACTOR).rename(out / "mine")
    status, _, err = run(capfd, "finetune", "mine", "--data", pictures, "--name", "n", "--out", out, "--version", 7)
    assert (status, "mine has version 2 below" in err) == (2, True), err
    (out / "mine").rename(out / EXTRACTOR)
    status, _, err = run(capfd, *command(out, "tfds:"))
    assert (status, "--data tfds: names no data set" in err) == (2, True), err
    assert not (out / "finetune").exists()


def test_pictures_that_cannot_be_used_are_refused(out, pictures, tmp_path, capfd):
    data = tmp_path / "data"
    data.mkdir()

    def refused(expected):
        status, _, err = run(capfd, *command(out, data))
        assert (status in (1, 2), expected in err) == (True, True), err
        assert not (out / "colours").exists()

    refused("contains 0 pictures and 0 folders")
    (data / "one").mkdir()
    refused("0 pictures and 1 folder")
    (data / "two").mkdir()
    refused("remove empty class folders")
    for name in ("one", "two"):
        shutil.copy(pictures / "red" / "0.png", data / name)
    refused("leaves none to hold out")
    shutil.copy(pictures / "red" / "1.png", data / "one")
    (data / "one" / "broken.png").write_bytes(b"no picture")
    (data / "two" / "empty.jpg").touch()
    refused("2 of 5 pictures cannot be read")
    shutil.rmtree(data)
    refused("does not exist")


@pytest.mark.whole
def test_a_result_that_is_not_finite_ends_the_run(out, pictures):
    with pytest.raises(MixerError, match="not finite: give a lower learning rate"):
        finetune(
            FineTuning(base=EXTRACTOR, name="n", data=pictures, out=out, recipe="bit", rate=3e38, whole=True, steps=20)
        )


@pytest.mark.whole
def test_features_of_several_crops_are_computed_once(out, pictures, capfd):
    assert run(capfd, *command(out, pictures, "--steps", 4, "--crops", 3))[0] == 0
    features = out / "finetune" / "colours" / "features.bin"
    found = np.fromfile(features, "<f4").reshape(-1, TINY.hidden_dim)
    assert len(found) == 33 * 3 + 3
    assert len(np.unique(found, axis=0)) == len(found)  # each crop is another
    before = features.stat().st_mtime_ns
    assert run(capfd, *command(out, pictures, "--steps", 4, "--crops", 3))[0] == 0
    assert features.stat().st_mtime_ns == before


def test_each_picture_is_taken_once_an_epoch_in_another_order():
    count, size = 10, 4
    pictures = Labelled((Path("a"),) * count, (0,) * count)
    stream = [one for step in range(5) for one in pictures.batch(step, size, seed=3)]
    epochs = [[index for index, of in stream if of == epoch] for epoch in (0, 1)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 2
    assert epochs[0] != epochs[1]
    assert pictures.batch(2, size, seed=3) == stream[8:12]
    assert pictures.batch(2, size, seed=4) != stream[8:12]


def test_a_share_of_each_class_is_held_out():
    labels = (0,) * 20 + (1,) * 3 + (2,)
    every = Labelled(tuple(Path(f"{index}.png") for index in range(len(labels))), labels)
    trained, held = every.split(0.1, seed=0)
    assert [held.labels.count(label) for label in range(3)] == [2, 1, 0]
    assert {*trained.paths, *held.paths} == {*every.paths}
    assert not {*trained.paths} & {*held.paths}


def test_random_crops_follow_their_seed(pictures):
    path = pictures / "red" / "0.png"
    first, again, other = (Crop(path, seed).read(32) for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (32, 32, 3)
    assert np.abs(first).max() <= 1


def test_a_reader_keeps_the_order_and_names_what_it_cannot_read(pictures, tmp_path):
    crops = [Crop(path) for path in sorted(pictures.rglob("*.png"))[:7]]
    with Reader(32) as reader:
        found = np.concatenate(list(reader.batches([crops[:3], crops[3:6], crops[6:]])))
        np.testing.assert_array_equal(found, np.stack([crop.read(32) for crop in crops]))
        with pytest.raises(PictureError, match=r"absent\.png: cannot be read"):
            list(reader.batches([[Crop(tmp_path / "absent.png")]]))


def test_a_state_that_does_not_fit_is_named(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*state\.npz"):
            State(1).save([np.zeros(1 << 17)], tmp_path / "state.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file_of_features(tmp_path):
    def extract(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write does, which names no file

    reader = SimpleNamespace(batches=lambda _: [np.zeros((1, 2, 2, 3), np.float32)])
    file = FeatureFile(tmp_path / "features.bin", 4)
    with pytest.raises(OSError, match="No space left") as error:
        file.fill([Crop(tmp_path / "x.png")], extract, reader, 1, lambda *_: None)
    assert error.value.filename == str(file.path)


def test_recipes_follow_their_sources():
    notebook = Recipe.choose("collection", 3303, 64)
    assert (notebook.steps, notebook.warm_up, notebook.global_clip, notebook.momentum) == (412, 10, False, 0.0)
    assert [Recipe.choose("bit", count, 64).steps for count in (100, 19_999, 20_000, 500_000)] == [
        500,
        500,
        10_000,
        20_000,
    ]
    assert Recipe.choose("bit", 100, 64).zero_head
    tiny = Recipe.choose("bit", 100, 64, steps=1)
    assert (tiny.steps, tiny.warm_up) == (1, 0)


def test_the_rate_rises_and_falls_as_the_recipe_says():
    rates = Recipe.choose("collection", 3303, 64).optimizer()._learning_rate
    assert [float(rates(step)) for step in (0, 5, 10, 412)] == pytest.approx([0.006, 0.018, 0.03, 0.0], abs=1e-7)


def test_the_best_score_is_the_first_of_equal_ones_and_patience_counts_from_it():
    scores = [
        Score(step, 1.0, loss, right, 10) for step, loss, right in ((1, 0.5, 7), (2, 0.4, 8), (3, 0.4, 8), (4, 0.3, 7))
    ]
    assert State(4, scores).best is scores[1]
    assert [State(4, scores).has_stalled(patience) for patience in (1, 2, 3, None)] == [True, True, False, False]


class Counting:
    """Stands in for a Keras model with its optimizer: its one value is the number of steps that were taken."""

    def __init__(self, losses=None, held=lambda step: step):
        self.steps, self._losses, self._held = 0, losses or {}, held

    def step(self, inputs, labels):
        self.steps += 1
        return self._losses.get(self.steps, 1.0)

    def logits(self, inputs, batch_size):
        return np.array([[self._held(self.steps), 0.0]] * len(inputs))

    def values(self):
        return [np.array(self.steps)]

    def assign(self, values):
        self.steps = int(values[0])


def run_loop(trainer, folder, *, steps=12, patience=None):
    """Run the loop, with an evaluation each 4 steps and a saved state each 3; return its state, and what it took."""
    loop = Loop(steps, 2, 4, 3, patience, folder / "state.npz", folder / "best.npz")
    batch, taken = (np.zeros((2, 1), np.float32), np.zeros(2, np.int64)), []

    def batches(first):
        for step in range(first, steps):
            taken.append(step)
            yield batch

    improved = lambda: loop.best.write_text(str(trainer.steps))  # noqa: E731
    state = loop.run(
        trainer, batches, lambda: [batch], improved=improved, scored=lambda _: None, progress=lambda *_: None
    )
    return state, taken


def test_the_loop_resumes_at_the_last_saved_step(tmp_path):
    with pytest.raises(MixerError, match="the loss of step 8 is not finite"):
        run_loop(Counting({8: float("nan")}), tmp_path)
    state, taken = run_loop(Counting(), tmp_path)
    assert taken == list(range(6, 12))
    assert [score.step for score in state.scores] == [4, 8, 12]
    assert (tmp_path / "best.npz").read_text() == "12"
    assert run_loop(Counting(), tmp_path)[1] == []


def test_a_run_whose_best_params_are_gone_starts_again(tmp_path):
    run_loop(Counting(), tmp_path)
    (tmp_path / "best.npz").unlink()
    assert run_loop(Counting(), tmp_path)[1] == list(range(12))
    assert (tmp_path / "best.npz").exists()


def test_held_out_losses_that_are_not_finite_are_never_the_best(tmp_path):
    with pytest.raises(MixerError, match="held-out pictures after step 4 is not finite"):
        run_loop(Counting(held=lambda step: float("nan")), tmp_path)
    assert not (tmp_path / "best.npz").exists()


def test_the_loop_ends_after_evaluations_without_a_better_score(tmp_path):
    state, taken = run_loop(Counting(held=lambda step: -step), tmp_path, steps=100, patience=2)
    assert (state.step, state.best.step, len(taken)) == (12, 4, 12)


def tuning_in(out, **changes):
    return FineTuning(base=EXTRACTOR, name="colours", data=out, out=out, **changes)


def test_the_folder_of_a_run_is_used_by_one_process_at_a_time(tmp_path):
    said, order = [], []
    inside, ended = threading.Event(), threading.Event()

    def other():
        with prepared_folder(tuning_in(tmp_path), {"a": 1}, None):
            inside.set()
            ended.wait(60)
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(60)

    def watch(event):
        said.append(event.text)
        ended.set()

    with prepared_folder(tuning_in(tmp_path), {"a": 1}, watch):
        order.append("this")
    thread.join()
    assert order == ["other", "this"]
    assert said == [f"waiting for another process to finish with {tmp_path / 'finetune' / 'colours'}"]


def test_overwriting_a_run_leaves_other_files_in_its_folder(tmp_path):
    folder = tmp_path / "finetune" / "colours"
    with prepared_folder(tuning_in(tmp_path), {"a": 1}, None):
        for name in ("state.npz", "features.bin", "features.sha256", "colours.npz", "mine.txt"):
            (folder / name).write_text("x")
    with (
        pytest.raises(UsageError, match=r"other settings \(--a: 1, now 2\)"),
        prepared_folder(tuning_in(tmp_path), {"a": 2}, None),
    ):
        pass
    with prepared_folder(tuning_in(tmp_path, overwrite=True), {"a": 2}, None):
        assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "settings.json"]


def test_damaged_settings_of_a_run_are_named(tmp_path):
    folder = tmp_path / "finetune" / "colours"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text("[1")
    (folder / "state.npz").write_text("x")
    with (
        pytest.raises(UsageError, match=r"settings\.json cannot be read"),
        prepared_folder(tuning_in(tmp_path), {}, None),
    ):
        pass
    with prepared_folder(tuning_in(tmp_path, overwrite=True), {"a": 1}, None):
        assert [path.name for path in folder.iterdir()] == ["settings.json"]


def test_settings_of_a_run_that_has_not_begun_may_change(tmp_path):
    for number in (1, 2):
        with prepared_folder(tuning_in(tmp_path), {"a": number}, None):
            tuning_in(tmp_path).labels.write_text("red\n")
            (tuning_in(tmp_path).folder / "tensorboard").mkdir(exist_ok=True)  # of a process that was killed
    assert json.loads((tmp_path / "finetune" / "colours" / "settings.json").read_text()) == {"a": 2}


@pytest.mark.parametrize(
    ("place", "option"), [("finetune", "--out"), ("finetune/colours", "--name"), ("colours", "--name")]
)
def test_a_file_where_a_folder_is_to_be_is_refused_before_any_work(tmp_path, place, option):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("mine")
    with (
        pytest.raises(UsageError, match=f"{place} is not a directory, and the .* give another {option}"),
        prepared_folder(tuning_in(tmp_path, overwrite=True), {}, None),
    ):
        pass
    assert (tmp_path / place).read_text() == "mine"


def test_an_extractor_that_is_not_there_is_named_with_what_is_meant(out, pictures, tmp_path, capfd):
    for base, expected in (
        ("mixer_b32_sam_f", "no feature extractor 'mixer_b32_sam_f'"),
        ("mixer_b32_sam_f", "Did you mean mixer_b32_sam_fe"),
        ("*fe", "expected its name, no path or pattern"),
        ("mixer_b32_sam_fe", f"convert-all mixer_b32_sam_fe --version 3 --out {tmp_path / 'new'}` first"),
    ):
        words = [*command(tmp_path / "new", pictures), "--version", 3]
        words[words.index(EXTRACTOR)] = base
        status, _, err = run(capfd, *words)
        assert (status, expected in err) == (2, True), err
    assert not (tmp_path / "new").exists()


def test_the_extractors_below_out_are_named_the_nearest_first(out, pictures, tiny_build, capfd):
    shutil.copytree(tiny_build / CLASSIFIER, out / "mine")

    def refused(base, expected):
        status, _, err = run(capfd, "finetune", base, "--data", pictures, "--name", "n", "--out", out)
        assert (status, expected in " ".join(err.split())) == (2, True), err

    tuned = out / "finetune" / "mine" / "mine.npz"
    shutil.rmtree(out / EXTRACTOR)
    options = f"--name mine_fe --out {out} --version 2` first, and give mine_fe."
    refused("mine", f"run `mixer-jax2tf convert-all {EXTRACTOR} --checkpoint FILE {options}")
    tuned.parent.mkdir(parents=True)
    tuned.touch()
    refused("mine", f"run `mixer-jax2tf convert-all {EXTRACTOR} --checkpoint {tuned} {options}")
    shutil.copytree(tiny_build / EXTRACTOR, out / "a_fe")
    shutil.copytree(tiny_build / EXTRACTOR, out / "mine_fe")
    refused("mine", "is a classifier, and fine-tuning starts from a feature extractor: give mine_fe or a_fe.")
    for mistyped in ("mine_f", "mine_fe-graph"):
        refused(mistyped, "Did you mean mine_fe")
    refused("x", f"Version 2 below {out}: a_fe, mine_fe.")


def test_too_little_disk_space_is_said_before_training(out, pictures, capfd, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    status, _, err = run(capfd, *command(out, pictures))
    assert (status, "5.0 MB free, but " in err, "free some space, or give another --out" in err) == (2, True, True), err
    assert not (out / "finetune").exists()


def test_brackets_in_the_output_directory_are_refused_before_training(out, pictures, tmp_path, capfd):
    there = out.rename(tmp_path / "a[b]")
    status, _, err = run(capfd, *command(there, pictures))
    assert (status, f"--out {there} is in a path with brackets" in err) == (2, True), err
    assert not (there / "finetune").exists()


def test_models_among_the_pictures_are_refused(out, pictures, tmp_path, capfd):
    data = shutil.copytree(pictures, tmp_path / "data")
    status, _, err = run(capfd, *command(shutil.copytree(out, data / "models"), data))
    assert (status, f"--out {data / 'models'} is inside --data {data}" in err) == (2, True), err


def test_models_in_any_flavour_are_not_replaced_unasked(out, pictures, tiny_build, capfd):
    shutil.copytree(tiny_build / f"{EXTRACTOR}-graph", out / "colours-graph")
    status, _, err = run(capfd, *command(out, pictures, "--flavour", "both"))
    assert (status, f"exists already: {out / 'colours-graph' / '2'}." in err) == (2, True), err
    (out / "colours" / "2").mkdir(parents=True)  # without a manifest
    status, _, err = run(capfd, *command(out, pictures))
    assert (status, f"exists already: {out / 'colours' / '2'}." in err) == (2, True), err
    assert not (out / "finetune" / "colours").exists()


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    State(3, [Score(3, 1.0, 0.5, 7, 10)], []).save([np.arange(4.0)], path)
    state, arrays = State.read(path)
    assert (state.step, state.best.right, arrays[0].tolist()) == (3, 7, [0.0, 1.0, 2.0, 3.0])
    content = path.read_bytes()
    for place in (*range(0, len(content), 7), len(content) - 1):  # names and times of the archive too, and the digest
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(MixerError, match="is damaged"):
            State.read(path)
    path.write_bytes(content[:20])
    with pytest.raises(MixerError, match="is damaged"):
        State.read(path)


def test_damaged_features_are_computed_again(tmp_path, pictures):
    crops = [Crop(path) for path in sorted(pictures.glob("red/*.png"))[:7]]
    file, computed = FeatureFile(tmp_path / "features.bin", 3), []

    def extract(images):
        computed.append(len(images))
        return images.mean((1, 2))

    def fill():
        computed.clear()
        with Reader(32) as reader:
            file.fill(crops, extract, reader, 2, lambda *_: None)
        return len(computed)

    assert (fill(), fill()) == (4, 0)
    whole, digests = file.path.read_bytes(), (tmp_path / "features.sha256").read_bytes()
    for damaged, place, again in ((file.path, 30, 3), (file.path, 80, 1), (tmp_path / "features.sha256", 70, 3)):
        content = bytearray(damaged.read_bytes())
        content[place] ^= 4
        damaged.write_bytes(content)
        assert fill() == again
        assert (file.path.read_bytes(), (tmp_path / "features.sha256").read_bytes()) == (whole, digests)
    (tmp_path / "features.sha256").unlink()
    assert fill() == 4


COMPARISON = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import optax_run
json.dump(optax_run.compare(Path(sys.argv[2]), *json.loads(sys.argv[3])), sys.stdout)
"""


def compare(extractor, *arguments):
    """Compare in a process of its own: deterministic operations are switched on for good."""
    words = [sys.executable, "-c", COMPARISON, ROOT / "tests", extractor, json.dumps(arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def assert_equal_training(found):
    """Losses and weights differ at most 3 times as much as JAX does from itself after a change of one last bit."""
    loss, weights = found["keras"]
    itself = found["nudged"]
    assert loss <= max(3 * itself[0], 1e-4), found
    assert weights <= max(3 * itself[1], 1e-3), found
    assert found["losses"][-1] < found["losses"][0], found


@pytest.mark.whole
@pytest.mark.parametrize("recipe", ["collection", "bit"])
def test_training_all_params_is_that_of_jax_with_optax(tiny_build, recipe):
    found = compare(tiny_build / EXTRACTOR / "2", "Ti/8", recipe, 30, True)
    assert_equal_training(found)
    if recipe == "bit":  # the comparison can fail: Optax's own momentum takes the rate of the step for past gradients
        assert max(found["other momentum"]) > 3e-3, found


@pytest.mark.whole
@pytest.mark.parametrize(("recipe", "flavour"), [("collection", ""), ("bit", ""), ("bit", "-graph")])
def test_a_hundred_steps_from_trained_weights_are_those_of_jax_with_optax(trained_extractor, recipe, flavour):
    assert_equal_training(compare(trained_extractor / f"digits-fe{flavour}" / "2", "Ti/8", recipe, 100, True))


@pytest.mark.whole
def test_a_head_on_frozen_features_of_full_size_is_that_of_jax_with_optax(tmp_path, capfd):
    source, handle = tmp_path / "source", "mixer_b32_sam_fe"
    write_seeded(HANDLES[handle].checkpoint, source)
    assert run(capfd, "convert", handle, "--source", source, "--out", tmp_path)[0] == 0
    for recipe in ("collection", "bit"):
        assert_equal_training(compare(tmp_path / handle / "2", "B/32", recipe, 20, False))


@pytest.fixture(scope="module")
def trained_extractor(tmp_path_factory):
    """The feature extractor of a Mixer that was trained on digits, in both flavours."""
    from command import status_of

    from models.params import save_params
    from validation.digits.pictures import Digits
    from validation.digits.train import train

    out = tmp_path_factory.mktemp("digits")
    save_params(train(TINY, Digits.load(TINY.image_size)[0]), out / "digits.npz")
    words = ("--checkpoint", out / "digits.npz", "--name", "digits-fe", "--out", out, "--flavour", "both")
    assert status_of("convert", EXTRACTOR, *words) == 0
    return out
