"""Modules of the user's that stand beside the pipeline's folder: found by ``sys.path``, never imported here.

Airflow puts the folder of all pipelines on ``sys.path``, so ``import common`` works in a task; an edit of such a module
must show in the cache key. Installed libraries do not come here: their versions stand in the key already.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from edgewright.artifacts.digest import list_files, sha256_file

_INSTALLED = {"site-packages", "dist-packages"}


def imported_names(tree: ast.AST) -> set[str]:
    """Return the first parts of the names that a module imports (``os`` of ``import os.path``)."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def elsewhere(names: set[str], *, known: set[str]) -> dict[str, str]:
    """Return the sha256 of every file of modules that are neither installed nor in the pipeline's folder.

    Args:
        names: First parts of imported names.
        known: Modules of the pipeline's folder, which come first.
    """
    inside = {name.split("/", 1)[0].removesuffix(".py") for name in known}
    passed = set(sys.stdlib_module_names) | {"edgewright"} | inside
    found: dict[str, str] = {}
    waiting = sorted(names - passed)
    while waiting:
        name = waiting.pop()
        if name in passed:
            continue
        passed.add(name)
        for shown, file in _files(name):
            found[f"../{shown}"] = sha256_file(file)
            waiting += _further(file)
    return dict(sorted(found.items()))


def _files(name: str) -> list[tuple[str, Path]]:
    """Return the Python files of a module or package, each with its path below its place on ``sys.path``."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        places = [Path(place) for place in spec.submodule_search_locations]
        return [
            (f"{name}/{file}", place / file)
            for place in places
            if place.is_dir() and not _INSTALLED & set(place.parts)
            for file in list_files(place)
            if file.endswith(".py")
        ]
    file = Path(spec.origin or "")
    return [(file.name, file)] if file.is_file() and not _INSTALLED & set(file.parts) else []


def _further(file: Path) -> set[str]:
    try:
        return imported_names(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError):
        return set()
