"""The published bytes: the same whatever happened before, with nothing of the machine in them."""

import getpass
import json
import platform
import re
import shutil
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from writing import digests, directory_of

from export.saved_model import canonical
from export.saved_model.canonical import rewrite_saved_model
from models.catalog import ALL_HANDLES, DEFAULT_VERSION, TESTING_HANDLES
from models.errors import MixerError
from models.records.layout import ModelPaths

ROOT = Path(__file__).parent.parent
MODULES = [handle.in_flavour(flavour).name for handle in TESTING_HANDLES.values() for flavour in ("native", "graph")]
EXTRAS = ("model.json", "LICENSE", "CITATION.bib", "tf_serving_warmup_requests")
SMALL = 1024
"""Bytes of the largest constant that a graph may hold."""

each_module = pytest.mark.parametrize("name", MODULES)


def graphs(directory):
    model = SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    for meta_graph in model.meta_graphs:
        yield meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield function.node_def


@pytest.mark.whole
@each_module
def test_the_same_bytes_whatever_was_before_wherever_and_whenever(tiny_build, made_elsewhere, name):
    assert digests(directory_of(tiny_build, name)) == digests(directory_of(made_elsewhere / "second run", name))


def test_without_the_rewriting_the_bytes_would_tell(tmp_path, monkeypatch):
    from writing import write_saved_model

    monkeypatch.setattr("export.saved_model.writer.rewrite_saved_model", lambda _: 0)
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_saved_model(
            lambda params, x: tf.reduce_mean(x, (1, 2)) @ params["w"], {"w": tf.eye(3)}, tmp_path / name, image_size=4
        )
        found.append(digests(tmp_path / name))
    assert found[0] != found[1]
    for name in ("one", "two"):
        rewrite_saved_model(tmp_path / name)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def of_this_machine():
    temporary = tempfile.gettempdir() + "/"
    return [
        str(ROOT), str(Path.home()) + "/", temporary, sysconfig.get_path("purelib"), "site-packages", ".py",
        platform.node(), f"/{getpass.getuser()}/", time.strftime("%Y-%m-%d"), time.strftime("%Y-%m-%d", time.gmtime()),
    ]  # fmt: skip


@each_module
def test_no_file_names_a_path_a_user_a_host_or_the_day(tiny_build, name):
    for path in directory_of(tiny_build, name).rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert [word for word in of_this_machine() if word.encode() in content] == [], path.name


@each_module
def test_the_parts_of_a_model_are_these(tiny_build, name):
    expected = {"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"}
    expected |= {f"assets.extra/{file}" for file in EXTRAS}
    expected |= {"assets/labels_1k.txt"} if "classification" in name else set()
    assert digests(directory_of(tiny_build, name)).keys() == expected


@each_module
def test_no_constant_is_large(tiny_build, name):
    """But for texts: the names of the variables, for those who save and restore them."""
    tensors = [
        node.attr["value"].tensor
        for graph in graphs(directory_of(tiny_build, name))
        for node in graph
        if node.op == "Const"
    ]
    assert any(tensor.dtype == tf.string for tensor in tensors)
    assert all(tensor.ByteSize() <= SMALL for tensor in tensors if tensor.dtype != tf.string)


@each_module
def test_functions_and_gradients_are_numbered_from_zero(tiny_build, name):
    content = (directory_of(tiny_build, name) / "saved_model.pb").read_bytes()
    model = SavedModel.FromString(content)
    (meta_graph,) = model.meta_graphs
    library = meta_graph.graph_def.library
    functions = [function.signature.name for function in library.function]
    assert functions == sorted(functions)
    assert {int(found.rpartition("_")[2]) for found in functions} == set(range(len(functions)))
    gradients = [gradient.registered_op_type for gradient in library.registered_gradients]
    assert sorted(gradients) == [f"CustomGradient-{index}" for index in range(len(gradients))]
    assert bool(gradients) == (not name.endswith("-graph"))


@each_module
def test_nothing_is_left_that_old_tensorflow_does_not_know(tiny_build, name):
    assert not any(node.op == "DisableCopyOnRead" for graph in graphs(directory_of(tiny_build, name)) for node in graph)
    assert b"DisableCopyOnRead" not in (directory_of(tiny_build, name) / "saved_model.pb").read_bytes()


def test_two_models_in_one_process_keep_their_own_gradients(tiny_build):
    """Their custom gradients have the same names on disk."""
    names = list(TESTING_HANDLES)
    models = [tf.saved_model.load(str(directory_of(tiny_build, name))) for name in names]
    images = tf.random.stateless_uniform((2, 32, 32, 3), (1, 2), -1, 1)
    for model in models:
        with tf.GradientTape() as tape:
            outputs = model(images)
        found = tape.gradient(outputs, model.trainable_variables)
        assert [gradient.shape for gradient in found] == [variable.shape for variable in model.trainable_variables]


def test_a_name_that_is_left_behind_is_refused(tiny_build, tmp_path, monkeypatch):
    directory = shutil.copytree(directory_of(tiny_build, MODULES[0]), tmp_path / "model")
    path = directory / "saved_model.pb"
    path.write_bytes(re.sub(rb"__inference_apply_(\d)", rb"__inference_apply_9", path.read_bytes()))
    monkeypatch.setattr(canonical, "_rename_in_objects", lambda objects, names: None)
    with pytest.raises(MixerError, match=r"still refers to .*__inference_apply_9.* by its old name"):
        rewrite_saved_model(directory)


def test_model_json_says_what_a_consumer_needs(tiny_build):
    from models.flavours import FLAVOURS

    for name in MODULES:
        handle = TESTING_HANDLES[name.removesuffix("-graph")]
        facts = json.loads((directory_of(tiny_build, name) / "assets.extra" / "model.json").read_text())
        kind = FLAVOURS["graph" if name.endswith("-graph") else "native"]
        manifest = json.loads(ModelPaths.of(tiny_build, name, DEFAULT_VERSION).manifest.read_text())
        assert (facts["handle"], facts["version"]) == (name, DEFAULT_VERSION)
        assert facts["flavour"]["name"] == kind.name == manifest["flavour"]
        assert (facts["tensorflow"]["lowest"], facts["tensorflow"]["highest_proven"]) == (kind.lowest, kind.highest)
        assert facts["input"]["shape"] == [None, 32, 32, 3]
        assert facts["output"]["shape"] == [None, handle.outputs]
        assert facts["output"]["classes"] == ("assets/labels_1k.txt" if handle.head == "classification" else None)
        assert facts["checkpoint"]["sha256"] == manifest["checkpoint"]["sha256"]
        assert facts["checkpoint"]["origin"] == "seeded"


def test_the_licence_and_the_citations_lie_beside(tiny_build):
    folder = directory_of(tiny_build, MODULES[0]) / "assets.extra"
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "arXiv:2105.01601" in (folder / "CITATION.bib").read_text()


def test_every_paper_of_the_catalog_can_be_cited():
    from models.citations import CITATIONS

    papers = {paper for handle in ALL_HANDLES.values() for paper in handle.checkpoint.training.papers}
    assert papers == CITATIONS.keys()
    for paper, entry in CITATIONS.items():
        assert f"arXiv:{paper.rpartition('/')[2]}" in entry
        assert entry.count("{") == entry.count("}")
