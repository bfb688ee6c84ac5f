"""Pack many proven models."""

from collections.abc import Sequence
from pathlib import Path

from convert.pipeline.for_each import Problem, for_each
from convert.pipeline.progress import Steps, Watch
from export.install import held
from export.package.archive import Package, package_model, refuse_packaged
from export.package.signing import signer
from models.records.layout import ModelPaths


def package_models(
    names: Sequence[str],
    out: Path,
    version: int,
    *,
    overwrite: bool = False,
    sign_key: Path | None = None,
    watch: Watch | None = None,
) -> tuple[list[Package], list[Problem]]:
    """Pack models, each with its provenance; return them, and the name and reason of each failure.

    Raises:
        UsageError: archives exist, and are not to be replaced; or the key cannot be used.
    """
    sign = None if sign_key is None else signer(sign_key)
    paths = {name: ModelPaths.of(out, name, version) for name in names}
    if not overwrite:
        refuse_packaged(*paths.values())

    def work(name: str, on: Steps) -> Package:
        progress = on.start(f"packing {name}")
        with held(paths[name]):
            return package_model(paths[name], overwrite=overwrite, sign=sign, progress=progress)

    return for_each(names, work, watch)
