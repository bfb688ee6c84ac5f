"""Whether a model has the same bytes whatever the environment that the program is started in.

A tiny model is converted by the installed program, each time in a fresh process: first in a plain environment, then in
others. Survived: SavedModel and manifest are the same, byte for byte, or the program refuses in words.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from convert.checkpoints.synthetic import write_seeded
from models.catalog import TESTING_HANDLES
from withstand.commands import CLASSIFIER
from withstand.rows import Row
from withstand.trees import Tree, difference, refused_in_words, tree_of
from withstand.trials import Ended

TITLE = "Surroundings: environment, interpreter, streams, strangers"
REMARK = "Each in a fresh process, by `mixer-jax2tf convert --no-graph-cache`; options are of the Python that runs it."
PROGRAM = Path(sys.executable).with_name("mixer-jax2tf")
AT_ONCE, PATIENCE = 2, 300


@dataclass(frozen=True)
class Surrounding:
    """What is different from a plain environment."""

    group: str
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """None removes one; `{folder}` is a folder that belongs to the trial."""
    options: tuple[str, ...] = ()
    """Of Python."""
    closed: str = ""
    """Redirections of the shell."""
    stranger: str = ""
    """A package of this name, of somebody else's, is in the folder of the trial, which is the working directory."""

    @property
    def title(self) -> str:
        """What is different, in a few words."""
        said = [f"`{name}={value}`" if value is not None else f"no `{name}`" for name, value in self.variables.items()]
        said += [f"`{' '.join(self.options)}`"] if self.options else []
        said += [f"closed `{self.closed}`"] if self.closed else []
        said += [f"a stranger's `{self.stranger}` in the working directory"] if self.stranger else []
        return ", ".join(said)


_VARIABLES: dict[str, tuple[Mapping[str, str | None], ...]] = {
    "JAX": (
        {"JAX_ENABLE_X64": "1"},
        {"JAX_DISABLE_JIT": "1"},
        {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"},
        {"JAX_PLATFORMS": "cuda"},
        {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"},
        {"JAX_DEBUG_NANS": "1"},
        {"JAX_COMPILATION_CACHE_DIR": "{folder}"},
        {"JAX_EXPORT_CALLING_CONVENTION_VERSION": "10"},
    ),
    "XLA": (
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        {"XLA_FLAGS": "--nonsense"},
        {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2"},
        {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": ".1"},
    ),
    "TensorFlow": (
        {"TF_ENABLE_ONEDNN_OPTS": "0"},
        {"TF_DETERMINISTIC_OPS": "1"},
        {"TF2_BEHAVIOR": "0"},
        {"TF_FUNCTION_JIT_COMPILE_DEFAULT": "1"},
        {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_MAX_VLOG_LEVEL": "1"},
        {"CUDA_VISIBLE_DEVICES": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "true"},
    ),
    "Keras": (
        {"KERAS_BACKEND": "torch"},
        {"KERAS_HOME": "/nonexistent/keras"},
        {"TF_USE_LEGACY_KERAS": "1"},
    ),
    "protobuf": (
        {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "nonsense"},
        {"TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK": "true"},
    ),
    "matplotlib": ({"MPLBACKEND": "nonsense"}, {"MPLCONFIGDIR": "/nonexistent"}, {"MATPLOTLIBRC": "/nonexistent"}),
    "locale and time": (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "nonsense"},
        {"LANG": "tr_TR.UTF-8"},
        {"PYTHONIOENCODING": "ascii"},
        {"TZ": "Pacific/Kiritimati", "SOURCE_DATE_EPOCH": "0"},
    ),
    "HOME and TMPDIR": (
        {"HOME": None},
        {"HOME": "/nonexistent"},
        {"HOME": "{folder}", "XDG_CACHE_HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"},
        {"TMPDIR": "/nonexistent"},
        {"TMPDIR": "{folder}/a b [ü]"},
        {"PATH": "/nonexistent"},
    ),
    "variables of Python": (
        {"PYTHONHASHSEED": "7"},
        {"PYTHONOPTIMIZE": "2"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONMALLOC": "debug", "PYTHONUNBUFFERED": "1"},
        {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    ),
    "terminal": (
        {"TERM": None, "COLUMNS": "1"},
        {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "20", "LINES": "1"},
    ),
    "a stranger's package on PYTHONPATH": tuple(
        {"PYTHONPATH": f"{{folder}}/{name}"} for name in ("models", "convert", "export", "validation", "tensorflow")
    ),
}


def surroundings() -> Iterator[Surrounding]:
    """Yield all of them."""
    for group, every in _VARIABLES.items():
        for variables in every:
            yield Surrounding(group, variables)
    for options in (("-O",), ("-OO",), ("-W", "error"), ("-X", "dev"), ("-I",)):
        yield Surrounding("options of Python", options=options)
    for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "1>/dev/full"):
        yield Surrounding("streams", closed=closed)
    for stranger in ("models", "convert", "json"):
        yield Surrounding("a stranger's package in the working directory", stranger=stranger)


def convert(surrounding: Surrounding, source: Path, folder: Path) -> Ended:
    """Convert the model into the folder's `build`."""
    for name in ("models", "convert", "export", "validation", "tensorflow"):
        (folder / name / name).mkdir(parents=True)
        (folder / name / name / "__init__.py").write_text("STRANGER = True\n")
    (folder / "a b [ü]").mkdir()
    here = folder / "here"
    (here / (surrounding.stranger or "nothing")).mkdir(parents=True)
    (here / (surrounding.stranger or "nothing") / "__init__.py").write_text("STRANGER = True\n")
    environment = dict(os.environ)
    for name, value in surrounding.variables.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.replace("{folder}", str(folder))
    program = [sys.executable, *surrounding.options, str(PROGRAM)]
    words = ["convert", CLASSIFIER, "--source", str(source), "--out", str(folder / "build"), "--no-graph-cache"]
    said = folder / "said"
    with said.open("wb") as file:
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {surrounding.closed}', "sh", *program, *words],
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            timeout=PATIENCE,
            check=False,
        )
    return Ended(done.returncode, 0.0, said.read_text(errors="replace"), 0, 0)


def judge(surrounding: Surrounding, ended: Ended, made: Tree, plain: Tree) -> str | None:
    """Return what is wrong: other bytes, or an end without words."""
    wrong = difference(made, plain) if ended.status == 0 else refused_in_words(ended)
    if wrong and wrong.endswith("manifest.json differs") and "records name no git commit" in ended.said:
        wrong = None  # the only difference, and told
    return wrong and f"{surrounding.title}: {' '.join(wrong.split())}"


def measure(folder: Path, share: float) -> list[Row]:
    """Return the rows of the table."""
    source, chance = folder / "source", random.Random(0)  # noqa: S311
    write_seeded(TESTING_HANDLES[CLASSIFIER].checkpoint, source)

    def trial(number: int, surrounding: Surrounding) -> tuple[Ended, Tree]:
        ended = convert(surrounding, source, folder / str(number))
        return ended, tree_of(folder / str(number) / "build")

    ended, plain = trial(-1, Surrounding("plain"))
    if ended.status:
        raise RuntimeError(ended.said)
    every = [one for one in surroundings() if chance.random() < share]
    rows: dict[str, Row] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for surrounding, (ended, made) in zip(every, pool.map(trial, range(len(every)), every), strict=True):
            row = rows.setdefault(surrounding.group, Row(surrounding.group, "`convert`", ""))
            status = "" if ended.status == 0 else f" (exit status {ended.status})"
            row.how = "; ".join(filter(None, (row.how, f"{surrounding.title}{status}")))
            row.count(judge(surrounding, ended, made, plain))
    return list(rows.values())
