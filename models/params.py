"""Parameters: nested as in Flax, or flat and keyed by their names in a checkpoint, `a/b/c`."""

import functools
from collections.abc import Mapping
from typing import Any

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
