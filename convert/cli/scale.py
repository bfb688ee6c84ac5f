"""Made-up Mixers for the benchmark: deeper ones, and many of one architecture, converted in one run.

    python -m convert.cli.scale seed|convert ARCHITECTURE BLOCKS COUNT SOURCE OUT

ARCHITECTURE is a name of `SIZES`, whose number of blocks BLOCKS replaces (0: its own). `seed` writes COUNT seeded
checkpoints into SOURCE where they are not yet, `convert` writes both heads of each into OUT.
"""

import sys
from dataclasses import replace
from pathlib import Path

from models.catalog import DEFAULT_VERSION, HEADS, SEEDED, TINY, Architecture, Checkpoint, Handle

SMALL = Architecture("Small/16", 16, 256, 8, 128, 1024)
"""18 MB a checkpoint: a hundred fit on any disk, and what is paid a file does not hide what is paid a byte."""

SIZES = {row.name: row for row in (TINY, SMALL)}


def rows(architecture: str, blocks: int, count: int) -> list[Checkpoint]:
    """Return `count` checkpoints of an architecture of `SIZES`, with so many blocks (0: its own)."""
    template = SIZES[architecture]
    sizes = replace(template, num_blocks=blocks) if blocks else template
    stem = f"{sizes.name.replace('/', '-').lower()}-{sizes.num_blocks}"
    return [
        Checkpoint(f"{stem}-{number}", f"scale/{stem}-{number}.npz", sizes, SEEDED, testing=True)
        for number in range(count)
    ]


def size_of(architecture: str, blocks: int, count: int) -> int:
    """Return the bytes of these checkpoints' parameters."""
    return sum(4 * checkpoint.parameters for checkpoint in rows(architecture, blocks, count))


def main() -> None:
    """Seed or convert."""
    task, architecture, blocks, count, source, out = sys.argv[1:]
    checkpoints = rows(architecture, int(blocks), int(count))
    if task == "seed":
        _seed(checkpoints, Path(source))
    else:
        _convert(checkpoints, source, Path(out))


def _seed(checkpoints: list[Checkpoint], directory: Path) -> None:
    from convert.seeded import write_seeded

    for checkpoint in checkpoints:
        if not (directory / checkpoint.object).exists():
            write_seeded(checkpoint, directory)


def _convert(checkpoints: list[Checkpoint], source: str, out: Path) -> None:
    from convert.cli import batch, outcomes, stages
    from convert.cli.frameworks import import_frameworks
    from models.digests import DigestTable

    handles = tuple(Handle(f"mixer_{row.name}_{head}", row, head) for row in checkpoints for head in HEADS)
    work = batch.Batch("convert", handles, stages.Source(source, None, DigestTable.read()), out, DEFAULT_VERSION)
    batch.check_batch(work)
    import_frameworks()
    outcomes.print_outcomes(batch.run_batch(work), json=True)


if __name__ == "__main__":
    main()
