"""The program behind validation/WITHSTAND.md: what it counts, and that the page is in the form that it writes."""

import random
import re

from publishable import write_model
from withstand.__main__ import SECTIONS, TABLE
from withstand.damage import both, flips
from withstand.rows import COLUMNS, Row, replace_section, text_of

from models.markdown import markdown_table


def test_the_page_is_of_the_program_and_adds_up():
    page = TABLE.read_text(encoding="utf-8")
    found = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->\n", page, flags=re.DOTALL)
    assert [name for name, _ in found] == list(SECTIONS)
    for _, text in found:
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert "".join(f"{line}\n" for line in tables[:2]) == markdown_table(COLUMNS, [])
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[2:]]
        tried, survived = (sum(int(row[column]) for row in rows) for column in (3, 4))
        assert f"{survived:,} of {tried:,} survived" in text
        failed = {f"{row[0]}, {row[1]}": int(row[3]) - int(row[4]) for row in rows if row[3] != row[4]}
        listed = re.findall(r"^- (.*): (\d+), such as ", text, flags=re.M)
        assert {where: int(count) for where, count in listed} == failed


def test_a_section_is_replaced_and_the_others_are_kept():
    rows = [Row("fault", "here", "by hand", 3, 2, ["it broke"])]
    page = replace_section("# Page\n", "one", text_of("one", "First", rows, 1.0, "A remark."))
    page = replace_section(page, "two", text_of("two", "Second", [Row("fault", "there", "by hand", 1, 1)], 0.5))
    assert "all trials: 2 of 3 survived" in page and "- fault, here: 1, such as it broke" in page
    assert "a share of 0.5 of the trials: 1 of 1 survived" in page
    again = replace_section(page, "one", text_of("one", "First", [Row("fault", "here", "by hand", 4, 4)], 1.0))
    assert "all trials: 4 of 4 survived" in again and "it broke" not in again and again.count("Second") == 1


def test_a_trial_counts_what_is_said_and_puts_the_file_back(tmp_path):
    paths = write_model(tmp_path)
    before, chance = paths.manifest.read_bytes(), random.Random(0)  # noqa: S311
    row = Row("one flipped bit", "manifest", "both verifiers")
    flips(row, [paths.manifest], lambda: both(paths.directory), 5, chance, lambda file: file.name)
    flips(row, [paths.manifest], lambda: ("", ""), 2, chance, lambda file: file.name)
    assert (row.tried, row.survived) == (7, 5)
    assert [one.endswith("nothing is said / nothing is said") for one in row.failures] == [True, True]
    assert paths.manifest.read_bytes() == before
