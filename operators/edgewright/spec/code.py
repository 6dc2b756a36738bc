"""Whether the user's functions exist, found without importing anything."""

from __future__ import annotations

import ast
from pathlib import Path as FilePath
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near


class EntryPoints:
    """Looks up ``file.py:name`` below one folder; every file is read once."""

    def __init__(self, folder: FilePath, faults: Faults) -> None:
        self.folder = folder
        self.faults = faults
        self._names: dict[FilePath, set[str] | None] = {}

    def check(self, entry: str, path: Path) -> None:
        """Note a fault if the file or the name is not there."""
        file, _, name = entry.rpartition(":")
        place = (self.folder / file).resolve()
        if not place.is_relative_to(self.folder.resolve()):
            self.faults.add(path, f"{file} leads out of the pipeline's folder", code="path")
            return
        if not place.is_file():
            here = sorted(p.name for p in self.folder.glob("*.py"))
            self.faults.add(
                path,
                f"no such file: {file}",
                allowed=f"Python files here are: {listing(here)}",
                suggestion=near(file, here),
                code="missing-file",
            )
            return
        names = self._top_level(place, path)
        if names is not None and name not in names:
            shown = sorted(n for n in names if not n.startswith("_"))
            self.faults.add(
                path,
                f"{file} has no {name}",
                allowed=f"it has: {listing(shown)}",
                suggestion=near(name, names),
                code="missing-entry",
            )

    def _top_level(self, place: FilePath, path: Path) -> set[str] | None:
        if place not in self._names:
            try:
                tree = ast.parse(place.read_bytes())
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None)
                self.faults.add(
                    path,
                    f"{place.name} is not valid Python: {error.args[0]}",
                    allowed=f"see {place.name}:{line}" if line else None,
                    code="python-syntax",
                )
                self._names[place] = None
            else:
                self._names[place] = {name for node in tree.body for name in _bound(node)}
        return self._names[place]


def _bound(node: Any) -> list[str]:
    """Return the names that a top-level statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, (ast.If, ast.Try, ast.With)):
        inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
        return [name for child in inner for name in _bound(child)]
    return []
