"""The runtimes of the formats beyond TensorFlow, as they are brought in."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_openvino_reports_to_nobody():
    """Its import alone would, from a forked process."""
    code = (
        "import os, sys\nfrom models.formats import openvino_core\n"
        "os.register_at_fork(before=lambda: print('forked'))\nopenvino_core()\n"
        "print(sys.modules['openvino_telemetry'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "None\n"


SIGNALLED = """\
import gc, os, signal, sys
from pathlib import Path
from models.formats import import_openvino
from validation.formats.runtimes import RunnableModel

openvino, file = import_openvino(), Path(sys.argv[1], "model.xml")
given = openvino.opset13.parameter([-1, 3], openvino.Type.f32, "inputs")
given.output(0).set_names({"inputs"})
given_back = openvino.opset13.relu(given)
given_back.output(0).set_names({"output_0"})
openvino.save_model(openvino.Model([given_back], [given]), file)

signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
first, second = RunnableModel.open("openvino", file), RunnableModel.open("openvino", file)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.whole
def test_signals_are_handled_after_models_of_openvino(tmp_path):
    """Two of its cores that end in the order in which they began leave no stack for signals."""
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 143, result.stderr
