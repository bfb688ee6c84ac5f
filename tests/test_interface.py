"""The Python interface: typed results, problems raised, and a caller's process that stays as it was."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from convert.checkpoints.open import CustomCheckpoint
from convert.pipeline import interface
from convert.pipeline.fine_tuning import FineTuning
from convert.pipeline.interface import (
    HandlesFailedError,
    accuracy,
    classify,
    convert_all,
    export_to,
    finetune,
    package,
    validate,
)
from convert.pipeline.progress import Event
from models.catalog import TESTING_HANDLES
from models.errors import MixerError, UsageError

ROOT = Path(__file__).parent.parent
CLASSIFIER, EXTRACTOR = TESTING_HANDLES

CALLER = """
import json, logging, os, signal, sys

def state():
    handlers = [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())]
    return [dict(os.environ), handlers, str(sys.stderr), str(logging.getLogger().handlers), os.getcwd()]

before = state()
from convert.pipeline.interface import convert_all, export_to, package, validate

source, out, name = sys.argv[1:]
events = []
made = convert_all([name], source=source, out=out, flavours=["native", "graph"], progress=events.append)
again = convert_all([name], source=source, out=out)
(checked,) = validate([name], source=source, out=out)
packed = package([name], out=out)
(exported,) = export_to("onnx", [name], source=source, out=out)
frameworks = {"jax", "jaxlib", "flax", "tensorflow", "onnx"} & sys.modules.keys()
assert state() == before
found = {
    "made": [(one.handle, one.verdict, one.problems) for one in made],
    "again": [one.verdict for one in again],
    "checked": [checked.verdict, checked.report.verdict, checked.worst],
    "packed": [str(one.archive) for one in packed],
    "exported": [exported.name, exported.verdict],
    "events": [(one.kind, one.text) for one in events],
    "frameworks": sorted(frameworks),
}
with open(os.path.join(out, "found.json"), "w") as file:
    json.dump(found, file)
"""


@pytest.mark.whole
def test_all_of_it_leaves_the_callers_process_as_it_was(tiny_source, tmp_path):
    command = [sys.executable, "-c", CALLER, str(tiny_source), str(tmp_path), CLASSIFIER]
    env = {**os.environ, "JAX_ENABLE_X64": "1", "MPLBACKEND": "nonsense"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert f'href="{CLASSIFIER}-onnx/2/"' in (tmp_path / "index.html").read_text()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["made"] == [[CLASSIFIER, "passed", []], [f"{CLASSIFIER}-graph", "passed", []]]
    assert found["again"] == ["kept"]
    verdict, of_the_report, worst = found["checked"]
    assert (verdict, of_the_report) == ("passed", "passed")
    assert 0 < worst < 5e-5
    assert found["packed"] == [str(tmp_path / CLASSIFIER / "2.tar.gz")]
    assert found["exported"] == [f"{CLASSIFIER}-onnx", "passed"]
    assert found["frameworks"] == []
    kinds = [kind for kind, _ in found["events"]]
    assert (kinds.count("began"), kinds.count("finished"), kinds[-2:]) == (1, 2, ["ended", "noted"])
    assert f"converting {CLASSIFIER}" in [text for _, text in found["events"]]


def test_handles_that_fail_are_raised_with_what_became_of_all(tiny_source, tmp_path):
    with pytest.raises(HandlesFailedError, match=rf"2 of 2 handles failed\.\n{CLASSIFIER}: .*is missing") as raised:
        validate(list(TESTING_HANDLES), source=str(tiny_source), out=tmp_path)
    assert [one.verdict for one in raised.value.outcomes] == ["failed", "failed"]
    assert isinstance(raised.value, MixerError)
    with pytest.raises(HandlesFailedError, match=f"{CLASSIFIER}: ") as raised:
        package([CLASSIFIER], out=tmp_path)
    assert raised.value.outcomes == ()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda out: convert_all(["mixer_b17"], out=out), "unknown handle 'mixer_b17'"),
        (lambda out: convert_all(source="s3://bucket", out=out), "s3"),
        (lambda out: convert_all(out=Path(__file__)), "cannot write to the output directory"),
        (lambda out: validate(out=out, reference="x"), "reference takes one handle"),
        (lambda out: export_to("coreml", out=out), "format_name='coreml': should be 'litert', 'onnx' or 'openvino'"),
        (lambda out: package([EXTRACTOR], out=out, sign_key="no.pem"), "no.pem"),
        (
            lambda out: convert_all(
                [EXTRACTOR], out=out, custom=CustomCheckpoint(Path("x.npz"), "own", Path("no.txt"))
            ),
            "no.txt",
        ),
    ],
)
def test_what_cannot_end_well_is_refused_before_any_work(call, said, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(interface, "run_apart", lambda *_: pytest.fail("began to work"))
    with pytest.raises(UsageError, match=said):
        call(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda out: convert_all(CLASSIFIER, out=out),
            f"handles='{CLASSIFIER}': should be a list, such as ['{CLASSIFIER}']",
        ),
        (lambda out: convert_all(out=out, flavours="graph"), "flavours='graph': should be a list, such as ['graph']"),
        (lambda out: convert_all(out=out, flavours=["grap"]), "flavours=['grap']: should be 'native' or 'graph'"),
        (lambda out: convert_all(out=None), "out=None: should be a valid string or should be an instance of PathLike"),
        (lambda out: convert_all(out=out, jobs=0), "jobs=0: should be greater than or equal to 1"),
        (lambda out: convert_all(out=out, progress="yes"), "progress='yes': should be callable"),
        (
            lambda out: convert_all(out=out, custom="my.npz"),
            "custom='my.npz': should be an instance of CustomCheckpoint",
        ),
        (
            lambda out: convert_all(out=out, custom=CustomCheckpoint("my.npz", 3)),
            "custom.path='my.npz': should be an instance of Path\n  custom.name=3: should be a valid string",
        ),
        (lambda out: validate(out=out, inputs_set="ful"), "inputs_set='ful': should be 'gate' or 'full'"),
        (lambda out: export_to([CLASSIFIER], "onnx", out=out), "handles='onnx': should be a list, such as ['onnx']"),
        (lambda out: package(out=out, version="2"), "version='2': should be a valid integer"),
        (lambda out: package(out=out, version=1_000_000), "version=1000000: should be less than or equal to 999999"),
        (
            lambda out: classify(CLASSIFIER, "/a.jpg", out=out),
            "pictures='/a.jpg': should be a list, such as ['/a.jpg']",
        ),
        (lambda out: classify(CLASSIFIER, ["a.jpg"], out=out, top=0), "top=0: should be greater than or equal to 1"),
        (
            lambda out: accuracy(CLASSIFIER, "data", out=out, protocol="bit"),
            "protocol='bit': should be 'paper' or 'hub'",
        ),
        (
            lambda out: finetune(FineTuning(base=EXTRACTOR, name="own", data=7, out=out)),
            "tuning.data=7: should be an instance of Path",
        ),
    ],
)
def test_arguments_of_another_type_are_refused_in_words(call, said, tmp_path):
    with pytest.raises(UsageError, match=r"^arguments of \w+ that cannot be used:\n  ") as refused:
        call(tmp_path)
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "empty"),
    [
        (
            lambda: convert_all([CLASSIFIER], source="", cache="", out="", flavours=()),
            ["source=''", "cache=''", "out=''", "flavours=()"],
        ),
        (lambda: validate(out="build", flavours=[], reference=""), ["flavours=[]", "reference=''"]),
        (lambda: export_to("onnx", out=""), ["out=''"]),
        (lambda: package(out="", sign_key=""), ["out=''", "sign_key=''"]),
        (
            lambda: classify("", [], out="", labels="", ray=""),
            ["model=''", "pictures=[]", "out=''", "labels=''", "ray=''"],
        ),
        (lambda: classify(CLASSIFIER, ["a.jpg", ""]), ["pictures=['a.jpg', '']: item 2"]),
        (lambda: accuracy(CLASSIFIER, "", out="", real="", ray=""), ["data=''", "out=''", "real=''", "ray=''"]),
        (
            lambda: FineTuning(base=EXTRACTOR, name="own", data="", out="", about="", cache="", flavours=()),
            ["data=''", "out=''", "about=''", "cache=''", "flavours=()"],
        ),
    ],
)
def test_empty_paths_and_lists_are_refused_all_at_once(call, empty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # which an empty path would be
    monkeypatch.setattr(interface, "run_apart", lambda *_: pytest.fail("began to work"))
    with pytest.raises(UsageError, match=r"^arguments of \w+ that cannot be used:\n  ") as refused:
        call()
    said = [line.replace(": should", " should") for line in str(refused.value).split("\n  ")[1:]]
    assert said == [f"{one} should not be empty" for one in empty]
    assert not list(tmp_path.iterdir())


def test_a_callback_may_be_any_object_that_can_be_called(tmp_path, monkeypatch):
    @dataclass
    class Kept:
        events: int = 0

        def __call__(self, event):
            self.events += 1

    kept = Kept()
    kept.more = "than its fields"
    monkeypatch.setattr(interface, "_run", lambda batch, progress: progress)
    assert convert_all([CLASSIFIER], out=tmp_path, progress=kept) is kept


def test_paths_may_be_strings_or_paths(tiny_source, tmp_path, monkeypatch):
    batches = []
    monkeypatch.setattr(interface, "_run", lambda batch, _: batches.append(batch))
    for source, out in ((tiny_source, str(tmp_path)), (str(tiny_source), tmp_path)):
        convert_all([CLASSIFIER], source=source, out=out)
    assert batches[0] == batches[1]
    with pytest.raises(TypeError, match="missing a required argument: 'out'"):
        convert_all([CLASSIFIER])


@pytest.mark.whole
def test_an_exception_of_the_callback_ends_the_work_and_its_process(tiny_source, tmp_path):
    def interrupt(event: Event) -> None:
        if event.text.startswith("converting"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_all([CLASSIFIER], source=str(tiny_source), out=tmp_path, progress=interrupt)
    assert not (tmp_path / CLASSIFIER / "2").exists()
    children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout.split()
    assert not [one for one in children if b"processes" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.whole
def test_a_process_that_is_killed_is_told_with_its_last_words(tiny_source, tmp_path):
    def kill(event: Event) -> None:
        if event.text.startswith("converting"):
            found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "processes"], capture_output=True, text=True)
            for pid in found.stdout.split():
                os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(MixerError, match="ended unexpectedly, perhaps out of memory"):
        convert_all([CLASSIFIER], source=str(tiny_source), out=tmp_path, progress=kill)
