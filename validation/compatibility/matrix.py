"""The compatibility matrix: use the models as a consumer does, in one TensorFlow release after the other.

A cell is one model in one release: `validation/consumer.py` runs in an environment with that release alone and compares
the outputs with JAX's for the same images; `validation/doctor.py` must give the same answer as to whether it runs.
"""

import datetime
import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.catalog import Flavour
from models.errors import MixerError
from models.flavours import FLAVOURS
from models.records.manifest import Record
from models.storage.files import write_atomically
from validation import doctor
from validation.compatibility.environments import RELEASES, EnvironmentMissingError, Release
from validation.compatibility.run_consumer import run_consumer
from validation.uses import REMEDIES

NEEDED = ("load", "signatures", "__call__", "gradients")
"""Checks of the consumer that must pass, whatever else has passed."""

TIMEOUT = 1800.0
"""Seconds that a consumer may take."""

Verdict = Literal["runs", "failed", "runs, not promised", "no, not promised"]
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Model:
    """A SavedModel to test, with its input images, JAX's outputs for them and their scale, each a `.npy` file."""

    handle: str
    architecture: str
    flavour: Flavour
    directory: Path
    inputs: Path
    expected: Path
    scale: Path
    used: bool = False
    """Whether the uses of `validation/uses.py` are tried too."""


class _Use(Record):
    """What came of one use of a model: training, distributing or converting it."""

    name: str
    status: Literal["passed", "remedied", "refused", "failed", "absent"]
    """`remedied` if it fails as it is, and not with the remedy in `validation.uses.REMEDIES`; `refused` if a converter
    takes the other flavour alone."""
    detail: str


class Cell(Record):
    """The result of one model in one release."""

    handle: str
    architecture: str
    flavour: Flavour
    promised: bool
    """Whether the release is within the flavour's range."""
    passed: int
    """Number of checks passed, including bad inputs that were refused or accepted as they should be."""
    absent: tuple[str, ...]
    """Checks of packages or signatures that are missing."""
    worst: float | None
    """The largest difference of an output from JAX's, over the scale of the image's outputs."""
    failure: str | None
    """The first check that failed, and why; None if none failed."""
    doctor: bool
    """Whether `validation/doctor.py` says that this environment can run this model."""
    uses: tuple[_Use, ...] = ()
    """What came of further uses; empty if none was tried."""

    @property
    def verdict(self) -> Verdict:
        """Whether it runs, and whether that was promised."""
        if self.promised:
            return "runs" if self.failure is None else "failed"
        return "runs, not promised" if self.failure is None else "no, not promised"

    @property
    def problem(self) -> str | None:
        """A model or a use that fails although promised, or a wrong answer of the doctor; None if none of them."""
        if self.verdict == "failed":
            return f"{self.handle} should run in this release, but does not: {self.failure}"
        if self.doctor != (self.failure is None):
            word = "can" if self.doctor else "cannot"
            return f"{self.handle}: the doctor says that it {word} run, but the result is: {self.failure or 'it runs'}"
        failed = [f"{use.name}: {use.detail}" for use in self.uses if use.status == "failed"]
        return f"{self.handle} runs, but fails in use: {'; '.join(failed)}" if failed and self.promised else None


class _Row(Record):
    """One release: the installed versions and one cell per model, or why it was not run."""

    release: str
    date: str | None = None
    """The day that it was run on; None in older records, where it is the matrix's."""
    tensorflow: str | None = None
    python: str | None = None
    numpy: str | None = None
    keras: str | None = None
    not_run: str | None = None
    broken: str | None = None
    """Why it could not be run although it should have been."""
    cells: tuple[Cell, ...] = ()

    @property
    def problems(self) -> list[str]:
        """What is wrong in this release."""
        found = [self.broken, *(cell.problem for cell in self.cells)]
        return [f"TensorFlow {self.tensorflow or self.release}: {problem}" for problem in found if problem]


class Matrix(Record):
    """All results: the same models on one kind of machine, each release with its own date."""

    schema_version: Literal[1] = 1
    date: str
    """The day of the last run."""
    platform: str
    rows: tuple[_Row, ...]

    @property
    def models(self) -> set[str]:
        """The handles that were run in any release; empty if none was."""
        return {cell.handle for row in self.rows for cell in row.cells}

    def renewed(self, newer: "Matrix") -> "Matrix":
        """Return the matrix with a newer one's rows, which replace those of the same releases."""
        dated = {row.release: row.model_copy(update={"date": row.date or self.date}) for row in self.rows}
        rows = dated | {row.release: row for row in newer.rows}
        place = {name: index for index, name in enumerate(RELEASES)}
        order = sorted(rows, key=lambda name: place.get(name, -1))
        return newer.model_copy(update={"rows": tuple(rows[name] for name in order)})

    @property
    def problems(self) -> list[str]:
        """Why the matrix as a whole failed; empty if it did not."""
        if not any(row.cells or row.broken for row in self.rows):
            return ["nothing was run: " + "; ".join(f"{row.release}: {row.not_run}" for row in self.rows)]
        return [problem for row in self.rows for problem in row.problems]

    def write(self, path: Path) -> None:
        """Write the matrix as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_bytes())


def run_matrix(
    releases: Iterable[Release],
    models: Sequence[Model],
    *,
    started: Tell,
    finished: Tell,
    keep: Callable[[Matrix], None],
) -> Matrix:
    """Run all models in all releases.

    Args:
        releases: the releases, in this order.
        models: the models to run in each.
        started: called with what is being done.
        finished: called with the result of each model, and with why a release was not run.
        keep: called after each release with the matrix so far, so that an interruption does not lose an hour's work.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    matrix = Matrix(date=today, platform=describe_platform(), rows=())
    for release in releases:
        row = _run_release(release, models, started=started, finished=finished)
        matrix = matrix.model_copy(update={"rows": (*matrix.rows, row.model_copy(update={"date": today}))})
        keep(matrix)
    return matrix


def describe_platform() -> str:
    """Return the operating system and machine type, for instance `Linux x86_64`."""
    return f"{platform.system()} {platform.machine()}"


def _run_release(release: Release, models: Sequence[Model], *, started: Tell, finished: Tell) -> _Row:
    """Run all models in one release, in an environment that is removed afterwards."""
    python = release.find_python()
    if python is None:
        row = _Row(release=release.name, not_run=f"no Python {' or '.join(release.pythons)} here")
    else:
        started(f"installing TensorFlow {release.name}")
        try:
            with release.installed(python) as made:
                return _run_models(release, models, made, started, finished)
        except EnvironmentMissingError as error:
            said = {"not_run" if release.candidate else "broken": str(error)}
            row = _Row.model_validate({"release": release.name, **said})
    finished(f"TensorFlow {release.name}: {row.not_run or row.broken}")
    return row


def _run_models(release: Release, models: Sequence[Model], python: Path, started: Tell, finished: Tell) -> _Row:
    cells: list[Cell] = []
    versions: dict[str, str] = {}
    for model in models:
        started(f"TensorFlow {release.name}: {model.handle}")
        cell, told = _run_cell(release, model, python)
        versions |= {name: told[name] for name in ("tensorflow", "python", "numpy", "keras") if told.get(name)}
        finished(f"TensorFlow {versions.get('tensorflow', release.name)}: {model.handle}: {_describe(cell)}")
        cells.append(cell)
    used = [model for model, cell in zip(models, cells, strict=True) if model.used and cell.failure is None]
    uses = _try_uses(release, used, python, started, finished)
    cells = [cell.model_copy(update={"uses": uses.get(cell.handle, ())}) for cell in cells]
    return _Row(release=release.name, cells=tuple(cells), **versions)


def _run_cell(release: Release, model: Model, python: Path) -> tuple[Cell, dict[str, Any]]:
    """Run one model in one environment, and return its cell and what the consumer wrote."""
    told = _consume(model, python)
    checks = told["checks"]
    passed = [check["name"] for check in checks if check["status"] in ("passed", "refused", "accepted")]
    failures = [f"{check['name']}: {check['detail']}" for check in checks if check["status"] == "failed"]
    failures += [f"{name}: not checked" for name in NEEDED if name not in passed]
    cell = Cell(
        handle=model.handle,
        architecture=model.architecture,
        flavour=model.flavour,
        promised=FLAVOURS[model.flavour].runs_in(release.name),
        passed=len(passed),
        absent=tuple(check["name"] for check in checks if check["status"] == "absent"),
        worst=max((check["worst"] for check in checks if check["worst"] is not None), default=None),
        failure=failures[0] if failures else None,
        doctor=_ask_doctor(model.directory, python)["can_run"],
    )
    return cell, told


def _try_uses(
    release: Release, models: Sequence[Model], python: Path, started: Tell, finished: Tell
) -> dict[str, tuple[_Use, ...]]:
    """Return what came of the uses of each model, by handle; converters are installed for them first."""
    if models:
        started(f"TensorFlow {release.name}: installing converters")
        try:
            release.add_converters(python)
        except EnvironmentMissingError as error:  # the uses that need them are `absent`
            finished(f"TensorFlow {release.name}: {error}")
    tried = {}
    for model in models:
        started(f"TensorFlow {release.name}: {model.handle}: uses")
        checks = [check for check in _consume(model, python, uses=True)["checks"] if check["name"] in REMEDIES]
        tried[model.handle] = tuple(_Use(**{name: check[name] for name in _Use.model_fields}) for check in checks)
    return tried


def _consume(model: Model, python: Path, *, uses: bool = False) -> dict[str, Any]:
    return run_consumer(
        model.directory,
        inputs=model.inputs,
        expected=model.expected,
        scale=model.scale,
        uses=uses,
        python=str(python),
        timeout=TIMEOUT,
    )


def _ask_doctor(directory: Path, python: Path) -> dict[str, Any]:
    """Return the output of `validation/doctor.py --json` for a model in a Python.

    Raises:
        MixerError: the output cannot be read, or contradicts the exit status.
    """
    command = [str(python), "-I", str(Path(doctor.__file__).resolve()), str(directory.resolve()), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        told = dict(json.loads(done.stdout))
    except ValueError as error:
        raise MixerError(f"the doctor printed no JSON in {python}: {done.stderr[-300:]}") from error
    if told["can_run"] != (done.returncode == 0):
        raise MixerError(f"the doctor's exit status is {done.returncode}, but its can_run is {told['can_run']}")
    return told


def _describe(cell: Cell) -> str:
    """Describe the result of a cell in one line."""
    if cell.failure is not None:
        return f"{cell.verdict}: {cell.failure}"
    return f"{cell.verdict}: {cell.passed} checks, worst difference {cell.worst:.1e}"
