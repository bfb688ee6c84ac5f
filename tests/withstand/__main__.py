"""What faults the project withstands, tried.

    make withstand                            a share of the trials
    make withstand WITHSTAND=--full           all of them
    make withstand WITHSTAND="--only damage"  one section

Each section is a module of this folder: it makes tiny models by the commands, injects its faults, and gives rows of the
table in validation/WITHSTAND.md, where it replaces its section.
"""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from withstand.rows import replace_section, text_of  # noqa: E402 - the path comes first

TABLE = ROOT / "validation" / "WITHSTAND.md"
SECTIONS = ("damage", "killed", "hostile", "disk", "together", "network", "surroundings")
SHARE = 0.1


def share(text: str) -> float:
    """Read a share of the trials."""
    if not 0 < (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: expected a number above 0, at most 1")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="withstand", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument("--full", action="store_true", help="all trials")
    how_many.add_argument("--share", type=share, default=SHARE, help="share of the trials (default: %(default)s)")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone (repeatable)")
    given = parser.parse_args()
    chosen, failed = 1.0 if given.full else given.share, 0
    for name in given.only or SECTIONS:
        section, began = importlib.import_module(f"withstand.{name}"), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            rows = section.measure(Path(folder), chosen)
        text = text_of(name, section.TITLE, rows, chosen, section.REMARK)
        TABLE.write_text(replace_section(TABLE.read_text(encoding="utf-8"), name, text), encoding="utf-8")
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s; written: {TABLE}\n")
        failed += sum(len(row.failures) for row in rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
