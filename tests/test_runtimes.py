"""The runtimes of the formats beyond TensorFlow, as they are brought in."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_openvino_reports_to_nobody():
    """Its import alone would, from a forked process."""
    code = (
        "import os, sys\nfrom models.formats import import_openvino\n"
        "os.register_at_fork(before=lambda: print('forked'))\nimport_openvino().Core()\n"
        "print(sys.modules['openvino_telemetry'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "None\n"
