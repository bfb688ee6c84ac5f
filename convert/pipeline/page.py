"""Write the page of a directory of models after work on them."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from convert.pipeline.export_formats import Exports
from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.job import Batch
from convert.pipeline.progress import Event, Watch

Work = TypeVar("Work", Batch, Exports)
Done = TypeVar("Done")


def with_page(run: Callable[[Work, Watch | None], list[Done]], work: Work, watch: Watch | None) -> list[Done]:
    """Do work on models, then write the page of their directory."""
    outcomes = run(work, watch)
    refresh_page(work.out, watch)
    return outcomes


def refresh_page(out: Path, watch: Watch | None) -> None:
    """Write `<out>/index.html` about all that is in `out`; a problem with it is only noted, as the work is done."""
    from validation.views.page import write_page

    if not out.is_dir():
        return
    done = attempt(lambda: write_page(out))
    if watch is not None and done is not None:
        said = f"the page is not written: {done.reason}" if isinstance(done, Failure) else f"written: {done}"
        watch(Event("noted", said))
