"""The program behind validation/WITHSTAND.md: what it counts, and that the table is in the form that it writes."""

import random
import re

import withstand
from publishable import write_model

from models.markdown import markdown_table


def test_the_table_is_of_the_program_and_adds_up():
    text = withstand.TABLE.read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert "".join(f"{line}\n" for line in tables[:2]) == markdown_table(withstand.COLUMNS, [])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[2:]]
    tried, noticed = (sum(int(row[column]) for row in rows) for column in (3, 4))
    assert f"{noticed:,} of {tried:,} noticed" in text
    assert {row[0] for row in rows} == {"one flipped bit", "one file of another model"}
    assert all(int(row[3]) >= int(row[4]) >= int(row[5]) >= int(row[6]) for row in rows)
    silent = {row[1]: int(row[3]) - int(row[6]) for row in rows if row[3] != row[6]}
    listed = re.findall(r"^- (.*): (\d+), such as ", text, flags=re.M)
    assert {where: int(count) for where, count in listed} == silent
    assert text.endswith(f"{withstand.NOT_TRIED}\n")


def test_a_trial_counts_what_is_said_and_puts_the_file_back(tmp_path):
    paths = write_model(tmp_path)
    before, chance = paths.manifest.read_bytes(), random.Random(0)  # noqa: S311
    row = withstand.Row("one flipped bit", "manifest", "both verifiers")
    withstand.flips(row, [paths.manifest], lambda: withstand.both(paths.directory), 5, chance, lambda file: file.name)
    withstand.flips(row, [paths.manifest], lambda: ("", ""), 2, chance, lambda file: file.name)
    assert (row.tried, row.noticed, row.named, row.agreed) == (7, 5, 5, 5)
    assert [one.endswith("nothing is said | nothing is said") for one in row.missed] == [True, True]
    assert paths.manifest.read_bytes() == before
