"""Hostile input that coverage guides: what reached new code is mutated again, by atheris and as `hostile` does.

    python tests/withstand/guided.py TARGET RUNS FOLDER

reads RUNS mutations of the good input in one process, whose code is instrumented as it is imported. Inputs that failed
are written to FOLDER/failed; who started this reads them again, in code that is not instrumented, and judges.
"""

import hashlib
import random
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_PATIENCE = 1800.0
"""Seconds for one target."""


def failing_inputs(name: str, runs: int, folder: Path) -> tuple[int, list[bytes]]:
    """Run one target in a process of its own; return how many inputs were read, and those that failed."""
    folder.mkdir()
    command = [sys.executable, __file__, name, str(runs), folder]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    found = re.findall(r"^Done (\d+) runs in", done.stderr, flags=re.M)
    if done.returncode or len(found) != 1:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return int(found[0]), [path.read_bytes() for path in sorted((folder / "failed").iterdir())]


def main(name: str, runs: str, folder: Path) -> None:
    """Read mutations of a target's good input; atheris ends the process."""
    import atheris

    root = Path(__file__).parent.parent.parent
    sys.path[:0] = [str(root), str(root / "tests")]
    with atheris.instrument_imports(include=["convert", "export", "models", "validation", "zipfile", "tarfile"]):
        from withstand.hostile import attempt, data_set_targets, targets

    find = data_set_targets if name.startswith("tfds") else targets
    (target,) = (one for one in find(folder) if one.name == name)
    (folder / "good").mkdir()
    (folder / "failed").mkdir()
    for number, good in enumerate(target.good):
        (folder / "good" / str(number)).write_bytes(good)
        attempt(target, good, good)

    def read(content: bytes) -> None:
        if attempt(target, content, target.good[0]):
            (folder / "failed" / hashlib.sha256(content).hexdigest()).write_bytes(content)

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311
        if chance.random() < 0.5:
            with suppress(Exception):  # what was mutated before may have lost the structure
                return chance.choice(target.ways)(content, chance)[:most]
        return atheris.Mutate(content, most)

    longest = 2 * max(map(len, target.good))
    options = [f"-runs={runs}", f"-max_len={longest}", "-seed=1", "-len_control=0", "-rss_limit_mb=0", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, str(folder / "good")], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
