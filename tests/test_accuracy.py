"""Accuracy on labelled pictures: every label is right or refused, and the answers are counted as they are."""

import csv
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command import run
from PIL import Image
from scipy.io import savemat
from scipy.stats import binomtest

from convert.checkpoints.fetch import Source
from convert.pipeline.accuracy import BATCH, measure_accuracy
from convert.pipeline.contenders import find_contenders
from convert.pipeline.interface import accuracy
from convert.pipeline.unfinished import BatchAnswers, Unfinished, state_of
from models.catalog import ALL_HANDLES, TESTING_HANDLES
from models.digests import DigestTable
from models.errors import UsageError
from models.labels import LABELS_1K
from validation.accuracy import imagenet
from validation.accuracy.counts import Answer, Share, mcnemar
from validation.accuracy.dataset import Dataset, Picture

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
CLASSES = tuple(LABELS_1K.path.read_text().splitlines())


def find(directory, classes=CLASSES, **options):
    return Dataset.find(directory, classes, **{"is_imagenet": classes == CLASSES, **options})


def lay_down(directory, names, pictures=1):
    """Make a folder for each name, with that many empty picture files: their labels depend on names alone."""
    for name in names:
        (directory / name).mkdir(parents=True)
        for number in range(pictures):
            os.mknod(directory / name / f"{number}.JPEG")
    return directory


def labels_by_folder(dataset):
    return {picture.path.parent.name: picture.labels for picture in dataset.pictures}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """The flat folder of all 50,000 validation pictures, as empty files."""
    return lay_flat(tmp_path_factory.mktemp("flat"), imagenet.PICTURES)


def lay_flat(directory, pictures):
    """Make so many validation pictures, as empty files."""
    for number in range(1, pictures + 1):
        os.mknod(f"{directory}/ILSVRC2012_val_{number:08}.JPEG")
    return directory


def real_json(path, labels):
    path.write_text(json.dumps([list(one) for one in labels]))
    return path


# Labels


def test_all_validation_pictures_get_their_label(flat):
    dataset = find(flat)
    assert dataset.layout == "ImageNet's validation pictures"
    assert len(dataset.pictures) == 50_000
    assert [picture.labels[0] for picture in dataset.pictures[:10]] == [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]
    assert [picture.labels for picture in dataset.pictures] == [*imagenet.validation_labels()]
    assert np.bincount([picture.labels[0] for picture in dataset.pictures]).tolist() == [50] * 1000
    assert dataset.remarks == ()


def test_wordnet_ids_are_class_indices_by_their_order(tmp_path):
    dataset = find(lay_down(tmp_path, imagenet.wordnet_ids(), 2))
    assert dataset.layout == "one folder per class, named by WordNet id"
    assert labels_by_folder(dataset) == {name: (index,) for index, name in enumerate(sorted(imagenet.wordnet_ids()))}
    assert (len(dataset.pictures), dataset.subset, dataset.remarks) == (2000, None, ())


def test_a_subset_of_the_wordnet_ids_is_named_and_counted_among_itself(tmp_path):
    chosen = imagenet.wordnet_ids()[3:1000:5]
    dataset = find(lay_down(tmp_path, chosen))
    assert dataset.subset == tuple(range(3, 1000, 5))
    assert dataset.remarks == ("200 of the model's 1,000 classes occur",)
    assert labels_by_folder(dataset) == {name: (index,) for index, name in zip(range(3, 1000, 5), chosen, strict=True)}


def test_folders_that_are_numbers_are_compared_as_numbers(tmp_path):
    dataset = find(lay_down(tmp_path, map(str, range(1000)), 3))
    assert dataset.layout == "one folder per class, named by class index"
    assert labels_by_folder(dataset) == {str(number): (number,) for number in range(1000)}
    assert len(dataset.pictures) == 3000


def test_folders_may_be_named_by_class(tmp_path):
    dataset = find(lay_down(tmp_path, ["goldfish", "Golden_Retriever", "espresso"]))
    assert dataset.layout == "one folder per class, named by class name"
    assert labels_by_folder(dataset) == {"goldfish": (1,), "Golden_Retriever": (207,), "espresso": (967,)}


def test_a_class_list_of_numbers_in_order_fits_both_ways(tmp_path):
    dataset = find(lay_down(tmp_path, ["0", "1", "2"]), ("0", "1", "2"))
    assert labels_by_folder(dataset) == {"0": (0,), "1": (1,), "2": (2,)}


def test_folders_that_are_names_of_other_classes_than_their_numbers_are_refused(tmp_path):
    refused(lay_down(tmp_path, ["0", "1", "2"]), "both class names and class indices", ("2", "0", "1"))


def test_real_gives_several_labels_and_leaves_out_those_without(flat, tmp_path):
    labels = [(*one, 7) if number % 9 == 0 else one for number, one in enumerate(imagenet.validation_labels())]
    left_out = set(range(0, 3163 * 15, 15))
    labels = [() if number in left_out else one for number, one in enumerate(labels)]
    dataset = find(flat, real=real_json(tmp_path / "real.json", labels))
    assert len(dataset.pictures) == imagenet.REAL_LABELLED
    assert dataset.remarks == ("without a label in ReaL: 3,163 pictures, left out",)
    expected = {f"ILSVRC2012_val_{number + 1:08}.JPEG": one for number, one in enumerate(labels) if one}
    assert {picture.path.name: picture.labels for picture in dataset.pictures} == expected


# Traps


def refused(directory, expected, classes=CLASSES, **options):
    with pytest.raises(UsageError, match=expected):
        find(directory, classes, **options)


def lay_down_devkit(directory, change=lambda truth: truth):
    """Lay down the development kit: ILSVRC ids in another order than the classes, with groups of classes after them."""
    (directory / "data").mkdir(parents=True)
    ids = np.random.default_rng(1).permutation(1000) + 1
    synsets = [(int(number), name) for number, name in zip(ids, imagenet.wordnet_ids(), strict=True)]
    synsets = [*sorted(synsets), (1001, "n00001740")]
    dtype = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    savemat(directory / "data" / "meta.mat", {"synsets": np.array(synsets, dtype)})
    truth = change([int(ids[label]) for (label,) in imagenet.validation_labels()])
    file = directory / "data" / "ILSVRC2012_validation_ground_truth.txt"
    file.write_text("".join(f"{one}\n" for one in truth))
    return directory


def test_the_devkit_gives_the_same_labels(flat, tmp_path):
    devkit = lay_down_devkit(tmp_path / "devkit")
    given = [find(flat, devkit=place).pictures for place in (devkit, devkit / "data")]
    assert given == [find(flat).pictures] * 2


@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda truth: truth[1:], "1,000 classes and 49,999 labels"),
        (lambda truth: [1001, *truth[1:]], "each label the ILSVRC id of a class"),
    ],
)
def test_another_devkit_is_refused(flat, tmp_path, change, expected):
    with pytest.raises(UsageError, match=expected):
        find(flat, devkit=lay_down_devkit(tmp_path / "devkit", change))


@pytest.mark.whole
def test_a_folder_without_the_files_of_the_devkit_is_refused(flat, tmp_path):
    with pytest.raises(UsageError, match="is not the development kit"):
        find(flat, devkit=tmp_path)
    (tmp_path / "meta.mat").write_bytes(b"nothing of MATLAB's")
    with pytest.raises(UsageError, match="is not the development kit"):
        find(flat, devkit=tmp_path)
    with pytest.raises(UsageError, match="exclude each other"):
        find(flat, devkit=tmp_path, real=tmp_path)
    with pytest.raises(UsageError, match=r"--devkit .*nowhere does not exist"):
        find(flat, devkit=tmp_path / "nowhere")


def test_numbers_from_1_are_refused(tmp_path):
    refused(
        lay_down(tmp_path, map(str, range(1, 1001))), "run from 1 to 1000: labels that are off by one, or ILSVRC ids"
    )


def test_a_background_class_is_refused(tmp_path):
    refused(lay_down(tmp_path, map(str, range(1001))), "with a background class")


def test_classes_beyond_the_models_are_refused(tmp_path):
    refused(lay_down(tmp_path, ["0", "7", "12", "1005"]), "classes 0 to 9, found 12, 1005", tuple("abcdefghij"))


def test_two_folders_of_one_class_are_refused(tmp_path):
    refused(lay_down(tmp_path / "numbers", ["1", "01", "2"]), "same class: 01, 1")
    refused(lay_down(tmp_path / "names", ["tench", "Tinca_tinca", "goldfish"]), "same class: Tinca_tinca, tench")


def test_numbers_from_1_are_refused_where_the_last_class_is_missing_too(tmp_path):
    refused(lay_down(tmp_path, map(str, range(1, 10))), "run from 1 to 9", tuple("abcdefghij"))


def test_wordnet_ids_need_the_class_list_of_imagenet(tmp_path):
    directory = lay_down(tmp_path, imagenet.wordnet_ids()[:3])
    refused(directory, "the class list here is another, of 1,000 lines", CLASSES[::-1])
    refused(directory, "has no class list", None, is_imagenet=False)


def test_the_flat_folder_needs_the_class_list_of_imagenet(tmp_path):
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").touch()
    refused(tmp_path, "the class list here is another, or not known", CLASSES[1:] + CLASSES[:1])


def test_pictures_of_a_flat_folder_without_known_labels_are_refused(tmp_path):
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").touch()
    (tmp_path / "cat.jpg").touch()
    refused(tmp_path, "1 picture whose label is not known: cat.jpg")


def test_class_folders_without_pictures_are_refused(tmp_path):
    directory = lay_down(tmp_path, imagenet.wordnet_ids())
    for name in imagenet.wordnet_ids()[:800]:
        (directory / name / "0.JPEG").unlink()
    refused(directory, r"n01440764 contains no picture: remove empty class folders[\s\S]*and 792 more")


def test_missing_pictures_are_named(flat, tmp_path):
    directory = lay_down(tmp_path / "folders", imagenet.wordnet_ids(), 2)
    (directory / "n01440764" / "0.JPEG").unlink()
    assert find(directory).remarks == ("1 class has fewer than 2 pictures: 1 may be missing",)
    (tmp_path / "flat").mkdir()
    (remark,) = find(lay_flat(tmp_path / "flat", 48_238)).remarks
    assert "48,238 of 50,000 pictures: as many as without the devkit's blacklist" in remark


@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda labels: [(), *labels[:-1]], "entries are shifted"),
        (lambda labels: labels[:-1], "49,999 entries; expected 50,000"),
        (lambda labels: [(1000,), *labels[1:]], r"one of them \[1000\]; expected .* class indices from 0 to 999"),
    ],
)
def test_another_list_than_reals_is_refused(flat, tmp_path, change, expected):
    labels = change([*imagenet.validation_labels()])
    refused(flat, expected, real=real_json(tmp_path / "real.json", labels))


def test_folders_that_the_model_does_not_know_are_named(tmp_path):
    refused(lay_down(tmp_path, ["goldfish", "unicorn"]), "1 of 2 folders match no class of the model: unicorn")
    refused(tmp_path, "has no class list", None, is_imagenet=False)


def test_only_the_folders_that_are_named_otherwise_are_named(tmp_path):
    known = "1 of 3 folders match no class of the model: __MACOSX. The others are named by"
    refused(lay_down(tmp_path / "ids", ["n01440764", "n01443537", "__MACOSX"]), f"{known} WordNet id")
    refused(lay_down(tmp_path / "numbers", ["7", "12", "__MACOSX"]), f"{known} class index")
    refused(lay_down(tmp_path / "none", ["train"]), "'tench, Tinca tinca', 'goldfish, Carassius auratus'")


def test_all_problems_of_a_directory_are_named_at_once(tmp_path):
    directory = lay_down(tmp_path, ["goldfish", "unicorn"])
    (directory / "empty").mkdir()
    (directory / "beside.png").touch()
    (directory / "goldfish" / "deeper").mkdir()
    with pytest.raises(UsageError) as error:
        find(directory)
    for problem in (
        "no class of the model: empty, unicorn",
        "beside.png",
        "empty contains no picture",
        "goldfish cont",
    ):
        assert problem in str(error.value)


def test_the_numbers_of_imagenet_are_no_labels_of_a_model_with_more_classes(tmp_path):
    directory = lay_down(tmp_path, map(str, range(1000)))
    refused(directory, "they are the indices of ImageNet-1k", tuple(f"class {number}" for number in range(21843)))


def test_the_first_numbers_alone_are_remarked(tmp_path):
    dataset = find(lay_down(tmp_path, ["0", "1", "2"]))
    assert "if the folders have numbers of another list, all labels are wrong" in dataset.remarks[1]
    assert len(find(lay_down(tmp_path, ["7"])).remarks) == 1


def test_a_word_of_two_classes_is_no_name(tmp_path):
    refused(lay_down(tmp_path, ["crane"]), r"several classes: crane \(classes 134, 517\)")  # a bird and a machine


def test_directories_without_labels_are_refused(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")
    refused(tmp_path, "contains no pictures")
    lay_down(tmp_path, ["goldfish"])
    (tmp_path / "beside.png").touch()
    refused(tmp_path, "beside them 1 picture without a label")
    (tmp_path / "beside.png").unlink()
    lay_down(tmp_path / "goldfish", ["deeper"])
    refused(tmp_path, "contains folders")
    refused(tmp_path, "--real and --devkit are for the flat folder", real=tmp_path / "real.json")


# Counting


@pytest.mark.parametrize(("right", "total"), [(0, 10), (10, 10), (981, 1000), (1, 50_000), (25_000, 50_000)])
def test_a_share_has_the_interval_of_wilson(right, total):
    expected = binomtest(right, total).proportion_ci(0.95, "wilson")
    assert Share(right, total).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_of_nothing_says_nothing():
    assert (Share(0, 0).value, Share(0, 0).interval) == (0, (0, 1))


def test_answers_are_counted_by_rank_and_by_class():
    answers = [Answer((1,), (1, 2, 3, 4, 5)), Answer((1, 9), (2, 9, 3, 4, 5)), Answer((9,), (2, 3, 4, 5, 6))]
    assert [Share.of(answers, within) for within in (1, 2, 5)] == [Share(1, 3), Share(2, 3), Share(2, 3)]
    assert Share.by_class(answers) == {1: Share(1, 2), 9: Share(0, 2)}


def test_mcnemars_test_is_exact():
    right, wrong = Answer((1,), (1,)), Answer((1,), (2,))
    assert mcnemar([right] * 5, [right] * 5) == (0, 0, 1.0)
    first, second = [right] * 9 + [wrong], [wrong] * 9 + [right]
    expected = 2 * (math.comb(10, 0) + math.comb(10, 1)) / 2**10
    assert mcnemar(first, second) == (9, 1, pytest.approx(expected))


# The command


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of noise below folders of class indices: 40 are readable, in two batches."""
    directory = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(5)
    for number in range(40):
        folder = directory / str(number % 4)
        folder.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{number:02}.png")
    return directory


def measure(capfd, *arguments):
    status, out, err = run(capfd, "accuracy", *arguments, "--json")
    return status, json.loads(out), err


def test_the_counts_are_those_of_the_signature_that_takes_files(tiny_build, pictures, tmp_path, capfd):
    status, found, err = measure(
        capfd, CLASSIFIER, "--data", pictures, "--out", tiny_build, "--csv", tmp_path / "rows.csv"
    )
    assert status == 0, err
    paths = sorted(pictures.glob("*/*.png"))
    serve = tf.saved_model.load(str(tiny_build / CLASSIFIER / "2")).signatures["serving_bytes"]
    logits = serve(tf.constant([path.read_bytes() for path in paths]))["output_0"].numpy()
    labels = np.array([int(path.parent.name) for path in paths])
    top = np.argsort(-logits, axis=-1, kind="stable")
    whole, among = found["backends"][0]["countings"]
    assert whole["top1"]["right"] == (top[:, 0] == labels).sum()
    assert whole["top5"]["right"] == (top[:, :5] == labels[:, None]).any(-1).sum()
    assert among["top1"]["right"] == (np.argsort(-logits[:, :4], axis=-1, kind="stable")[:, 0] == labels).sum()
    assert [one["total"] for one in found["backends"][0]["classes"]] == [10, 10, 10, 10]
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [int(row["first"]) for row in rows] == top[:, 0].tolist()
    assert [row["labels"] for row in rows] == [str(label) for label in labels]
    assert "synthetic, never trained" in err
    assert f"written: {tmp_path / 'rows.csv'}" in err
    assert "classified 40 pictures" in err
    assert found["backends"][0]["pictures_per_second"] > 0
    assert found["remarks"][0] == "4 of the model's 1,000 classes occur"


def test_classes_are_listed_and_their_confusion_is_drawn(tiny_build, pictures, tmp_path, capfd):
    command = ("accuracy", CLASSIFIER, "--data", pictures, "--out", tiny_build, "--confusion", tmp_path / "drawn.png")
    status, out, err = run(capfd, *command)
    assert status == 0, err
    assert "classes by accuracy" in out
    assert CLASSES[3].split(",")[0] in out
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (900, 800)


def test_backends_answer_to_the_same_pictures(tiny_build, tiny_source, pictures, capfd):
    status, out, err = run(
        capfd, "accuracy", CLASSIFIER, "--data", pictures, "--out", tiny_build, "--source", tiny_source,
        "--backend", "jax", "--backend", "native", "--backend", "graph",
    )  # fmt: skip
    assert status == 0, err
    for backend in ("jax", "native", "graph"):
        assert f" {backend} " in out
    assert err.count("differ in the first class of 0 pictures") == 2
    assert "p = 1" in err


def test_pictures_that_cannot_be_read_are_named_and_not_counted(tiny_build, pictures, tmp_path, capfd):
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data" / "2" / "02.png").write_bytes(b"broken")
    shutil.copyfile(tmp_path / "data" / "1" / "01.png", tmp_path / "data" / "1" / "99.png")
    status, found, err = measure(capfd, CLASSIFIER, "--data", tmp_path / "data", "--out", tiny_build)
    assert status == 1
    assert f"{tmp_path / 'data' / '2' / '02.png'}: not a picture" in err
    assert (found["pictures"], found["backends"][0]["countings"][0]["top1"]["total"]) == (40, 40)
    assert "a picture occurs more than once: 1/01.png, 1/99.png" in found["remarks"]


@pytest.mark.whole
def test_the_digest_of_the_data_is_of_contents_and_labels(tiny_build, pictures, tmp_path, capfd):
    def found(data):
        status, said, err = measure(capfd, CLASSIFIER, "--data", data, "--out", tiny_build)
        assert status == 0, err
        return said["data_sha256"], said["backends"]

    moved = shutil.copytree(pictures, tmp_path / "moved")
    assert accuracy(CLASSIFIER, pictures, out=tiny_build).data_sha256 == found(pictures)[0]
    one, other = found(pictures), found(moved)
    assert [digest for digest, _ in (one, other)] == [one[0]] * 2
    assert one[1][0]["countings"] == other[1][0]["countings"]
    (moved / "3" / "03.png").rename(moved / "2" / "03.png")
    assert found(moved)[0] != one[0]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_JAX2TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / ".accuracy"


def interrupted(pictures, build, after=1):
    """Start a run in this process and end it after some batches, as a signal would."""
    model = find_contenders(CLASSIFIER, ["graph"], build, 2, source=Source("", None, DigestTable.read()))
    dataset = Dataset.find(pictures, CLASSES, is_imagenet=True)

    def watch(event):
        if event.kind == "advanced" and event.done >= after * BATCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_accuracy(model, dataset, watch)


def test_a_flipped_bit_of_an_interrupted_run_is_not_used(tmp_path):
    pictures = [[Picture(tmp_path / f"{batch}.jpg", (batch,))] for batch in range(2)]
    run = Unfinished(tmp_path / "run.jsonl")
    answers = BatchAnswers(["b" * 64], [None], 0.5, [0.25], [[[1, 2, 3, 4, 5]]], [[]])
    for batch in pictures:
        run.add(state_of(batch), answers)
    content = run.path.read_bytes()
    assert run.read(pictures) == [answers, answers]
    for place in range(content.index(b"\n") + 1, len(content) - 1, 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        run.path.write_bytes(changed)
        assert run.read(pictures) in ([answers], []), place


def test_an_interrupted_run_goes_on_with_the_same_counts(tiny_build, pictures, cache, capfd):
    arguments = [CLASSIFIER, "--data", pictures, "--out", tiny_build, "--backend", "graph"]
    _, expected, _ = measure(capfd, *arguments)
    assert list(cache.iterdir()) == []  # a finished run leaves nothing
    interrupted(pictures, tiny_build)
    (file,) = cache.iterdir()
    with file.open("a") as cut_off:
        cut_off.write('{"pictures": [[')
    _, found, err = measure(capfd, *arguments)
    assert "resuming after 32 pictures of an interrupted run" in err
    assert list(cache.iterdir()) == []
    for one in (expected, found):
        del one["reading_seconds"], one["backends"][0]["seconds"], one["backends"][0]["pictures_per_second"]
    assert found == expected


def test_answers_to_pictures_that_changed_since_do_not_count(tiny_build, pictures, tmp_path, cache, capfd):
    data = shutil.copytree(pictures, tmp_path / "data")
    interrupted(data, tiny_build)
    Image.new("RGB", (9, 9)).save(data / "0" / "00.png")
    status, found, err = measure(capfd, CLASSIFIER, "--data", data, "--out", tiny_build, "--backend", "graph")
    assert status == 0
    assert "resuming" not in err
    assert found["pictures"] == 40


def test_another_model_or_protocol_does_not_go_on(tiny_build, pictures, cache, capfd):
    interrupted(pictures, tiny_build)
    arguments = [CLASSIFIER, "--data", pictures, "--out", tiny_build]
    for other in (["--backend", "native"], ["--backend", "graph", "--protocol", "hub"]):
        status, _, err = measure(capfd, *arguments, *other)
        assert status == 0
        assert "resuming" not in err
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([EXTRACTOR], "is a feature extractor"),
        ([EXTRACTOR, "--backend", "jax"], "is a feature extractor"),
        (["nosuch"], "no model 'nosuch'"),
        ([CLASSIFIER, "--backend", "torch"], "no backend 'torch': expected jax, native, graph"),
        (["nosuch", "--backend", "graph"], "no model 'nosuch-graph'"),
        ([CLASSIFIER, "--version", 7], f"{CLASSIFIER} has no version 7"),
        ([CLASSIFIER, "--csv", "nowhere/rows.csv"], "nowhere/rows.csv cannot be written"),
        ([CLASSIFIER, "--record", "--labels", LABELS_1K.path], "--record takes the model's own class list"),
        (["./nosuch", "--backend", "graph"], "--backend takes a model's name"),
        ([CLASSIFIER, "--backend", "onnx"], f"{CLASSIFIER}-onnx"),
        ([CLASSIFIER, "--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(tiny_build, pictures, capfd, arguments, expected):
    data = [] if "--data" in arguments else ["--data", pictures]
    status, out, err = run(capfd, "accuracy", *arguments, *data, "--out", tiny_build)
    assert (status, out) == (2, "")
    assert expected in err
    assert "loading" not in err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--csv", "data/goldfish/0.png"], "--csv data/goldfish/0.png is inside --data"),
        (["--tensorboard", "data/logs"], "--tensorboard data/logs is inside --data"),
        (["--csv", "mine.txt"], "--csv mine.txt exists, and is not a table of this command"),
        (["--confusion", "mine.png"], "--confusion mine.png exists, and is not a PNG picture of this command"),
        (["--confusion", "shares.jpg"], "would be a PNG picture: give a name that ends in .png"),
        (["--csv", "link.csv"], "--csv link.csv is not a regular file"),
        (["--csv", "pipe"], "--csv pipe is not a regular file"),
        (["--csv", "."], "--csv . is a directory"),
        (["--confusion", "folder.png"], "--confusion folder.png is a directory"),
        (["--csv", "nowhere/a.csv"], "the directory nowhere does not exist"),
        (["--tensorboard", "mine.txt"], "the directory mine.txt is not a directory"),
        (["--tensorboard", "/proc/logs"], "the directory /proc is not writable"),
        (["--csv", "/proc/a.csv"], "the directory /proc is not writable"),
        (["--csv", "a.png", "--confusion", "./a.png"], "--csv, --confusion are to be written to the same place"),
        (["--csv", "nowhere/a.csv", "--confusion", "mine.png"], "nowhere does not exist.\n--confusion mine.png exists"),
    ],
)
def test_outputs_that_cannot_be_written_or_would_replace_something_are_refused_before_any_work(
    tiny_build, tmp_path, monkeypatch, capfd, options, expected
):
    monkeypatch.chdir(tmp_path)
    data = lay_down(Path("data"), ["goldfish"])
    Image.new("RGB", (8, 8)).save(data / "goldfish" / "0.png")
    for name in ("mine.txt", "mine.png", "target.csv"):
        Path(name).write_text("mine")
    Path("link.csv").symlink_to("target.csv")
    Path("folder.png").mkdir()
    os.mkfifo("pipe")

    def files():
        found = {path: path.lstat() for path in Path().rglob("*") if not path.is_dir()}
        return {path: (one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns) for path, one in found.items()}

    before = files()
    status, out, err = run(capfd, "accuracy", CLASSIFIER, "--data", "data", *options, "--out", tiny_build)
    assert (status, out) == (2, "")
    assert expected in err and "loading" not in err
    assert files() == before  # but for the times of access


def test_an_earlier_table_and_picture_are_replaced(tiny_build, pictures, tmp_path, capfd):
    options = ("--csv", tmp_path / "rows.csv", "--confusion", tmp_path / "shares.png")
    for _ in range(2):
        assert measure(capfd, CLASSIFIER, "--data", pictures, "--out", tiny_build, *options)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "shares.png"]


def test_all_problems_are_named_at_once(tiny_build, tmp_path, capfd):
    options = ("--backend", "onnx", "--backend", "litert", "--csv", tmp_path / "nowhere" / "a.csv")
    status, _, err = run(capfd, "accuracy", CLASSIFIER, "--data", tmp_path / "none", *options, "--out", tiny_build)
    assert status == 2
    for problem in (
        f"export {CLASSIFIER} --to onnx",
        f"export {CLASSIFIER} --to litert",
        "none does not",
        "nowhere does",
    ):
        assert problem in err


def test_a_checkpoint_that_would_not_be_read_is_refused(tiny_build, pictures, capfd):
    arguments = ("accuracy", CLASSIFIER, "--data", pictures, "--out", tiny_build, "--checkpoint", "other.npz")
    for more, expected in (
        ((), "would not be read here: a handle's checkpoint comes from --source"),
        (("--backend", "jax"), "would not be read here: a handle's checkpoint comes from --source"),
    ):
        status, _, err = run(capfd, *arguments, *more)
        assert (status, expected in err) == (2, True)
    status, _, err = run(capfd, "accuracy", f"{CLASSIFIER}-graph", *arguments[2:])
    assert (status, "would not be read here" in err) == (2, True)
    status, _, err = run(capfd, "accuracy", "my_mixer", *arguments[2:])
    assert (status, "would not be read here: give --backend jax too" in err) == (2, True)


def test_a_model_without_a_class_list_needs_one(tmp_path, capfd):
    model = tf.Module()
    model.serve = tf.function(
        lambda inputs: {"output_0": tf.reduce_mean(inputs, (1, 2))},
        input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, name="inputs")],
    )
    tf.saved_model.save(model, str(tmp_path / "model"), signatures={"serving_default": model.serve})
    data = lay_down(tmp_path / "data", ["0", "2"])
    Image.new("RGB", (8, 8)).save(data / "2" / "a.png")
    status, _, err = run(capfd, "accuracy", tmp_path / "model", "--data", data)
    assert (status, "give it with --labels" in err) == (2, True)
    (tmp_path / "labels.txt").write_bytes("\ufeffred\r\ngreen\r\nblue\r\n".encode())
    arguments = ("--data", data, "--labels", tmp_path / "labels.txt")
    status, found, _ = measure(capfd, tmp_path / "model", *arguments)
    assert status == 1  # the empty files are named
    assert (found["pictures"], found["backends"][0]["classes"][0]["name"]) == (1, "blue")


@pytest.mark.parametrize("backend", ["native", "jax"])
def test_a_class_list_of_another_length_is_refused_in_every_backend(
    tiny_build, tiny_source, pictures, tmp_path, capfd, backend
):
    (tmp_path / "labels.txt").write_text("".join(f"class {number}\n" for number in range(7)))
    command = ("accuracy", CLASSIFIER, "--data", pictures, "--out", tiny_build, "--source", tiny_source)
    status, _, err = run(capfd, *command, "--backend", backend, "--labels", tmp_path / "labels.txt")
    assert status == 2
    assert "the class list has 7 lines" in err


def test_a_class_list_of_another_length_is_refused_before_the_folders_are_compared_with_it(tiny_build, tmp_path, capfd):
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    lay_down(tmp_path / "data", ["0", "7"])
    command = ("accuracy", CLASSIFIER, "--data", tmp_path / "data", "--out", tiny_build)
    status, _, err = run(capfd, *command, "--labels", tmp_path / "labels.txt")
    assert (status, "the class list has 3 lines, and" in err, "class indices" in err) == (2, True, False)


def test_pictures_that_occur_with_different_labels_are_named(tiny_build, pictures, tmp_path, capfd):
    data = shutil.copytree(pictures, tmp_path / "data")
    shutil.copyfile(data / "0" / "00.png", data / "1" / "again.png")
    (data / "1" / "notes.txt").touch()
    status, found, _ = measure(capfd, CLASSIFIER, "--data", data, "--out", tiny_build)
    assert status == 0
    assert "a picture occurs with different labels: 0/00.png, 1/again.png" in found["remarks"]
    assert "1 file left out, not named as a picture: notes.txt" in found["remarks"]


def test_backends_of_different_checkpoints_are_not_compared(tiny_build, tiny_source, pictures, tmp_path, capfd):
    source = shutil.copytree(tiny_source, tmp_path / "source")
    path = source / ALL_HANDLES[CLASSIFIER].checkpoint.object
    with np.load(path) as arrays:
        changed = {name: array + 1 if name == "head/bias" else array for name, array in arrays.items()}
    np.savez(path, **changed)
    command = ("accuracy", CLASSIFIER, "--data", pictures, "--out", tiny_build, "--source", source)
    status, _, err = run(capfd, *command, "--backend", "jax", "--backend", "native")
    assert status == 2
    assert "give the --source that it was made from" in err


def test_if_no_picture_can_be_read_nothing_is_measured(tiny_build, tmp_path, capfd):
    data = lay_down(tmp_path, ["0", "1"])
    status, _, err = run(capfd, "accuracy", CLASSIFIER, "--data", data, "--out", tiny_build, "--record")
    assert status == 1
    assert "none of the 2 pictures could be read; the first: the file is empty" in err


def test_every_imagenet_handle_has_the_list_that_labels_are_found_by():
    assert {handle.labels for handle in ALL_HANDLES.values() if handle.num_classes == 1000} == {LABELS_1K}


def test_running_accuracies_are_written_for_tensorboard(tiny_build, pictures, tmp_path, capfd):
    words = ("--data", pictures, "--out", tiny_build, "--tensorboard", tmp_path / "logs", "--json")
    status, out, err = run(capfd, "accuracy", CLASSIFIER, *words)
    assert status == 0, err
    (file,) = (tmp_path / "logs" / "native").iterdir()
    records = (tf.compat.v1.Event.FromString(one.numpy()) for one in tf.data.TFRecordDataset(str(file)))
    found = {
        (value.tag, event.step): tf.make_ndarray(value.tensor) for event in records for value in event.summary.value
    }
    (backend,) = json.loads(out)["backends"]
    (counting,) = backend["countings"][:1]
    total = counting["top1"]["total"]
    assert found["top-1", total] == np.float32(counting["top1"]["value"])
    assert found["top-5", total] == np.float32(counting["top5"]["value"])
    assert len(found) == 2 * total
