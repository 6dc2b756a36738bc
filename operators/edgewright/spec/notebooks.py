"""Notebooks as data: their cells, and the parameters that they declare, read without running or importing anything.

The format is nbformat 4 (https://nbformat.readthedocs.io): a JSON document with ``cells``. Parameters stand in the
cell that is tagged ``parameters``, as papermill and JupyterLab have it.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgewright.spec.faults import listing, near

#: Tag of the cell whose assignments are the parameters' defaults.
PARAMETERS_TAG = "parameters"


class NotANotebook(ValueError):
    """A file is no notebook; the text says why."""


@dataclass(frozen=True)
class Notebook:
    """What counts in a notebook.

    Attributes:
        cells: Source of each code cell, in order.
        language: Of its kernel, such as ``python``.
        parameters: Names that the cell tagged ``parameters`` assigns, in order; ``None`` if there is no such cell.
    """

    cells: tuple[str, ...]
    language: str
    parameters: tuple[str, ...] | None

    @property
    def code(self) -> str:
        """All code, one cell after the other."""
        return "\n\n".join(self.cells)

    @property
    def names(self) -> frozenset[str]:
        """Every variable that its Python binds somewhere."""
        found: set[str] = set()
        for cell in self.cells:
            tree = _parsed(cell)
            nodes = ast.walk(tree) if tree is not None else ()
            found |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        return frozenset(found)


def read_notebook(path: Path) -> Notebook:
    """Read a notebook.

    Raises:
        NotANotebook: the file is no JSON, or no notebook of format 4.
    """
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _read(path: Path, mtime: int, size: int) -> Notebook:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NotANotebook(f"it is no JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        raise NotANotebook("it has no cells")
    if document.get("nbformat") != 4:
        raise NotANotebook(f"its format is {document.get('nbformat')}, not 4; open and save it in Jupyter")
    code = [cell for cell in document["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    tagged = [cell for cell in code if PARAMETERS_TAG in _tags(cell)]
    return Notebook(
        cells=tuple(_source(cell) for cell in code),
        language=_language(document.get("metadata")),
        parameters=_assigned(_source(tagged[0])) if tagged else None,
    )


def _tags(cell: dict[str, object]) -> list[object]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []


def _source(cell: dict[str, object]) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _language(metadata: object) -> str:
    if isinstance(metadata, dict):
        for key, name in (("kernelspec", "language"), ("language_info", "name")):
            part = metadata.get(key)
            if isinstance(part, dict) and isinstance(part.get(name), str):
                return str(part[name]).lower()
    return "python"


def python_of(cell: str) -> str:
    """Return a cell's Python without what only IPython knows (``%matplotlib inline``, ``!pip list``)."""
    if cell.lstrip().startswith("%%"):
        return ""
    lines = cell.split("\n")
    return "\n".join("pass" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)


def _assigned(cell: str) -> tuple[str, ...]:
    tree = _parsed(cell)
    if tree is None:
        return ()
    found: dict[str, None] = {}
    for node in tree.body:
        names = [name for target in _targets(node) for name in ast.walk(target)]
        found.update((name.id, None) for name in names if isinstance(name, ast.Name))
    return tuple(found)


def _parsed(cell: str) -> ast.Module | None:
    try:
        return ast.parse(python_of(cell))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


@dataclass(frozen=True)
class NotebookFault:
    """One thing that a task says and its notebook does not bear out.

    Attributes:
        key: Of the task's ``with:``: ``args``, ``inputs`` or ``returns``.
        name: The parameter; empty for ``returns``.
        message: What is wrong.
        allowed: What is allowed, or what to do.
        suggestion: A near name.
    """

    key: str
    name: str
    message: str
    allowed: str
    suggestion: str | None = None


def notebook_faults(
    file: str, notebook: Notebook, args: Iterable[str], inputs: Iterable[str], returns: str
) -> list[NotebookFault]:
    """Return what a notebook would not do as its task says: it would keep its own values, or leave no model.

    Args:
        file: Its name, for messages.
        notebook: What it holds.
        args: Names in ``args:``.
        inputs: Names in ``inputs:``.
        returns: The variable that shall hold the model.
    """
    given = [("args", name) for name in args] + [("inputs", name) for name in inputs]
    found = [fault for key, name in given if (fault := _undeclared(file, notebook, key, name))]
    if notebook.language != "python" or "EDGEWRIGHT_OUTPUT" in notebook.code or "%run" in notebook.code:
        return found
    names = notebook.names
    if returns not in names:
        suggestion = near(returns, names)
        allowed = "name the variable that holds the fitted model by returns:, or write a model to $EDGEWRIGHT_OUTPUT"
        found.append(NotebookFault("returns", "", f"{file} never assigns {returns}", allowed, suggestion))
    return found


def _undeclared(file: str, notebook: Notebook, key: str, name: str) -> NotebookFault | None:
    if notebook.parameters is None:
        how = "tag the cell that assigns them (in Jupyter: the cell's properties, Add Tag: parameters)"
        return NotebookFault(key, name, f"{file} has no cell with the tag parameters that could take {name}", how)
    if notebook.language != "python" or name in notebook.parameters:
        return None
    allowed = f"its cell of parameters assigns: {listing(notebook.parameters)}"
    return NotebookFault(key, name, f"{file} has no parameter {name}", allowed, near(name, notebook.parameters))
