"""Find checks that depend on a graph alone in the report of another model that has the same graph."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from models.errors import MixerError
from models.records.check import Check
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import GRADIENTS, Report
from models.records.tolerances import TOLERANCES
from models.storage.files import sha256_of
from validation.parity.report import is_current

_SUFFIX = ".report.json"


def find_checks(out: Path, saved_model_sha256: str, ways: Iterable[str]) -> tuple[Check, ...]:
    """Return the checks of a graph, gradients and the consumer's, from one report below `out`; empty if none will do.

    A report will do if it passed without contradictions, was made by the present checks and library versions, is about
    the manifest beside it, and that manifest and the model on disk have this `saved_model.pb`. Each of the checks must
    have been made on this graph, and be able to tell a right model from a wrong one.

    Args:
        out: the directory of all models.
        saved_model_sha256: digest of the graph.
        ways: what the consumer's checks must have been made on (`Check.on`), and no others.
    """
    wanted = {*GRADIENTS, *ways}
    for report in _reports(out, saved_model_sha256):
        found = tuple(check for check in report.checks if check.made_on)
        said = {check.on if check.name == "consumer" else check.name for check in found}
        if said == wanted and all(check.has_power for check in found):
            return found
    return ()


def _reports(out: Path, saved_model_sha256: str) -> Iterator[Report]:
    """Yield the reports that prove something about models with this graph."""
    for path in sorted(out.glob(f"*/*{_SUFFIX}")):
        paths = ModelPaths(path.parent, path.name.removesuffix(_SUFFIX))
        try:
            report, manifest = Report.read(path), Manifest.read(paths.manifest)
            current = is_current(report, paths.manifest.read_bytes())
            same = {manifest.saved_model_sha256, report.saved_model_sha256} == {saved_model_sha256}
            unchanged = same and sha256_of(paths.directory / "saved_model.pb") == saved_model_sha256
        except (MixerError, OSError):  # also of an export, whose report is another record
            continue
        if current and unchanged and report.verdict == "passed" and not any(report.contradictions(TOLERANCES)):
            yield report
