"""The table of runtimes in export/FORMATS.md: exports run in earlier releases, each in an environment of its own.

.venv/bin/python tests/runtime_table.py OUT mixer_ti8_seeded_classification 2
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from models.formats import FORMATS
from models.markdown import markdown_table
from models.records.layout import ModelPaths
from validation.formats.runtimes import RunnableModel

RELEASES = {
    "litert": ("1.0.1", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "2.1.0"),
    "onnx": ("1.15.0", "1.16.3", "1.18.1", "1.20.1"),
    "openvino": ("2023.0.0", "2023.3.0", "2024.0.0", "2024.6.0", "2025.0.0"),
}
"""The earliest that Python 3.11 can install come first."""

RUN = """
import sys
import numpy as np

kind, path, given, found = sys.argv[1:]
images = np.load(given)
if kind == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: images})[0]
elif kind == "openvino":
    from openvino.runtime import Core
    model = Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = model(images)[model.output(0)]
else:
    from ai_edge_litert.interpreter import Interpreter
    outputs = Interpreter(path).get_signature_runner("serving_default")(inputs=images)["output_0"]
np.save(found, outputs)
"""


def rows(out: Path, handle: str, version: int):
    """Yield format, file, release and largest difference from today's release, over the scale of the outputs."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    for name, releases in RELEASES.items():
        kind = FORMATS[name]
        directory = ModelPaths.of(out, kind.named(handle), version).directory
        for release in releases:
            with tempfile.TemporaryDirectory() as folder:
                python = install(Path(folder), f"{kind.runtime}=={release}")
                for file in kind.models:
                    expected = RunnableModel.open(name, directory / file).run(images)
                    given, found = Path(folder, "given.npy"), Path(folder, "found.npy")
                    np.save(given, images)
                    subprocess.run([python, "-c", RUN, name, directory / file, given, found], check=True)
                    difference = np.abs(np.load(found) - expected).max() / expected.std()
                    yield f"{kind.title}, {file}", f"{kind.runtime} {release}", f"{difference:.0e}"


def install(folder: Path, requirement: str) -> Path:
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "-p", sys.executable, folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*uv, "pip", "install", "-q", "-p", python, requirement, "numpy<2"], check=True)
    return python


if __name__ == "__main__":
    out, handle, version = sys.argv[1:]
    sys.stdout.write(markdown_table(("file", "runtime", "#difference"), list(rows(Path(out), handle, int(version)))))
