"""Rows of the table: trials of one fault, and the text that they give."""

import re
from dataclasses import dataclass, field

from models.errors import shown
from models.markdown import markdown_table

COLUMNS = ("fault", "where", "how it was injected, who was asked", "#tried", "#survived")


@dataclass
class Row:
    """Trials of one fault."""

    fault: str
    where: str
    how: str
    tried: int = 0
    survived: int = 0
    failures: list[str] = field(default_factory=list)
    """What was not survived, one a trial."""

    @property
    def examples(self) -> str:
        """Return what was wrong in two of the trials, on one line."""
        return shown(" ".join("; ".join(self.failures[:2]).split()), 500)

    def count(self, failure: str | None) -> None:
        """Count a trial; `failure` says what was wrong afterwards."""
        self.tried += 1
        if failure is None:
            self.survived += 1
        else:
            self.failures.append(failure)


def text_of(name: str, title: str, rows: list[Row], share: float, remark: str = "") -> str:
    """Return a section of the page, between comments with its name."""
    said = "all trials" if share == 1 else f"a share of {share:g} of the trials"
    tried, survived = sum(row.tried for row in rows), sum(row.survived for row in rows)
    cells = [(row.fault, row.where, row.how, str(row.tried), str(row.survived)) for row in rows]
    failed = "".join(
        f"- {row.fault}, {row.where}: {len(row.failures)}, such as {row.examples}\n" for row in rows if row.failures
    )
    return (
        f"<!-- {name} -->\n## {title}\n\n{said}: {survived:,} of {tried:,} survived.\n\n"
        + markdown_table(COLUMNS, cells)
        + (f"\nNot survived:\n\n{failed}" if failed else "")
        + (f"\n{remark}\n" if remark else "")
        + f"<!-- /{name} -->\n"
    )


def replace_section(page: str, name: str, section: str) -> str:
    """Return the page with one section replaced, or added at its end."""
    pattern = re.compile(rf"<!-- {name} -->\n.*<!-- /{name} -->\n", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: section, page)
    return f"{page.rstrip()}\n\n{section}"
