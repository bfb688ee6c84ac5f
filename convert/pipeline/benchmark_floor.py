"""The floor that the benchmark compares `convert` with: the same imports, and a copy of the bytes that it writes.

    python -m convert.pipeline.benchmark_floor [TO FROM ...]

copies the directories FROM into the directory TO; without arguments it only imports.
"""

import shutil
import sys
from pathlib import Path


def _main() -> None:
    """Import, then copy."""
    from convert.pipeline import convert_handle  # noqa: F401
    from convert.pipeline.frameworks import import_frameworks

    import_frameworks()
    from convert.flavours import native  # noqa: F401
    from export.saved_model import (
        writer,  # noqa: F401
    )
    from models import mixer  # noqa: F401

    to, *directories = sys.argv[1:] or [""]
    for directory in map(Path, directories):
        shutil.copytree(directory, Path(to) / directory.name)


if __name__ == "__main__":
    _main()
