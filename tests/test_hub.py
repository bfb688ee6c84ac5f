"""TensorFlow Hub on the archive, as consumers use it: from a server, from its cache, from a file."""

import importlib
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from export.package.archive import package_model
from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from models.records.contents import digest_files
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.storage.archives import extract_archive

FLAVOURS = ("native", "graph")
TINY = next(iter(TESTING_HANDLES.values()))


@pytest.fixture(scope="module")
def hub():
    with warnings.catch_warnings():
        # https://github.com/tensorflow/hub asks setuptools for a module that is deprecated there.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        return importlib.import_module("tensorflow_hub")


@pytest.fixture(scope="module")
def packed(tiny_build, tmp_path_factory):
    """A folder like that of the models, with one handle packed in both flavours; for reading only."""
    out = tmp_path_factory.mktemp("packed") / "build"
    for flavour in FLAVOURS:
        place = ModelPaths.of(out, TINY.in_flavour(flavour).name, DEFAULT_VERSION)
        place.directory.parent.mkdir(parents=True)
        place.directory.symlink_to(tiny_build / place.handle / str(DEFAULT_VERSION))
        for path in (place.manifest, place.report):
            path.write_bytes((tiny_build / place.handle / path.name).read_bytes())
        package_model(place)
    return out


@pytest.fixture
def server(packed, tmp_path, monkeypatch):
    """The addresses that a web server on this machine was asked for, and where it is; Hub's cache is empty."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(packed))) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{serving.server_port}", asked
        finally:
            serving.shutdown()
            thread.join()


def outputs(model):
    size = TINY.checkpoint.architecture.image_size
    images = np.random.default_rng(7).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    return model(tf.constant(images)).numpy()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_archive_from_a_server_gives_what_the_directory_gives(hub, server, packed, flavour):
    name = TINY.in_flavour(flavour).name
    url = f"{server[0]}/{name}/{DEFAULT_VERSION}.tar.gz"
    expected = outputs(hub.load(str(packed / name / str(DEFAULT_VERSION))))
    assert expected.std() > 0
    np.testing.assert_array_equal(outputs(hub.load(url)), expected)
    np.testing.assert_array_equal(outputs(hub.KerasLayer(url)), expected)


def test_what_hub_keeps_is_the_model_and_it_asks_once(hub, server, packed):
    address, asked = server
    url = f"{address}/{TINY.name}/{DEFAULT_VERSION}.tar.gz"
    kept = [Path(hub.resolve(url)) for _ in range(2)]
    assert kept[0] == kept[1]
    assert digest_files(kept[0]) == Manifest.read(ModelPaths.of(packed, TINY.name, DEFAULT_VERSION).manifest).files
    assert asked == [f"/{TINY.name}/{DEFAULT_VERSION}.tar.gz?tf-hub-format=compressed"]


def test_file_gives_what_the_directory_gives_once_unpacked(hub, packed, tmp_path):
    place = ModelPaths.of(packed, TINY.name, DEFAULT_VERSION)
    with pytest.raises(ValueError, match=r"contains neither 'saved_model\.pb' nor"):  # Hub unpacks downloads alone
        hub.load(str(place.archive))
    extract_archive(place.archive, tmp_path)
    expected = outputs(hub.load(str(place.directory)))
    np.testing.assert_array_equal(outputs(hub.load(str(tmp_path))), expected)
