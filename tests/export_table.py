"""The table of exports in export/FORMATS.md, from the reports that `mixer-jax2tf export` has written of both heads.

.venv/bin/python tests/export_table.py OUT b32_sam 2
"""

import sys
from pathlib import Path

from models.catalog import HEADS
from models.formats import FORMATS
from models.markdown import markdown_table
from models.records.formats import ExportReport
from models.records.layout import ModelPaths
from models.selection import select_handles
from models.storage.files import megabytes

COLUMNS = ("file", "#classifier", "#error", "#same first class", "#feature extractor", "#error")


def read_reports(out: Path, checkpoint: str, version: int):
    """Return the passing reports of classifier and feature extractor, by format."""
    handles = select_handles([f"mixer_{checkpoint}_{head}" for head in HEADS])
    for name, kind in FORMATS.items():
        paths = (ModelPaths.of(out, kind.named(handle.name), version) for handle in handles)
        reports = [ExportReport.read(one.report) for one in paths]
        assert all(report.verdict == "passed" for report in reports)
        yield name, reports


def rows(out: Path, checkpoint: str, version: int):
    for name, (classifier, extractor) in read_reports(out, checkpoint, version):
        kind = FORMATS[name]
        for file, weights in kind.models.items():
            (together,) = (one for one in of_file(classifier, file, "top1_disagreement") if "(batch 4)" in one.on)
            title = f"{kind.title}, {weights}" + ("" if weights == "float32" else " weights")
            same = f"{4 - 4 * together.measured:.0f} of 4"
            yield title, *figures(classifier, file), same, *figures(extractor, file)


def of_file(report: ExportReport, file: str, name: str):
    return [one for one in report.checks if one.name.endswith(f" {name}") and one.on.startswith(f"{file} on ")]


def figures(report: ExportReport, file: str):
    beside = FORMATS[report.format].companions
    worst = max(one.measured for one in of_file(report, file, "max_relative"))
    return megabytes(sum(report.sizes[name] for name in (file, *beside))), f"{worst:.1e}"


if __name__ == "__main__":
    folder, name, number = sys.argv[1:]
    sys.stdout.write(markdown_table(COLUMNS, rows(Path(folder), name, int(number))))
