"""Reports: the checks of one model, each with its figure, its limit and its power, and the verdict."""

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from models.catalog import Flavour, Head
from models.digests import Origin
from models.records.check import OF_OUTPUTS, Check, Need, Tolerance
from models.records.manifest import Record, SealedRecord

ZERO_HEAD = "head/kernel is all zeros: every image has the same outputs, those of head/bias"

InputsSet = Literal["gate", "full"]
"""`gate`: outputs and variables; `full`: also more inputs, gradients, and the ways users call a model."""

_FIGURES = ("max_ulp", "oracle_excess_ulp", "jax_oracle_relative")
GRADIENTS = ("gradients_missing", "gradient_relative", "step_relative")
"""Checks of gradients, and of a training step with them."""

_WITHOUT_LIMIT = frozenset({"files", "interface", "consumer"})
"""Checks that measure nothing, or only sometimes."""


class Verdict(SealedRecord):
    """The verdict on a model and the checks behind it: the fields that reports on all formats share."""

    ADVICE = "`mixer-jax2tf validate` (for an export, `export`) writes a new one."

    schema_version: Literal[2] = 2
    handle: str
    version: int
    origin: Origin
    manifest_sha256: str
    inputs_sha256: str
    checks: tuple[Check, ...]
    zero_head: bool
    """Whether the head's kernel is all zeros, so that the outputs do not depend on the image."""
    not_checked: tuple[str, ...]
    """What this report does not cover."""
    tolerances: dict[str, Tolerance]
    verdict: Literal["passed", "failed"]
    libraries: dict[str, str]
    validator_sha256: str
    """Digest of the sources that decide the verdict (`models.records.provenance`)."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """The checks without which nothing is proven."""
        return ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the model, in words; empty if and only if the verdict is `passed`."""
        return tuple(problem for check in self.checks for problem in check.problems)

    def find(self, name: str) -> Iterator[Check]:
        """Return the checks with a name."""
        return (check for check in self.checks if check.name == name)

    def worst(self, name: str, on: str = "") -> Check | None:
        """Return the check of a name with the worst figure, of those on `on...` that can tell, or None."""
        known = [one for one in self.find(name) if one.on.startswith(on) and one.has_power and one.measured is not None]
        return max(known, key=lambda check: _rank(check.measured), default=None)

    def figure(self, name: str) -> float | None:
        """Return the worst figure of a name, of the checks that can tell; None if there is none."""
        return None if (check := self.worst(name)) is None else check.measured

    def contradictions(self, today: Mapping[str, Tolerance] | None = None) -> Iterator[str]:
        """Yield contradictions between the report's verdict and its own figures and limits.

        Args:
            today: the current limits, which the report's must not exceed; None to judge it only by its own.
        """
        expected = "failed" if self.problems else "passed"
        if self.verdict != expected:
            yield f"the verdict is {self.verdict}, but its list of problems means {expected}"
        for check in self.checks:
            yield from (f"{check}: {problem}" for problem in self._judge(check))
        if self.verdict == "passed":
            yield from self._missing()
        for name, tolerance in (today or {}).items():
            if name in self.tolerances and not self.tolerances[name].limit <= tolerance.limit:
                yield f"its limit of {name} is {self.tolerances[name].limit:g}, today's is {tolerance.limit:g}"
        unknown = sorted({check.name for check in self.checks if check.limit is not None} - (today or {}).keys())
        if today is not None and unknown:
            yield f"it uses limits that no longer exist: {', '.join(unknown)}"

    def concluded(self) -> Self:
        """Return the report or, if its checks contradict its verdict, a failed one that says why."""
        if not (found := tuple(self.contradictions())):
            return self
        checks = (*self.checks, Check(name="report", problems=found))
        return self.model_copy(update={"checks": checks, "verdict": "failed"})

    def _missing(self) -> Iterator[str]:
        """Yield which needed checks are missing, and whether `zero_head` contradicts the power of the outputs."""
        for name, probe in self.needs:
            if not any(check.has_power and probe in {None, check.probe} for check in self.find(name)):
                where = f" on a probing {probe}" if probe else ""
                yield (
                    f"no check {name}{where} can tell a right model from a wrong one: it is missing, or "
                    "the outputs that it compares hardly depend on the image"
                )
        powers = {check.power for check in self.checks if check.name in OF_OUTPUTS and check.probe is None}
        if powers and self.zero_head != (powers == {0}):
            yield f"zero_head is {self.zero_head}, but outputs have {'' if self.zero_head else 'no '}power"

    def _judge(self, check: Check) -> Iterator[str]:
        tolerance = self.tolerances.get(check.name)
        if tolerance is not None and check.measured is not None and check.limit is None:
            yield f"measured {check.measured:g}, but its limit {tolerance.limit:g} is missing"
        needed = check.name in {need.name for need in self.needs} - _WITHOUT_LIMIT
        if needed and None in (check.measured, check.limit) and not check.problems:
            yield "no measurement was compared with a limit"
        if check.is_over and not check.problems:
            yield f"measured {check.measured}, over its limit {check.limit:g}, but no problem is listed"
        if check.limit is not None and (tolerance is None or tolerance.limit != check.limit):
            yield f"its limit {check.limit:g} differs from the report's tolerances"


def _rank(figure: float | None) -> float:
    """Return a figure for comparison: None and NaN are the worst."""
    return float("inf") if figure is None or figure != figure else figure


class DepthStep(Record):
    """Activations after one step of the model: largest difference from the oracle's, over their standard deviation."""

    name: str
    jax: float
    saved_model: float


class PublishedVariables(Record):
    """A model's variables compared bit for bit with those of an earlier published version.

    Variables whose name is unique in both versions are compared by name; each of the others with all of the same dtype
    and shape, whatever their names.
    """

    count: int
    published: int
    """Number of variables in the published version."""
    same_name: int
    """How many were compared by name."""
    equal: int
    """How many have an equal counterpart."""
    different: tuple[str, ...]
    """Names of those without an equal counterpart."""
    left_over: tuple[str, ...]
    """Names in the published version that are the counterpart of no variable."""


class PublishedComparison(Record):
    """A model compared with an earlier published version of its handle; not part of the verdict on the model."""

    name: str
    """Name of the directory or archive, without its path."""
    kind: Literal["directory", "archive"]
    sha256: str
    """Of the archive, or of the directory's `saved_model.pb`."""
    outputs: tuple[Check, ...] | None
    """Checks of both models' `serving_default`, with the published version's outputs instead of JAX's; None if one of
    them did not run."""
    signatures: tuple[str, ...] | None
    """Differences of the signatures; None if one of the models could not be read."""
    variables: PublishedVariables | None
    """None if one of the models could not be read."""
    differences: tuple[str, ...]
    """All differences, in words; empty if and only if the verdict is `same`."""
    verdict: Literal["same", "different"]
    """Whether outputs are within the tolerances of the report, signatures the same and variables equal."""


class Report(Verdict):
    """The verdict on a SavedModel."""

    flavour: Flavour
    head: Head
    saved_model_sha256: str | None = None
    """Digest of the model's `saved_model.pb`; None in earlier reports."""
    inputs_set: InputsSet
    images: tuple[str, ...]
    """Names of the images that outputs were compared on."""
    fine_tunable: bool | None
    """Whether every variable has JAX's gradient and a training step does what it does in JAX; None if not tried."""
    depth: tuple[DepthStep, ...]
    """How far JAX and the SavedModel's apply function are from the oracle after each step; empty in the gate set."""
    reference: PublishedComparison | None
    """The comparison with an earlier version; None if none was given."""
    outputs_sha256: str | None = None
    """Of the outputs that are saved beside the report; None for the gate set, and in earlier reports."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """The checks without which nothing is proven."""
        found = [Need(name) for name in ("files", "interface", "variables", "max_relative", *_FIGURES)]
        found += [Need("max_relative", "head")] if self.head == "classification" else []
        full = [Need("max_relative", "stem"), *(Need(name) for name in (*GRADIENTS, "consumer"))]
        return (*found, *full) if self.inputs_set == "full" else tuple(found)

    def contradictions(self, today: Mapping[str, Tolerance] | None = None) -> Iterator[str]:
        """Yield contradictions of the verdict, or of `fine_tunable`, with the figures and limits."""
        yield from super().contradictions(today)
        tried = [check for name in GRADIENTS for check in self.find(name)]
        works = bool(tried) and all(check.has_power and not check.problems for check in tried)
        if self.fine_tunable and not works:
            yield "it says that the model can be fine-tuned, but no gradients prove it"
        if self.fine_tunable is not None and self.inputs_set != "full":
            yield "it says whether the model can be fine-tuned, which only the full set checks"
        if self.reference is not None:
            yield from (f"earlier version: {said}" for said in self._judge_earlier(self.reference))
        if self.fine_tunable is None and self.inputs_set == "full" and self.verdict == "passed":
            yield "it does not say whether the model can be fine-tuned"
        for check in self.checks:
            if check.made_on is not None and check.made_on.saved_model_sha256 != self.saved_model_sha256:
                found = f"made on a saved_model.pb of sha256 {check.made_on.saved_model_sha256}"
                yield f"{check}: {found}, but the model's is {self.saved_model_sha256}"
        if any(check.power is None for check in self.find("max_relative")):
            yield "the power of its comparisons of outputs is missing"

    def _judge_earlier(self, found: PublishedComparison) -> Iterator[str]:
        """Yield contradictions between the comparison's verdict and its own differences and figures."""
        expected = "different" if found.differences else "same"
        if found.verdict != expected:
            yield f"the verdict is {found.verdict}, but its list of differences means {expected}"
        for check in found.outputs or ():
            yield from (f"{check}: {said}" for said in self._judge(check))
        problems = any(check.problems for check in found.outputs or ())
        others = found.variables and (found.variables.different or found.variables.left_over)
        if not found.differences and (problems or found.signatures or others):
            yield "outputs, signatures or variables differ, but no difference is listed"
