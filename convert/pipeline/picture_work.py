"""Work on batches of pictures, and the ways to run it: here, in this process; elsewhere, in `distributed`.

Either way the batches are the same, and the answers come in their order.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from models.errors import MixerError

if TYPE_CHECKING:
    from validation.formats.runtimes import RunnableModel

Batch = TypeVar("Batch", contravariant=True)
Read = TypeVar("Read")
Answer = TypeVar("Answer", covariant=True)


class Work(Protocol[Batch, Read, Answer]):
    """What is done with each batch of pictures; picklable, as are batches and what becomes of them."""

    def open(self) -> "Sequence[RunnableModel]":
        """Load the models, which take images of one size."""

    def read(self, batch: Batch, size: int) -> Read:
        """Read a batch and preprocess it for models of that image size."""

    def answer(self, models: "Sequence[RunnableModel]", read: Read) -> Answer:
        """Run the models."""


class Run(Protocol):
    """A way to run work on batches."""

    def __call__(
        self, work: Work[Batch, Read, Answer], models: "Sequence[RunnableModel]", batches: Sequence[Batch]
    ) -> Iterator[Answer]:
        """Yield the answer to each batch, in their order; the models are those of the work, loaded."""


def run_here(
    work: Work[Batch, Read, Answer], models: "Sequence[RunnableModel]", batches: Sequence[Batch]
) -> Iterator[Answer]:
    """Yield the answer to each batch, computed in this process."""
    for batch in batches:
        yield work.answer(models, work.read(batch, image_size(models)))


def image_size(models: "Sequence[RunnableModel]") -> int:
    """Return the size of the images that all models take.

    Raises:
        MixerError: they take several.
    """
    sizes = {model.takes[0][2][1] for model in models}
    if len(sizes) != 1 or None in sizes:
        raise MixerError(f"the models take images of several sizes: {sizes}.")
    return sizes.pop() or 0
