"""Run one engine in its own process, and answer the benchmark's requests line by line.

    python -m validation.benchmark.engine_worker ENGINE HANDLE PATH THREADS

reads requests from standard input and answers each with a line of JSON on standard output:

    {"run": "images.npy", "to": "outputs.npy"}  ->  {"seconds": 0.1}    ("to" may be left out)
    {"multiply": [m, k, n]}                     ->  {"seconds": 0.1}, or {"seconds": null} if it is not measured
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from models.selection import select_handles
from validation.benchmark.engines import ENGINES, EngineName, OpenModel


def main() -> None:
    """Open the model and answer until the input ends."""
    name, handle, path, threads = sys.argv[1:]
    # What a library prints must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _use_cores(int(threads))
    (chosen,) = select_handles([handle])
    model = ENGINES[cast(EngineName, name)].open(chosen, Path(path), int(threads))
    _serve(model, sys.stdin, answers)


def _use_cores(count: int) -> None:
    """Restrict this process to `count` cores: some engines start as many threads as they see cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ["OMP_NUM_THREADS"] = str(count)


def _serve(model: OpenModel, requests: IO[str], answers: IO[str]) -> None:
    """Report that the model is open, then answer each request."""
    _answer(answers, {"open": True})
    for line in requests:
        request = json.loads(line)
        if "multiply" in request:
            seconds = model.multiply(*request["multiply"]) if model.multiply else None
        else:
            images = np.load(request["run"])
            begin = time.perf_counter()
            outputs = model.run(images)
            seconds = time.perf_counter() - begin
            if "to" in request:
                np.save(request["to"], outputs)
        _answer(answers, {"seconds": seconds})


def _answer(answers: IO[str], value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
