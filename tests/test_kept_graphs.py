"""Graphs are kept between runs, and used only where a trace would give the same bytes."""

import os
from dataclasses import replace

import pytest
from command import run
from writing import digests, native_function, write_saved_model

from convert.checkpoints.fetch import Source
from convert.checkpoints.open import OpenCheckpoint
from convert.pipeline import kept_graphs, tracing
from convert.pipeline.kept_graphs import KeptGraphs
from convert.pipeline.tracing import GraphKey
from models.catalog import TESTING_HANDLES
from models.digests import DigestTable
from models.labels import LABELS_1K
from models.params import flatten

NAMES = [*TESTING_HANDLES]
EXTRACTOR = TESTING_HANDLES[NAMES[1]]
KEY = GraphKey.of(EXTRACTOR, None)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The folder of kept graphs in a cache of its own, and a process that has traced and read none."""
    monkeypatch.setenv("MIXER_JAX2TF_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / ".graphs"
    forget()


@pytest.fixture
def traced(monkeypatch):
    """The keys that were traced."""
    made, trace = [], tracing._trace
    monkeypatch.setattr(tracing, "_trace", lambda key: made.append(key) or trace(key))
    return made


@pytest.fixture(scope="module")
def graph():
    """A graph to keep."""
    return tracing._trace(KEY)


def forget():
    tracing._TRACED.clear()
    tracing._READ.clear()


def convert(capfd, source, out, *options):
    forget()  # as another process would have
    status, _, err = run(capfd, "convert", NAMES[1], "--source", source, "--out", out, *options)
    assert status == 0, err
    return {name: digests(out / name) for name in sorted(path.name for path in out.iterdir())}


def test_the_next_run_traces_nothing_and_writes_the_same_bytes(folder, traced, tiny_source, tmp_path, capfd):
    first = convert(capfd, tiny_source, tmp_path / "first", "--flavour", "both")
    assert len(traced) == len(list(folder.glob("*.graph"))) == 2
    assert convert(capfd, tiny_source, tmp_path / "second", "--flavour", "both") == first
    assert len(traced) == 2
    assert folder.stat().st_mode & 0o777 == 0o700


def test_none_is_used_nor_kept_when_that_is_asked_for(folder, traced, tiny_source, tmp_path, capfd):
    expected = convert(capfd, tiny_source, tmp_path / "first", "--no-graph-cache")
    assert not folder.exists()
    convert(capfd, tiny_source, tmp_path / "second")
    assert convert(capfd, tiny_source, tmp_path / "third", "--no-graph-cache") == expected
    assert len(traced) == 3


def test_what_proves_models_traces_them(folder, traced, tiny_source, tmp_path, capfd):
    convert(capfd, tiny_source, tmp_path / "first")
    before = digests(folder)
    forget()
    out = tmp_path / "proven"
    status, _, err = run(capfd, "convert-all", NAMES[1], "--source", tiny_source, "--out", out)
    assert status == 0, err
    assert traced == [KEY, KEY]
    assert digests(folder) == before


def test_a_patched_trace_neither_reads_nor_fills_it(folder, tiny_source, tmp_path):
    checkpoint = OpenCheckpoint.of_catalog(EXTRACTOR.checkpoint, Source(str(tiny_source), None, DigestTable.read()))
    arrays = flatten(checkpoint.for_head("fe"))
    for name in ("other", "steps"):
        (tmp_path / name).mkdir()
    right = native_function(EXTRACTOR)
    size = EXTRACTOR.checkpoint.architecture.image_size
    write_saved_model(lambda values, images: right(values, 2 * images), arrays, tmp_path / "other", image_size=size)
    replace(KEY, steps=True).graph().write(arrays, tmp_path / "steps")
    KEY.graph()
    assert not folder.exists()


OTHERS = [
    GraphKey.of(TESTING_HANDLES[NAMES[0]], None),
    GraphKey.of(EXTRACTOR.in_flavour("graph"), None),
    GraphKey.of(EXTRACTOR, LABELS_1K.path),
    replace(KEY, architecture=replace(KEY.architecture, image_size=16)),
    replace(KEY, architecture=replace(KEY.architecture, num_blocks=3)),
]


@pytest.mark.parametrize("other", OTHERS)
def test_another_key_has_another_graph(graph, folder, other):
    kept = KeptGraphs.of(None)
    kept.store(KEY, graph)
    assert kept.read(KEY) is not None
    assert kept.read(other) is None


def test_a_class_list_of_the_same_name_and_other_contents_has_another_graph(graph, folder, tmp_path):
    kept, key = KeptGraphs.of(None), GraphKey.of(EXTRACTOR, tmp_path / "labels.txt")
    key.labels.write_text("one\ntwo\n")
    kept.store(key, graph)
    assert kept.read(key) is not None
    key.labels.write_text("one\ntoo\n")
    assert kept.read(key) is None


@pytest.mark.parametrize("library", [*kept_graphs._LIBRARIES, "python"])
def test_another_release_has_another_graph(graph, folder, monkeypatch, library):
    kept = KeptGraphs.of(None)
    kept.store(KEY, graph)
    if library == "python":
        monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    else:
        version = kept_graphs.metadata.version
        monkeypatch.setattr(kept_graphs.metadata, "version", lambda name: "99" if name == library else version(name))
    assert kept.read(KEY) is None


def test_changed_sources_have_another_graph_and_keep_none_of_a_program_that_began_before(graph, folder):
    kept = KeptGraphs.of(None)
    earlier = replace(kept, sources="0" * 64)
    earlier.store(KEY, graph)
    assert not folder.exists()
    kept.store(KEY, graph)
    assert kept.read(KEY) is not None
    assert earlier.read(KEY) is None


def test_a_damaged_entry_is_traced_again_and_replaced(graph, folder, traced):
    KeptGraphs.of(None).store(KEY, graph)
    (path,) = folder.glob("*.graph")
    whole = path.read_bytes()
    for at in [*range(0, len(whole), len(whole) // 50), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert KeptGraphs.of(None).read(KEY) is None
    path.write_bytes(whole[: len(whole) // 2])
    forget()
    assert KEY.graph(KeptGraphs.of(None)).saved_model == graph.saved_model
    assert path.read_bytes() == whole
    assert traced == [KEY]


def test_the_entry_of_another_key_under_this_name_is_not_used(graph, folder):
    kept = KeptGraphs.of(None)
    kept.store(KEY, graph)
    kept.store(OTHERS[0], graph)
    paths = {key: kept._path(kept._facts(key)) for key in (KEY, OTHERS[0])}
    paths[KEY].write_bytes(paths[OTHERS[0]].read_bytes())
    assert kept.read(KEY) is None


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_others_may_use_is_not_used(graph, folder, mode, caplog):
    kept = KeptGraphs.of(None)
    kept.store(KEY, graph)
    folder.chmod(mode)
    assert kept.read(KEY) is None
    kept.store(OTHERS[0], graph)
    assert len(list(folder.iterdir())) == 1
    assert "expected a folder of your own with mode 0700" in caplog.text


def test_a_cache_that_cannot_be_written_is_done_without(folder, tiny_source, tmp_path, capfd):
    folder.parent.write_text("not a folder")
    assert convert(capfd, tiny_source, tmp_path / "out")


def test_the_entries_used_least_recently_go(graph, folder, monkeypatch):
    kept = KeptGraphs.of(None)
    for age, key in enumerate((KEY, *OTHERS[:2])):
        kept.store(key, graph)
        os.utime(kept._path(kept._facts(key)), (age, age))
    size = max(path.stat().st_size for path in folder.iterdir())
    kept.read(KEY)  # used now, and so the last to go
    monkeypatch.setattr(kept_graphs, "MOST_BYTES", 2 * size + 1000)
    kept.store(OTHERS[2], graph)
    assert [kept.read(key) is not None for key in (KEY, *OTHERS[:3])] == [True, False, False, True]


def test_what_a_killed_process_left_is_removed(graph, folder):
    kept = KeptGraphs.of(None)
    kept.store(KEY, graph)
    left = folder / f".{kept._path(kept._facts(KEY)).name}.partial-0123456789abcdef"
    left.touch()
    kept.store(OTHERS[0], graph)
    assert not left.exists()
