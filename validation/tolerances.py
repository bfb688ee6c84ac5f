"""The limits of the parity check, each with its reason."""

from models.formats import Weights
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
    "jax_oracle_relative": Tolerance(
        limit=5e-5,
        reason="JAX's own largest difference from the float64 oracle over the standard deviation of the image's "
        "outputs: JAX is what the SavedModel is held against, so a Mixer that is wrong in both must fail here. It is "
        "the rounding of one float32 computation, so no more than is allowed between two; up to 1e-5 is seen.",
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


EXPORT_TOLERANCES: dict[Weights, dict[str, Tolerance]] = {
    "float32": {
        name: Tolerance(limit=TOLERANCES[name].limit, reason=f"As for the SavedModel. {TOLERANCES[name].reason}")
        for name in ("max_relative", "max_ulp", "cosine_distance")
    }
    | {
        "tie": Tolerance(
            limit=2 * TOLERANCES["max_relative"].limit,
            reason="The first class agrees on every image; classes whose logits are closer than this, over the spread, "
            "count as equal: twice max_relative.",
        )
    },
    "float16": {
        "max_relative": Tolerance(
            limit=5e-2,
            reason="Largest difference of an output over the standard deviation of the image's outputs. Weights of 11 "
            "bits are off by up to 5e-4 each, and the errors of the layers add up: 6e-3 is seen on photographs, 2e-2 "
            "on a blank image, whose layer norms enlarge them. What moves outputs by less than this is noticed in the "
            "float32 file, which comes from the same graph.",
        ),
        "cosine_distance": Tolerance(
            limit=1e-5, reason="1 - cosine similarity: the typical error rather than the largest; up to 1.4e-6 is seen."
        ),
        "tie": Tolerance(
            limit=2e-2,
            reason="The first class agrees on every image; classes whose logits are closer than this, over the spread, "
            "count as equal: a few times the typical error.",
        ),
    },
    "int8": {
        "max_relative": Tolerance(
            limit=0.75,
            reason="Largest difference of an output over the standard deviation of the image's outputs. Kernels, and "
            "the inputs of dense layers, of 8 bits each are off by up to 4e-3 of the largest in their row, and the "
            "errors of the layers add up: 0.28 is seen in logits, 0.47 in features. What moves outputs by less than "
            "this is noticed in the float32 file, which comes from the same graph.",
        ),
        "cosine_distance": Tolerance(
            limit=1e-2, reason="1 - cosine similarity: the typical error rather than the largest; up to 2e-3 is seen."
        ),
        "tie": Tolerance(
            limit=0.25,
            reason="The first class agrees on every image; classes whose logits are closer than this, over the spread, "
            "count as equal: a few times the typical error.",
        ),
    },
}
"""For the formats beyond TensorFlow, against the float64 oracle, by how the weights are stored."""
