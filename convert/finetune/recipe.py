"""The recipes of fine-tuning: how many steps, at which learning rate, with which clipping and which first head."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    import keras

RecipeName = Literal["collection", "bit"]

BATCH_SIZE = 64
"""Pictures of a step by default, as in the collection's notebook; the sources of `bit` take 512."""

_EPOCHS = 8
_SMALL, _MEDIUM = 20_000, 500_000  # pictures


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: stochastic gradient descent on the softmax cross-entropy."""

    name: RecipeName
    steps: int
    warm_up: int
    """Steps in which the learning rate rises linearly from `first_rate` to `rate`; then it falls to 0 as a cosine."""
    first_rate: float
    rate: float
    momentum: float
    global_clip: bool
    """Whether gradients are clipped by their norm over all variables, or each variable's by its own; to 1."""
    zero_head: bool
    """Whether the head's kernel starts as zeros, or as Glorot's uniform random numbers."""

    @classmethod
    def choose(
        cls, name: RecipeName, pictures: int, batch_size: int, *, steps: int | None = None, rate: float | None = None
    ) -> Self:
        """Return a recipe for a number of pictures to train on.

        - `collection`: that of the fine-tuning notebook of version 1's collection
          (https://tfhub.dev/sayakpaul/collections/mlp-mixer): 8 epochs, rate 0.03 after 10 steps from 0.006, no
          momentum, the gradient of each variable clipped to the norm 1.
        - `bit`: that of `big_vision/configs/transfer.py` (https://github.com/google-research/big_vision), after the
          BiT-HyperRule (section 3.3 of https://arxiv.org/abs/1912.11370): 500 steps at 0.003 below 20,000 pictures,
          10,000 at 0.01 below 500,000, else 20,000 at 0.03; momentum 0.9, gradients clipped to the global norm 1, a
          zero head.

        Args:
            name: of the recipe.
            pictures: how many are trained on.
            batch_size: pictures of a step.
            steps: instead of the recipe's.
            rate: the highest learning rate, instead of the recipe's.
        """
        if name == "collection":
            count = steps or max(1, _EPOCHS * pictures // batch_size)
            warm_up, highest = min(10, count // 2), rate or 0.03
            return cls(name, count, warm_up, highest / 5, highest, 0.0, global_clip=False, zero_head=False)
        size = sum(pictures >= most for most in (_SMALL, _MEDIUM))
        count = steps or (500, 10_000, 20_000)[size]
        warm_up = min((100, 500, 500)[size], count // 2)
        highest = rate or (0.003, 0.01, 0.03)[size]
        return cls(name, count, warm_up, 0.0, highest, 0.9, global_clip=True, zero_head=True)

    def optimizer(self) -> "keras.optimizers.Optimizer":
        """Return the optimizer, which counts its steps from 0.

        Its momentum is that of Keras, `v = momentum * v - rate * gradient`: a gradient keeps the rate of its step.
        """
        import keras

        schedule = keras.optimizers.schedules.CosineDecay(
            self.first_rate, self.steps - self.warm_up, warmup_target=self.rate, warmup_steps=self.warm_up
        )
        clip = {"global_clipnorm": 1.0} if self.global_clip else {"clipnorm": 1.0}
        return keras.optimizers.SGD(schedule, momentum=self.momentum, **clip)
