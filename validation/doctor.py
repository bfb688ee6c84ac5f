"""Say whether this Python environment can run a Mixer's SavedModel, and what to do if it cannot.

    python doctor.py DIRECTORY [--json]

A single file that needs only the standard library (Python 3.8): if TensorFlow is missing or broken, it says so. It
examines the model's files and the installed packages, then loads the model and calls it once, in a separate process
that may crash. That trial decides; everything else explains it. Exit status: 0 if the model runs, 1 if it does not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence  # noqa: UP035 (Python 3.8)

RANGES = {"native": ("2.13", "2.21"), "graph": ("2.6", "2.21")}
"""The lowest and highest TensorFlow that each flavour is proven in; repeated here, as the file is used alone."""

WHAT = {"native": "JAX's own lowering, the operation XlaCallModule", "graph": "plain TensorFlow operations"}
PACKAGES = ("tensorflow", "tensorflow_cpu", "tensorflow_intel", "tensorflow_macos", "tensorflow_rocm", "tf_nightly")
INSTALL = "python -m pip install"
UNEXPECTED = "it should run: copy or unpack the directory again, reinstall TensorFlow, and report it if that fails"

# Fields of saved_model.pb by number (https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/protobuf):
# SavedModel.meta_graphs, MetaGraphDef.graph_def, then GraphDef.node or GraphDef.library.function.node_def, NodeDef.op.
OPERATIONS = ((2, 2, 1, 2), (2, 2, 2, 1, 3, 2))


class _Finding(NamedTuple):
    """What was found `about` something: `ok`, a `warning` (explains, or affects other uses), or a `problem`."""

    about: str
    status: str
    found: str
    advice: str = ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and contents of the length-delimited fields of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, size = key & 7, 0
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size <= len(data):
                yield key >> 3, data[at : at + size]
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        at += size
    if at > len(data):
        raise ValueError("cut short")


def _at(data: bytes, path: Sequence[int]) -> Iterator[bytes]:
    if not path:
        yield data
        return
    for number, content in _fields(data):
        if number == path[0]:
            yield from _at(content, path[1:])


def _operations(saved_model: bytes) -> set[str]:
    """Return the names of all operations in the contents of `saved_model.pb`, read without TensorFlow.

    Raises:
        ValueError: the contents are not those of such a file, or are damaged.
    """
    try:
        return {op.decode() for path in OPERATIONS for op in _at(saved_model, path)}
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


TABLE_END = (0xDB4775248B80FB57).to_bytes(8, "little")
"""The last bytes of `variables.index`, a table of LevelDB (`tensorflow/core/lib/io/table_format.txt`)."""


def _block(table: bytes, at: int, size: int) -> Iterator[bytes]:
    """Yield the values of a block of a table, except that of the empty key."""
    block, place = table[at : at + size], 0
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        place += own + length
        if shared + own:
            yield block[place - length : place]


def _integers(message: bytes) -> dict[int, int]:
    """Return the integers of a protobuf message by the numbers of their fields."""
    found, at = {}, 0
    while at < len(message):
        key, at = _varint(message, at)
        value, after = _varint(message, at) if key & 7 in (0, 2) else (0, at + 4)
        found[key >> 3], at = value, after + value if key & 7 == 2 else after
    return found


def _sizes_of_variables(index: bytes) -> dict[int, int]:
    """Return the least bytes of each file of variables, by its number, from the contents of `variables.index`.

    Raises:
        ValueError: they are damaged.
    """
    if index[-8:] != TABLE_END:
        raise ValueError("cut short")
    sizes: dict[int, int] = {}
    try:
        handle = index[-48:]
        for _ in range(2):  # the place of the other index
            handle = handle[_varint(handle, 0)[1] :]
        start, at = _varint(handle, 0)
        for place in _block(index, start, _varint(handle, at)[0]):
            first, at = _varint(place, 0)
            for entry in _block(index, first, _varint(place, at)[0]):
                found = _integers(entry)  # BundleEntryProto: 3 the file, 4 the offset, 5 the size
                end = found.get(4, 0) + found.get(5, 0)
                sizes[found.get(3, 0)] = max(end, sizes.get(found.get(3, 0), 0))
    except IndexError as error:
        raise ValueError("damaged") from error
    return sizes


def _damaged_variables(folder: Path, shards: Sequence[Path]) -> str:
    """Return which file of variables is damaged, and how; empty if none is seen to be."""
    try:
        sizes = _sizes_of_variables((folder / "variables.index").read_bytes())
    except ValueError as error:
        return f"variables/variables.index is {error}"
    for number, path in enumerate(shards):
        found = path.stat().st_size
        if found < sizes.get(number, 0):
            return f"variables/{path.name} is cut short: {found:,} bytes, expected at least {sizes[number]:,}"
    return ""


def _look_at_files(directory: Path) -> _Finding:
    """Report whether the files of a SavedModel are complete."""
    if not os.path.isdir(directory):  # noqa: PTH112 (Path.is_dir raises for a path that is too long)
        unpack = "unpack the archive into a directory first: mkdir model && tar -xzf ARCHIVE -C model"
        advice = unpack if os.path.isfile(directory) else "give the path of one, such as build/NAME/VERSION"  # noqa: PTH113
        return _Finding("files", "problem", f"{directory} is not a directory", advice)
    within = sorted(path.parent for path in directory.glob("*/saved_model.pb"))
    if not (directory / "saved_model.pb").is_file():
        advice = f"give {within[-1]}" if within else "give the directory that contains saved_model.pb and variables/"
        return _Finding("files", "problem", f"{directory} contains no saved_model.pb", advice)
    shards = sorted((directory / "variables").glob("variables.data-*-of-*"))
    count = int(shards[0].name.rpartition("-")[2]) if shards else 1
    names = ["index", *(f"data-{index:05d}-of-{count:05d}" for index in range(count))]
    paths = [directory / "variables" / f"variables.{name}" for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        found = f"variables/ lacks {', '.join(missing)}: the model has no weights"
        return _Finding("files", "problem", found, "copy or unpack the whole directory again, variables/ included")
    damaged = _damaged_variables(directory / "variables", paths[1:])
    if damaged:
        return _Finding("files", "problem", damaged, "copy or unpack the whole directory again")
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return _Finding("files", "ok", f"saved_model.pb and {len(paths)} files of variables, {size / 1e6:,.1f} MB in all")


def _look_at_flavour(directory: Path) -> tuple[_Finding, str | None]:
    """Report the flavour of a SavedModel, found from its operations."""
    try:
        found = _operations((directory / "saved_model.pb").read_bytes())
        if not found:
            raise ValueError("it contains no operation")
    except (OSError, ValueError) as error:
        advice = "copy or unpack the directory again"
        return _Finding("flavour", "problem", f"saved_model.pb cannot be read: {error}", advice), None
    flavour = "native" if "XlaCallModule" in found else "graph"
    return _Finding("flavour", "ok", f"{flavour}: {WHAT[flavour]}; {len(found)} kinds of operations"), flavour


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)[:2]))


def _wanted(flavour: str) -> str:
    upgrade = f'{INSTALL} "tensorflow>={RANGES[flavour][0]}"'
    if flavour == "graph":
        return upgrade
    return f"use the graph flavour (HANDLE-graph), for TensorFlow {RANGES['graph'][0]} or later, or {upgrade}"


def _look_at_tensorflow(installed: dict[str, str], flavour: str) -> _Finding:
    """Compare the installed TensorFlow with the range of a flavour."""
    names = [name for name in PACKAGES if name in installed]
    lowest, highest = RANGES[flavour]
    if not names:
        advice = f'{INSTALL} "tensorflow>={lowest}"'
        return _Finding("TensorFlow", "warning", f"not installed in {sys.executable}", advice)
    release = installed[names[0]]
    found = f"{release}; the {flavour} flavour is tested with {lowest} to {highest}"
    if _numbers(release) < _numbers(lowest):
        return _Finding("TensorFlow", "warning", f"{found}: too old", _wanted(flavour))
    if _numbers(release) > _numbers(highest):
        return _Finding("TensorFlow", "ok", f"{found}: newer than the tested releases")
    return _Finding("TensorFlow", "ok", found)


def _look_beside(installed: dict[str, str], *, has_pkg_resources: bool) -> Iterator[_Finding]:
    """Yield findings about the packages beside TensorFlow, with the conflicts that are known."""
    release = next((installed[name] for name in PACKAGES if name in installed), None)
    numpy, keras, hub = (installed.get(name) for name in ("numpy", "keras", "tensorflow_hub"))
    if numpy and release:
        old = _numbers(numpy) >= (2, 0) and _numbers(release) < (2, 18)
        advice = f'{INSTALL} "numpy<2"' if old else ""
        found = f"{numpy}, but TensorFlow {release} was built for NumPy 1" if old else numpy
        yield _Finding("NumPy", "warning" if old else "ok", found, advice)
    if hub and not has_pkg_resources:
        found = f"{hub} needs pkg_resources, which setuptools {installed.get('setuptools', '(missing)')} does not have"
        advice = f'{INSTALL} "setuptools<82"; tf.saved_model.load needs no tensorflow_hub'
        yield _Finding("tensorflow_hub", "warning", found, advice)
    elif hub:
        yield _Finding("tensorflow_hub", "ok", hub)
    if hub and keras and _numbers(keras) >= (3, 0) and "tf_keras" not in installed:
        minor = ".".join(map(str, _numbers(release or "2.16")))
        found = f"{keras}: hub.KerasLayer is a layer of Keras 2"
        advice = f'{INSTALL} "tf_keras=={minor}.*" and build with tf_keras, or use keras.layers.TFSMLayer'
        yield _Finding("Keras", "warning", found, advice)
    elif keras:
        yield _Finding("Keras", "ok", f"{keras}, tf_keras {installed.get('tf_keras', 'not installed')}")


CAUSES = (
    (r"_ARRAY_API|numpy\.core|NumPy 1\.", f'{INSTALL} "numpy<2"'),
    (r"Descriptors cannot", f'{INSTALL} "protobuf<3.20"'),
    (r"No module named 'tensorflow'", "install TensorFlow, as above"),
    (r"(?i)checksum|data ?loss|corrupt|truncated|out of range|wire format", "copy or unpack the directory again"),
    (r"(?i)SIGILL", "this processor lacks instructions that this TensorFlow is built with: use another build"),
    (r"(?i)SIGKILL|ResourceExhausted|out of memory|OOM", "free memory: the model and its first call need it"),
)


def _look_at_trial(directory: Path, otherwise: str, timeout: float = 600.0) -> _Finding:
    """Load the model and call it on noise, within `timeout` seconds; `otherwise` is the advice for an unknown cause."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result")
        flags = [*["-I"] * sys.flags.isolated, *["-S"] * sys.flags.no_site]
        command = [sys.executable, *flags, str(Path(__file__).resolve()), str(directory), f"--trial={result}"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
            ended = f"ended with {signal.Signals(-done.returncode).name}" if done.returncode < 0 else ""
        except subprocess.TimeoutExpired:
            ended = f"did not end within {timeout:.0f} s"
        told = json.loads(result.read_text()) if result.exists() else {"stage": "starting Python"}
    if told["stage"] == "done":
        return _Finding("trial", "ok", told["detail"])
    error = told.get("error") or f"the process {ended or 'ended'}"
    causes = (advice for pattern, advice in CAUSES if re.search(pattern, error))
    unknown = told.get("unknown")
    lacks = f"; this TensorFlow has no {', '.join(unknown)}" if unknown else ""
    return _Finding("trial", "problem", f"{told['stage']}: {error}{lacks}", next(causes, otherwise))


def _has_operation(tf: Any, name: str) -> bool:  # noqa: ANN401
    """Return whether TensorFlow has an operation; `tf.raw_ops` lacks some of the registered ones."""
    try:
        registry = importlib.import_module("tensorflow.python.framework.op_def_registry")
    except ImportError:
        return hasattr(tf.raw_ops, name)
    return registry.get(name) is not None


class _Trial:
    """Loads a model and calls it; the file `result` always says how far that got."""

    def __init__(self, directory: Path, result: Path) -> None:
        self._directory, self._result = directory, result
        self._told: dict[str, Any] = {}

    def run(self) -> None:
        """Load the model, call it, and write the outcome to the file."""
        # TensorFlow must not import files beside this one.
        sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        try:
            self._tell(stage="importing TensorFlow")
            self._call(importlib.import_module("tensorflow"))
        except Exception as error:  # TensorFlow raises any of a dozen types
            text = str(error).split("<stack traces unavailable>")[-1]
            self._tell(error=f"{type(error).__name__}: {' '.join(text.split())[:300]}")

    def _call(self, tf: Any) -> None:  # noqa: ANN401
        found = _operations((self._directory / "saved_model.pb").read_bytes())
        unknown = sorted(op for op in found if op[0] != "_" and not _has_operation(tf, op))
        self._tell(stage="loading", unknown=unknown)
        model = tf.saved_model.load(str(self._directory))
        name = min(model.signatures, key=lambda name: (name != "serving_default", name))
        specs = model.signatures[name].structured_input_signature[1]
        shapes = {key: [size or 1 for size in spec.shape] for key, spec in specs.items()}
        noise = {key: tf.cast(tf.random.uniform(shapes[key], -1, 1), spec.dtype) for key, spec in specs.items()}
        self._tell(stage=f"calling {name}")
        outputs = model.signatures[name](**noise)
        gave = ", ".join(f"{key} {value.shape.as_list()}" for key, value in outputs.items())
        took = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        if not all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in outputs.values()):
            raise ValueError(f"{name} gave numbers that are not finite for noise in [-1, 1]")
        self._tell(stage="done", detail=f"TensorFlow {tf.__version__}: {name} took {took}, gave {gave}, finite")

    def _tell(self, **facts: Any) -> None:  # noqa: ANN401
        self._told.update(facts)
        self._result.write_text(json.dumps(self._told))


def _examine(directory: Path) -> Iterator[_Finding]:
    """Yield the findings about a model in this environment, one by one; if any is a `problem`, it does not run."""
    files = _look_at_files(directory)
    yield files
    if files.status == "problem":
        return
    finding, flavour = _look_at_flavour(directory)
    yield finding
    if flavour is None:
        return
    installed = {str(it.metadata["Name"]).replace("-", "_"): it.version for it in importlib.metadata.distributions()}
    tensorflow = _look_at_tensorflow(installed, flavour)
    yield tensorflow
    yield from _look_beside(installed, has_pkg_resources=importlib.util.find_spec("pkg_resources") is not None)
    yield _look_at_trial(directory, tensorflow.advice or UNEXPECTED)


def _shown(text: str) -> str:
    """Return foreign text made safe for a terminal: cut short, with unprintable characters escaped."""
    cut = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:1000])
    return cut if len(text) <= 1000 else f"{cut}... ({len(text):,} characters)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Check whether this environment can run a SavedModel.")
    parser.add_argument("directory", type=Path, help="the SavedModel")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--trial", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.trial is not None:
        _Trial(options.directory, options.trial).run()
        return 0
    findings = []
    for finding in _examine(options.directory):
        findings.append(finding)
        if not options.json:
            advice = f"\n{'':24}-> {_shown(finding.advice)}" if finding.advice else ""
            sys.stdout.write(f"{finding.status:9}{finding.about:15}{_shown(finding.found)}{advice}\n")
            sys.stdout.flush()
    runs = all(finding.status != "problem" for finding in findings)
    if options.json:
        facts = {"can_run": runs, "python": sys.executable, "findings": [finding._asdict() for finding in findings]}
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    elif os.path.isfile(options.directory / "saved_model.pb"):  # noqa: PTH113
        sys.stdout.write(f"This environment {'can' if runs else 'cannot'} run this model.\n")
    return 0 if runs else 1 if os.path.isfile(options.directory / "saved_model.pb") else 2  # noqa: PTH113


if __name__ == "__main__":
    sys.exit(main())
