"""The training of a fine-tuned model, in a process of its own: its settings would change what is converted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convert.finetune.pictures import Crop, Labelled, Reader
from convert.finetune.recipe import Recipe
from convert.finetune.state import State
from convert.pipeline.fine_tuning import FineTuning
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.progress import Steps, Watch
from models.catalog import Architecture
from models.errors import counted
from models.params import save_params

if TYPE_CHECKING:
    import keras

    from convert.finetune.network import FineTuned
    from convert.finetune.train import Inputs, Labels, Loop

_MOST_SCORES = 50


@dataclass(frozen=True)
class Training:
    """All that training needs."""

    tuning: FineTuning
    extractor: Path
    """The SavedModel of the feature extractor."""
    architecture: Architecture
    trained: Labelled
    held_out: Labelled
    classes: int
    recipe: Recipe

    @property
    def score_every(self) -> int:
        """Steps between two evaluations: an epoch, or a part of all steps if that is longer."""
        return max(-(-len(self.trained) // self.tuning.batch_size), self.recipe.steps // _MOST_SCORES)

    def indices(self, step: int) -> list[tuple[int, int]]:
        """Return index and epoch of each picture of a step."""
        return self.trained.batch(step, self.tuning.batch_size, self.tuning.seed)

    def labels(self, step: int) -> "Labels":
        """Return the class indices `[batch]` of a step."""
        import numpy as np

        return np.asarray([self.trained.labels[index] for index, _ in self.indices(step)], np.int64)

    def run(self, watch: Watch) -> State:
        """Train, and leave the best params in `tuning.result`; go on where an earlier process stopped.

        Raises:
            MixerError: a picture cannot be read, the SavedModel is another, or the loss is not finite.
        """
        import_frameworks(any_device=True)
        import keras
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(self.tuning.seed)
        from convert.finetune.network import FineTuned
        from convert.finetune.train import Loop

        size = self.architecture.image_size
        loop = Loop(
            self.recipe.steps,
            self.tuning.batch_size,
            self.score_every,
            self.tuning.save_every,
            self.tuning.patience,
            self.tuning.folder / "state.npz",
            self.tuning.result,
        )
        with Steps(watch, 2) as on, Reader(size) as reader:
            on.start(f"loading {self.extractor}")
            model = FineTuned(self.extractor, self.architecture, self.classes, self.recipe, self.tuning.seed)
            if not loop.state.exists():
                every = [*self.trained.paths, *self.held_out.paths]
                reader.check(every, on.start("checking the pictures", "pictures"))
            on.finish(f"{counted(len(self.trained), 'picture')} to train on, {len(self.held_out):,} held out")
            state = (_train_whole if self.tuning.whole else _train_head)(self, model, loop, reader, on)
            on.finish(f"{counted(state.step, 'step')} done")
        return state


def _train_whole(training: Training, model: "FineTuned", loop: "Loop", reader: Reader, on: Steps) -> State:
    size = training.tuning.batch_size

    def crops(step: int) -> list[Crop]:
        chosen = training.indices(step)
        return [
            Crop(training.trained.paths[index], (training.tuning.seed, step * size + place))
            for place, (index, _) in enumerate(chosen)
        ]

    def batches(first: int) -> "Iterator[tuple[Inputs, Labels]]":
        ahead = range(first, training.recipe.steps)
        for step, images in zip(ahead, reader.batches(map(crops, ahead)), strict=True):
            yield images, training.labels(step)

    def held_out() -> "Iterator[tuple[Inputs, Labels]]":
        every = [Crop(path) for path in training.held_out.paths]
        parts = [every[start : start + size] for start in range(0, len(every), size)]
        return _labelled(reader.batches(parts), training.held_out)

    return _fit(training, model, model.whole, loop, batches, held_out, on)


def _train_head(training: Training, model: "FineTuned", loop: "Loop", reader: Reader, on: Steps) -> State:
    from convert.finetune.features import FeatureFile

    count, size = training.tuning.crops, training.tuning.batch_size
    crops = [
        Crop(path, None if number == 0 else (training.tuning.seed, index * count + number))
        for index, path in enumerate(training.trained.paths)
        for number in range(count)
    ]
    crops += [Crop(path) for path in training.held_out.paths]
    file = FeatureFile(training.tuning.folder / "features.bin", training.architecture.hidden_dim)
    file.fill(crops, model.extract, reader, size, on.start("computing features", "crops"))
    features = file.read()
    held = features[len(training.trained) * count :]

    def batches(first: int) -> "Iterator[tuple[Inputs, Labels]]":
        for step in range(first, training.recipe.steps):
            rows = [index * count + epoch % count for index, epoch in training.indices(step)]
            yield features[rows], training.labels(step)

    def held_out() -> "Iterator[tuple[Inputs, Labels]]":
        return _labelled((held[start : start + size] for start in range(0, len(held), size)), training.held_out)

    return _fit(training, model, model.head, loop, batches, held_out, on)


def _labelled(batches: "Iterable[Inputs]", pictures: Labelled) -> "Iterator[tuple[Inputs, Labels]]":
    import numpy as np

    start = 0
    for inputs in batches:
        yield inputs, np.asarray(pictures.labels[start : start + len(inputs)])
        start += len(inputs)


def _fit(
    training: Training,
    model: "FineTuned",
    part: "keras.Model",
    loop: "Loop",
    batches: "Callable[[int], Iterator[tuple[Inputs, Labels]]]",
    held_out: "Callable[[], Iterator[tuple[Inputs, Labels]]]",
    on: Steps,
) -> State:
    """Train a part of the model; keep the best params, and write what TensorBoard shows."""
    from convert.finetune.train import Trainer
    from models.scalars import ScalarLog

    trainer = Trainer(part, training.recipe)
    log = ScalarLog(training.tuning.folder / "tensorboard")

    def scored(state: State) -> None:
        score = state.scores[-1]
        losses = {"loss/trained on": score.train_loss, "loss/held out": score.loss}
        log.write({**losses, "accuracy/held out": score.right / score.total}, score.step)
        on.note(
            f"step {score.step:,}: loss {score.train_loss:.4f}, held out {score.loss:.4f}, "
            f"{score.right:,} of {score.total:,} right"
        )

    return loop.run(
        trainer,
        batches,
        held_out,
        improved=lambda: save_params(model.arrays(), training.tuning.result),
        scored=scored,
        progress=on.start("training", "steps"),
    )
