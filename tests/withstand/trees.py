"""What a command leaves on the disk, and how it is judged."""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from withstand.trials import Ended

Tree = Mapping[str, str]
"""Sha256 of each file by its path, and `folder` for a folder."""

LOGS = re.compile(r"(^|/)tensorboard(/|$)|(^|/)index\.html$|^cache/|^(build|published|tmp)$")
"""Not compared: what is shown, and what is kept to be faster next time."""
TEMPORARY = re.compile(r"^tmp/.|(^|/)\.([^/]*(\.partial-|\.lock$)|writable-)|(^|/)\.partial/|_\.gstmp$")
UNFINISHED = re.compile(r"^build/finetune/[^/]+/(features\.(bin|sha256)|[^/]+\.npz)$|^cache/\.accuracy/")
"""What is kept of an unfinished run, from which the next goes on."""


def tree_of(folder: Path) -> dict[str, str]:
    """Return what lies below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[name] = digest or ("folder" if path.is_dir() else "socket")
    return found


def difference(found: Tree, expected: Tree) -> str | None:
    """Return how a tree differs from the one that is expected, but for what is not compared."""
    names = [name for name in sorted(found.keys() | expected.keys()) if not LOGS.search(name)]
    wrong = [
        f"{name} {'differs' if name in found and name in expected else 'is there' if name in found else 'is missing'}"
        for name in names
        if found.get(name) != expected.get(name)
    ]
    return ", ".join(wrong[:3]) or None


def left_over(found: Tree) -> str | None:
    """Return which temporary files and folders there are."""
    return ", ".join([name for name in found if TEMPORARY.search(name)][:3]) or None


def half_written(folder: Path, found: Tree, before: Tree, undisturbed: Tree) -> str | None:
    """Return which file under a final name is neither that of before nor that of an undisturbed run."""
    wrong = []
    for name, digest in found.items():
        if TEMPORARY.search(name) or LOGS.search(name) or digest == "folder":
            continue
        if UNFINISHED.search(name):
            if name.endswith(".npz") and not zipfile.is_zipfile(folder / name):
                wrong.append(f"{name} is cut off")
        elif digest not in {before.get(name), undisturbed.get(name)}:
            wrong.append(f"{name} is neither the old nor the new one")
    for directory in {match[0] for name in found if (match := re.match(r"build/[^/]+/\d+/", name))}:
        of_it = [{one: tree[one] for one in tree if one.startswith(directory)} for tree in (found, before, undisturbed)]
        if of_it[0] not in of_it[1:]:
            wrong.append(f"{directory} is neither the old nor the new one")
    return ", ".join(wrong[:3]) or None


def refused_in_words(ended: Ended) -> str | None:
    """Return what is wrong with how a command failed, unless it said why in words."""
    if ended.status not in (1, 2):
        return f"exit status {ended.status}: {ended.said[-300:]}"
    if re.search(r"Traceback|bug in the program|unexpected \w+(Error|Exception)\b", ended.said):
        return f"it says: {ended.said[-300:]}"
    return None
