"""Fixtures that several test files share."""

import contextlib
import fcntl
import gc
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests' own helper modules: importlib mode leaves it out

from prepared import Starter
from reporting import consumed
from store import Store

ROOT = Path(__file__).parent.parent


_tests_run, _caches = itertools.count(1), itertools.count()


def pytest_collection_finish() -> None:
    """Let Python's collector pass over what the tests import: it looks through it hundreds of times otherwise."""
    import hypothesis  # noqa: F401 - imported later, by pytest's plugin, it would ask the collector who holds what

    _pass_over()


def pytest_runtest_teardown() -> None:
    """Pass over what was imported and traced since, which adds up to 0.3 s a collection."""
    if next(_tests_run) % 10 == 0:
        _pass_over()


def _pass_over() -> None:
    gc.collect()
    gc.freeze()


_counted = gc.get_freeze_count


@pytest.fixture
def freeze_count() -> Callable[[], int]:
    """Python's own count of the objects that its collector passes over."""
    return _counted


# Each conversion asks whether any is passed over, and Python counts them all: a tenth of a second or more.
gc.get_freeze_count = lambda: 1


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each test a cache of its own, which is made when it is first used."""
    monkeypatch.setenv("MIXER_JAX2TF_CACHE", str(tmp_path_factory.getbasetemp() / "caches" / str(next(_caches))))


@pytest.fixture(scope="session", autouse=True)
def _compilations(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what JAX compiles for the other tests of this run: each command compiles the same functions again."""
    if "jax" in sys.modules:
        import jax

        settings = {
            "jax_compilation_cache_dir": str(_shared(tmp_path_factory) / "compilations"),
            "jax_compilation_cache_max_size": 1 << 28,  # with a limit, JAX locks the folder
            "jax_persistent_cache_min_compile_time_secs": 0.0,
        }
        for name, value in settings.items():
            jax.config.update(name, value)  # type: ignore[no-untyped-call]


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
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("prepared"))
    yield starter
    starter.stop()


@pytest.fixture
def prepared_store(store: Store, _prepared: Starter, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same, where gsutil starts with its libraries imported."""
    monkeypatch.setattr("models.storage.gsutil.subprocess", _prepared)
    return store


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


@pytest.fixture
def build(tiny_build: Path, tmp_path: Path) -> Path:
    """A copy of the tiny models that may be changed."""
    return Path(shutil.copytree(tiny_build, tmp_path / "build"))


@pytest.fixture(scope="session")
def tiny_full(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_build: Path) -> Path:
    """The same, those of the native flavour after `validate --set full`; for reading only.

    The consumer, which takes most of the time, runs on the classifier alone: `extractor_full` is where it runs on the
    extractor.
    """

    def make(out: Path) -> None:
        classifier, extractor = _tiny()
        shutil.copytree(tiny_build, out)
        options = ("--set", "full", "--source", str(tiny_source), "--out", str(out))
        _command("validate", classifier, *options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("validation.gate.check_consumer", lambda *_: (consumed(),))
            _command("validate", extractor, *options)

    return _made_once(tmp_path_factory, "tiny_full", make)


@pytest.fixture(scope="session")
def extractor_full(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_build: Path) -> Path:
    """The extractor of the native flavour after `validate --set full`, consumer included; for reading only."""

    def make(out: Path) -> None:
        extractor = _tiny()[1]
        for name in (extractor, f"{extractor}-graph"):
            shutil.copytree(tiny_build / name, out / name)
        _command("validate", extractor, "--set", "full", "--source", str(tiny_source), "--out", str(out))

    return _made_once(tmp_path_factory, "extractor_full", make)


@pytest.fixture(scope="session")
def tiny_exports(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_build: Path) -> Path:
    """Both tiny models in every format, exported and checked by the command line; for reading only.

    Beside them is the graph flavour that they were made of, and what each export printed, as `FORMAT.json`.
    """

    def make(out: Path) -> None:
        from models.formats import FORMATS

        for name in _tiny():
            shutil.copytree(tiny_build / f"{name}-graph", out / f"{name}-graph")
        for name in FORMATS:
            with (out / f"{name}.json").open("w") as printed, contextlib.redirect_stdout(printed):
                _command("export", *_tiny(), "--to", name, "--source", str(tiny_source), "--out", str(out), "--json")

    return _made_once(tmp_path_factory, "tiny_exports", make)


ENVIRONMENT = {
    "JAX_ENABLE_X64": "1", "JAX_DISABLE_JIT": "1", "JAX_DEFAULT_MATMUL_PRECISION": "highest", "JAX_PLATFORMS": "cuda",
    "JAX_PLATFORM_NAME": "gpu", "JAX_ERROR_CHECKING_BEHAVIOR_NAN": "raise", "JAX_NO_TRACING": "1",
    "JAX_EXPORT_CALLING_CONVENTION_VERSION": "nonsense", "PJRT_NAMES_AND_LIBRARY_PATHS": "x:/nonexistent.so",
    "EAGER_CONSTANT_FOLDING": "1", "FLAX_PROFILE": "nonsense",
    "XLA_FLAGS": "--nonsense", "TF_XLA_FLAGS": "--nonsense", "TF2_BEHAVIOR": "0",
    "TF_FUNCTION_JIT_COMPILE_DEFAULT": "1",
    "KERAS_BACKEND": "nonsense", "TF_USE_LEGACY_KERAS": "1", "MPLBACKEND": "nonsense", "PYTHONHASHSEED": "7",
    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "LC_ALL": "C", "TZ": "Asia/Tokyo",
}  # fmt: skip
ELSEWHERE = """\
import sys, time
from convert.cli import main

def convert(*words):
    try:
        main(["convert", *words, "--source", sys.argv[1], "--flavour", "both"])
    except SystemExit as end:
        assert not end.code

names = sys.argv[2:]
convert(names[-1], "--out", "first run", "--debug")
from validation.views.svg import drawing
with drawing(10, 10):
    pass
real = time.time
time.time = lambda: real() + 90000000
import tensorflow as tf
for _ in range(3):
    tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([None]))
convert(*reversed(names), "--out", "second run")
"""


@pytest.fixture(scope="session")
def made_elsewhere(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path) -> Path:
    """Tiny models in both flavours made in another process, folder, environment and time zone, with another hash seed.

    `first run` has the extractor's, made before anything else, `said` what that run says. `second run` has both, on
    another day, in another order and after other work.
    """

    def make(out: Path) -> None:
        out.mkdir()
        command = [sys.executable, "-c", ELSEWHERE, tiny_source, *_tiny()]
        environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (out / "said").write_text(done.stderr)

    return _made_once(tmp_path_factory, "made elsewhere", make)


def _tiny() -> list[str]:
    from models.catalog import TESTING_HANDLES

    return [*TESTING_HANDLES]


def _command(*arguments: str) -> None:
    from convert.cli import main

    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 0


def _shared(factory: pytest.TempPathFactory) -> Path:
    """Return a directory that workers of one run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a directory that workers of one run share: the first that needs it makes it, others wait for it."""
    shared = _shared(factory)
    out, made = shared / name, shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(out, ignore_errors=True)  # of one that failed
            make(out)
            made.touch()
    return out
