"""Checks: what was measured of a model, on what, with its limit and its power to tell right from wrong."""

from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field

from models.formats import Weights
from models.records.manifest import Record

LEAST_POWER = 0.5
"""A comparison with less power is listed, but is no evidence."""

OF_OUTPUTS = frozenset({"max_relative", "int8 own_weights_relative"} | {f"{w} max_relative" for w in get_args(Weights)})
"""Checks of the largest difference of outputs, of SavedModels and of exports."""

_BY_THE_SCALE = OF_OUTPUTS | {"jax_oracle_relative", "gradient_relative", "step_relative", "consumer"}
"""Checks that are judged even without power: their scale allows for the rounding of such outputs."""

Probe = Literal["head", "stem"]


class Need(NamedTuple):
    """A check without which nothing is proven."""

    name: str
    probe: Probe | None = None
    """The probe that it must have been made on; None if on none."""


GRAPH = "graph"
"""Name of the check that `saved_model.pb` is what a fresh trace gives."""


class Tolerance(Record):
    """A limit and the reason for it."""

    limit: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    reason: str


class MadeOn(Record):
    """The model that a check was made on, of a check that depends on nothing of it but its `saved_model.pb`."""

    handle: str
    saved_model_sha256: str


class Check(Record):
    """One check of a model."""

    name: str
    """What was measured; with a limit, also its key in the report's tolerances."""
    on: str = ""
    """What it was measured on: entry and images, variables, a consumer's action."""
    measured: float | None = None
    """The worst figure; None if there is none."""
    limit: float | None = None
    """The largest figure that passes; None if the check has no limit."""
    power: Annotated[float, Field(ge=0, le=1)] | None = None
    """The outputs' own share of the scale that differences are divided by: near 1, errors show; near 0, they are
    hidden. None where power does not apply, for instance in bit-for-bit comparisons."""
    probe: Probe | None = None
    """The part of the model that was replaced by a probing one; with `stem`, the head too."""
    problems: tuple[str, ...] = ()
    detail: str = ""
    """Further observations, in words."""
    made_on: MadeOn | None = None
    """The model that it was made on, this or another with the same `saved_model.pb`; None if it depends on more."""

    @property
    def has_power(self) -> bool:
        """Whether it can tell a right model from a wrong one."""
        return self.power is None or self.power >= LEAST_POWER

    @property
    def is_over(self) -> bool:
        """Whether its figure is missing, NaN or over its limit; False where the check is not judged."""
        if self.limit is None or not (self.has_power or self.name in _BY_THE_SCALE):
            return False
        return self.measured is None or not self.measured <= self.limit

    def __str__(self) -> str:
        """Return its name and what it was measured on."""
        return f"{self.name}, {self.on}" if self.on else self.name
