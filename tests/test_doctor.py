"""The doctor: what it says of models and environments, each asked in a process of its own."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from command import status_of

from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from models.flavours import FLAVOURS
from validation import doctor

FILE = Path(doctor.__file__)
FE = TESTING_HANDLES["mixer_ti8_seeded_fe"]

OLD_TENSORFLOW = """\
import types
__version__ = "2.12.1"
raw_ops = types.SimpleNamespace(StatefulPartitionedCall=1)
def load(directory):
    FAIL
saved_model = types.SimpleNamespace(load=load)
"""


def directory_of(build, flavour):
    return build / FE.in_flavour(flavour).name / str(DEFAULT_VERSION)


@pytest.fixture
def model(tiny_build, tmp_path):
    return shutil.copytree(directory_of(tiny_build, "native"), tmp_path / "model")


def test_foreign_names_are_escaped_and_cut_where_a_person_reads_them(tmp_path, capsys):
    model = tmp_path / "\x1b]0;title\x07\x1b[31mred\u202eevil"
    inner = model / ("n" * 200) / ("n" * 200) / ("n" * 200) / ("n" * 200) / ("n" * 200)
    inner.mkdir(parents=True)
    assert doctor.main([str(inner)]) == 2
    (model / "1").mkdir()
    (model / "1" / "saved_model.pb").write_bytes(b"")
    assert doctor.main([str(model)]) == 2
    said = capsys.readouterr().out
    assert all(line.isprintable() and len(line) < 1200 for line in said.split("\n"))
    assert said.count(r"\x1b]0;title\x07\x1b[31mred\u202eevil") == 3
    assert "characters)" in said


@pytest.fixture
def alone(tmp_path):
    """Ask a copy of the file, in an environment that holds only the packages of a folder; returns status and JSON."""
    folder = tmp_path / "packages"
    folder.mkdir()
    file = shutil.copy(FILE, tmp_path / "doctor.py")

    def ask(directory, *packages, code=None):
        for name, version in packages:
            (folder / f"{name}-{version}.dist-info").mkdir()
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
        if code:
            (folder / "tensorflow.py").write_text(code)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [sys.executable, "-S", file, directory, "--json"]
        done = subprocess.run(command, env=kept | {"PYTHONPATH": str(folder)}, capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    return ask


def by_subject(told):
    return {finding["about"]: finding for finding in told["findings"]}


def test_it_knows_the_ranges_of_the_flavours():
    assert {kind.name: (kind.lowest, kind.highest) for kind in FLAVOURS.values()} == doctor.RANGES
    assert set(doctor.WHAT) == set(FLAVOURS)


@pytest.mark.whole
@pytest.mark.parametrize("flavour", ["native", "graph"])
def test_a_right_model_runs_here(tiny_build, flavour):
    command = [sys.executable, FILE, directory_of(tiny_build, flavour)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert f"flavour        {flavour}: {doctor.WHAT[flavour]}" in done.stdout
    took = f"serving_default took inputs [1, 32, 32, 3], gave output_0 [1, {FE.outputs}], finite"
    assert lines[-2].endswith(f"TensorFlow {tf.__version__}: {took}")
    assert lines[-1] == "This environment can run this model."


def test_without_tensorflow_it_says_what_to_install(model, alone):
    status, told = alone(model)
    found = by_subject(told)
    assert (status, told["can_run"]) == (1, False)
    assert (found["files"]["status"], found["flavour"]["found"][:7]) == ("ok", "native:")
    assert found["TensorFlow"]["found"] == f"not installed in {sys.executable}"
    assert found["TensorFlow"]["advice"] == 'python -m pip install "tensorflow>=2.13"'
    assert "No module named 'tensorflow'" in found["trial"]["found"]
    assert found["trial"]["advice"] == "install TensorFlow, as above"


def test_a_tensorflow_too_old_for_native_is_sent_to_the_graph_flavour(model, alone):
    code = OLD_TENSORFLOW.replace("FAIL", 'raise ValueError("NodeDef missing attr dim_args_spec")')
    status, told = alone(model, ("tensorflow_cpu", "2.12.1"), ("numpy", "1.23.5"), code=code)
    found = by_subject(told)
    assert status == 1
    assert found["TensorFlow"]["found"] == "2.12.1; the native flavour is tested with 2.13 to 2.21: too old"
    advice = (
        'use the graph flavour (HANDLE-graph), for TensorFlow 2.6 or later, or python -m pip install "tensorflow>=2.13"'
    )
    assert found["TensorFlow"]["advice"] == found["trial"]["advice"] == advice
    assert found["NumPy"] == {"about": "NumPy", "status": "ok", "found": "1.23.5", "advice": ""}
    said = "loading: ValueError: NodeDef missing attr dim_args_spec; this TensorFlow has no "
    assert found["trial"]["found"].startswith(said)
    assert "XlaCallModule" in found["trial"]["found"]


@pytest.mark.parametrize(
    ("fail", "said", "advice"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended with SIGILL", "this processor lacks"),
        ("import os; os._exit(3)", "loading: the process ended", "it should run"),
        ("raise OSError('Data loss: bad checksum')", "bad checksum", "copy or unpack the directory again"),
    ],
)
def test_a_trial_that_dies_is_told(model, alone, fail, said, advice):
    status, told = alone(model, ("tensorflow", "2.21.0"), code=OLD_TENSORFLOW.replace("FAIL", fail))
    assert (status, told["can_run"]) == (1, False)
    assert said in by_subject(told)["trial"]["found"]
    assert by_subject(told)["trial"]["advice"].startswith(advice)


def test_a_numpy_too_new_is_told(model, alone):
    code = "raise ImportError('numpy.core.multiarray failed to import')"
    status, told = alone(model, ("tensorflow", "2.15.1"), ("numpy", "2.1.0"), code=code)
    found = by_subject(told)
    assert status == 1
    assert found["NumPy"]["found"] == "2.1.0, but TensorFlow 2.15.1 was built for NumPy 1"
    assert found["NumPy"]["advice"] == found["trial"]["advice"] == 'python -m pip install "numpy<2"'


@pytest.mark.whole
def test_a_trial_that_hangs_is_ended(model, tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor._look_at_trial(model, "wait", timeout=10)
    assert finding == ("trial", "problem", "importing TensorFlow: the process did not end within 10 s", "wait")


@pytest.mark.parametrize(
    ("flavour", "release", "status", "said"),
    [
        ("native", "2.13.1", "ok", "2.13 to 2.21"),
        ("native", "2.12.1", "warning", "too old"),
        ("graph", "2.12.1", "ok", "2.6 to 2.21"),
        ("graph", "2.5.0", "warning", "too old"),
        ("graph", "2.22.0rc0", "ok", "newer than the tested releases"),
    ],
)
def test_the_release_is_compared_with_the_range(tiny_build, alone, flavour, release, status, said):
    finding = by_subject(alone(directory_of(tiny_build, flavour), ("tensorflow", release))[1])["TensorFlow"]
    assert finding["status"] == status
    assert finding["found"].endswith(said)
    assert bool(finding["advice"]) == (status == "warning")


def test_hub_without_pkg_resources_or_tf_keras_is_told(model, alone, tmp_path):
    packages = (("tensorflow", "2.18.1"), ("tensorflow_hub", "0.16.1"), ("setuptools", "82.0"), ("keras", "3.15.1"))
    found = by_subject(alone(model, *packages)[1])
    hub, keras = found["tensorflow_hub"], found["Keras"]
    assert hub["found"] == "0.16.1 needs pkg_resources, which setuptools 82.0 does not have"
    assert '"setuptools<82"' in hub["advice"]
    assert (hub["status"], keras["status"]) == ("warning", "warning")
    assert '"tf_keras==2.18.*"' in keras["advice"]
    (tmp_path / "packages" / "pkg_resources.py").touch()
    found = by_subject(alone(model, ("tf_keras", "2.18.0"))[1])
    assert (found["tensorflow_hub"]["status"], found["Keras"]["status"]) == ("ok", "ok")


def test_keras_3_matters_only_with_hub(model, alone):
    assert by_subject(alone(model, ("keras", "3.0.0"))[1])["Keras"]["status"] == "ok"


def test_files_that_are_missing_are_named(model, alone):
    (model / "variables" / "variables.index").unlink()
    status, told = alone(model)
    (files,) = told["findings"]
    assert (status, files["found"]) == (1, "variables/ lacks variables.index: the model has no weights")
    shutil.rmtree(model / "variables")
    (files,) = alone(model)[1]["findings"]
    assert "lacks variables.index, variables.data-00000-of-00001" in files["found"]


def test_another_path_gets_a_hint(model, alone, tmp_path):
    def advice(path):
        (files,) = alone(path)[1]["findings"]
        return files["advice"]

    assert advice(tmp_path) == f"give {model}"
    archive = tmp_path / "model.tar.gz"
    archive.touch()
    assert advice(archive).startswith("unpack the archive")
    assert advice(tmp_path / "nowhere") == "give the path of one, such as build/NAME/VERSION"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert advice(empty).startswith("give the directory that contains saved_model.pb")


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\xff" * 99])
def test_a_damaged_graph_is_told(model, alone, damage):
    path = model / "saved_model.pb"
    path.write_bytes(damage(path.read_bytes()))
    _, finding = alone(model)[1]["findings"]  # and no more: what it needs is unknown
    assert (finding["about"], finding["status"]) == ("flavour", "problem")
    assert finding["found"].startswith("saved_model.pb cannot be read: ")


@pytest.mark.whole
def test_variables_of_another_model_are_told(model, tiny_build, tmp_path, capsys):
    """Files that are whole, but lack the head that the graph needs."""
    classifier = next(name for name, one in TESTING_HANDLES.items() if one.head == "classification")
    mixed = shutil.copytree(tiny_build / classifier / str(DEFAULT_VERSION), tmp_path / "mixed")
    for path in (model / "variables").iterdir():
        shutil.copy(path, mixed / "variables" / path.name)
    assert doctor.main([str(mixed), "--json"]) == 1
    finding = by_subject(json.loads(capsys.readouterr().out))["trial"]
    assert finding["status"] == "problem"
    assert finding["found"].startswith("loading: ")
    assert "copy or unpack the directory again" in finding["advice"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_operations_are_those_that_tensorflow_reads(tiny_build, flavour):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    data = (directory_of(tiny_build, flavour) / "saved_model.pb").read_bytes()
    graph = SavedModel.FromString(data).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert doctor._operations(data) == {node.op for node in nodes}
    assert ("XlaCallModule" in doctor._operations(data)) == (flavour == "native")


def test_the_command_asks_the_file(model, capfd):
    (model / "variables" / "variables.index").unlink()
    assert status_of("doctor", model) == 1
    assert capfd.readouterr().out.endswith("This environment cannot run this model.\n")
    assert status_of("doctor", model, "--json", "--python", sys.executable) == 1
    assert json.loads(capfd.readouterr().out)["can_run"] is False
    assert status_of("doctor", model, "--python", "/nowhere/python") == 2
    assert "--python /nowhere/python cannot be started (No such file or directory)" in capfd.readouterr().err


def test_file_keeps_to_the_standard_library_and_python_3_8():
    tree = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)
    newer = {"removeprefix", "removesuffix", "cache", "is_relative_to", "readlink"}
    assert {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & newer == set()


@pytest.mark.parametrize(
    ("file", "size", "said"),
    [
        ("variables.data-00000-of-00001", 1000, "is cut short: 1,000 bytes, expected at least "),
        ("variables.index", 100, "is cut short"),
    ],
)
def test_a_file_of_variables_that_is_cut_short_is_named(file, size, said, model, alone):
    os.truncate(model / "variables" / file, size)
    status, told = alone(model)
    (finding,) = told["findings"]
    assert (status, finding["about"], finding["status"]) == (1, "files", "problem")
    assert finding["found"].startswith(f"variables/{file} {said}")


def test_the_index_of_variables_gives_their_sizes(model, tmp_path):
    folder = tmp_path / "many"
    variables = [tf.Variable(tf.zeros([50 + index, 7])) for index in range(300)]
    tf.train.Checkpoint(variables=variables).write(str(folder / "variables"))
    for one in (model / "variables", folder):
        sizes = doctor._sizes_of_variables((one / "variables.index").read_bytes())
        assert sizes == {0: (one / "variables.data-00000-of-00001").stat().st_size}


def test_operations_are_looked_up_where_tensorflow_registers_them():
    assert not hasattr(tf.raw_ops, "XlaCallModule")
    assert doctor._has_operation(tf, "XlaCallModule")
    assert not doctor._has_operation(tf, "NoSuchOperation")
