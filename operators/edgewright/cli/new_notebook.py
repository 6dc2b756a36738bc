"""What ``edgewright new --from-notebook`` finds out of a notebook: its data, its parameters, its model."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError, DataError
from edgewright.spec.notebooks import PARAMETERS_TAG, NotANotebook, Notebook, python_of, read_notebook
from edgewright.spec.steps.train import INPUT_FORMATS

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True)
class Explored:
    """What a notebook tells of itself.

    Attributes:
        document: The notebook as JSON, with a cell tagged ``parameters``.
        tagged: Number of the code cell that was tagged here, from 1; 0 if one had the tag, or none could.
        parameters: Defaults of its parameters that JSON can say.
        path: The parameter that names its data; ``None`` if none does.
        data: The file that this parameter names.
        returns: The variable that holds the fitted model; ``None`` if nobody can tell.
    """

    document: dict[str, Any]
    tagged: int
    parameters: dict[str, Any]
    path: str | None
    data: Path | None
    returns: str | None


def explore(file: Path) -> Explored:
    """Look at a notebook without running it.

    Raises:
        DataError: there is no such file.
        ConfigError: it is no notebook, or not in Python.
    """
    if not file.is_file():
        raise DataError("no such file", where=str(file))
    try:
        notebook = read_notebook(file)
    except NotANotebook as error:
        raise ConfigError(f"this is no notebook: {error}", where=str(file)) from None
    if notebook.language != "python":
        raise ConfigError(
            f"this notebook is in {notebook.language}",
            where=str(file),
            hint="write the pipeline by hand: docs/notebooks.md says what such a notebook must do",
        )
    document = json.loads(file.read_bytes())
    tagged = 0 if notebook.parameters is not None else _tag(document, notebook)
    parameters = _defaults(notebook, tagged)
    path, data = _data(parameters, file.parent)
    return Explored(document, tagged, parameters, path, data, _returns(notebook))


def _tag(document: dict[str, Any], notebook: Notebook) -> int:
    """Tag the first cell that holds nothing but constants; return its number, or 0."""
    code = [cell for cell in document["cells"] if cell.get("cell_type") == "code"]
    for number, (cell, source) in enumerate(zip(code, notebook.cells, strict=True), start=1):
        if _constants(source):
            metadata = cell.setdefault("metadata", {})
            metadata["tags"] = [*metadata.get("tags", []), PARAMETERS_TAG]
            return number
    return 0


def _constants(source: str) -> dict[str, Any]:
    """Return the assignments of a cell that holds nothing else; empty otherwise."""
    try:
        body = ast.parse(python_of(source)).body
    except SyntaxError:
        return {}
    found: dict[str, Any] = {}
    for node in body:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            return {}
        try:
            found[node.targets[0].id] = ast.literal_eval(node.value)
        except ValueError:
            return {}
    return found


def _defaults(notebook: Notebook, tagged: int) -> dict[str, Any]:
    """Return the parameters' defaults, as far as they are constants that a form can show."""
    if tagged:
        found = _constants(notebook.cells[tagged - 1])
    else:
        cell = next(
            (cell for cell in notebook.cells if notebook.parameters and _assigns(cell, notebook.parameters)), ""
        )
        found = {name: value for line in _statements(cell) for name, value in _constants(line).items()}
    return {name: value for name, value in found.items() if type(value) in _TYPES}


def _assigns(cell: str, names: tuple[str, ...]) -> bool:
    return all(re.search(rf"^{re.escape(name)}\s*[:=]", cell, re.MULTILINE) for name in names)


def _statements(cell: str) -> list[str]:
    try:
        return [ast.unparse(node) for node in ast.parse(python_of(cell)).body]
    except SyntaxError:
        return []


def _data(parameters: dict[str, Any], folder: Path) -> tuple[str | None, Path | None]:
    for name, value in parameters.items():
        if isinstance(value, str) and value.rpartition(".")[2].lower() in INPUT_FORMATS:
            place = folder / value
            return name, place if place.is_file() else None
    return None, None


def _returns(notebook: Notebook) -> str | None:
    """Return the variable that is fitted last, which is the model more often than not."""
    fitted = re.findall(r"^(?:(\w+)\s*=\s*.*\.fit\(|(\w+)\.fit\()", notebook.code, re.MULTILINE)
    names = [first or second for first, second in fitted]
    return names[-1] if names else None


def params_yaml(parameters: dict[str, Any], path: str | None) -> str:
    """Return the ``params:`` of a pipeline, one a parameter that is not the data's path."""
    lines = [
        f"  {name}: {{type: {_TYPES[type(value)]}, default: {json.dumps(value)}}}\n"
        for name, value in parameters.items()
        if name != path
    ]
    return "params:\n" + "".join(lines) if lines else ""


def program_yaml(found: Explored) -> str:
    """Return what stands below ``notebook:`` in the ``with:`` of ``train``."""
    lines = []
    if found.path is not None:
        ending = Path(str(found.parameters[found.path])).suffix.lower()
        lines.append(f"inputs: {{{found.path}: train{ending}}}")
    args = [f'{name}: {{$t: "{{{{ params.{name} }}}}"}}' for name in found.parameters if name != found.path]
    if args:
        lines.append(f"args: {{{', '.join(args)}}}")
    if found.returns not in (None, "model"):
        lines.append(f"returns: {found.returns}")
    return "".join(f"      {line}\n" for line in lines)
