"""Nested and flat parameters."""

from models.params import flatten, nest

NESTED = {"stem": {"kernel": 1, "bias": 2}, "MixerBlock_0": {"token_mixing": {"Dense_0": {"kernel": 3}}}, "head": {}}
FLAT = {"stem/kernel": 1, "stem/bias": 2, "MixerBlock_0/token_mixing/Dense_0/kernel": 3}


def test_leaves_are_named_by_their_paths_in_order():
    assert list(flatten(NESTED).items()) == list(FLAT.items())


def test_nesting_undoes_flattening():
    assert nest(FLAT) == {name: value for name, value in NESTED.items() if value}
    assert flatten(nest(FLAT)) == FLAT
