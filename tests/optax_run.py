"""Fine-tuning in JAX with Optax, written for the comparison with Keras; run in a process of its own."""

import numpy as np

from convert.pipeline.frameworks import import_frameworks

import_frameworks()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
import tensorflow as tf  # noqa: E402

from convert.finetune.network import FineTuned  # noqa: E402
from convert.finetune.recipe import BATCH_SIZE, Recipe  # noqa: E402
from convert.finetune.train import Trainer  # noqa: E402
from models.catalog import ALL_HANDLES  # noqa: E402
from models.mixer import MlpMixer  # noqa: E402
from models.params import flatten, nest  # noqa: E402
from models.preprocessing import HALF_RANGE  # noqa: E402
from validation.digits.pictures import Digits  # noqa: E402

CLASSES = 10


def compare(extractor, architecture, name, steps, whole):
    """Train the same model on the same batches of digits in Keras and in JAX, from the same params.

    Returns the losses in JAX and, as `differences`, how far from JAX are: Keras; JAX when one weight is off by its last
    bit; and JAX with Optax's own momentum.
    """
    tf.config.experimental.enable_op_determinism()
    sizes = next(one.checkpoint.architecture for one in ALL_HANDLES.values() if name_of(one) == architecture)
    recipe = Recipe.choose(name, 800, BATCH_SIZE, steps=steps)
    model = FineTuned(extractor, sizes, CLASSES, recipe, 0)
    start = model.arrays()
    digits, _ = Digits.load(sizes.image_size)
    count = len(digits.labels) if whole else BATCH_SIZE
    images = (digits.pictures[:count].astype(np.float32) - HALF_RANGE) / HALF_RANGE
    chosen = np.random.default_rng(3).integers(0, count, (steps, BATCH_SIZE))
    part, ours, theirs, apply = model.whole, images, images, MlpMixer(sizes, CLASSES).apply
    if not whole:
        part, ours = model.head, model.extract(images)
        params = nest({key: array for key, array in start.items() if not key.startswith("head/")})
        theirs = np.asarray(jax.jit(MlpMixer(sizes, None).apply)({"params": params}, images))
        start, apply = {key: array for key, array in start.items() if key.startswith("head/")}, linear
    trainer = Trainer(part, recipe)
    losses = np.array([trainer.step(ours[rows], digits.labels[rows]) for rows in chosen])
    keras = losses, {key: array for key, array in model.arrays().items() if key in start}
    batches = [(theirs[rows], digits.labels[rows]) for rows in chosen]
    jax_run = train(apply, optimizer_of(recipe), start, batches)
    return {
        "losses": jax_run[0].tolist(),
        "keras": differences(jax_run, keras),
        "nudged": differences(jax_run, train(apply, optimizer_of(recipe), nudged(start), batches)),
        "other momentum": differences(jax_run, train(apply, optimizer_of(recipe, own=True), start, batches)),
    }


def name_of(handle):
    return handle.checkpoint.architecture.name


def linear(variables, features):
    head = variables["params"]["head"]
    return features @ head["kernel"] + head["bias"]


def optimizer_of(recipe, *, own=False):
    """The recipe's optimizer; its momentum is that of Keras, where past gradients keep the rate of their step."""
    rate = optax.warmup_cosine_decay_schedule(recipe.first_rate, recipe.rate, recipe.warm_up, recipe.steps)
    clip = optax.clip_by_global_norm(1.0) if recipe.global_clip else optax.stateless(clip_each)
    parts = [optax.scale_by_learning_rate(rate), optax.trace(recipe.momentum)]
    return optax.chain(clip, *(parts[::-1] if own else parts))


def clip_each(gradients, _):
    return jax.tree.map(lambda one: one * jnp.minimum(1.0, 1.0 / jnp.linalg.norm(one.ravel())), gradients)


def nudged(arrays):
    """The params with one weight moved by its last bit."""
    name = min(arrays, key=lambda key: (not key.endswith("kernel"), key))
    changed = arrays[name].copy()
    changed.flat[5] = np.nextafter(changed.flat[5], np.inf)
    return {**arrays, name: changed}


def train(apply, optimizer, arrays, batches):
    """Return the loss of each step, and the params after the last, by name."""

    @jax.jit
    def step(params, slots, inputs, labels):
        def loss_of(params):
            logits = apply({"params": params}, inputs)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, slots = optimizer.update(gradients, slots, params)
        return optax.apply_updates(params, updates), slots, loss

    params = nest({name: jnp.asarray(array) for name, array in arrays.items()})
    slots, losses = optimizer.init(params), []
    for inputs, labels in batches:
        params, slots, loss = step(params, slots, inputs, labels)
        losses.append(float(loss))
    return np.array(losses), {name: np.asarray(array) for name, array in flatten(params).items()}


def differences(one, other):
    """The largest difference of losses, and of weights in units of the spread of all weights."""
    spread = np.concatenate([array.ravel() for array in one[1].values()]).std()
    weights = max(np.abs(array - other[1][name]).max() for name, array in one[1].items())
    return float(np.abs(one[0] - other[0]).max()), float(weights / spread)
