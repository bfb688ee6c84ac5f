"""The same Mixer in plain PyTorch, with a checkpoint's weights: an engine of the benchmark, not part of the proof."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models.catalog import Architecture

LAYER_NORM_EPSILON = 1e-6


class _Block(nn.Module):  # type: ignore[misc]  # PyTorch may be absent where types are checked
    """One mixer layer: mix the tokens of each channel, then the channels of each token."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.hidden_dim, eps=LAYER_NORM_EPSILON) for _ in range(2))
        self.tokens = _mlp(sizes.tokens, sizes.tokens_mlp_dim)
        self.channels = _mlp(sizes.hidden_dim, sizes.channels_mlp_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens `[batch, tokens, channels]` to the same shape."""
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class _TorchMixer(nn.Module):  # type: ignore[misc]
    """The classifier: images `[batch, height, width, 3]` to logits `[batch, classes]`."""

    def __init__(self, sizes: Architecture, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, sizes.hidden_dim, sizes.patch_size, sizes.patch_size)
        self.blocks = nn.Sequential(*(_Block(sizes) for _ in range(sizes.num_blocks)))
        self.norm = nn.LayerNorm(sizes.hidden_dim, eps=LAYER_NORM_EPSILON)
        self.head = nn.Linear(sizes.hidden_dim, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.stem(images.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def _mlp(outer: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(outer, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, outer))


def make_torch_mixer(sizes: Architecture, num_classes: int, arrays: Mapping[str, Any]) -> _TorchMixer:
    """Return the network with the arrays of a checkpoint, by their names `a/b/c`; names and shapes must match."""
    model = _TorchMixer(sizes, num_classes)
    state = {}
    for name, array in arrays.items():
        value = torch.from_numpy(array)
        leaf = name.rpartition("/")[2]
        if leaf == "kernel":  # PyTorch has the output axis first
            value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T
        state[_named(name)] = value.contiguous()
    model.load_state_dict(state)  # strict: raises for a missing or unexpected name, or another shape
    model.eval()
    return model


def _named(name: str) -> str:
    """Return the PyTorch name of a checkpoint's array."""
    for theirs, ours in (
        ("MixerBlock_", "blocks."),
        ("token_mixing", "tokens"),
        ("channel_mixing", "channels"),
        ("LayerNorm_", "norms."),
        ("pre_head_layer_norm", "norm"),
        ("Dense_0", "0"),
        ("Dense_1", "2"),
        ("kernel", "weight"),
        ("scale", "weight"),
        ("/", "."),
    ):
        name = name.replace(theirs, ours)
    return name
