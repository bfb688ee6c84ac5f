"""Time calls of loaded models: JAX, both flavours and the other engines, one process each, interleaved.

An engine's outputs are compared with JAX's before it is timed; an engine with wrong outputs is not timed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.catalog import Architecture, Handle
from models.errors import MixerError
from models.records.provenance import ROOT
from models.records.tolerances import TOLERANCES
from validation.benchmark.engines import Engine
from validation.benchmark.records import EngineSpeed, ModelSpeed, Tell

SEED = 8
PAUSE = 0.05
"""Seconds between two engines' calls: threads of the last one may spin for a moment after their work."""
TURNS_OF_ONE = 8
"""Calls per repeat for a batch of one image; a batch of n images gets 1/n of them, at least one."""
PRODUCT_BATCH = 8
"""Largest batch whose matrix products are timed for the limit: a larger batch is no faster."""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
"""Environment variables of an engine's process: run on the CPU, and log little."""


class _EngineError(MixerError):
    """An engine did not open the model, run it, or reproduce JAX's outputs."""


@dataclass(frozen=True)
class _Speeds:
    """The speed of a model in all engines, and the FLOP/s of the fastest large matrix product of their libraries."""

    model: ModelSpeed
    product: float | None


def _image_flops(handle: Handle) -> int:
    """Return the floating-point operations of the matrix products of one image, two for each multiplication."""
    sizes = handle.checkpoint.architecture
    times = {"stem": sizes.tokens, "token_mixing": sizes.hidden_dim, "channel_mixing": sizes.tokens, "head": 1}
    total = 0
    for name, shape in handle.arrays.items():
        if name.endswith("/kernel"):
            (count,) = (count for part, count in times.items() if part in name.split("/"))
            total += 2 * int(np.prod(shape)) * count
    return total


def _large_products(sizes: Architecture, batch: int) -> list[tuple[int, int, int]]:
    """Return sizes `m, k, n` of matrix products: the two of channel mixing, and one of large squares."""
    rows = batch * sizes.tokens
    mixing = [(rows, sizes.hidden_dim, sizes.channels_mlp_dim), (rows, sizes.channels_mlp_dim, sizes.hidden_dim)]
    return [*mixing, (2048, 2048, 2048)]


def measure_model(
    handle: Handle,
    paths: Mapping[Engine, Path],
    *,
    batches: Sequence[int],
    threads: int,
    repeats: int,
    started: Tell,
    finished: Tell,
) -> _Speeds:
    """Time a model in all engines, interleaved; the others must reproduce the first one's outputs.

    Args:
        handle: the model.
        paths: what each engine opens.
        batches: the numbers of images of a call.
        threads: of each engine.
        repeats: rounds of calls for each batch.
        started: called with what is being done.
        finished: called with the times of a batch in words.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        race = _Race(handle, folder, batches, threads)
        for engine, path in paths.items():
            started(f"{handle.name}: opening {engine.title}")
            race.enter(engine, path, stack)
        for batch in batches:
            started(f"{handle.name}: batch {batch}")
            race.run(batch, repeats)
            finished(f"{handle.name}, batch {batch}: {race.tell(batch)}")
    model = ModelSpeed(
        handle=handle.name,
        architecture=handle.checkpoint.architecture.name,
        flops=_image_flops(handle),
        engines=tuple(race.results()),
    )
    return _Speeds(model, race.product or None)


class _Race:
    """The engines that are still timed, and the results of all engines."""

    def __init__(self, handle: Handle, folder: Path, batches: Sequence[int], threads: int) -> None:
        self._handle, self._folder, self._batches, self._threads = handle, folder, batches, threads
        self._entered: dict[str, Engine] = {}
        self._asking: dict[str, Callable[[dict[str, Any]], float | None]] = {}
        self._failures: dict[str, str] = {}
        self._differences: dict[str, float] = {}
        self._seconds: dict[str, dict[int, list[float]]] = {}
        self.product = 0.0
        """FLOP/s of the fastest matrix product so far."""
        size = handle.checkpoint.architecture.image_size
        for batch in batches:
            noise = np.random.default_rng(SEED).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
            np.save(folder / f"{batch}.npy", noise)

    def enter(self, engine: Engine, path: Path, stack: ExitStack) -> None:
        """Open the model in an engine, and compare its outputs for each batch with the first engine's."""
        name = engine.name
        self._entered[name] = engine
        try:
            ask = stack.enter_context(_worker(engine, path, self._handle, self._threads))
            for batch in self._batches:
                ask({"run": str(self._folder / f"{batch}.npy"), "to": str(self._folder / f"{name}-{batch}.npy")})
                self._compare(name, batch)
        except _EngineError as error:
            self._failures[name] = str(error)
        else:
            self._asking[name] = ask
            self._seconds[name] = {batch: [] for batch in self._batches}

    def _compare(self, name: str, batch: int) -> None:
        reference = next(iter(self._entered))
        if name == reference:
            return
        if reference in self._failures:
            raise _EngineError(f"not run, since there is nothing to compare it with: {reference} failed")
        wanted, found = (np.load(self._folder / f"{each}-{batch}.npy") for each in (reference, name))
        limit = TOLERANCES["max_relative"].limit
        worst = _largest_difference(wanted, found)
        self._differences[name] = max(worst, self._differences.get(name, 0.0))
        if not worst <= limit:
            raise _EngineError(f"not timed, since its outputs differ from JAX's by {worst:.1e}, allowed {limit:g}")

    def run(self, batch: int, repeats: int) -> None:
        """Time the batch in each engine in turn; it was compiled when the outputs were compared.

        Matrix products are interleaved too, so that whatever slows the machine down affects both.
        """
        for _ in range(repeats):
            for _ in range(max(1, TURNS_OF_ONE // batch)):
                for name, ask in list(self._asking.items()):
                    seconds = self._ask(name, ask, {"run": str(self._folder / f"{batch}.npy")})
                    if seconds is not None:
                        self._seconds[name][batch].append(seconds)
            self._multiply(batch)

    def _multiply(self, batch: int) -> None:
        """Time the matrix products of a batch."""
        for m, k, n in _large_products(self._handle.checkpoint.architecture, min(PRODUCT_BATCH, batch)):
            for name, ask in list(self._asking.items()):
                seconds = self._ask(name, ask, {"multiply": [m, k, n]})
                self.product = max(self.product, 2 * m * k * n / seconds if seconds else 0.0)

    def _ask(self, name: str, ask: Callable[[dict[str, Any]], float | None], request: dict[str, Any]) -> float | None:
        time.sleep(PAUSE)
        try:
            return ask(request)
        except _EngineError as error:
            self._failures[name] = str(error)
            del self._asking[name]
            return None

    def tell(self, batch: int) -> str:
        """Return the times of the batch in one line."""
        took = {name: seconds[batch] for name, seconds in self._seconds.items() if seconds[batch]}
        said = [f"{name} {np.median(seconds):.3f} s" for name, seconds in took.items()]
        return ", ".join([*said, *(f"{name} failed" for name in self._failures)])

    def results(self) -> Iterator[EngineSpeed]:
        """Yield the times of each engine, or why it failed."""
        for name, engine in self._entered.items():
            yield EngineSpeed(
                name=name,
                title=engine.title,
                version=engine.version,
                difference=self._differences.get(name),
                seconds={} if name in self._failures else {k: tuple(v) for k, v in self._seconds[name].items()},
                failure=self._failures.get(name),
            )


def _largest_difference(wanted: Any, found: Any) -> float:  # noqa: ANN401 (arrays)
    """Return the largest difference of an output over the spread of the image's outputs; infinity if not comparable.

    For the catalog's heads, which have many outputs, the spread is the scale of the parity check; no others are timed.
    """
    if wanted.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return float((np.abs(found - wanted).max(axis=1) / wanted.std(axis=1)).max())


@contextmanager
def _worker(
    engine: Engine, path: Path, handle: Handle, threads: int
) -> Iterator[Callable[[dict[str, Any]], float | None]]:
    """Start an engine's process, and yield a function that sends it a request; it ends with the block.

    Raises:
        _EngineError: the process does not start, or ends before it answers.
    """
    arguments = [engine.name, handle.name, str(path), str(threads)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "validation.benchmark.engine_worker", *arguments],
            cwd=ROOT, env=os.environ | QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise _EngineError("no pipe to the engine's process")

        def answer() -> dict[str, Any]:
            line = stdout.readline()
            if not line:
                status = process.wait()
                errors.seek(max(0, os.fstat(errors.fileno()).st_size - 2000))
                said = errors.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
                raise _EngineError(f"{engine.title} ended with status {status}: {said[-1][:400]}")
            return dict(json.loads(line))

        def ask(request: dict[str, Any]) -> float | None:
            with suppress(BrokenPipeError):  # it has ended: reading the answer reports why
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
            seconds: float | None = answer()["seconds"]
            return seconds

        try:
            answer()
            yield ask
        finally:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                stdin.close()
            stdout.close()
