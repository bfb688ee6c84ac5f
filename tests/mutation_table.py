"""The tables of MUTATIONS.md: of the tiny testing rows or, given a folder for its checkpoint, in full size.

.venv/bin/python tests/mutation_table.py [SEEDS]
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mutations import (
    FULL_SIZE,
    FULL_SIZE_MUTATIONS,
    HEADS,
    HIDDEN,
    MUTATIONS,
    TEMPERS,
    TINY,
    TINY_GRAPH,
    Bench,
    Mutation,
    caught_by,
    check_hidden,
    furthest,
    tempered,
    with_head,
)

from convert.checkpoints.synthetic import write_seeded
from models.catalog import Handle
from models.markdown import markdown_table
from validation.parity.check import Findings

COLUMNS = ("mutation", "on", "caught by", "#difference", "#limit", "#margin")
HEAD_COLUMNS = ("weights", "head", *(f"#{what}" for what in HIDDEN))
TEMPER_COLUMNS = ("weights", "on", "#difference", "#limit", "#margin")


def main() -> None:
    """Print the tables in Markdown."""
    if sys.argv[1:]:
        (seeds,) = sys.argv[1:]
        sys.stdout.write(mutations_in_markdown(FULL_SIZE_MUTATIONS, Path(seeds), " SEEDS"))
        sys.stdout.write(heads_in_markdown(FULL_SIZE))
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(mutations_in_markdown(MUTATIONS, Path(folder)))
        sys.stdout.write("\nNo false alarm: right models of these weights pass.\n\n")
        sys.stdout.write(markdown_table(TEMPER_COLUMNS, temper_rows(Path(folder))))
        sys.stdout.write(heads_in_markdown(TINY))


def mutations_in_markdown(mutations: Sequence[Mutation], seeds: Path, arguments: str = "") -> str:
    made_by = f"<!-- made by: .venv/bin/python tests/mutation_table.py{arguments} -->"
    rows = list(mutation_rows(mutations, seeds))
    measured = f"Measured on {datetime.now(UTC):%Y-%m-%d}. {summary(rows)}"
    return f"{made_by}\n\n{markdown_table(COLUMNS, rows)}\n{measured}\n"


def mutation_rows(mutations: Sequence[Mutation], seeds: Path) -> Iterator[tuple[str, ...]]:
    """Try each mutation on its seeded checkpoint in `seeds`, which is written where it is missing."""
    handles = {mutation.on.checkpoint.name: mutation.on for mutation in mutations}
    benches = {name: Bench.of(handle, write_seeded(handle.checkpoint, seeds)) for name, handle in handles.items()}
    for mutation in mutations:
        findings = mutation.run(benches[mutation.on.checkpoint.name].of_the_same(mutation.on))
        assert set(mutation.caught_by) <= set(caught_by(findings)), (mutation.name, findings.problems)
        yield mutation.name, mutation.on.checkpoint.name, ", ".join(mutation.caught_by), *figures(findings)


def temper_rows(folder: Path) -> Iterator[tuple[str, ...]]:
    for handle in (TINY, TINY_GRAPH):
        for temper in TEMPERS:
            findings = Bench.of(handle, tempered(handle.checkpoint, temper, folder)).check()
            assert not findings.problems, (temper, findings.problems)
            yield temper, f"{handle.checkpoint.name}, {handle.flavour}", *figures(findings)


def heads_in_markdown(handle: Handle) -> str:
    """Try what may hide under each head, on seeded and on trained-like weights."""
    said = f"Margins under each head of {handle.checkpoint.name}; a right model must stay below 1, a wrong one above."
    with tempfile.TemporaryDirectory() as folder:
        return f"\n{said}\n\n{markdown_table(HEAD_COLUMNS, head_rows(handle, Path(folder)))}"


def head_rows(handle: Handle, folder: Path) -> Iterator[tuple[str, ...]]:
    for temper in ("as seeded", "trained-like"):
        for head in HEADS:
            bench = with_head(handle, temper, head, folder)
            found = {what: check_hidden(bench, what) for what in HIDDEN}
            assert [what for what, findings in found.items() if not findings.problems] == ["right"], (temper, head)
            yield temper, head, *(figures(findings)[2] for findings in found.values())


def figures(findings: Findings) -> tuple[str, str, str]:
    found = furthest(findings)
    return ("", "", "") if found is None else (f"{found[0]:.1e}", f"{found[1]:.0e}", f"{found[0] / found[1]:.2g}")


def summary(rows: Sequence[tuple[str, ...]]) -> str:
    """Say how many were caught, and the smallest margin of those that the outputs or the oracle must tell."""
    by_figures = [row for row in rows if {"outputs", "oracle"} & {*row[2].split(", ")}]
    least = min(by_figures, key=lambda row: float(row[5]))
    return f"Caught: {sum(bool(row[2]) for row in rows)} of {len(rows)}; the smallest margin: {least[5]} ({least[0]})."


if __name__ == "__main__":
    main()
