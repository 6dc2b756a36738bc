"""Which arguments an operator takes, read from its source without importing it.

``edgewright check`` holds an operator's ``with:`` against this. It is not part of every parse: Airflow tells the same
when it builds the Dag, and reading the sources of a class and its bases costs some milliseconds for each operator.
What cannot be known for certain (a class made at run time, a base that is not in a file) is not checked.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from edgewright.spec.arguments import REFUSED_ARGUMENTS, TASK_ARGUMENTS
from edgewright.spec.code import find_module, in_environment
from edgewright.spec.faults import Faults, Path, listing, near

_MOST_STEPS = 40
#: Bases that take no argument.
_PLAIN_BASES = frozenset({"object", "ABC", "Generic", "Protocol"})
_NOT_IN_WITH = frozenset({*TASK_ARGUMENTS, *REFUSED_ARGUMENTS, "self", "task_id"})


@dataclass(frozen=True)
class Signature:
    """Arguments of a class.

    Attributes:
        names: All that it takes, those of its bases included.
        required: Those without a default.
        known: Whether that is all; a class that nobody can follow may take anything.
    """

    names: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    known: bool = True


_UNKNOWN = Signature(known=False)


def check_arguments(uses: str, given: dict[str, object], folder: FilePath, path: Path, faults: Faults) -> None:
    """Note arguments that an operator does not take, and those that it needs and did not get."""
    signature = signature_of(uses, str(folder))
    if not signature.known:
        return
    names = sorted(signature.names - _NOT_IN_WITH)
    for name in given:
        if name not in signature.names and name not in _NOT_IN_WITH:
            faults.add(
                (*path, name),
                f"{uses.rpartition('.')[2]} takes no {name!r}",
                allowed=f"it takes: {listing(names, 20)}",
                suggestion=near(name, names),
                code="unknown-key",
                key=True,
            )
    for name in sorted(signature.required - _NOT_IN_WITH - set(given)):
        faults.add(path, f"{name} is required", allowed=f"by {uses.rpartition('.')[2]}", code="missing-key")


def signature_of(uses: str, folder: str) -> Signature:
    """Return the arguments of a class by its dotted path.

    Args:
        uses: The dotted path.
        folder: Folder of the pipeline, where modules of its own may be.
    """
    if in_environment(uses):
        return _environment_signature(uses)
    return _Reader(folder).read(*_split(uses))


@functools.lru_cache(maxsize=1024)
def _environment_signature(uses: str) -> Signature:
    return _Reader("").read(*_split(uses))


def _split(uses: str) -> tuple[str, str]:
    module, _, name = uses.rpartition(".")
    return module, name


@dataclass
class _Reader:
    """Follows a class through imports and bases; gives up after some steps, so that it always ends."""

    folder: str
    steps: int = 0
    seen: set[tuple[str, str]] = field(default_factory=set)

    def read(self, module: str, name: str) -> Signature:
        self.steps += 1
        if self.steps > _MOST_STEPS or (module, name) in self.seen:
            return _UNKNOWN
        self.seen.add((module, name))
        if name == "BaseOperator":
            return Signature()
        found = _contents(module, self.folder)
        if found is None:
            return _UNKNOWN
        if (node := found.classes.get(name)) is not None:
            return self._class(node, module, found)
        if (target := found.imports.get(name)) is not None and target[1]:
            return self.read(*target)
        return _UNKNOWN

    def _class(self, node: ast.ClassDef, module: str, contents: _Contents) -> Signature:
        special = any(word.arg != "metaclass" or not _is_name(word.value, "ABCMeta") for word in node.keywords)
        if special or any("dataclass" in ast.dump(d) or "define" in ast.dump(d) for d in node.decorator_list):
            return _UNKNOWN
        own = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if own is None:
            return self._bases(node, module, contents)
        names, required = _arguments(own)
        if own.args.kwarg is None:
            return Signature(names, required)
        bases = self._bases(node, module, contents)
        return Signature(names | bases.names, required, bases.known)

    def _bases(self, node: ast.ClassDef, module: str, contents: _Contents) -> Signature:
        names: frozenset[str] = frozenset()
        required: frozenset[str] = frozenset()
        for base in node.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base
            if not isinstance(expression, ast.Name):
                return _UNKNOWN
            if expression.id in _PLAIN_BASES:
                continue
            found = self.read(module, expression.id)
            if not found.known:
                return _UNKNOWN
            required = required or found.required
            names |= found.names
        return Signature(names, required)


def _arguments(function: ast.FunctionDef) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of a function's arguments, and those without a default."""
    arguments = function.args
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    required = set(positional[: len(positional) - len(arguments.defaults)])
    names = set(positional)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        names.add(argument.arg)
        if default is None:
            required.add(argument.arg)
    if arguments.kwarg is not None:
        names |= _taken_from(arguments.kwarg.arg, function)
    return frozenset(names), frozenset(required)


def _taken_from(mapping: str, function: ast.FunctionDef) -> set[str]:
    """Return the keys that a function takes out of its ``**kwargs``: old names, mostly."""
    found = set()
    for node in ast.walk(function):
        key: ast.AST | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            key = node.args[0] if _is_name(node.func.value, mapping) else None
        elif isinstance(node, ast.Subscript):
            key = node.slice if _is_name(node.value, mapping) else None
        elif isinstance(node, ast.Compare) and _is_name(node.comparators[0], mapping):
            key = node.left
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(key.value)
    return found


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


@dataclass(frozen=True)
class _Contents:
    """Classes of a module, and where its imported names come from."""

    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]


def _contents(module: str, folder: str) -> _Contents | None:
    found = find_module(module, folder)
    if found is None or found.file is None or found.file.suffix != ".py":
        return None
    try:
        state = found.file.stat()
    except OSError:
        return None
    package = module if found.folders else module.rpartition(".")[0]
    return _parsed(found.file, package, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=256)
def _parsed(file: FilePath, package: str, mtime: int, size: int) -> _Contents | None:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    classes: dict[str, ast.ClassDef] = {}
    imports: dict[str, tuple[str, str]] = {}
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef):
            classes[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            imports.update({alias.asname or alias.name: (origin, alias.name) for alias in node.names})
    return _Contents(classes, imports)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield top-level statements, those inside of ``if`` and ``try`` included."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [inner for handler in node.handlers for inner in handler.body]
            yield from _statements([*node.body, *handlers, *node.orelse])
