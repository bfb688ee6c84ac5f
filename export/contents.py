"""The contents of a model, file by file: what a manifest lists against what is there."""

from collections.abc import Mapping

from models.errors import shown
from models.records import FileDigest


def compare_contents(listed: Mapping[str, FileDigest], found: Mapping[str, FileDigest]) -> list[str]:
    """Say in what files differ, one sentence each, sorted by name; empty where they do not."""
    return [
        _difference(name, listed, found)
        for name in sorted(listed.keys() | found.keys())
        if _differ(name, listed, found)
    ]


def _differ(name: str, listed: Mapping[str, FileDigest], found: Mapping[str, FileDigest]) -> bool:
    return listed.get(name) != found.get(name)


def _difference(name: str, listed: Mapping[str, FileDigest], found: Mapping[str, FileDigest]) -> str:
    said = shown(name)
    if name not in found:
        return f"{said} is missing"
    if name not in listed:
        return f"{said} is not in the manifest"
    if listed[name].size != found[name].size:
        return f"{said} has {found[name].size:,} bytes, {listed[name].size:,} are in the manifest"
    return f"{said} has sha256 {found[name].sha256}, {listed[name].sha256} is in the manifest"
