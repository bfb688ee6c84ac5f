"""The result of converting or checking a handle."""

from dataclasses import dataclass
from typing import Literal, Self

from models.records.layout import ModelPaths
from models.records.report import Report


@dataclass(frozen=True)
class Outcome:
    """The result for one handle."""

    handle: str
    origin: str = ""
    parameters: int = 0
    size: int = 0
    """Bytes of the SavedModel."""
    seconds: float = 0.0
    worst: float | None = None
    """Largest difference of an output from JAX's, over the scale of the image's outputs."""
    agreement: float | None = None
    """The lower of the shares of images with the same first class and the same first five; None for features."""
    verdict: Literal["passed", "kept", "converted", "failed"] = "failed"
    problems: tuple[str, ...] = ()
    report: Report | None = None
    """The report of the check; None if it was not reached."""

    @classmethod
    def of(cls, paths: ModelPaths, report: Report, *, kept: bool) -> Self:
        """Return the outcome of a handle with that report; `kept` if the report is of an earlier run."""
        apart = [report.figure(name) for name in ("top1_disagreement", "top5_disagreement")]
        known = [share for share in apart if share is not None]
        passed: Literal["kept", "passed"] = "kept" if kept else "passed"
        return cls(
            paths.handle,
            size=sum(path.stat().st_size for path in paths.directory.rglob("*") if path.is_file()),
            worst=report.figure("max_relative"),
            agreement=1 - max(known) if known else None,
            verdict=passed if report.verdict == "passed" else "failed",
            problems=report.problems,
            report=report,
        )
