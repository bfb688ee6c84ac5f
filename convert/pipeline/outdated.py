"""Compare published models with what would be made now."""

from collections.abc import Callable, Sequence

from convert.pipeline.for_each import Problem, for_each
from convert.pipeline.progress import Steps, Watch
from export.publish.outdated import PublishedState
from export.publish.store import Store
from models.catalog import Checkpoint, Handle
from models.digests import DigestTable
from models.storage.files import Hashes
from models.storage.gsutil import StoredObject


def compare_all_with_published(
    models: Sequence[Handle],
    store: Store,
    looked: Callable[[Checkpoint], Hashes | StoredObject],
    digests: DigestTable,
    watch: Watch | None = None,
    *,
    custom: Sequence[str] = (),
) -> tuple[list[PublishedState], list[Problem]]:
    """Return how published models differ from what would be made now, and which comparisons failed and why.

    `looked` returns a checkpoint's metadata at the source; `custom` are the names of custom models.
    """
    checkpoints = {made.name: made.checkpoint for made in models}

    def work(name: str, on: Steps) -> PublishedState:
        on.start(f"comparing {name} with its published version")
        return PublishedState.compare(name, store, looked(checkpoints[name]) if name in checkpoints else None, digests)

    return for_each([*checkpoints, *custom], work, watch)
