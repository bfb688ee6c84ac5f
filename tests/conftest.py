"""Fixtures that several test files share."""

import fcntl
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests' own helper modules: importlib mode leaves it out

from store import Store


def pytest_collection_finish() -> None:
    """Let Python's collector pass over what the tests import: it looks through all of it dozens of times otherwise."""
    import hypothesis  # noqa: F401 - imported later, by pytest's plugin, it would ask the collector who holds what

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.stop()


@pytest.fixture
def store(_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A real object store; gsutil finds it as if it were the public one."""
    _store.reset()
    monkeypatch.setenv("BOTO_CONFIG", os.fspath(_store.boto))
    return _store


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the bucket's layout with the tiny seeded checkpoint."""
    from convert.checkpoints.synthetic import write_seeded
    from models.catalog import TESTING_HANDLES

    directory = tmp_path_factory.mktemp("tiny_source")
    for checkpoint in {handle.checkpoint for handle in TESTING_HANDLES.values()}:
        write_seeded(checkpoint, directory)
    return directory


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path) -> Path:
    """Both tiny models in both flavours, converted and checked by the command line; for reading only."""

    def make(out: Path) -> None:
        _command("convert-all", *_tiny(), "--source", str(tiny_source), "--out", str(out), "--flavour", "both")

    return _made_once(tmp_path_factory, "tiny_build", make)


@pytest.fixture(scope="session")
def tiny_full(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_build: Path) -> Path:
    """The same, those of the native flavour after `validate --set full`; for reading only."""

    def make(out: Path) -> None:
        shutil.copytree(tiny_build, out)
        _command("validate", *_tiny(), "--set", "full", "--source", str(tiny_source), "--out", str(out))

    return _made_once(tmp_path_factory, "tiny_full", make)


def _tiny() -> list[str]:
    from models.catalog import TESTING_HANDLES

    return [*TESTING_HANDLES]


def _command(*arguments: str) -> None:
    from convert.cli import main

    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 0


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a directory that workers of one run share: the first that needs it makes it, others wait for it."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, made = shared / name, shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(out, ignore_errors=True)  # of one that failed
            make(out)
            made.touch()
    return out
