"""The training loop: steps, evaluations, the best params so far, and the state that a later process resumes from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from convert.finetune.pictures import padded
from convert.finetune.recipe import Recipe
from convert.finetune.state import Score, State
from models.errors import MixerError
from models.progress import Progress

Inputs = NDArray[np.float32]
"""A batch of a model's inputs: `[batch, ...]`."""
Labels = NDArray[np.int64]
"""Class indices `[batch]`."""


class Trainer:
    """A Keras model with an optimizer; each of its functions is traced once, for one size of batch."""

    def __init__(self, model: keras.Model, recipe: Recipe) -> None:
        """Prepare to train a model that gives logits, by a recipe."""
        self._model, self._trained = model, list(model.trainable_variables)
        self._optimizer = recipe.optimizer()
        self._optimizer.build(self._trained)
        self._step: Callable[..., tf.Tensor] = tf.function(self._train)
        self._forward: Callable[..., tf.Tensor] = tf.function(model)

    def step(self, inputs: Inputs, labels: Labels) -> float:
        """Take one step, and return the loss before it: the mean softmax cross-entropy."""
        return float(self._step(tf.constant(inputs), tf.constant(labels)))

    def logits(self, inputs: Inputs, batch_size: int) -> NDArray[np.float32]:
        """Return logits `[batch, classes]` of at most `batch_size` inputs."""
        logits: NDArray[np.float32] = self._forward(tf.constant(padded(inputs, batch_size))).numpy()[: len(inputs)]
        return logits

    def values(self) -> list[NDArray[Any]]:
        """Return the values of all variables: those of the model that are trained, and the optimizer's."""
        return [np.asarray(variable) for variable in self._every]

    def assign(self, values: Sequence[NDArray[Any]]) -> None:
        """Set all variables, as `values` gives them."""
        for variable, value in zip(self._every, values, strict=True):
            variable.assign(value)

    @property
    def _every(self) -> list[Any]:
        return [*self._trained, *self._optimizer.variables]

    def _train(self, inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        values = [variable.value for variable in self._trained]
        with tf.GradientTape() as tape:
            logits = self._model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        self._optimizer.apply(tape.gradient(loss, values), self._trained)
        return loss


@dataclass(frozen=True)
class Loop:
    """How long to train, and how often to look."""

    steps: int
    batch_size: int
    score_every: int
    """Steps between two evaluations; there is one after the last step too."""
    save_every: int
    patience: int | None
    """Evaluations without a better score after which training ends; None to take all steps."""
    state: Path
    """The file of the state."""
    best: Path
    """The file of the best params; without it, a run that was scored starts again."""

    def run(
        self,
        trainer: Trainer,
        batches: Callable[[int], Iterable[tuple[Inputs, Labels]]],
        held_out: Callable[[], Iterable[tuple[Inputs, Labels]]],
        *,
        improved: Callable[[], None],
        scored: Callable[[State], None],
        progress: Progress,
    ) -> State:
        """Train, from the saved state if there is one.

        Args:
            trainer: the model.
            batches: yields the batches of the steps from a number on.
            held_out: yields batches of the pictures that are not trained on.
            improved: called after an evaluation that is the best so far.
            scored: called after each evaluation.
            progress: called with the steps done and in all.

        Raises:
            MixerError: the loss is not finite.
            OSError: the state cannot be written.
        """
        state = _resume(trainer, self)
        if state.step >= self.steps or state.has_stalled(self.patience):
            return state
        progress(state.step, self.steps)
        for inputs, labels in batches(state.step):
            loss = trainer.step(inputs, labels)
            state.step += 1
            if not np.isfinite(loss):
                raise MixerError(f"the loss of step {state.step} is not finite: give a lower learning rate (--rate).")
            state.losses.append(loss)
            progress(state.step, self.steps)
            last = state.step == self.steps
            if last or state.step % self.score_every == 0:
                state.scores.append(_score(trainer, self, state, held_out()))
                if state.best is state.scores[-1]:
                    improved()
                scored(state)
                state.losses.clear()
                state.save(trainer.values(), self.state)
            elif state.step % self.save_every == 0:
                state.save(trainer.values(), self.state)
            if last or state.has_stalled(self.patience):
                break
        return state


def _resume(trainer: Trainer, loop: Loop) -> State:
    if not loop.state.is_file():
        return State()
    state, values = State.read(loop.state)
    if state.scores and not loop.best.is_file():
        return State()
    trainer.assign(values)
    return state


def _score(trainer: Trainer, loop: Loop, state: State, batches: Iterable[tuple[Inputs, Labels]]) -> Score:
    losses: list[float] = []
    right = 0
    for inputs, labels in batches:
        logits = trainer.logits(inputs, loop.batch_size).astype(np.float64)
        highest = logits.max(-1)
        own = logits[np.arange(len(labels)), labels]
        losses += (highest + np.log(np.exp(logits - highest[:, np.newaxis]).sum(-1)) - own).tolist()
        right += int((logits.argmax(-1) == labels).sum())
    if not np.isfinite(losses).all():
        raise MixerError(
            f"the loss on the held-out pictures after step {state.step} is not finite: give a lower learning rate "
            "(--rate)."
        )
    return Score(state.step, float(np.mean(state.losses)), float(np.mean(losses)), right, len(losses))
