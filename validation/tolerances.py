"""The limits of the parity check, each with its reason."""

from models.records import Tolerance

TOLERANCES = {
    "max_relative": Tolerance(
        limit=5e-5,
        reason="Largest difference of an output over the standard deviation of the image's outputs. Two float32 "
        "compilations of one Mixer differ by 1e-6 to 1e-5; erf-GELU moves some output by "
        "6e-4, a layer norm epsilon of 1e-5 by more.",
    ),
    "max_ulp": Tolerance(
        limit=64.0,
        reason="Largest absolute difference in units of the last place of the largest output: rounding of about a "
        "hundred layers, whatever the scale; up to 19 are seen.",
    ),
    "cosine_distance": Tolerance(
        limit=1e-9,
        reason="1 - cosine similarity grows with the square of the relative difference: 5e-5 squared, with room.",
    ),
    "oracle_excess_ulp": Tolerance(
        limit=16.0,
        reason="The SavedModel's error against the float64 oracle may be twice JAX's own plus this many units in the "
        "last place of the largest output: both round alike, but not the same way.",
    ),
    "gradient_relative": Tolerance(
        limit=1e-4,
        reason="Largest difference of a variable's gradient over its largest value: a gradient passes twice as many "
        "layers as an output; some 4e-6 is seen.",
    ),
    "step_relative": Tolerance(
        limit=1e-4,
        reason="Outputs after one SGD step, over their spread: the differences of outputs and of gradients together.",
    ),
    "topk": Tolerance(
        limit=1.0,
        reason="First class and set of first five agree on every image; classes whose reference logits are closer than "
        "twice max_relative count as equal.",
    ),
}
