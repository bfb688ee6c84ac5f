"""Checks of reports that nothing has to be run for: those of a model that passed, with figures of one's choice."""

import hashlib

from models.records.check import GRAPH, Check
from models.records.formats import ExportManifest, ExportReport
from models.records.tolerances import TOLERANCES, export_tolerances

ON = "__call__ on noise, blank (batch 2)"
FIGURES = {
    "max_relative": 1e-6,
    "max_ulp": 2.0,
    "cosine_distance": 1e-14,
    "top1_disagreement": 0.0,
    "top5_disagreement": 0.0,
    "saved_model_oracle_relative": 2e-6,
    "oracle_excess_ulp": -1.0,
    "jax_oracle_relative": 1e-6,
    "gradients_missing": 0.0,
    "gradient_relative": 1e-6,
    "step_relative": 1e-6,
}
OF_THE_FULL_SET = ("gradients_missing", "gradient_relative", "step_relative")


def check(name, measured=None, *, on=ON, power=1.0, **fields):
    """Return a check by today's limit, with its problem where it is over that, unless `problems` are given."""
    tolerance = TOLERANCES.get(name)
    limit = None if tolerance is None or measured is None else tolerance.limit
    over = limit is not None and not measured <= limit
    given = {"problems": (f"{on}: {name} {measured:.3g} is over {limit:.3g}",) if over else ()} | fields
    return Check(name=name, on=on, measured=measured, limit=limit, power=power, **given)


def consumed(on="hub.load", *, status="passed", detail="as it should", worst=1e-7):
    """Return the check of a thing that a consumer does."""
    problems = (f"consumer: {on}: {detail}",) if status == "failed" else ()
    power = 0.0 if status == "absent" else None
    return check("consumer", worst, on=on, power=power, problems=problems, detail=f"{status}: {detail}")


def probed(*, full=True, head="classification"):
    """Return the checks of a right model on the probes that there are of it."""
    probes = [*(["head"] if head == "classification" else []), *(["stem"] if full else [])]
    names = ("max_relative", "max_ulp", "saved_model_oracle_relative", "oracle_excess_ulp", "jax_oracle_relative")
    return tuple(
        check(name, FIGURES[name], on=f"probing {probe}, {ON}", probe=probe) for probe in probes for name in names
    )


def checks(*, full=True, head="classification", problems=(), more=(), power=1.0, **figures):
    """Return the checks of a model: right but for these figures, `problems` with its files, and `more` checks.

    `power` is that of the outputs of its own head.
    """
    found = FIGURES | figures
    names = [name for name in found if full or name not in OF_THE_FULL_SET]
    names = [name for name in names if head == "classification" or not name.startswith("top")]
    on = {"gradient_relative": "stem/bias, the worst of 150 variables"}
    return (
        check("files", on="against the manifest", power=None, problems=tuple(problems)),
        check(GRAPH, on="a fresh trace", power=None),
        check("interface", on="serving_default and variables", power=None),
        check("variables", 0.0, on="bit for bit", power=None, detail="150 compared with the checkpoint's arrays"),
        *(
            check(name, found[name], on=on.get(name, ON), power=1.0 if name in OF_THE_FULL_SET else power)
            for name in names
        ),
        *probed(full=full, head=head),
        *([consumed()] if full else []),
        *more,
    )


def forged():
    """Return the checks of a model that passed, but for a figure that speaks against it."""
    found = checks()
    first = next(one for one in found if one.name == "max_relative")
    return tuple(one.model_copy(update={"measured": 9.9}) if one is first else one for one in found)


def verdict_of(found):
    """Return the verdict that checks give."""
    return "failed" if any(one.problems for one in found) else "passed"


def export_of(source):
    """Return manifest and report of an OpenVINO export that passed, written from a graph model of this manifest."""
    limits = export_tolerances("openvino", source.checkpoint.origin)
    on = "model.xml on noise, blank, chelsea.png, coffee.png (batch 4)"

    def judged(name, measured, **fields):
        return Check(name=name, on=on, measured=measured, limit=limits[name].limit, power=1.0, **fields)

    found = (
        Check(name="files", on="against the manifest"),
        Check(name="interface", on="model.xml"),
        judged("float32 max_relative", 7.89e-7),
        judged("float32 default_settings_relative", 0.0321, detail="bf16 on Some Processor"),
    )
    fields = source.model_dump() | {"handle": f"{source.handle.removesuffix('-graph')}-openvino", "platforms": ()}
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    digest = hashlib.sha256(source.to_bytes()).hexdigest()
    manifest = ExportManifest(**fields, format="openvino", source_sha256=digest, runtime_settings=settings)
    report = ExportReport(
        handle=manifest.handle, version=manifest.version, format="openvino", origin=source.checkpoint.origin,
        inputs_sha256="b" * 64, manifest_sha256=hashlib.sha256(manifest.to_bytes()).hexdigest(), checks=found,
        zero_head=False, sizes={"model.xml": 1_000_000, "model.bin": 23_000_000}, not_checked=(), tolerances=limits,
        verdict="passed", libraries={"openvino": "2026.1"}, validator_sha256="e" * 64,
    )  # fmt: skip
    return manifest, report
