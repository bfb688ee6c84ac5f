"""Trace with the same JAX settings, whatever the process has set."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax

CALLING_CONVENTION = 9
"""The version for `jax.export`: the highest that TensorFlow up to 2.19 supports (10 needs 2.20)."""

SETTINGS: Mapping[str, Any] = {
    "jax_export_calling_convention_version": CALLING_CONVENTION,
    "jax_export_ignore_forward_compatibility": False,
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_no_tracing": False,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_enable_checks": False,
    "jax_check_tracer_leaks": False,
    "jax_softmax_custom_jvp": False,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_use_direct_linearize": True,
    "jax_use_simplified_jaxpr_constants": False,
    "jax_embedded_constants_max_bytes": 32,
    "jax_custom_vjp3": False,
    "jax_custom_jvp3": False,
    "jax_remat3": False,
    "jax_scan3": False,
    "jax_use_shardy_partitioner": True,
    "eager_constant_folding": False,
}
"""The JAX configuration options that affect tracing, with JAX's own defaults except for the first."""


@contextmanager
def fixed_settings() -> Iterator[None]:
    """Apply `SETTINGS` to the whole process during the block, except options that this release of JAX does not have."""
    found = {name: jax.config.values[name] for name in SETTINGS if name in jax.config.values}
    try:
        for name in found:
            jax.config.update(name, SETTINGS[name])  # type: ignore[no-untyped-call]
        yield
    finally:
        for name, value in found.items():
            jax.config.update(name, value)  # type: ignore[no-untyped-call]
