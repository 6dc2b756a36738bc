"""Which arguments an operator takes, read from its source without importing it.

``edgewright check`` holds an operator's ``with:`` against this. It is not part of every parse: Airflow tells the same
when it builds the Dag, and reading the sources of a class and its bases costs some milliseconds for each operator.
What cannot be known for certain (a class made at run time, a base that is not in a file) is not checked.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from edgewright.spec.arguments import REFUSED_ARGUMENTS, TASK_ARGUMENTS
from edgewright.spec.code import find_module, in_environment
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.pipeline import Reference, Template
from edgewright.spec.steps import STEPS

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
        rendered: Those that Airflow renders as templates, or ``None`` where nobody can say.
        is_operator: Whether it is one of Airflow's operators, or ``None`` where nobody can say.
    """

    names: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    known: bool = True
    rendered: frozenset[str] | None = None
    is_operator: bool | None = None


_UNKNOWN = Signature(known=False)
_NO_CLASS = Signature(known=False, is_operator=False)


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


def check_task_operator(uses: str, given: dict[str, object], folder: FilePath, path: Path, faults: Faults) -> None:
    """Note what an operator of a task makes impossible: besides its arguments, that it is none, and markers in them.

    Args:
        uses: Its dotted path.
        given: The parsed ``with:``.
        folder: Folder of the pipeline.
        path: Place of the task.
        faults: Where to note.
    """
    signature = signature_of(uses, str(folder))
    name = uses.rpartition(".")[2]
    step = name.removesuffix("Operator").lower()
    if uses.startswith("edgewright.operators.") and step in STEPS:
        faults.add((*path, "uses"), f"{name} is a step", allowed=f"write uses: {step}", code="unknown-operator")
        return
    if signature.is_operator is False:
        faults.add((*path, "uses"), f"{uses} is no operator", allowed="the class of one", code="unknown-operator")
        return
    place = (*path, "with")
    if isinstance(given.get("python_callable"), str):
        faults.add((*place, "python_callable"), "a function cannot be given to an operator",
                   allowed="write a step with entry:, or an operator of your own", code="unsupported")  # fmt: skip
    check_arguments(uses, given, folder, place if given else path, faults)
    if signature.rendered is None:
        return
    for argument, value in given.items():
        if argument in signature.names and argument not in signature.rendered and _is_marked(value):
            faults.add((*place, argument), f"{name} does not render {argument}, so $x and $t cannot stand there",
                       allowed=f"it renders: {listing(sorted(signature.rendered), 20)}",
                       code="not-templated")  # fmt: skip


def _is_marked(value: object) -> bool:
    if isinstance(value, (Reference, Template)):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_is_marked, inner))


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
            return Signature(rendered=frozenset(), is_operator=True)
        found = _contents(module, self.folder)
        if found is None:
            return _UNKNOWN
        if (node := found.classes.get(name)) is not None:
            return self._class(node, module, found)
        if (target := found.imports.get(name)) is not None and target[1]:
            return self.read(*target)
        return _NO_CLASS if name in found.functions else _UNKNOWN

    def _class(self, node: ast.ClassDef, module: str, contents: _Contents) -> Signature:
        special = any(word.arg != "metaclass" or not _is_name(word.value, "ABCMeta") for word in node.keywords)
        if special or any("dataclass" in ast.dump(d) or "define" in ast.dump(d) for d in node.decorator_list):
            return _UNKNOWN
        own = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        bases = self._bases(node, module, contents)
        rendered = _rendered(node, bases.rendered)
        if own is None:
            return replace(bases, rendered=rendered)
        names, required = _arguments(own)
        if own.args.kwarg is None:
            return Signature(names, required, True, rendered, bases.is_operator)
        return Signature(names | bases.names, required, bases.known, rendered, bases.is_operator)

    def _bases(self, node: ast.ClassDef, module: str, contents: _Contents) -> Signature:
        names: frozenset[str] = frozenset()
        required: frozenset[str] = frozenset()
        rendered: frozenset[str] | None = None
        is_operator = False
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
            rendered = found.rendered if rendered is None else rendered
            is_operator = is_operator or found.is_operator is True
        return Signature(names, required, True, rendered if len(node.bases) == 1 else None, is_operator)


def _rendered(node: ast.ClassDef, inherited: frozenset[str] | None) -> frozenset[str] | None:
    """Return the ``template_fields`` of a class, if they are written out."""
    found = inherited
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else \
            [statement.target] if isinstance(statement, ast.AnnAssign) else []  # fmt: skip
        if any(_is_name(target, "template_fields") for target in targets):
            found = _written_out(getattr(statement, "value", None))
    changed = any(
        isinstance(inner, ast.Attribute) and inner.attr == "template_fields" and isinstance(inner.ctx, ast.Store)
        for inner in ast.walk(node)
    )
    return None if changed else found


def _written_out(node: ast.AST | None) -> frozenset[str] | None:
    """Return the texts of a tuple or list of nothing but texts."""
    if not isinstance(node, (ast.Tuple, ast.List)):
        return None
    values = [item.value for item in node.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return frozenset(values) if len(values) == len(node.elts) else None


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
    """Classes and functions of a module, and where its imported names come from."""

    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]
    functions: frozenset[str]


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
    functions = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return _Contents(classes, imports, frozenset(functions))


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
