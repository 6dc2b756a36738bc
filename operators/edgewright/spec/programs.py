"""Notebooks, scripts and MLflow Projects that a task names, checked without running them."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from edgewright.spec.code import locate
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.notebooks import NotANotebook, notebook_faults, read_notebook
from edgewright.spec.projects import NotAProject, project_faults, read_project

#: Endings of files that are run without saying by what.
SCRIPT_ENDINGS = (".jl", ".js", ".pl", ".py", ".r", ".rb", ".sh")
#: Keys of ``with:`` that name one.
PROGRAM_FIELDS = frozenset({"notebook", "project", "script"})


def check_program(key: str, config: dict[str, Any], folder: FilePath, path: Path, faults: Faults) -> None:
    """Note what is wrong with the notebook, the script or the project of a task.

    Args:
        key: ``notebook``, ``project`` or ``script``.
        config: The task's ``with:``.
        folder: The pipeline's folder.
        path: Place of the ``with:``.
        faults: Where to note.
    """
    name = config[key]
    found = locate(folder, name)
    if found is not None and not found[1]:
        faults.add((*path, key), f"{name} leads out of the pipeline's folder", code="path")
    elif key == "project":
        _check_project(found[0] if found else folder / name, config, path, faults)
    elif found is None or not found[0].is_file():
        endings = (".ipynb",) if key == "notebook" else SCRIPT_ENDINGS
        fitting = sorted(file.name for file in folder.glob("*.*") if file.suffix.lower() in endings)
        faults.add(
            (*path, key),
            f"no such file: {name}",
            allowed=f"{key}s here are: {listing(fitting)}",
            suggestion=near(name, fitting),
            code="missing-file",
        )
    elif name.endswith(".ipynb"):
        _check_notebook(found[0], config, path, faults)


def _check_notebook(file: FilePath, config: dict[str, Any], path: Path, faults: Faults) -> None:
    try:
        notebook = read_notebook(file)
    except NotANotebook as error:
        faults.add((*path, "notebook"), f"{config['notebook']} is no notebook: {error}", code="notebook")
        return
    args, inputs = config.get("args") or {}, config.get("inputs") or {}
    returns = config.get("returns", "model")
    if not (isinstance(args, dict) and isinstance(inputs, dict) and isinstance(returns, str)):
        return
    for fault in notebook_faults(config["notebook"], notebook, args, inputs, returns):
        stands = fault.key in config
        place = (*path, fault.key, fault.name) if fault.name else (*path, fault.key if stands else "notebook")
        faults.add(place, fault.message, allowed=fault.allowed, suggestion=fault.suggestion, code="notebook")


def _check_project(folder: FilePath, config: dict[str, Any], path: Path, faults: Faults) -> None:
    try:
        project = read_project(folder)
    except NotAProject as error:
        allowed = "a folder with a file MLproject, relative to the pipeline's folder"
        faults.add((*path, "project"), f"{config['project']} is no MLflow Project: {error}", allowed=allowed,
                   code="project")  # fmt: skip
        return
    args, inputs = config.get("args") or {}, config.get("inputs") or {}
    point, environment = config.get("entry_point", "main"), config.get("environment", "local")
    if not (isinstance(args, dict) and isinstance(inputs, dict) and isinstance(point, str)):
        return
    for fault in project_faults(project, config["project"], point, str(environment), args, inputs):
        place = (
            (*path, fault.key, fault.name) if fault.name else (*path, fault.key if fault.key in config else "project")
        )
        faults.add(place, fault.message, allowed=fault.allowed, suggestion=fault.suggestion, code="project")
