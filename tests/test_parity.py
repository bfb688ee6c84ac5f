"""The gate must close: models that are wrong on purpose are written to disk and held against JAX and the oracle."""

import re
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from mutations import (
    FULL_SIZE_MUTATIONS,
    HEADS,
    LEAST_MARGINS,
    MUTATIONS,
    SMALLEST_MARGINS,
    SQUARE,
    TEMPERS,
    Bench,
    caught_by,
    check_hidden,
    furthest,
    tempered,
    with_head,
    with_larger_epsilon,
    without_gradients,
    worst,
)
from writing import native_function

from convert.checkpoints.synthetic import _seeded_arrays, write_seeded
from export.saved_model.canonical import rewrite_saved_model
from models.catalog import TESTING_HANDLES, Handle
from models.params import flatten, nest
from models.records.tolerances import TOLERANCES
from validation.parity.check import GATE_PLAN, _probe_plan, check_parity, full_plan
from validation.parity.images import Inputs
from validation.parity.oracle import trace_oracle

QUICK_MUTATIONS = (
    "GELU in its erf form",
    "layer norm epsilon 1e-5",
    "GELU in its erf form, graph flavour",
    "GELU in its erf form, in JAX too",
    "both norms of a block exchanged",
    "images of a batch mixed up",
    "outputs not finite",
    "weights rounded to bfloat16",
    "one weight off by 1e-3 of its spread",
    "one weight off by its last bit",
    "variables of another checkpoint",
    "saved_model.pb of the feature extractor",
    "saved_model.pb of the graph flavour",
    "one bit flipped in the file of the variables",
    "file of the variables cut short",
)
"""Those that `make test` tries, some of each kind; `make whole` tries all."""
QUICK_HEADS = ("1000 outputs", "a bias of 1e6", "times 1e-12", "zeros, 1000 outputs")
"""Those that `make test` tries, on weights as after training, which show least; `make whole` tries all, on both."""


def whole_unless(quick, value, **options):
    """Return a parameter, of `make whole` alone unless it is quick."""
    return pytest.param(value, marks=() if quick else pytest.mark.whole, **options)


HANDLE, FEATURES = TESTING_HANDLES.values()
GRAPHS = (HANDLE.in_flavour("graph"), FEATURES.in_flavour("graph"))
SIZE = HANDLE.checkpoint.architecture.image_size
LIMIT = TOLERANCES["max_relative"].limit


@pytest.fixture(scope="module")
def benches(tiny_source, tmp_path_factory):
    """The testing checkpoints, the gate set's inputs, and what JAX and the oracle make of both."""
    square = write_seeded(SQUARE.checkpoint, tmp_path_factory.mktemp("square"))
    tiny = tiny_source / HANDLE.checkpoint.object
    return {SQUARE: Bench.of(SQUARE, square)} | {one: Bench.of(one, tiny) for one in (HANDLE, FEATURES, *GRAPHS)}


@pytest.fixture
def bench(benches):
    return benches[HANDLE]


@pytest.fixture(scope="module")
def found(benches):
    """What the check finds in a mutation, by its name; each is made once."""
    by_name = {mutation.name: mutation for mutation in MUTATIONS}
    return cache(lambda name: by_name[name].run(benches[by_name[name].on]))


# --- right models pass ---


@pytest.mark.parametrize("handle", [HANDLE, FEATURES, *GRAPHS], ids=lambda handle: handle.name)
def test_the_right_model_passes_with_room(handle, benches, tiny_build):
    findings = benches[handle].check_directory(tiny_build / handle.name / "2")
    assert findings.problems == ()
    assert findings.variables.different == ()
    assert findings.variables.compared == len(handle.arrays)
    assert worst(findings) < LIMIT / 3
    top5 = {comparison.distances.top5 for comparison in findings.comparisons if comparison.probe is None}
    assert top5 == {None if handle.head == "fe" else 1.0}
    known = [comparison.oracle for comparison in findings.comparisons if comparison.oracle]
    assert max(distances.excess_ulp for distances in known) < TOLERANCES["oracle_excess_ulp"].limit / 3
    assert 0 < max(distances.jax for distances in known) < LIMIT / 3


def test_both_entries_see_every_kind_of_input(bench, tiny_build):
    findings = bench.check_directory(tiny_build / HANDLE.name / "2")
    seen = {(comparison.entry, name) for comparison in findings.comparisons for name in comparison.names}
    assert {name for entry, name in seen if entry == "serving_default"} == {"blank", "coffee.png"}
    assert {name for _, name in seen} == set(bench.reference.inputs.names)
    assert [comparison.batch for comparison in findings.comparisons] == [3, 1, 1, 3, 1]
    assert [comparison.oracle is not None for comparison in findings.comparisons] == [True, True, False, True, True]
    assert [comparison.probe for comparison in findings.comparisons] == [None, None, None, "head", "head"]


def test_outputs_that_lean_on_the_other_images_of_the_batch_are_told(bench):
    def leaning(params, images):
        outputs = native_function(bench.handle)(params, images)
        return outputs + np.float32(1e-2) * tf.reduce_mean(outputs, axis=0)

    (check,) = [check for check in bench.check(leaning).checks if check.name == "batch_relative"]
    assert check.measured > 10 * check.limit
    assert check.problems
    (right,) = [check for check in bench.check().checks if check.name == "batch_relative"]
    assert right.measured < right.limit / 2
    assert right.has_power


def test_the_findings_keep_the_outputs_of_each_image(bench, tiny_build):
    findings = bench.check_directory(tiny_build / HANDLE.name / "2")
    inputs = bench.reference.inputs
    assert findings.outputs.keys() == set(inputs.names)
    for name, jax in zip(inputs.names, bench.reference.logits, strict=True):
        assert findings.outputs[name].shape == (1000,)
        assert np.abs(findings.outputs[name] - jax).max() < LIMIT * jax.std()


@pytest.mark.parametrize("count", [2, 4, 10, 11, 15, 16])
def test_the_full_plan_has_all_batches_and_both_entries(count):
    names = ("blank", *(f"image {index}" for index in range(1, count)))
    plan = full_plan(names)
    assert {len(batch.names) for batch in plan} == {1, 2, 7, 16}
    assert {batch.entry for batch in plan} == {"__call__", "serving_default"}
    assert {name for batch in plan for name in batch.names} == set(names)


def test_the_full_plan_of_the_full_inputs_sees_every_image_alone_or_among_others():
    names = (*Inputs.full(SIZE).names, "near tie")
    plan = full_plan(names)
    assert sorted((len(batch.names), batch.entry) for batch in plan) == [
        (1, "__call__"),
        (1, "serving_default"),
        (1, "serving_default"),
        (1, "serving_default"),
        (2, "serving_default"),
        (7, "__call__"),
        (16, "__call__"),
    ]
    assert {name for batch in plan for name in batch.names} == set(names)
    assert {batch.names for batch in plan if len(batch.names) == 1} == {("blank",), ("near tie",), ("coffee.png",)}


@pytest.mark.parametrize("name", ["other", "another", "a_third"])
def test_no_false_alarm_on_other_weights(name, tmp_path):
    checkpoint = replace(HANDLE.checkpoint, name=name)
    bench = Bench.of(Handle(name, checkpoint, "classification"), write_seeded(checkpoint, tmp_path))
    findings = bench.check()
    assert findings.problems == ()
    assert worst(findings) < LIMIT


LARGEST = {"activations to 1e3": (700, 3000)}
"""Between which limits the largest activation lies."""


@pytest.mark.parametrize(
    ("temper", "handle"),
    [
        *(pytest.param(temper, HANDLE, id=f"{temper}-native") for temper in TEMPERS),
        pytest.param("trained-like", GRAPHS[0], id="trained-like-graph"),
        *(
            pytest.param(temper, GRAPHS[0], id=f"{temper}-graph", marks=pytest.mark.whole)
            for temper in TEMPERS
            if temper != "trained-like"
        ),
    ],
)
def test_no_false_alarm_on_weights_of_another_temperament(temper, handle, tmp_path):
    path = tempered(handle.checkpoint, temper, tmp_path)
    bench = Bench.of(handle, path)
    findings = bench.check()
    assert findings.problems == ()
    difference, limit = furthest(findings)
    assert difference < limit / 3
    assert np.abs(findings.outputs["coffee.png"]).max() > 0
    steps = trace_oracle(path, bench.reference.inputs.images)
    low, high = LARGEST.get(temper, (1, 100))
    assert low < max(float(np.abs(values).max()) for _, values in steps) < high


def test_weights_that_hardly_depend_on_the_image_pass_and_have_no_power(tmp_path):
    arrays = {name: array * np.float32(1e-6) for name, array in _seeded_arrays(HANDLE.checkpoint)}
    np.savez(tmp_path / "small.npz", **arrays)
    findings = Bench.of(HANDLE, tmp_path / "small.npz").check()
    assert findings.problems == ()
    assert not any(check.has_power for check in findings.checks if check.name == "max_relative")


# --- wrong models do not ---

PAGE = (Path(__file__).parent.parent / "validation" / "MUTATIONS.md").read_text(encoding="utf-8")
ALONE = ("one weight off by 1e-3 of its spread", "one weight off by its last bit")
"""So little that the outputs need not notice: the variables must."""


@pytest.mark.parametrize("mutation", [whole_unless(one.name in QUICK_MUTATIONS, one, id=one.name) for one in MUTATIONS])
def test_every_mutation_is_caught(mutation, found):
    findings = found(mutation.name)
    assert findings.problems
    noticed = caught_by(findings)
    assert set(mutation.caught_by) <= set(noticed)
    if mutation.name not in ALONE:
        assert noticed == mutation.caught_by
    if "oracle" in mutation.caught_by:
        assert worst(findings) < LIMIT / 3
        assert furthest(findings)[0] > 10 * furthest(findings)[1]
    if "outputs" in mutation.caught_by:
        assert worst(findings) > 10 * LIMIT
        assert any("max_relative" in problem and f"is over {LIMIT:.3g}" in problem for problem in findings.problems)
    if mutation.caught_by in {("outputs",), ("oracle",)}:
        assert findings.variables.different == ()
    if mutation.caught_by == ("loading",):
        assert findings.comparisons == ()
        assert findings.variables.compared == 0
        assert len(findings.problems) == 1
        assert findings.problems[0].startswith("does not load: ")


@pytest.mark.parametrize("temper", [whole_unless(False, "as seeded"), "trained-like"])
@pytest.mark.parametrize("head", [whole_unless(head in QUICK_HEADS, head) for head in HEADS])
def test_no_head_hides_what_comes_before_it(head, temper, tmp_path):
    bench = with_head(HANDLE, temper, head, tmp_path)
    findings = check_hidden(bench, "right")
    assert findings.problems == ()
    assert furthest(findings)[0] < LIMIT / 3
    assert any(check.has_power for check in findings.checks if check.name == "max_relative")
    for what, margin in LEAST_MARGINS.items():
        findings = check_hidden(bench, what)
        assert caught_by(findings) == ("outputs",)
        assert furthest(findings)[0] >= margin * LIMIT


@pytest.mark.parametrize("head", [pytest.param("zeros, 2 outputs", marks=pytest.mark.whole), "zeros and a bias"])
def test_a_head_of_zeros_has_no_power_and_allows_no_difference(head, tmp_path):
    bench = with_head(HANDLE, "as seeded", head, tmp_path)
    assert bench.reference.zero_head
    own = [one for one in check_hidden(bench, "right").comparisons if one.probe is None]
    assert {(one.distances.max_relative, one.distances.power) for one in own} == {(0, 0)}

    def shifted(params, images):
        return native_function(bench.handle)(params, images) + np.float32(1e-6)

    assert any("serving_default on blank" in problem for problem in bench.check(shifted).problems)


@pytest.mark.parametrize(
    "handle", [whole_unless(handle is HANDLE, handle, id=handle.head) for handle in (HANDLE, FEATURES)]
)
def test_a_large_stem_bias_hides_the_epsilon_from_all_but_the_probing_stem(handle, tmp_path):
    arrays = {
        name: array * np.float32(1e4 if name == "stem/bias" else 1) for name, array in _seeded_arrays(handle.checkpoint)
    }
    np.savez(tmp_path / "bias.npz", **arrays)
    bench = Bench.of(handle, tmp_path / "bias.npz", probe_stem=True)
    assert bench.check().problems == ()
    with with_larger_epsilon():
        findings = bench.check_anew()
    off = {one.probe for one in findings.comparisons if any(check.problems for check in one.checks)}
    assert off == {"stem"}
    assert furthest(findings)[0] >= 2 * LIMIT


@pytest.mark.parametrize("plan", [GATE_PLAN, full_plan((*Inputs.full(SIZE).names, "near tie"))], ids=["gate", "full"])
def test_every_set_shows_the_blank_image_alone_and_under_a_probing_head(plan):
    """Layer norm epsilon shows in it alone."""
    assert ("blank",) in {batch.names for batch in plan if batch.entry == "serving_default"}
    assert {batch.entry for batch in _probe_plan(plan)} == {"__call__", "serving_default"}
    assert all("blank" in batch.names for batch in _probe_plan(plan))


def rows_of_the_page(block):
    """Return the cells of the tables of a generated block, headings left out, by the number of columns."""
    found = re.search(rf"<!-- {block} -->\n(.*?)<!-- end {block} -->", PAGE, flags=re.DOTALL)
    assert found
    lines = re.findall(r"^\|(.*)\|$", found[1], flags=re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    headings = {
        index for index, row in enumerate(rows) if index + 1 < len(rows) and {*"".join(rows[index + 1])} <= {*":-"}
    }
    rows = [row for index, row in enumerate(rows) if not {index, index - 1} & headings]
    return {count: [row for row in rows if len(row) == count] for count in {len(row) for row in rows}}


TABLES = {"mutations": MUTATIONS, "full-size mutations": FULL_SIZE_MUTATIONS}


@pytest.mark.parametrize("block", TABLES)
def test_the_page_lists_the_mutations_with_what_caught_them(block):
    listed = rows_of_the_page(block)[6]
    expected = [
        [mutation.name, mutation.on.checkpoint.name, ", ".join(mutation.caught_by)] for mutation in TABLES[block]
    ]
    assert [row[:3] for row in listed] == expected
    assert all(float(row[5]) > 1 for row in by_figures(listed))


def by_figures(rows):
    """Return those that differences of outputs must tell."""
    return [row for row in rows if {"outputs", "oracle"} & {*row[2].split(", ")}]


def test_the_whole_tests_try_what_shows_least():
    listed = sorted(by_figures(rows_of_the_page("full-size mutations")[6]), key=lambda row: float(row[5]))
    assert {row[0] for row in listed[: len(SMALLEST_MARGINS)]} == set(SMALLEST_MARGINS)


def test_the_page_lists_the_right_models_that_pass():
    right = rows_of_the_page("mutations")[5][: 2 * len(TEMPERS)]
    assert [row[0] for row in right] == [*TEMPERS, *TEMPERS]
    assert all(float(margin) < 1 for *_, margin in right)


@pytest.mark.parametrize("block", TABLES)
def test_the_page_lists_what_each_head_hides(block):
    rows = rows_of_the_page(block)[5][-2 * len(HEADS) :]
    assert [row[:2] for row in rows] == [[temper, head] for temper in ("as seeded", "trained-like") for head in HEADS]
    for *_, right, erf, epsilon in rows:
        assert float(right) < 1 < LEAST_MARGINS["layer norm epsilon 1e-5"] <= float(epsilon)
        assert float(erf) >= LEAST_MARGINS["GELU in its erf form"]


def test_the_mutations_have_names_of_their_own():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_the_quick_ones_are_some_of_each_kind():
    quick = [mutation for mutation in MUTATIONS if mutation.name in QUICK_MUTATIONS]
    assert len(quick) == len(QUICK_MUTATIONS)
    assert {mutation.caught_by for mutation in quick} == {mutation.caught_by for mutation in MUTATIONS}
    assert set(QUICK_HEADS) <= set(HEADS)


# --- what exactly is said ---


def test_erf_gelu_is_caught_on_every_input(found):
    findings = found("GELU in its erf form")
    assert min(one.distances.max_relative for one in findings.comparisons if one.probe is None) > 10 * LIMIT


def test_the_blank_image_shows_the_epsilon(found):
    findings = found("layer norm epsilon 1e-5")
    by_input = {one.names: one.distances.max_relative for one in findings.comparisons if one.probe is None}
    assert by_input["blank",] > 1000 * LIMIT
    assert by_input["coffee.png",] < by_input["blank",] / 1000


ANOTHER_FUNCTION = (
    "one block skipped",
    "blocks 2 and 3 exchanged",
    "both norms of a block exchanged",
    "kernels of token and channel mixing swapped",
    "one kernel transposed",
    "RGB taken as BGR",
    "input scaled to [0, 1]",
    "probabilities instead of logits",
    "images of a batch mixed up",
)


@pytest.mark.parametrize("name", [whole_unless(name in QUICK_MUTATIONS, name) for name in ANOTHER_FUNCTION])
def test_another_function_of_the_same_variables_is_far_off(name, found):
    findings = found(name)
    assert worst(findings) > 100 * LIMIT
    assert max(comparison.oracle.saved_model for comparison in findings.comparisons if comparison.oracle) > 100 * LIMIT


def test_an_output_that_is_not_finite_is_said_to_be_infinitely_far(found):
    findings = found("outputs not finite")
    assert worst(findings) == np.inf
    assert any("max_relative inf is over" in problem for problem in findings.problems)
    assert any("top1 agrees on 0% of the images" in problem for problem in findings.problems)
    assert any("differs from the oracle by inf, JAX " in problem for problem in findings.problems)


def test_rounded_weights_are_named_and_seen(found):
    findings = found("weights rounded to bfloat16")
    assert len(findings.variables.different) > len(HANDLE.arrays) * 3 / 4
    assert "variables differ: MixerBlock_0/LayerNorm_0/bias, " in findings.problems[0]
    assert worst(findings) > 100 * LIMIT


def test_one_weight_slightly_off_is_named(found):
    findings = found("one weight off by 1e-3 of its spread")
    assert findings.variables.different == ("MixerBlock_0/channel_mixing/Dense_0/kernel",)
    assert findings.problems[0] == "1 variable differs: MixerBlock_0/channel_mixing/Dense_0/kernel"


def test_the_last_bit_of_one_weight_shows_in_the_variables_alone(found):
    findings = found("one weight off by its last bit")
    assert findings.problems == ("1 variable differs: stem/kernel",)


def test_a_zero_of_the_other_sign_is_another_bit(bench, tmp_path):
    def with_bias(value):
        return nest(flatten(bench.params) | {"head/bias": np.full(1000, value, np.float32)})

    bench.write(tmp_path, params=with_bias(-0.0))
    findings = check_parity(tmp_path, HANDLE, with_bias(0.0), bench.reference, GATE_PLAN)
    assert findings.variables.different == ("head/bias",)
    findings = check_parity(tmp_path, HANDLE, with_bias(-0.0), bench.reference, GATE_PLAN)
    assert findings.variables.different == ()


def test_variables_of_another_checkpoint_are_far_off(found):
    findings = found("variables of another checkpoint")
    assert f"{len(findings.variables.different)} variables differ" in findings.problems[0]
    assert worst(findings) > 1000 * LIMIT


@pytest.mark.whole
def test_a_head_of_another_size_is_named(found):
    findings = found("head of the wrong size")
    assert "(None, 10)" in findings.problems[0]
    assert "expected {'output_0': (tf.float32, (None, 1000))}" in findings.problems[0]
    assert findings.variables.different == ("head/bias", "head/kernel")
    assert (
        findings.problems[-1] == "does not run: ValueError: __call__ gives outputs of shape (3, 10), expected (3, 1000)"
    )


def test_features_instead_of_logits_are_caught(benches):
    findings = benches[HANDLE].check(benches[FEATURES].right, benches[FEATURES].params)
    assert "(None, 32)" in findings.problems[0]
    assert findings.variables.different == ("head/bias (missing)", "head/kernel (missing)")
    assert "2 variables differ: head/bias (missing), head/kernel (missing)" in findings.problems


def test_logits_instead_of_features_are_caught(benches):
    findings = benches[FEATURES].check(benches[HANDLE].right, benches[HANDLE].params)
    assert "expected {'output_0': (tf.float32, (None, 32))}" in findings.problems[0]
    assert findings.variables.different == ("head/bias (unexpected)", "head/kernel (unexpected)")


def test_another_image_size_is_caught(bench):
    def crop(params, images):
        return bench.right(params, images[:, :SIZE, :SIZE])

    findings = bench.check(crop, image_size=2 * SIZE)
    assert "serving_default takes" in findings.problems[0]
    assert "(None, 64, 64, 3)" in findings.problems[0]
    assert "expected {'inputs': (tf.float32, (None, 32, 32, 3))}" in findings.problems[0]


def _saved_with(tmp_path, bench, change):
    """Write the right model with another interface."""
    variables = {name: tf.Variable(array, name=name) for name, array in flatten(bench.params).items()}
    model = tf.train.Checkpoint()
    model.__call__ = tf.function(
        lambda inputs: bench.right(nest(variables), inputs),
        input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="inputs")],
        autograph=False,
    )
    model.variables = model.trainable_variables = list(variables.values())
    model.regularization_losses = []
    with without_gradients():
        signature = model.__call__.get_concrete_function()
        change(model)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(model, str(tmp_path / "model"), signatures=signature, options=options)
        rewrite_saved_model(tmp_path / "model")
    return bench.check_directory(tmp_path / "model")


def test_variables_that_cannot_be_trained_are_caught(tmp_path, bench):
    def freeze(model):
        model.trainable_variables = model.variables[:-1]

    findings = _saved_with(tmp_path, bench, freeze)
    assert findings.problems == ("29 of 30 variables are trainable, expected all",)


def test_a_probe_that_does_not_run_leaves_what_was_compared_before(tmp_path, bench):
    def leave_out_the_head(model):
        model.head = [variable for variable in model.variables if variable.name.startswith("head/")]
        some = [variable for variable in model.variables if not variable.name.startswith("head/")]
        model.variables = model.trainable_variables = some

    findings = _saved_with(tmp_path, bench, leave_out_the_head)
    assert [comparison.probe for comparison in findings.comparisons] == [None] * len(GATE_PLAN)
    assert worst(findings) < LIMIT / 3
    assert findings.outputs.keys() == set(bench.reference.inputs.names)
    assert findings.running == ("does not run with probes in it: KeyError: 'head/kernel'",)


def test_regularization_losses_are_caught(tmp_path, bench):
    def add_loss(model):
        model.regularization_losses = [tf.function(lambda: tf.constant(0.0), input_signature=[])]

    assert _saved_with(tmp_path, bench, add_loss).problems == ("1 regularization losses, expected none",)


# --- the model is damaged ---


def test_a_flipped_bit_in_the_file_of_the_variables_is_named(found):
    findings = found("one bit flipped in the file of the variables")
    assert findings.problems[0].startswith("does not load: DataLossError: ")
    assert "Checksum does not match" in findings.problems[0]


def test_truncated_variables_do_not_load(found):
    findings = found("file of the variables cut short")
    assert findings.problems == ("does not load: IndexError: Read less bytes than requested",)


def test_a_truncated_graph_does_not_load(bench):
    def cut(directory):
        graph = directory / "saved_model.pb"
        graph.write_bytes(graph.read_bytes()[:-1000])

    findings = bench.check_files(cut)
    assert findings.comparisons == ()
    assert len(findings.problems) == 1
    assert findings.problems[0].startswith("does not load: ")


def test_an_empty_graph_does_not_load(bench):
    findings = bench.check_files(lambda directory: (directory / "saved_model.pb").write_bytes(b""))
    assert findings.problems[0].startswith("does not load: ")


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
def test_a_missing_file_does_not_load(name, bench):
    findings = bench.check_files(lambda directory: (directory / name).unlink())
    assert findings.variables.compared == 0
    assert findings.problems[0].startswith("does not load: ")
    assert tempfile.gettempdir() not in findings.problems[0]


def test_an_artifact_that_tensorflow_cannot_read_does_not_run(bench):
    """What loads may still fail at the first call, as JAX's own artifacts did."""

    def spoil(directory):
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        path = directory / "saved_model.pb"
        saved = SavedModel.FromString(path.read_bytes())
        graph = saved.meta_graphs[0].graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                if node.op == "XlaCallModule":
                    node.attr["module"].s = node.attr["module"].s[:100]
        path.write_bytes(saved.SerializeToString())

    findings = bench.check_files(spoil)
    assert findings.comparisons == ()
    assert findings.variables.different == ()
    assert len(findings.problems) == 1
    assert findings.problems[0].startswith("does not run: InvalidArgumentError: Cannot deserialize computation")
    assert "\n" not in findings.problems[0]
