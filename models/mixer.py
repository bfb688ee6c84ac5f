"""MLP-Mixer in Flax, as in section 2 and figure 1 of the paper (https://arxiv.org/abs/2105.01601).

Module names equal those of the original checkpoints (`vit_jax/models_mixer.py` of
https://github.com/google-research/vision_transformer), so that their arrays are used as params unchanged. Epsilon
(1e-6) and GELU (its tanh form) are Flax's defaults, as in the original; both are written out because a checkpoint means
nothing without them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.catalog import Architecture

LAYER_NORM_EPSILON = 1e-6


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them, over the last axis: `[..., n] -> [..., n]`."""

    mlp_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map the last axis to `mlp_dim` values and back."""
        y = nn.Dense(self.mlp_dim)(x)
        y = nn.gelu(y, approximate=True)
        return nn.Dense(x.shape[-1])(y)


class MixerBlock(nn.Module):
    """One mixer layer: mix the tokens of each channel, then the channels of each token (equation 1)."""

    tokens_mlp_dim: int
    channels_mlp_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens `[batch, tokens, channels]` to the same shape."""
        y = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON)(x)
        y = jnp.swapaxes(y, 1, 2)
        y = MlpBlock(self.tokens_mlp_dim, name="token_mixing")(y)
        y = jnp.swapaxes(y, 1, 2)
        x = x + y
        y = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON)(x)
        return x + MlpBlock(self.channels_mlp_dim, name="channel_mixing")(y)


class MlpMixer(nn.Module):
    """The Mixer: patches to tokens, mixer layers, the mean over tokens and, with `num_classes`, a linear head.

    Attributes:
        architecture: sizes of the model.
        num_classes: number of logits, or None for the feature extractor.
        layer: the module of a mixer layer; `nn.jit` of it, which JAX traces once for all layers, computes the same.
    """

    architecture: Architecture
    num_classes: int | None
    layer: type[nn.Module] = MixerBlock

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits `[batch, num_classes]`, or features `[batch, hidden_dim]`, of float32 images.

        Args:
            images: `[batch, height, width, 3]`, RGB, scaled to [-1, 1].
        """
        sizes = self.architecture
        patch = (sizes.patch_size, sizes.patch_size)
        x = nn.Conv(sizes.hidden_dim, patch, strides=patch, padding="VALID", name="stem")(images)
        x = jnp.reshape(x, (x.shape[0], sizes.tokens, sizes.hidden_dim))
        for index in range(sizes.num_blocks):
            x = self.layer(sizes.tokens_mlp_dim, sizes.channels_mlp_dim, name=f"MixerBlock_{index}")(x)
        x = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="pre_head_layer_norm")(x)
        x = jnp.mean(x, axis=1)
        self.sow("intermediates", "features", x)
        if self.num_classes is not None:
            x = nn.Dense(self.num_classes, name="head")(x)
        return x
