"""Which libraries are installed: part of every cache key, and recorded with every model."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import sys
from pathlib import Path

from edgewright.artifacts.digest import digest_json


@functools.cache
def installed() -> dict[str, str]:
    """Return name -> version of every installed distribution, read from folder names only (2 ms)."""
    found: dict[str, str] = {}
    for place in sys.path:
        folder = Path(place)
        if not folder.is_dir():
            continue
        for entry in folder.glob("*.dist-info"):
            name, _, version = entry.name.removesuffix(".dist-info").partition("-")
            found.setdefault(name.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


@functools.cache
def describe(libraries: tuple[str, ...] | None) -> dict[str, str]:
    """Return what decides a step's bytes: interpreter, processor type, and library versions.

    Args:
        libraries: The distributions that matter; ``None`` for all, as one digest (the user's code may use any).
    """
    base = {"python": platform.python_version(), "machine": platform.machine()}
    if libraries is None:
        return {**base, "packages": digest_json(installed())}
    return {**base, **{name: version_of(name) for name in libraries}}


def version_of(distribution: str) -> str:
    """Return an installed distribution's version, or ``absent``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
