"""Synthetic Mixers for the benchmark: deeper ones, and many of one architecture, converted in one run.

    python -m convert.pipeline.benchmark_scale seed|convert ARCHITECTURE BLOCKS COUNT SOURCE OUT

ARCHITECTURE is a name of `validation.benchmark.synthetic_models.SIZES`; BLOCKS replaces its number of blocks (0 keeps
it). `seed` writes COUNT synthetic checkpoints into SOURCE unless they exist, `convert` writes both heads of each into
OUT.
"""

import sys
from pathlib import Path

from models.catalog import DEFAULT_VERSION, HEADS, Checkpoint, Handle
from validation.benchmark.synthetic_models import rows


def _main() -> None:
    """Seed or convert."""
    task, architecture, blocks, count, source, out = sys.argv[1:]
    checkpoints = rows(architecture, int(blocks), int(count))
    if task == "seed":
        _seed(checkpoints, Path(source))
    else:
        _convert(checkpoints, source, Path(out))


def _seed(checkpoints: list[Checkpoint], directory: Path) -> None:
    from convert.checkpoints.synthetic import write_seeded

    for checkpoint in checkpoints:
        if not (directory / checkpoint.object).exists():
            write_seeded(checkpoint, directory)


def _convert(checkpoints: list[Checkpoint], source: str, out: Path) -> None:
    from convert.checkpoints.fetch import Source
    from convert.pipeline.batch import check_batch, run_batch
    from convert.pipeline.for_each import Problem, raise_problems
    from convert.pipeline.job import Batch

    handles = tuple(Handle(f"mixer_{row.name}_{head}", row, head) for row in checkpoints for head in HEADS)
    work = Batch("convert", handles, Source(source), out, DEFAULT_VERSION)
    check_batch(work)
    failed = [Problem(one.handle, "; ".join(one.problems)) for one in run_batch(work) if one.verdict == "failed"]
    raise_problems(failed, len(handles))


if __name__ == "__main__":
    _main()
