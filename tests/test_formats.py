"""Writing a graph SavedModel as LiteRT, ONNX and OpenVINO: what is in the files, and that it is always the same."""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from writing import digests

from export.formats.writer import LABELS, WRITERS, write_format
from models import formats
from models.catalog import TESTING_HANDLES
from models.errors import MixerError, UsageError
from models.formats import FORMATS, INPUT_NAME, OUTPUT_NAME
from validation.formats.runtimes import OPENERS

ROOT = Path(__file__).parent.parent
CLASSIFIER, EXTRACTOR = TESTING_HANDLES
CHECKPOINT = TESTING_HANDLES[CLASSIFIER].checkpoint

each_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture
def written(tiny_exports):
    """The directory of the tiny classifier in each format, by the format's name."""
    return {name: tiny_exports / f"{CLASSIFIER}-{name}" / "2" for name in FORMATS}


@pytest.fixture(scope="module")
def arrays(tiny_source):
    return dict(np.load(tiny_source / CHECKPOINT.object))


def test_every_format_has_a_writer_and_a_runtime():
    assert WRITERS.keys() == OPENERS.keys() == FORMATS.keys()


@each_format
def test_an_extra_brings_the_libraries_of_each_format(name):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {line.split(">")[0] for line in extras[name]} >= set(FORMATS[name].libraries.values())


@each_format
def test_the_files_are_those_that_are_named(name, written, tiny_build):
    kind = FORMATS[name]
    expected = {*kind.models, *kind.companions, LABELS, "LICENSE", "CITATION.bib"}
    assert {path.name for path in (written[name]).iterdir()} == expected
    (labels,) = (tiny_build / f"{CLASSIFIER}-graph" / "2" / "assets").iterdir()
    assert (written[name] / LABELS).read_bytes() == labels.read_bytes()


@each_format
def test_a_feature_extractor_has_no_class_list(name, tiny_build, tmp_path):
    write_format(name, tiny_build / f"{EXTRACTOR}-graph" / "2", tmp_path)
    assert not (tmp_path / LABELS).exists()


@each_format
def test_the_same_model_gives_the_same_bytes_from_another_folder(name, written, tiny_build, tmp_path):
    source = Path(shutil.copytree(tiny_build / f"{CLASSIFIER}-graph" / "2", tmp_path / "elsewhere" / "7"))
    again = tmp_path / "again"
    again.mkdir()
    write_format(name, source, again)
    assert digests(again) == digests(written[name])


@pytest.mark.whole
def test_the_same_model_gives_the_same_bytes_in_another_process(written, tiny_build, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom export.formats.writer import write_format\n"
        "for name in sys.argv[3:]:\n"
        "    Path(sys.argv[2], name).mkdir()\n    write_format(name, Path(sys.argv[1]), Path(sys.argv[2], name))\n"
    )
    source = tiny_build / f"{CLASSIFIER}-graph" / "2"
    subprocess.run(
        [sys.executable, "-c", code, source, tmp_path, *reversed(FORMATS)],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in FORMATS:
        assert digests(tmp_path / name) == digests(written[name]), name


@each_format
def test_no_file_says_where_it_was_made(name, written, tiny_build, tiny_exports):
    for path in (written[name]).iterdir():
        content = path.read_bytes()
        for place in (tiny_build, ROOT, tiny_exports, Path.home()):
            assert os.fsencode(place) not in content, path


def test_onnx_has_the_arrays_of_the_checkpoint_under_their_names(written, arrays):
    import onnx

    graph = onnx.load(written["onnx"] / "model.onnx").graph
    found = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    assert arrays.keys() <= found.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert all(found[name].size < 10 for name in found.keys() - arrays.keys())


def test_onnx_and_openvino_say_what_they_are(written, tiny_source):
    import onnx

    labels = (written["onnx"] / LABELS).read_text().splitlines()
    model = onnx.load(written["onnx"] / "model.onnx")
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found["name"] == CLASSIFIER
    assert found["input_range"] == "-1 to 1"
    assert found["preprocessing"].startswith("RGB, (pixel - 127.5) / 127.5")
    assert found["license"] == "Apache-2.0"
    assert found["checkpoint_sha256"] == hashlib.sha256((tiny_source / CHECKPOINT.object).read_bytes()).hexdigest()
    assert json.loads(found["labels"]) == labels
    read = formats.openvino_core().read_model(written["openvino"] / "model.xml")
    settings = {"runtime_settings": '{"INFERENCE_PRECISION_HINT": "f32"}'}
    assert {key: read.get_rt_info(["model_info", key]).astype(str) for key in found | settings} == found | settings


def test_a_model_without_a_description_says_nothing(tiny_build, tmp_path):
    import onnx

    source = shutil.copytree(tiny_build / f"{EXTRACTOR}-graph" / "2", tmp_path / "source")
    (source / "assets.extra" / "model.json").unlink()
    written = tmp_path / "written"
    written.mkdir()
    write_format("onnx", source, written)
    assert not onnx.load(written / "model.onnx").metadata_props


def test_onnx_has_one_input_one_output_and_a_free_batch(written):
    import onnx

    graph = onnx.load(written["onnx"] / "model.onnx").graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    size = CHECKPOINT.architecture.image_size
    assert shapes == {INPUT_NAME: ["batch", size, size, 3], OUTPUT_NAME: ["batch", CHECKPOINT.num_classes]}


def test_onnx_names_follow_the_order_of_the_nodes(written):
    import onnx

    graph = onnx.load(written["onnx"] / "model.onnx").graph
    assert [node.name for node in graph.node] == [f"{node.op_type}_{i}" for i, node in enumerate(graph.node)]
    known = {one.name for one in graph.initializer} | {INPUT_NAME, ""}
    for node in graph.node:
        assert set(node.input) <= known
        known |= set(node.output)


def test_litert_stores_the_weights_as_the_names_say(written):
    from ai_edge_litert.interpreter import Interpreter

    kernel = CHECKPOINT.arrays["head/kernel"]
    for file, weights in FORMATS["litert"].models.items():
        details = Interpreter(str(written["litert"] / file)).get_tensor_details()
        types = {np.dtype(one["dtype"]).name for one in details if sorted(one["shape"]) == sorted(kernel)}
        assert weights in types, file


def test_openvino_stores_float32(written):
    text = (written["openvino"] / "model.xml").read_text()
    assert 'element_type="f32"' in text
    assert "f16" not in text


@each_format
def test_what_keeps_a_file_from_being_written_is_said(name, tiny_build, tmp_path):
    """OpenVINO's own error is `basic_ios::clear: iostream error`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_format(name, tiny_build / f"{CLASSIFIER}-graph" / "2", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_the_native_flavour_is_refused(name, tiny_build, tmp_path):
    with pytest.raises(MixerError, match=rf"cannot be written as {FORMATS[name].title}: "):
        write_format(name, tiny_build / CLASSIFIER / "2", tmp_path)


@each_format
def test_what_is_no_model_is_refused(name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises((MixerError, OSError)):
        write_format(name, tmp_path / "empty", tmp_path)


@each_format
def test_a_missing_library_names_the_extra(name, monkeypatch):
    FORMATS[name].require()
    libraries = FORMATS[name].libraries
    gone = list(libraries)[-1]
    monkeypatch.setattr(formats, "find_spec", lambda module: None if module == gone else module)
    with pytest.raises(UsageError, match=rf"needs {libraries[gone]}, which .* install the extra {name} "):
        FORMATS[name].require()


@each_format
def test_versions_are_known(name):
    assert FORMATS[name].versions().keys() == set(FORMATS[name].libraries.values())


def test_the_lowest_release_of_a_runtime_is_the_first_from_which_on_all_were_right():
    from runtime_table import RELEASES

    page = (ROOT / "export" / "FORMATS.md").read_text(encoding="utf-8")
    table = page.partition("runtime_table.py")[2]
    tried = re.findall(r"^\| .*, (\S+) \| (\S+) (\S+) \| (\S+) \|$", table, re.MULTILINE)
    for name, releases in RELEASES.items():
        kind = FORMATS[name]
        rows = [row for row in tried if row[1] == kind.runtime]
        assert [row[:3] for row in rows] == [
            (file, kind.runtime, release) for release in releases for file in kind.models
        ]
        wrong = [releases.index(release) for _, _, release, difference in rows if float(difference) > 1e-4]
        assert kind.lowest == releases[max(wrong, default=-1) + 1]
