"""Synthetic Mixers for the benchmark: deeper ones, and many of one architecture."""

from dataclasses import replace

from models.catalog import SEEDED, TINY, Architecture, Checkpoint

SMALL = Architecture("Small/16", 16, 256, 8, 128, 1024)
"""18 MB per checkpoint: a hundred fit on any disk, and the cost per file does not hide the cost per byte."""

SIZES = {row.name: row for row in (TINY, SMALL)}


def rows(architecture: str, blocks: int, count: int) -> list[Checkpoint]:
    """Return `count` checkpoints of an architecture of `SIZES`, with `blocks` blocks (0: its own)."""
    template = SIZES[architecture]
    sizes = replace(template, num_blocks=blocks) if blocks else template
    stem = f"{sizes.name.replace('/', '-').lower()}-{sizes.num_blocks}"
    return [
        Checkpoint(f"{stem}-{number}", f"scale/{stem}-{number}.npz", sizes, SEEDED, testing=True)
        for number in range(count)
    ]
