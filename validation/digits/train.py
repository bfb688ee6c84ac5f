"""Train a Mixer from scratch in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from models.catalog import Architecture
from models.mixer import MlpMixer
from models.params import Params
from models.preprocessing import HALF_RANGE
from models.progress import Progress
from validation.digits.pictures import NAMES, Digits

STEPS = 3000
BATCH = 64

_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
_COPIES = 40  # of each picture, every one changed in another way
_REPORTED = 50  # steps between two reports of progress
_SEED = 20210504


def train(architecture: Architecture, digits: Digits, *, progress: Progress | None = None) -> Params:
    """Train a classifier of digits with Adam, on changed copies of the pictures (`Digits.varied`).

    Args:
        architecture: of the Mixer.
        digits: the pictures to train on.
        progress: called with the steps done and in all.

    Returns:
        The params, nested by module as in the original checkpoints.
    """
    model = MlpMixer(architecture, len(NAMES))
    size = architecture.image_size
    key = jax.random.key(_SEED)
    params: Params = jax.jit(model.init)(key, jnp.zeros((1, size, size, 3)))["params"]
    rate = optax.warmup_cosine_decay_schedule(0.0, _LEARNING_RATE, STEPS // 10, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=_WEIGHT_DECAY))
    varied = digits.varied(_COPIES)
    pictures, labels = jnp.asarray(varied.pictures), jnp.asarray(varied.labels)

    def loss(params: Params, batch: jax.Array, classes: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, batch)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, classes))

    @jax.jit
    def step(params: Params, slots: Any, key: jax.Array) -> tuple[Params, Any]:  # noqa: ANN401 (Optax's own)
        chosen = jax.random.randint(key, (BATCH,), 0, len(labels))
        gradients = jax.grad(loss)(params, _scale(pictures[chosen]), labels[chosen])
        updates, slots = optimizer.update(gradients, slots, params)
        return optax.apply_updates(params, updates), slots

    slots = optimizer.init(params)
    # A loop in JAX (`lax.scan`) is several times slower on a CPU: XLA computes within it in one thread.
    for done, step_key in enumerate(jax.random.split(jax.random.key(_SEED + 1), STEPS), 1):
        params, slots = step(params, slots, step_key)
        if progress and done % _REPORTED == 0:
            jax.block_until_ready(params)  # type: ignore[no-untyped-call]
            progress(done, STEPS)
    return params


def predict(architecture: Architecture, params: Params, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return JAX's logits `[n, classes]` for pictures `[n, size, size, 3]`."""
    model = MlpMixer(architecture, len(NAMES))
    logits: NDArray[np.float32] = np.asarray(jax.jit(model.apply)({"params": params}, _scale(jnp.asarray(pictures))))
    return logits


def _scale(pictures: jax.Array) -> jax.Array:
    """Return pixels from 0 to 255 as float32 from -1 to 1."""
    return (pictures.astype(jnp.float32) - HALF_RANGE) / HALF_RANGE
