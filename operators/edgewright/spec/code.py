"""Whether the user's functions and the operators that a pipeline names exist, found without importing anything."""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near


def locate(folder: FilePath, name: str) -> tuple[FilePath, bool] | None:
    """Return where a relative path leads and whether it stays in a folder; ``None`` for what no file can be called."""
    try:
        root = folder.resolve()
        place = (root / name).resolve()
        place.exists()
    except (OSError, ValueError):  # too long, a NUL, half a surrogate pair
        return None
    return place, place.is_relative_to(root)


class EntryPoints:
    """Looks up ``file.py:name`` below one folder; every file is read once."""

    def __init__(self, folder: FilePath, faults: Faults) -> None:
        self.folder = folder
        self.faults = faults

    def check(self, entry: str, path: Path) -> None:
        """Note a fault if the file or the name is not there."""
        file, _, name = entry.rpartition(":")
        found = locate(self.folder, file)
        if found is not None and not found[1]:
            self.faults.add(path, f"{file} leads out of the pipeline's folder", code="path")
            return
        if found is None or not found[0].is_file():
            here = sorted(p.name for p in self.folder.glob("*.py"))
            self.faults.add(
                path,
                f"no such file: {file}",
                allowed=f"Python files here are: {listing(here)}",
                suggestion=near(file, here),
                code="missing-file",
            )
            return
        place = found[0]
        state = place.stat()
        names = _top_level(place, state.st_mtime_ns, state.st_size)
        if isinstance(names, str):
            self.faults.add(path, f"{file} is not valid Python: {names}", code="python-syntax")
        elif name not in names and "*" not in names:
            shown = sorted(n for n in names if not n.startswith("_"))
            self.faults.add(
                path,
                f"{file} has no {name}",
                allowed=f"it has: {listing(shown)}",
                suggestion=near(name, names),
                code="missing-entry",
            )


@functools.lru_cache(maxsize=512)
def _top_level(place: FilePath, mtime: int, size: int) -> frozenset[str] | str:
    """Return the names that a file binds at its top level, or why it cannot be read."""
    try:
        tree = ast.parse(place.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return f"{error.args[0] if error.args else error}" + (f" (line {line})" if line else "")
    return frozenset(name for node in tree.body for name in _bound(node))


def _bound(node: Any) -> list[str]:
    """Return the names that a top-level statement binds; ``*`` stands for names that nobody can know."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    inner = [*getattr(node, "body", []), *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
    inner += [child for handler in getattr(node, "handlers", []) for child in handler.body]
    return [name for child in inner if isinstance(child, ast.stmt) for name in _bound(child)]


def check_operator(uses: str, folder: FilePath, path: Path, faults: Faults, *, code: str = "unknown-operator") -> None:
    """Note a fault if a dotted path names nothing that could be imported."""
    problem = _operator_problem(uses, str(folder))
    if problem is not None:
        message, allowed, suggestion = problem
        faults.add(path, message, allowed=allowed, suggestion=suggestion, code=code)


def check_callbacks(arguments: Mapping[str, Any], folder: FilePath, path: Path, faults: Faults) -> None:
    """Note functions that are to be called when something happens and do not exist."""
    for name, value in arguments.items():
        if not (name.startswith("on_") and name.endswith("_callback")):
            continue
        for index, function in enumerate(value if isinstance(value, list) else [value]):
            place = (*path, name, index) if isinstance(value, list) else (*path, name)
            check_operator(function, folder, place, faults, code="missing-entry")


Problem = tuple[str, str | None, str | None]
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def _operator_problem(uses: str, folder: str) -> Problem | None:
    if not _DOTTED.fullmatch(uses) or len(uses) > 250:
        return f"{uses!r} is no dotted path", "package.module.ClassName", None
    top = uses.partition(".")[0]
    if _environment_module(top) is not None:
        return _environment_problem(uses)
    found = _submodule(top, (FilePath(folder),))
    if found is None:
        known = sorted({"airflow", "edgewright", *(p.stem for p in FilePath(folder).glob("*.py"))})
        return f"no module named {top!r}", "it must be installed, or stand in the pipeline's folder", near(top, known)
    return _walk(found, uses)


@functools.lru_cache(maxsize=4096)
def _environment_problem(uses: str) -> Problem | None:
    """Return what is wrong with a path into the environment, which does not change while a process lives."""
    found = _environment_module(uses.partition(".")[0])
    return None if found is None else _walk(found, uses)


@dataclass(frozen=True)
class Module:
    """A module in the file system: its file (a namespace package has none) and the folders of its submodules."""

    file: FilePath | None
    folders: tuple[FilePath, ...]

    @property
    def source(self) -> str | None:
        """Its text, if it is Python."""
        if self.file is None or self.file.suffix != ".py":
            return None
        try:
            return self.file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None


def in_environment(dotted: str) -> bool:
    """Whether a dotted path begins with a module that is installed, rather than one of the pipeline's folder."""
    return _environment_module(dotted.partition(".")[0]) is not None


def find_module(dotted: str, folder: str) -> Module | None:
    """Return a module by its dotted path, if it stands in a file of the environment or of a folder."""
    top, *rest = dotted.split(".")
    module = _top_module(top, folder)
    for part in rest:
        if module is None:
            return None
        module = _submodule(part, module.folders)
    return module


def _top_module(top: str, folder: str) -> Module | None:
    """Return a top-level module of the environment, or of the pipeline's folder."""
    return _environment_module(top) or _submodule(top, (FilePath(folder),))


@functools.cache
def _environment_module(top: str) -> Module | None:
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    file = FilePath(spec.origin) if spec.has_location and spec.origin else None
    return Module(file, tuple(FilePath(place) for place in spec.submodule_search_locations or ()))


def _submodule(name: str, folders: tuple[FilePath, ...]) -> Module | None:
    spaces = []
    for folder in folders:
        place = folder / name
        if (place / "__init__.py").is_file():
            return Module(place / "__init__.py", (place,))
        for suffix in importlib.machinery.all_suffixes():
            if (file := folder / f"{name}{suffix}").is_file():
                return Module(file, ())
        if place.is_dir():
            spaces.append(place)
    return Module(None, tuple(spaces)) if spaces else None


def _walk(module: Module, uses: str) -> Problem | None:
    """Follow a dotted path through the file system."""
    *modules, name = uses.split(".")
    if module.file is None and not module.folders:
        return None  # built into Python
    for depth, part in enumerate(modules[1:], start=1):
        found = _submodule(part, module.folders)
        if found is None:
            if _makes_up_modules(module):
                return None
            siblings = {p.stem for folder in module.folders for p in folder.glob("[a-z]*")}
            wanted = near(part, sorted(siblings))
            suggestion = ".".join([*modules[:depth], wanted, *modules[depth + 1 :], name]) if wanted else None
            return f"no module named {'.'.join(modules[: depth + 1])!r}", "it must be installed", suggestion
        module = found
    source = module.source
    if source is None or "__getattr__" in source or re.search(rf"\b{name}\b", source):
        return None
    names = sorted(set(re.findall(r"^(?:class|def)\s+([^\W_]\w*)", source, re.MULTILINE)))
    wanted = near(name, names)
    path = ".".join(modules)
    return f"{path} has no {name}", f"it has: {listing(names)}", f"{path}.{wanted}" if wanted else None


def _makes_up_modules(module: Module) -> bool:
    """Whether a package may offer modules that have no file, as Airflow does for old names."""
    source = module.source
    return source is not None and any(word in source for word in ("__getattr__", "sys.modules", "deprecat"))
