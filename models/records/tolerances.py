"""The limits of the parity check, each with its reason; a report contains the limits it was judged by.

Differences of an image's outputs are divided by their scale (`validation.parity.scale`): their spread or, where that
vanishes, the spread that the head gives such features, or a hundredth of the terms that it adds up.
"""

from models.digests import Origin
from models.formats import FORMATS, FormatName, Weights
from models.records.check import Tolerance

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
        "weights_steps": Tolerance(
            limit=0.51,
            reason="Largest distance of a stored kernel from the checkpoint's, in steps between its values: rounding "
            "costs half a step, the rest is for float32.",
        ),
        "own_weights_relative": Tolerance(
            limit=TOLERANCES["max_relative"].limit,
            reason="Largest difference from the oracle run on the weights as the file stores them, over the scale: "
            "what it computes, whatever rounding costs. As for the SavedModel. "
            f"{TOLERANCES['max_relative'].reason}",
        ),
        "max_relative": Tolerance(
            limit=0.1,
            reason="Largest difference of an output over the scale of the image's outputs: what rounding the weights "
            "costs. 0.03 was measured with a small trained Mixer on the images of the gate set, and on 1,000 pictures "
            "like those that it was trained on, with the same first class on 999; the errors of more layers add up.",
        ),
        "top1_disagreement": _SAME_FIRST_CLASS,
        "tie": Tolerance(
            limit=3e-2,
            reason="Classes whose logits are closer than this, over the scale, count as equal: a few times the typical "
            "error.",
        ),
    },
}
"""Limits of the formats beyond TensorFlow, compared with the float64 oracle, by how the weights are stored."""

SYNTHETIC_TOLERANCES: dict[Weights, dict[str, Tolerance]] = {
    "int8": {
        "max_relative": Tolerance(
            limit=0.2,
            reason="Largest difference of an output over the scale of the image's outputs, for synthetic weights, "
            "which have more outliers: 0.14 was measured in logits of S/32, whose patch embedding is int8 too, 0.19 in "
            "its features; 0.10 and 0.15 in B/32's, which dynamic-range quantisation put off by 0.27 and 0.44.",
        ),
    },
}
"""Limits that replace those above where the weights are synthetic (`seeded`)."""


DEFAULT_SETTINGS = Tolerance(
    limit=0.2,
    reason="Largest difference of an output over the scale of the image's outputs, with the default settings of a "
    "runtime that rounds to bfloat16 where the processor has it: numbers of 8 bits, and the errors of the layers add "
    "up. 0.02 to 0.07 was measured.",
)
"""Limit of formats whose runtime needs settings to compute in float32, where it is not given them."""


def limits_of(weights: Weights, origin: Origin) -> dict[str, Tolerance]:
    """Return the limits of files with such weights, for a checkpoint of this origin."""
    return EXPORT_TOLERANCES[weights] | (SYNTHETIC_TOLERANCES.get(weights, {}) if origin == "seeded" else {})


def export_tolerances(name: FormatName, origin: Origin) -> dict[str, Tolerance]:
    """Return the limits of a format, keyed by the names of their checks: `float16 max_relative`."""
    kind = FORMATS[name]
    found = {
        f"{weights} {check}": limit
        for weights in dict.fromkeys(kind.models.values())
        for check, limit in limits_of(weights, origin).items()
    }
    return found | ({"float32 default_settings_relative": DEFAULT_SETTINGS} if kind.settings else {})
