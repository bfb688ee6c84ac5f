"""How far outputs are from what they should be, and what is too far."""

from dataclasses import replace

import numpy as np
import pytest

from models.records.tolerances import TOLERANCES
from validation.parity.outputs import Expected, _Distances, _OracleDistances, relative_distance
from validation.parity.scale import Scale

LIMIT = TOLERANCES["max_relative"].limit
EXCESS = TOLERANCES["oracle_excess_ulp"].limit
DRIFT = TOLERANCES["jax_oracle_relative"].limit
NAMES = ("a", "b")


def compare(found, expected, *, entry="__call__", classes=True, names=None, oracle=None, indices=None):
    """Compare outputs of images; without names, as many as there are."""
    names = names or tuple("abcdefgh"[: len(expected)])
    chosen = np.arange(len(expected)) if indices is None else np.array(indices)
    scale = Scale.measure(expected, expected, None)
    return Expected(names, expected, oracle or {}, classes, scale).compare(entry, found, chosen)


def judge(comparison):
    return [problem for check in comparison.checks for problem in check.problems]


def with_distances(comparison, **figures):
    return replace(comparison, distances=replace(comparison.distances, **figures))


def outputs(seed=0, shape=(2, 50), scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


# --- the measures ---


def test_equal_outputs_differ_by_nothing():
    same = compare(outputs(), outputs())
    assert (same.entry, same.batch, same.names, same.oracle) == ("__call__", 2, NAMES, None)
    assert same.distances == _Distances(max_relative=0, max_ulp=0, cosine_distance=0, top1=1, top5=1, power=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("classes", [True, False])
def test_an_output_that_is_not_finite_is_infinitely_far(bad, classes):
    found = outputs()
    found[1, 3] = bad
    result = compare(found, outputs(), classes=classes)
    assert (result.distances.max_relative, result.distances.max_ulp) == (np.inf, np.inf)
    assert result.distances.cosine_distance == 2.0
    assert (result.distances.top1, result.distances.top5) == ((0.5, 0.5) if classes else (None, None))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["first", "last"])
def test_an_image_with_an_output_that_is_not_finite_never_agrees(bad, place):
    """Not even where it stands at the class that should come first."""
    expected = outputs()
    found = expected.copy()
    for row in found:
        row[row.argmax() if place == "first" else row.argmin()] = bad
    result = compare(found, expected)
    assert (result.distances.top1, result.distances.top5) == (0.0, 0.0)


def test_a_reference_that_is_not_finite_passes_nothing():
    expected = outputs()
    expected[0, 0] = np.nan
    result = compare(outputs(), expected)
    assert not result.distances.max_relative <= LIMIT
    assert any("max_relative nan is over" in problem for problem in judge(result))


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"serving_default gives outputs of shape \(2, 49\), expected \(2, 50\)"):
        compare(outputs(shape=(2, 49)), outputs(), entry="serving_default")


def test_outputs_are_held_against_those_of_their_images():
    """An image may come several times; it is named once."""
    expected = outputs(shape=(3, 50))
    result = compare(expected[[2, 0, 2]], expected, indices=[2, 0, 2])
    assert (result.distances.max_relative, result.batch, result.names) == (0, 3, ("c", "a"))
    assert compare(expected[[0, 2]], expected, indices=[2, 0]).distances.max_relative > 1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_differences_are_measured_against_the_spread(scale):
    expected = outputs(scale=scale)
    found = expected.copy()
    found[1, 7] += np.float32(1e-4 * expected[1].std())
    result = compare(found, expected, classes=False)
    assert result.distances.max_relative == pytest.approx(1e-4, rel=0.02)


def test_the_unit_of_the_last_place_is_that_of_the_largest_output():
    expected = np.array([[1.0, -3.0, 0.5, 0.0, 2.0, 2.5]], np.float32)
    found = expected.copy()
    found[0, 3] = 4 * np.spacing(np.float32(3.0))
    assert compare(found, expected, classes=False).distances.max_ulp == 4.0


def test_the_worst_image_counts():
    expected = outputs()
    found = expected.copy()
    found[0] += 1
    assert compare(found, expected).distances.max_relative == pytest.approx(1 / expected[0].std(), rel=1e-5)


def test_constant_outputs_are_compared_without_dividing_by_nothing():
    flat = np.ones((1, 8), np.float32)
    assert compare(flat, flat).distances.max_relative == 0
    assert compare(flat + np.float32(1e-6), flat).distances.max_relative > LIMIT
    zeros = np.zeros((1, 8), np.float32)
    assert compare(zeros, zeros).distances.max_relative == 0
    assert compare(zeros + np.float32(1e-30), zeros).distances.max_relative > 1


def test_the_cosine_distance_keeps_its_digits_where_vectors_nearly_agree():
    """1 - cos in float64 would give multiples of 1e-16, in float32 nothing below 6e-8."""
    expected = np.zeros((1, 8), np.float32)
    expected[0, 0] = 1
    for angle in (1e-4, 1e-6, 1e-9, 1e-12):
        found = expected.copy()
        found[0, 1] = angle
        result = compare(found, expected, classes=False)
        assert result.distances.cosine_distance == pytest.approx(angle**2 / 2, rel=1e-3)


def test_opposite_vectors_have_the_largest_cosine_distance():
    result = compare(-outputs(), outputs(), classes=False)
    assert result.distances.cosine_distance == pytest.approx(2.0)


def ranked(*values):
    """Outputs whose first entries are these; the rest lies far below, with a spread of about 1."""
    return np.array([[*values, *np.linspace(-4, -1, 30)]], np.float32)


def test_a_tie_in_the_first_class_is_no_disagreement():
    spread = float(ranked(2, 2, 1, 1, 1, 1).std())
    close, apart = 1.5 * LIMIT * spread, 10 * LIMIT * spread
    expected = ranked(2 + close, 2, 1, 0.9, 0.8, 0.7)
    assert compare(ranked(2, 2 + close, 1, 0.9, 0.8, 0.7), expected).distances.top1 == 1
    expected = ranked(2 + apart, 2, 1, 0.9, 0.8, 0.7)
    assert compare(ranked(2, 2 + apart, 1, 0.9, 0.8, 0.7), expected).distances.top1 == 0


def test_a_tie_at_the_fifth_place_is_no_disagreement():
    spread = float(ranked(2, 1.8, 1.6, 1.4, 1, 1).std())
    close, apart = 1.5 * LIMIT * spread, 10 * LIMIT * spread

    def top5(gap):
        found, expected = ranked(2, 1.8, 1.6, 1.4, 1, 1 + gap), ranked(2, 1.8, 1.6, 1.4, 1 + gap, 1)
        return compare(found, expected).distances.top5

    assert (top5(close), top5(apart)) == (1.0, 0.0)


def test_the_order_within_the_first_five_does_not_count():
    found, expected = ranked(2, 3, 4, 5, 6, 0), ranked(6, 5, 4, 3, 2, 0)
    result = compare(found, expected)
    assert (result.distances.top1, result.distances.top5) == (0.0, 1.0)


def test_of_fewer_than_five_classes_all_are_the_first_five():
    result = compare(ranked(2, 3, 1), ranked(3, 2, 1))
    assert (result.distances.top1, result.distances.top5) == (0.0, 1.0)


def test_agreement_is_a_share_of_the_images():
    expected = np.concatenate([ranked(6, 5, 4, 3, 2, 0)] * 4)
    found = expected.copy()
    found[3, 5] = 10
    result = compare(found, expected)
    assert (result.distances.top1, result.distances.top5) == (0.75, 0.75)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_relative_distance_is_that_of_the_worst_image_over_its_scale(scale):
    expected = outputs(scale=scale)
    found = expected.astype(np.float64)
    found[0, 3] += 1e-3 * expected[0].std()
    found[1, 3] -= 1e-2 * expected[1].std()
    spread = expected.std(axis=1, dtype=np.float64)
    assert relative_distance(found, expected, spread) == pytest.approx(1e-2, rel=1e-3)
    assert relative_distance(found, expected.astype(np.float64), spread) == pytest.approx(1e-2, rel=1e-3)
    assert relative_distance(expected, expected, spread) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_relative_distance_of_what_is_not_finite_is_infinite(bad):
    found = outputs()
    found[1, 3] = bad
    assert relative_distance(found, outputs(), np.ones(2)) == np.inf


# --- the oracle ---


def truth_and_rounded(error):
    """Outputs of the oracle, and JAX's: the first output of each image off by so many units in the last place."""
    expected = outputs()
    truth = expected.astype(np.float64)
    last_place = np.spacing(np.abs(expected).max(axis=1))
    truth[:, 0] -= error * last_place
    return dict(zip(NAMES, truth, strict=True)), expected, last_place


def test_both_sides_are_measured_against_the_oracle():
    oracle, expected, last_place = truth_and_rounded(2)
    found = expected.astype(np.float64)
    found[0, 0] += 5 * last_place[0]
    found[1, 0] += 8 * last_place[1]
    result = compare(found, expected, oracle=oracle).oracle
    spread = expected.std(axis=1)
    assert result.excess_ulp == pytest.approx(10 - 2 * 2)
    assert result.jax == pytest.approx(max(2 * last_place / spread))
    assert result.saved_model == pytest.approx(max(np.array([7, 10]) * last_place / spread))


def test_a_model_no_worse_than_jax_has_no_excess():
    oracle, expected, _ = truth_and_rounded(2)
    assert compare(expected, expected, oracle=oracle).oracle.excess_ulp == pytest.approx(-2)
    nearer = np.stack(list(oracle.values()))
    assert compare(nearer, expected, oracle=oracle).oracle.excess_ulp == pytest.approx(-4)


def test_the_oracle_counts_where_it_was_run_only():
    oracle, expected, _ = truth_and_rounded(2)
    found = expected.copy()
    found[0] += 1
    del oracle["a"]
    result = compare(found, expected, oracle=oracle)
    assert result.oracle.excess_ulp < 0
    assert compare(expected[:1], expected, oracle=oracle, indices=[0]).oracle is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_infinitely_far_from_the_oracle(bad):
    oracle, expected, _ = truth_and_rounded(2)
    found = expected.copy()
    found[0, 0] = bad
    result = compare(found, expected, oracle=oracle)
    assert (result.oracle.saved_model, result.oracle.excess_ulp) == (np.inf, np.inf)
    assert any("differs from the oracle by inf" in problem for problem in judge(result))


# --- the judgement ---

GOOD = compare(outputs(), outputs(), oracle=truth_and_rounded(2)[0])


def test_what_is_within_all_limits_is_no_problem():
    assert list(judge(GOOD)) == []
    at_the_limit = {name: TOLERANCES[name].limit for name in ("max_relative", "max_ulp", "cosine_distance")}
    assert list(judge(with_distances(GOOD, **at_the_limit))) == []


@pytest.mark.parametrize("name", ["max_relative", "max_ulp", "cosine_distance"])
@pytest.mark.parametrize("factor", [1.01, np.inf, np.nan])
def test_each_measure_has_its_limit(name, factor):
    limit = TOLERANCES[name].limit
    found = limit * factor
    (problem,) = judge(with_distances(GOOD, **{name: found}))
    assert problem == f"__call__ on a, b (batch 2): {name} {found:.3g} is over {limit:.3g}"


@pytest.mark.parametrize("name", ["top1", "top5"])
def test_the_first_classes_must_agree_on_every_image(name):
    (problem,) = judge(with_distances(GOOD, **{name: 0.75}))
    assert problem == f"__call__ on a, b (batch 2): {name} agrees on 75% of the images, expected all"
    assert list(judge(with_distances(GOOD, **{name: None}))) == []


@pytest.mark.parametrize("excess", [1.01 * EXCESS, np.inf, np.nan])
def test_the_model_may_not_be_much_further_from_the_oracle_than_jax(excess):
    oracle = _OracleDistances(saved_model=3e-5, jax=1e-6, excess_ulp=excess, power=1)
    (problem,) = judge(replace(GOOD, oracle=oracle))
    assert problem == (
        "__call__ on a, b (batch 2): the SavedModel differs from the oracle by 3e-05, JAX by 1e-06: "
        f"{excess:.3g} ULP over twice JAX's error, allowed {EXCESS:.3g}"
    )
    within = replace(oracle, excess_ulp=EXCESS)
    assert list(judge(replace(GOOD, oracle=within))) == []


@pytest.mark.parametrize("drift", [1.01 * DRIFT, np.inf, np.nan])
def test_jax_itself_may_not_be_far_from_the_oracle(drift):
    oracle = _OracleDistances(saved_model=3e-5, jax=drift, excess_ulp=-1, power=1)
    (problem,) = judge(replace(GOOD, oracle=oracle))
    assert problem == (
        f"__call__ on a, b (batch 2): JAX differs from the oracle by {drift:.3g}, allowed {DRIFT:.3g}: the outputs "
        "to compare with are wrong themselves"
    )
    within = replace(oracle, jax=DRIFT)
    assert list(judge(replace(GOOD, oracle=within))) == []


@pytest.mark.parametrize("classes", [True, False])
def test_what_jax_and_the_model_share_is_noticed_by_the_oracle_alone(classes):
    shared = outputs()
    truth = shared.astype(np.float64)
    truth[1, 3] += 2 * DRIFT * shared[1].std()
    oracle = dict(zip(NAMES, truth, strict=True))
    result = compare(shared, shared, oracle=oracle, classes=classes)
    assert result.distances.max_relative == 0
    assert result.oracle.excess_ulp <= 0
    assert [problem.split(": ")[1].split(" by ")[0] for problem in judge(result)] == ["JAX differs from the oracle"]


def test_a_model_off_the_oracle_is_noticed_though_it_agrees_with_jax():
    """JAX's own error is what excuses the SavedModel's: where JAX is exact, little is excused."""
    oracle, expected, last_place = truth_and_rounded(0)
    found = expected.copy()
    found[:, 0] += (EXCESS + 4) * last_place
    result = compare(found, expected, oracle=oracle)
    assert result.distances.max_ulp == pytest.approx(EXCESS + 4)
    assert [problem.split(": ")[1] for problem in judge(result)] == [
        f"the SavedModel differs from the oracle by {result.oracle.saved_model:.3g}, JAX by 0"
    ]


# --- what cannot tell right from wrong ---


def without_power(comparison, **figures):
    changed = with_distances(comparison, power=0.1, **figures)
    return replace(changed, oracle=replace(changed.oracle, power=0.1, excess_ulp=1e3))


def test_what_has_no_power_is_listed_and_judged_by_the_scale_alone():
    """Outputs that share a large bias are rounded to its last place, and more than that cannot be asked of them."""
    checks = without_power(GOOD, max_ulp=1e3, cosine_distance=1.0, top1=0.0).checks
    assert [check.name for check in checks] == [check.name for check in GOOD.checks]
    assert not any(check.has_power or check.problems for check in checks)
    (problem,) = judge(without_power(GOOD, max_relative=1.01 * LIMIT))
    assert "max_relative" in problem


def test_the_direction_of_one_output_is_not_compared():
    one = outputs(shape=(2, 1))
    assert compare(one, one).distances.cosine_distance is None
    assert "cosine_distance" not in [check.name for check in compare(one, one).checks]
