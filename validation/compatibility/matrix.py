"""The matrix: what a consumer does with the models, in one TensorFlow release after the other, each by itself.

A cell is one model in one release: `validation/consumer.py` runs in an environment that holds that release alone, held
against JAX's outputs for the same images, and `validation/doctor.py` has to say beforehand what came of it.
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
from validation.compatibility.environments import RELEASES, EnvironmentMissingError, Release, environment, find_python
from validation.compatibility.run_consumer import run_consumer

NEEDED = ("load", "signatures", "__call__", "gradients")
"""Checks of the consumer without which nothing is proven, whatever else has passed."""

TIMEOUT = 1800.0
"""Seconds that a consumer may take."""

Verdict = Literal["runs", "failed", "runs, not promised", "no, not promised"]
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Model:
    """A SavedModel on trial: images it is shown, JAX's outputs for them, and their scale, each `.npy`."""

    handle: str
    architecture: str
    flavour: Flavour
    directory: Path
    inputs: Path
    expected: Path
    scale: Path


class Cell(Record):
    """What came of one model in one release."""

    handle: str
    architecture: str
    flavour: Flavour
    promised: bool
    """The release is within the flavour's range."""
    passed: int
    """Checks passed, bad inputs refused and the like included."""
    absent: tuple[str, ...]
    """Checks of what is not installed."""
    worst: float | None
    """The largest difference of an output from JAX's over the scale of the image's outputs."""
    failure: str | None
    """The first check that failed and how; None where all is well."""
    doctor: bool
    """`validation/doctor.py` said that this environment can run this model."""

    @property
    def verdict(self) -> Verdict:
        """Whether it is as promised."""
        if self.promised:
            return "runs" if self.failure is None else "failed"
        return "runs, not promised" if self.failure is None else "no, not promised"

    @property
    def problem(self) -> str | None:
        """What must not be: a promise broken, or a wrong word of the doctor's."""
        if self.verdict == "failed":
            return f"{self.handle} is promised to run: {self.failure}"
        if self.doctor != (self.failure is None):
            word = "can" if self.doctor else "cannot"
            return f"{self.handle}: the doctor says that it {word} run, but found was: {self.failure or 'it runs'}"
        return None


class _Row(Record):
    """One release: the versions that were installed, and a cell a model; or why it was not run."""

    release: str
    date: str | None = None
    """The day that it was run on; None in records of before, whose day is the matrix's."""
    tensorflow: str | None = None
    python: str | None = None
    numpy: str | None = None
    keras: str | None = None
    not_run: str | None = None
    broken: str | None = None
    """Why it could not be run where it should have been."""
    cells: tuple[Cell, ...] = ()

    @property
    def problems(self) -> list[str]:
        """What must not be, in this release."""
        found = [self.broken, *(cell.problem for cell in self.cells)]
        return [f"TensorFlow {self.tensorflow or self.release}: {problem}" for problem in found if problem]


class Matrix(Record):
    """All that was run: the same models on one kind of machine, each release on a day of its own."""

    schema_version: Literal[1] = 1
    date: str
    """The last day."""
    platform: str
    rows: tuple[_Row, ...]

    @property
    def models(self) -> set[str]:
        """What was run, in whatever release; empty if nothing was."""
        return {cell.handle for row in self.rows for cell in row.cells}

    def renewed(self, newer: "Matrix") -> "Matrix":
        """Return the matrix with the rows of a newer one in the place of those of the same releases."""
        dated = {row.release: row.model_copy(update={"date": row.date or self.date}) for row in self.rows}
        rows = dated | {row.release: row for row in newer.rows}
        place = {name: index for index, name in enumerate(RELEASES)}
        order = sorted(rows, key=lambda name: place.get(name, -1))
        return newer.model_copy(update={"rows": tuple(rows[name] for name in order)})

    @property
    def problems(self) -> list[str]:
        """Why the matrix as a whole has failed; empty if it has not."""
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
        releases: in this order.
        models: run in each.
        started: told what is in hand.
        finished: told of each release and model done.
        keep: given the matrix of all releases so far, after each: an hour's work is not lost to an interruption.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    matrix = Matrix(date=today, platform=describe_platform(), rows=())
    for release in releases:
        row = _run_release(release, models, started=started, finished=finished)
        matrix = matrix.model_copy(update={"rows": (*matrix.rows, row.model_copy(update={"date": today}))})
        keep(matrix)
    return matrix


def describe_platform() -> str:
    """Return what kind of machine this is: `Linux x86_64`."""
    return f"{platform.system()} {platform.machine()}"


def _run_release(release: Release, models: Sequence[Model], *, started: Tell, finished: Tell) -> _Row:
    """Run all models in one release, in an environment that is gone afterwards."""
    python = find_python(release.pythons)
    if python is None:
        row = _Row(release=release.name, not_run=f"no Python {' or '.join(release.pythons)} here")
    else:
        started(f"installing TensorFlow {release.name}")
        try:
            with environment(release, python) as made:
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
        finished(f"TensorFlow {versions.get('tensorflow', release.name)}: {model.handle}: {describe(cell)}")
        cells.append(cell)
    return _Row(release=release.name, cells=tuple(cells), **versions)


def _run_cell(release: Release, model: Model, python: Path) -> tuple[Cell, dict[str, Any]]:
    """Run one model in one environment, and return what came of it and what the consumer wrote."""
    told = run_consumer(
        model.directory,
        inputs=model.inputs,
        expected=model.expected,
        scale=model.scale,
        python=str(python),
        timeout=TIMEOUT,
    )
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


def _ask_doctor(directory: Path, python: Path) -> dict[str, Any]:
    """Return what `validation/doctor.py --json` says of a model in a Python.

    Raises:
        MixerError: it says nothing that can be read.
    """
    command = [str(python), "-I", str(Path(doctor.__file__).resolve()), str(directory.resolve()), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        told = dict(json.loads(done.stdout))
    except ValueError as error:
        raise MixerError(f"the doctor says nothing in {python}: {done.stderr[-300:]}") from error
    if told["can_run"] != (done.returncode == 0):
        raise MixerError(f"the doctor exits with {done.returncode}, but says that can_run is {told['can_run']}")
    return told


def describe(cell: Cell) -> str:
    """Say in a line what came of a cell."""
    if cell.failure is not None:
        return f"{cell.verdict}: {cell.failure}"
    return f"{cell.verdict}: {cell.passed} checks, worst difference {cell.worst:.1e}"
