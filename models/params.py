"""Parameters: nested as in Flax, or flat and keyed by their names in a checkpoint, `a/b/c`."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.storage.files import written_whole

Params = dict[str, Any]
"""Leaves nested by name: `params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"]`."""


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested parameters, keyed by their paths."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def nest(flat: Mapping[str, Any]) -> Params:
    """Return leaves keyed by their paths as nested parameters: the inverse of `flatten`."""
    params: Params = {}
    for name, value in flat.items():
        *groups, leaf = name.split("/")
        functools.reduce(lambda node, group: node.setdefault(group, {}), groups, params)[leaf] = value
    return params


def save_params(params: Mapping[str, Any], path: Path) -> None:
    """Write params, nested or flat, as an `.npz` of the original's layout, one array for each `module/.../leaf`.

    Raises:
        OSError: the file cannot be written.
    """
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(array) for name, array in flatten(params).items()})
