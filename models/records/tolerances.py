"""The limits of the parity check, each with its reason; a report contains the limits it was judged by.

Differences of an image's outputs are divided by their scale (`validation.parity.scale`): their spread or, where that
vanishes, the spread that the head gives such features, or a hundredth of the terms that it adds up.
"""

from collections.abc import Iterable

from models.formats import Weights
from models.records.report import Tolerance

TOLERANCES = {
    "max_relative": Tolerance(
        limit=5e-5,
        reason="Largest difference of an output over the scale of the image's outputs. Two float32 compilations of one "
        "Mixer differ by 1e-6 to 1e-5; erf-GELU moves some output by 6e-4, a layer norm epsilon of 1e-5 moves those of "
        "a blank image by 2e-4 or more.",
    ),
    "max_ulp": Tolerance(
        limit=64.0,
        reason="Largest absolute difference in units of the last place of the largest output, or of the scale where "
        "that is larger: rounding of about a hundred layers, whatever the scale; up to 19 were measured.",
    ),
    "cosine_distance": Tolerance(
        limit=1e-9,
        reason="1 - cosine similarity grows with the square of the relative difference: 5e-5 squared, with a margin.",
    ),
    "oracle_excess_ulp": Tolerance(
        limit=16.0,
        reason="The SavedModel's error against the float64 oracle may be twice JAX's own plus this many units in the "
        "last place (as above): both round alike, but not the same way.",
    ),
    "jax_oracle_relative": Tolerance(
        limit=5e-5,
        reason="JAX's own largest difference from the float64 oracle over the scale: JAX is what the SavedModel is "
        "compared with, so a Mixer that is wrong in both must fail here. It is the rounding of one float32 "
        "computation, so no more than is allowed between two; up to 1e-5 was measured.",
    ),
    "batch_relative": Tolerance(
        limit=5e-5,
        reason="Largest difference of an output of one image between batches, over the scale: only the order of sums "
        "may depend on the size of a batch, so no more than is allowed between two computations.",
    ),
    "gradient_relative": Tolerance(
        limit=1e-4,
        reason="Largest difference of a variable's gradient over its largest value: a gradient passes twice as many "
        "layers as an output; about 4e-6 was measured.",
    ),
    "gradients_missing": Tolerance(
        limit=0.0,
        reason="Variables without a gradient: every variable of a model that can be fine-tuned has one.",
    ),
    "step_relative": Tolerance(
        limit=1e-4,
        reason="Outputs after one SGD step, over the scale before it: the differences of outputs and of gradients "
        "together.",
    ),
    "top1_disagreement": Tolerance(
        limit=0.0,
        reason="Share of images whose top-1 class differs; classes whose reference logits are closer than twice "
        "max_relative count as equal.",
    ),
    "top5_disagreement": Tolerance(
        limit=0.0,
        reason="Share of images whose set of top-5 classes differs, with the same exception.",
    ),
    "variables": Tolerance(
        limit=0.0,
        reason="Number of variables that differ from the checkpoint's arrays in any bit: conversion copies them.",
    ),
    "consumer": Tolerance(
        limit=5e-5,
        reason="As max_relative, for the ways users call the model, in a process without JAX: the same computation.",
    ),
}


_SAME_FIRST_CLASS = Tolerance(limit=0.0, reason="Share of images whose top-1 class differs, ties excepted.")

EXPORT_TOLERANCES: dict[Weights, dict[str, Tolerance]] = {
    "float32": {
        name: Tolerance(limit=TOLERANCES[name].limit, reason=f"As for the SavedModel. {TOLERANCES[name].reason}")
        for name in ("max_relative", "max_ulp", "cosine_distance", "top1_disagreement")
    }
    | {
        "tie": Tolerance(
            limit=2 * TOLERANCES["max_relative"].limit,
            reason="Classes whose logits are closer than this, over the scale, count as equal: twice max_relative.",
        )
    },
    "float16": {
        "max_relative": Tolerance(
            limit=5e-2,
            reason="Largest difference of an output over the scale of the image's outputs. Weights of 11 "
            "bits are off by up to 5e-4 each, and the errors of the layers add up: 6e-3 was measured on photographs, "
            "2e-2 on a blank image, whose layer norms enlarge them. Smaller errors are noticed in the float32 "
            "file, which comes from the same graph.",
        ),
        "top1_disagreement": _SAME_FIRST_CLASS,
        "cosine_distance": Tolerance(
            limit=1e-5,
            reason="1 - cosine similarity: the typical error rather than the largest; up to 1.4e-6 was measured.",
        ),
        "tie": Tolerance(
            limit=2e-2,
            reason="Classes whose logits are closer than this, over the scale, count as equal: a few times the typical "
            "error.",
        ),
    },
    "int8": {
        "max_relative": Tolerance(
            limit=0.75,
            reason="Largest difference of an output over the scale of the image's outputs. Kernels, and "
            "the inputs of dense layers, of 8 bits each are off by up to 4e-3 of the largest in their row, and the "
            "errors of the layers add up: 0.28 was measured in logits, 0.47 in features. Smaller errors are noticed in "
            "the float32 file, which comes from the same graph.",
        ),
        "top1_disagreement": _SAME_FIRST_CLASS,
        "cosine_distance": Tolerance(
            limit=1e-2,
            reason="1 - cosine similarity: the typical error rather than the largest; up to 2e-3 was measured.",
        ),
        "tie": Tolerance(
            limit=0.25,
            reason="Classes whose logits are closer than this, over the scale, count as equal: a few times the typical "
            "error.",
        ),
    },
}
"""Limits of the formats beyond TensorFlow, compared with the float64 oracle, by how the weights are stored."""


def export_tolerances(weights: Iterable[Weights]) -> dict[str, Tolerance]:
    """Return the limits of files with such weights, keyed by the names of their checks: `float16 max_relative`."""
    return {f"{one} {name}": limit for one in weights for name, limit in EXPORT_TOLERANCES[one].items()}
