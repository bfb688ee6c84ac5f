"""The catalog: what it lists, what it counts, what it refuses."""

import hashlib
import re
from pathlib import Path

import pytest

from models.catalog import (
    ALL_HANDLES,
    BUCKET,
    CHECKPOINTS,
    COLLECTIONS,
    HANDLES,
    HEADS,
    LABELS_1K,
    LABELS_21K,
    SQUARE_HANDLES,
    TESTING_HANDLES,
)
from models.errors import UsageError
from models.flavours import FLAVOURS
from models.formats import FORMATS
from models.selection import _RESERVED_SUFFIXES, custom_handle, select_handles, select_named

NAMES_OF_VERSION_1 = [
    "mixer_b16_sam_classification",
    "mixer_b16_sam_fe",
    "mixer_b32_sam_classification",
    "mixer_b32_sam_fe",
    "mixer_b16_i1k_classification",
    "mixer_b16_i1k_fe",
    "mixer_l16_i1k_classification",
    "mixer_l16_i1k_fe",
    "mixer_b16_i21k_classification",
    "mixer_b16_i21k_fe",
    "mixer_l16_i21k_classification",
    "mixer_l16_i21k_fe",
]
PARAMETERS = {
    "b16_sam": 59_880_472,
    "b32_sam": 60_293_428,
    "b16_i1k": 59_880_472,
    "l16_i1k": 208_196_168,
    "b16_i21k": 75_908_739,
    "l16_i21k": 229_560_243,
    "b16_gsam": 59_880_472,
    "b32_gsam": 60_293_428,
    "s8_gsam": 20_646_504,
    "s16_gsam": 18_528_264,
    "s32_gsam": 19_104_624,
}
OBJECTS = {
    "b16_sam": "sam/Mixer-B_16.npz",
    "b32_sam": "sam/Mixer-B_32.npz",
    "b16_i1k": "imagenet1k/Mixer-B_16.npz",
    "l16_i1k": "imagenet1k/Mixer-L_16.npz",
    "b16_i21k": "imagenet21k/Mixer-B_16.npz",
    "l16_i21k": "imagenet21k/Mixer-L_16.npz",
    "b16_gsam": "gsam/Mixer-B_16.npz",
    "b32_gsam": "gsam/Mixer-B_32.npz",
    "s8_gsam": "gsam/Mixer-S_8.npz",
    "s16_gsam": "gsam/Mixer-S_16.npz",
    "s32_gsam": "gsam/Mixer-S_32.npz",
}

ROWS = {name: row for rows in CHECKPOINTS.values() for name, row in rows.items()}


def test_twelve_handles_keep_the_names_of_version_1():
    assert list(HANDLES) == NAMES_OF_VERSION_1


def test_every_handle_derives_from_a_checkpoint_and_a_head():
    for collection, rows in CHECKPOINTS.items():
        handles = COLLECTIONS[collection]
        derived = {f"mixer_{name}_{head}": (row, head) for name, row in rows.items() for head in HEADS}
        assert {name: (handle.checkpoint, handle.head) for name, handle in handles.items()} == derived
        assert all(handle.name == name for name, handle in handles.items())


def test_the_handles_of_gsam_are_ten_more():
    assert len(COLLECTIONS["gsam"]) == 10
    assert not COLLECTIONS["gsam"].keys() & HANDLES.keys()
    assert select_handles(["*gsam*"]) == list(COLLECTIONS["gsam"].values())
    assert select_handles(["mixer_s?_gsam_fe", "mixer_b16_sam_fe"]) == [
        ALL_HANDLES["mixer_s8_gsam_fe"],
        HANDLES["mixer_b16_sam_fe"],
    ]


def test_a_pattern_matches_no_handle_of_the_tests_and_one_without_match_is_unknown():
    assert select_handles(["*"]) == [handle for handles in COLLECTIONS.values() for handle in handles.values()]
    with pytest.raises(UsageError, match=r"no handle of the catalog matches '\*seeded\*'"):
        select_handles(["*seeded*"])


def test_a_collection_and_handles_exclude_each_other():
    assert select_named(None, "gsam") == list(COLLECTIONS["gsam"])
    assert select_named(["a", "b"], None) == ["a", "b"]
    assert select_named(None, None) == []
    with pytest.raises(UsageError, match="exclude each other"):
        select_named(["mixer_b16_sam_fe"], "gsam")


def test_no_row_is_without_golden_numbers():
    assert set(PARAMETERS) == set(OBJECTS) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_parameters_of_a_checkpoint(name):
    assert ROWS[name].parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", ROWS)
def test_arrays_of_a_checkpoint(name):
    assert len(ROWS[name].arrays) == 6 + 12 * {"b": 12, "l": 24, "s": 8}[name[0]]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.size is not None])
def test_expected_size_is_the_parameters_and_little_more(name):
    row = ROWS[name]
    least = 4 * row.parameters
    assert least < row.size < least + 500 * len(row.arrays)


@pytest.mark.parametrize("name", ROWS)
def test_object_and_url(name):
    row = ROWS[name]
    assert row.object == OBJECTS[name]
    assert row.url == f"gs://mixer_models/{OBJECTS[name]}"
    assert row.url.startswith(f"{BUCKET}/")


@pytest.mark.parametrize("name", ROWS)
def test_row_names_its_source_licence_and_papers(name):
    training = ROWS[name].training
    assert training.source == "https://github.com/google-research/vision_transformer"
    assert training.license == "Apache-2.0"
    assert "https://arxiv.org/abs/2105.01601" in training.papers
    assert all(paper.startswith("https://arxiv.org/abs/") for paper in training.papers)
    assert training.data in {"ImageNet-1k", "ImageNet-21k"}
    assert ("https://arxiv.org/abs/2010.01412" in training.papers) == name.endswith("_sam")
    assert ("https://arxiv.org/abs/2203.08065" in training.papers) == name.endswith("_gsam")


@pytest.mark.parametrize("name", HANDLES)
def test_feature_extractor_is_the_classifier_without_head(name):
    handle = HANDLES[name]
    row = handle.checkpoint
    dropped = {} if handle.head == "classification" else {"head/kernel", "head/bias"}
    assert handle.arrays == {array: shape for array, shape in row.arrays.items() if array not in dropped}
    if handle.head == "fe":
        assert handle.num_classes is None
        assert handle.labels is None
        assert handle.outputs == row.architecture.hidden_dim
        assert handle.parameters == row.parameters - (row.architecture.hidden_dim + 1) * row.num_classes
    else:
        assert handle.outputs == handle.num_classes == row.num_classes
        assert handle.parameters == row.parameters


@pytest.mark.parametrize("table", [TESTING_HANDLES, SQUARE_HANDLES], ids=["tiny", "square"])
def test_testing_rows_are_found_by_name_and_never_listed(table):
    assert [handle.head for handle in table.values()] == list(HEADS)
    assert not table.keys() & HANDLES.keys()
    assert not {handle.checkpoint.name for handle in table.values()} & ROWS.keys()
    assert select_handles() == list(HANDLES.values())
    assert select_handles(list(table)) == list(table.values())


def test_in_the_square_row_no_shape_tells_a_kernel_from_another():
    architecture = next(iter(SQUARE_HANDLES.values())).checkpoint.architecture
    kernels = {shape for name, shape in architecture.arrays(None).items() if "Dense" in name and "kernel" in name}
    assert kernels == {(16, 16)}
    assert architecture.num_blocks == 4


def test_handles_are_selected_once_and_in_the_given_order():
    first, second = "mixer_l16_i1k_fe", "mixer_b16_sam_fe"
    assert [handle.name for handle in select_handles([first, second, first])] == [first, second]


def test_unknown_handles_are_all_named_each_with_its_nearest():
    with pytest.raises(UsageError) as caught:
        select_handles(["mixer_b16_sam_fee", "mixer_b16_sam_fe", "nonsense", "mixer_l16_i1k_classifcation"])
    assert caught.value.exit_status == 2
    first, second, third = str(caught.value).splitlines()
    assert re.match(r"unknown handle 'mixer_b16_sam_fee': did you mean mixer_b16_sam_fe,", first)
    assert second == "unknown handle 'nonsense': `mixer-jax2tf list` shows the twelve."
    assert re.match(r"unknown handle 'mixer_l16_i1k_classifcation': did you mean mixer_l16_i1k_classification,", third)


def test_testing_handles_are_not_suggested():
    with pytest.raises(UsageError) as caught:
        select_handles(["mixer_ti8_seeded_f"])
    assert not any(name in str(caught.value) for name in (*TESTING_HANDLES, *SQUARE_HANDLES))


@pytest.mark.parametrize("head", HEADS)
def test_own_handle_takes_architecture_and_head_from_the_template(head):
    template = HANDLES[f"mixer_b32_sam_{head}"]
    own = custom_handle(template, "flowers.v1_b-32", 102)
    assert (own.name, own.head) == ("flowers.v1_b-32", head)
    assert own.checkpoint.architecture is template.checkpoint.architecture
    assert own.outputs == (102 if head == "classification" else 768)
    assert own.labels is None
    assert own.checkpoint.size is None
    assert own.checkpoint.training.license == own.checkpoint.training.data == "unknown"


@pytest.mark.parametrize("name", [*HANDLES, *TESTING_HANDLES, *SQUARE_HANDLES])
def test_own_handle_refuses_a_name_of_the_catalog(name):
    with pytest.raises(UsageError, match=rf"--name '{name}' is a name of the catalog: give another"):
        custom_handle(HANDLES["mixer_b16_i1k_fe"], name, 10)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-option",
        "_a",
        "a/b",
        "../a",
        "/a",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "Upper",
        "naïve",
        "a:b",
        "~a",
        "a" * 91,
    ],
)
def test_own_handle_refuses_what_cannot_name_a_directory(name):
    with pytest.raises(UsageError, match=r"cannot name a model: expected lower-case letters, digits"):
        custom_handle(HANDLES["mixer_b16_i1k_fe"], name, 10)


def test_the_reserved_suffixes_are_those_of_the_flavours_and_formats():
    others = {HANDLES["mixer_b16_i1k_fe"].in_flavour(flavour).name for flavour in FLAVOURS} - HANDLES.keys()
    assert {name.removeprefix("mixer_b16_i1k_fe") for name in others} | {f"-{name}" for name in FORMATS} == set(
        _RESERVED_SUFFIXES
    )


@pytest.mark.parametrize("suffix", _RESERVED_SUFFIXES)
def test_own_handle_refuses_the_name_of_what_is_made_of_a_model(suffix):
    with pytest.raises(UsageError, match=rf"--name 'flowers{suffix}' has a reserved ending \(-graph, "):
        custom_handle(HANDLES["mixer_b16_i1k_fe"], f"flowers{suffix}", 10)
    with pytest.raises(UsageError, match="has a reserved ending"):
        custom_handle(HANDLES["mixer_b16_i1k_fe"], f"mixer_b16_i1k_fe{suffix}".replace("-graph", "x-graph"), 10)
    assert custom_handle(HANDLES["mixer_b16_i1k_fe"], f"flowers{suffix}.2", 10).outputs == 768


@pytest.mark.parametrize("name", ["a", "7", "a" * 90, "a.b-c_d"])
def test_own_handle_takes_a_plain_name(name):
    assert custom_handle(HANDLES["mixer_b16_i1k_fe"], name, 10).name == name


@pytest.mark.parametrize(
    ("labels", "count", "first", "last"),
    [
        (LABELS_1K, 1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue"),
        (LABELS_21K, 21843, "organism, being", "knothole"),
    ],
    ids=["1k", "21k"],
)
def test_class_lists(labels, count, first, last):
    content = labels.path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == labels.sha256
    lines = content.decode("ascii").split("\n")
    assert lines.pop() == ""
    assert len(lines) == count
    assert (lines[0], lines[-1]) == (first, last)
    assert all(line and line == line.strip() for line in lines)


@pytest.mark.parametrize("index, word", [(1, "goldfish"), (207, "golden retriever"), (281, "tabby"), (967, "espresso")])
def test_class_list_has_the_usual_order(index, word):
    assert word in LABELS_1K.path.read_text(encoding="ascii").splitlines()[index]


@pytest.mark.parametrize("name", HANDLES)
def test_classifier_has_one_label_an_output(name):
    handle = HANDLES[name]
    if handle.head == "fe":
        assert handle.labels is None
        return
    assert len(handle.labels.path.read_bytes().splitlines()) == handle.outputs
    assert handle.labels.source


def test_no_handle_is_written_down_outside_the_catalog():
    root = Path(__file__).parent.parent
    written = [
        path.relative_to(root).as_posix()
        for package in ("convert", "models", "export", "validation")
        for path in sorted((root / package).rglob("*.py"))
        if any(name in path.read_text(encoding="utf-8") for name in HANDLES)
    ]
    assert written == []
