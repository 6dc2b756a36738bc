"""The user's code: find it, digest it, call it, and keep what it does wrong apart from what we do wrong.

Light to import, without pydantic and the like: environments of their own (Spark's) use it, too.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import io
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from edgewright.artifacts.digest import list_files, sha256_file
from edgewright.errors import EdgewrightError, UserCodeError
from edgewright.steps.elsewhere import elsewhere, imported_names

#: Most bytes of the user's own output that reach the task's log.
OUTPUT_LIMIT = 1 << 20
_DYNAMIC = {"__import__", "import_module", "exec", "eval", "runpy", "spec_from_file_location"}
#: Libraries that run or load modules by names which stand in data.
_LOADERS = {"runpy", "pkgutil", "subprocess", "pickle", "cloudpickle", "dill", "joblib"}


def code_digests(folder: Path, entries: list[str], document: str = "pipeline.yaml") -> dict[str, str]:
    """Return the sha256 of every file that the entry points may depend on, by relative path.

    These are the modules of the folder that the entries import, directly or not; modules beside the folder that they
    import (``../common.py``; not installed libraries, whose versions count); and every file that is not Python (a
    function may read it). Prose, hidden files and the pipeline's own documents count where the code names them. Code
    that imports by computed names, runs programs or loads pickles depends on all modules of the folder.

    Args:
        folder: The pipeline's folder.
        entries: ``file.py:function`` entry points, notebooks and scripts.
        document: Name of the pipeline's file.
    """
    if not entries:
        return {}
    names = list_files(folder)
    modules = {name for name in names if name.endswith(".py")}
    used, text, imported = _closure(folder, {entry.rsplit(":", 1)[0] for entry in entries}, modules)
    silent = {name for name in names if name.endswith(".md") or name in (document, "defaults.yaml") or _hidden(name)}
    others = {name for name in set(names) - modules if name not in silent or Path(name).name in text}
    found = {name: sha256_file(folder / name) for name in sorted((used & modules) | others)}
    # what a notebook showed when it was last open decides nothing
    found |= {name: _cells_digest(folder / name) for name in used & others if name.endswith(".ipynb")}
    return found | elsewhere(imported, known=modules)


def _cells_digest(notebook: Path) -> str:
    from edgewright.spec.notebooks import NotANotebook, read_notebook

    try:
        read = read_notebook(notebook)
    except NotANotebook:
        return sha256_file(notebook)
    return hashlib.sha256(repr((read.cells, read.language, read.parameters)).encode()).hexdigest()


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _closure(folder: Path, start: set[str], modules: set[str]) -> tuple[set[str], str, set[str]]:
    """Return the modules that are used, their text, and the first names of everything that they import."""
    seen: set[str] = set()
    texts: list[str] = []
    imported: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name in seen or not (folder / name).is_file():
            continue
        seen.add(name)
        source = _python(folder / name)
        try:
            tree = ast.parse(source) if source is not None else None
        except (SyntaxError, ValueError):
            continue
        if tree is None or source is None:
            waiting.extend(modules)  # a program in another language may run any of them
            continue
        texts.append(source)
        imported |= imported_names(tree)
        found = _imports(tree, name, modules)
        waiting.extend(modules if found is None else found)
    return seen, "\n".join(texts), imported


def _python(path: Path) -> str | None:
    """Return the Python of a module or a notebook; ``None`` if the file holds another language."""
    if path.suffix == ".ipynb":
        from edgewright.spec.notebooks import NotANotebook, python_of, read_notebook

        try:
            read = read_notebook(path)
        except NotANotebook:
            return ""
        return "\n".join(map(python_of, read.cells)) if read.language == "python" else None
    return path.read_bytes().decode(errors="replace") if path.suffix == ".py" else None


def _imports(tree: ast.AST, name: str, modules: set[str]) -> set[str] | None:
    """Return the folder's modules that a module imports, or ``None`` if it may import by computed names."""
    found: set[str] = set()
    package = Path(name).parent.parts
    for node in ast.walk(tree):
        if _is_dynamic(node):
            return None
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= _files_of(alias.name.split("."), modules)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            parts = base + (node.module.split(".") if node.module else [])
            found |= _files_of(parts, modules)
            for alias in node.names:
                found |= _files_of([*parts, alias.name], modules)
    return found


def _is_dynamic(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _DYNAMIC
    if isinstance(node, ast.Attribute):
        return node.attr in _DYNAMIC
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in _LOADERS for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        root = (node.module or "").partition(".")[0]
        return root in _LOADERS or any(alias.name in _DYNAMIC for alias in node.names)
    return False


def _files_of(parts: list[str], modules: set[str]) -> set[str]:
    """Return the files that importing a dotted name would run: the packages on the way and the module itself."""
    candidates: set[str] = set()
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        candidates |= {f"{path}.py", f"{path}/__init__.py"}
    return candidates & modules


class _LimitedOutput(io.TextIOBase):
    """Passes text on up to a limit, then says once that the rest is dropped."""

    def __init__(self, stream: TextIO, limit: int) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit
        self.dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._left > 0:
            self._stream.write(text[: self._left])
        self.dropped += max(0, len(text) - max(0, self._left))
        self._left -= len(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def close_limit(self) -> None:
        if self.dropped:
            self._stream.write(
                f"\n... {self.dropped:,} more characters of output dropped (limit {self._limit:,}); "
                "write large output to a file\n"
            )


@contextlib.contextmanager
def user_code(folder: Path, what: str) -> Iterator[None]:
    """Run the user's code: its folder is importable, its output is bounded, and its faults are its own.

    Args:
        folder: The pipeline's folder.
        what: The entry point, for messages.

    Raises:
        UserCodeError: the code raised, or called ``sys.exit``. Errors of ours pass unchanged.
    """
    output, errors = _LimitedOutput(sys.stdout, OUTPUT_LIMIT), _LimitedOutput(sys.stderr, OUTPUT_LIMIT)
    with importable(folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            yield
        except EdgewrightError:
            raise
        except SystemExit as error:
            raise UserCodeError(
                f"{what} called sys.exit({error.code!r})", hint="return the result, or raise an exception"
            ) from error
        except MemoryError as error:
            raise UserCodeError(f"{what} ran out of memory", hint="use fewer rows or a larger profile") from error
        except Exception as error:
            raise UserCodeError(
                f"{what} raised {type(error).__name__}: {error}", hint=trace_of(error, folder)
            ) from error
        finally:
            output.close_limit()
            errors.close_limit()


def trace_of(error: BaseException, folder: Path) -> str:
    """Return the user's own frames of a traceback, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).resolve().is_relative_to(folder.resolve())]
    lines = [f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in own[-5:]]
    return "raised at " + "; ".join(lines) if lines else "raised outside of the pipeline's folder"


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Make a folder's modules importable for a while; two pipelines may both have a model.py."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(place)
        _forget_modules(folder.resolve(), before)


def _forget_modules(folder: Path, keep: set[str]) -> None:
    for name in sys.modules.keys() - keep:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(folder):
            del sys.modules[name]


def load_entry(folder: Path, entry: str) -> Callable[..., Any]:
    """Import ``file.py:function`` of a folder; call inside :func:`user_code`.

    Raises:
        UserCodeError: there is no such file or function, or another module has the file's name.
    """
    file, _, name = entry.rpartition(":")
    path = (folder / file).resolve()
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        raise UserCodeError(f"no such file: {file}", where=entry, hint=f"looked in {folder}")
    module = importlib.import_module(".".join(Path(file).with_suffix("").parts))
    if Path(module.__file__ or "").resolve() != path:
        raise UserCodeError(
            f"{file} has the name of a module that is imported already ({module.__file__ or 'built in'})",
            where=entry,
            hint="give the file another name",
        )
    found = getattr(module, name, None)
    if found is None:
        names = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise UserCodeError(
            f"{file} has no {name}", where=entry, hint=f"it has: {', '.join(sorted(names)) or 'nothing'}"
        )
    return found  # type: ignore[no-any-return]
