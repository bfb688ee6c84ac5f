"""Write the page of a directory of models after work on them."""

from pathlib import Path

from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.progress import Event, Watch


def refresh_page(out: Path, watch: Watch | None) -> None:
    """Write `<out>/index.html` about all that is in `out`; a problem with it is only noted, as the work is done."""
    from validation.views.page import write_page

    if not out.is_dir():
        return
    done = attempt(lambda: write_page(out))
    if watch is not None and done is not None:
        said = f"the page is not written: {done.reason}" if isinstance(done, Failure) else f"written: {done}"
        watch(Event("noted", said))
