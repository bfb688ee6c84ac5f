"""The notebooks run as they are, on tiny models, and are kept without outputs."""

import re
import shutil
from pathlib import Path

import pytest

from models.catalog import TESTING_HANDLES

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "validation" / "notebooks").glob("*.ipynb"))


@pytest.fixture
def nbformat():
    """The library, which takes seconds to import: not in each process that collects the tests."""
    import nbformat

    return nbformat


def test_there_are_the_three_of_the_collection():
    assert [path.stem for path in NOTEBOOKS] == ["classification", "conversion", "fine_tuning"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_kept_without_outputs(path, nbformat):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, nbformat, tiny_build, tiny_source, tmp_path, monkeypatch):
    """Its code is that of the file, but for the name of the checkpoint."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "agg")
    shutil.copytree(tiny_build, tmp_path / "build" / "demo" / "models")
    shutil.copytree(tiny_source, tmp_path / "build" / "demo" / "checkpoints")
    photographs = Path("validation", "parity", "photographs")
    shutil.copytree(ROOT / photographs, tmp_path / photographs)
    notebook = nbformat.read(path, as_version=4)
    tiny = next(iter(TESTING_HANDLES.values())).checkpoint.name
    changed = 0
    for cell in notebook.cells:
        cell.source, count = re.subn("b32_sam", tiny, cell.source)
        changed += count
    assert changed == 1
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
