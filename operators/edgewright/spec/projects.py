"""MLflow Projects as data: their entry points and parameters, read without MLflow.

The format is MLflow's: a folder with a YAML file ``MLproject`` (https://mlflow.org/docs/latest/ml/projects/).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgewright.spec.faults import listing, near

FILE = "MLproject"


class NotAProject(ValueError):
    """A folder is no MLflow Project; the text says why."""


@dataclass(frozen=True)
class EntryPoint:
    """One command of a project.

    Attributes:
        parameters: Whether each parameter must be given, by name.
    """

    parameters: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """What counts in a project.

    Attributes:
        entry_points: Its commands by name.
        environment: Which of ``python_env``, ``conda_env`` and ``docker_env`` it names; empty for none.
    """

    entry_points: dict[str, EntryPoint]
    environment: str


@dataclass(frozen=True)
class ProjectFault:
    """One thing that a task says and its project does not bear out.

    Attributes:
        key: The task's key that is wrong: ``entry_point``, ``environment``, ``args`` or ``inputs``.
        name: Which of its names, where it is a mapping.
        message: What is wrong.
        allowed: What is allowed.
        suggestion: A near name.
    """

    key: str
    name: str
    message: str
    allowed: str
    suggestion: str | None = None


def read_project(folder: Path) -> Project:
    """Read a project.

    Raises:
        NotAProject: there is no ``MLproject``, or it is none.
    """
    file = folder / FILE
    if not file.is_file():
        raise NotAProject(f"there is no file {FILE} in it")
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NotAProject(f"its {FILE} is no YAML: {' '.join(str(error).split())}") from None
    points = document.get("entry_points") if isinstance(document, dict) else None
    if not isinstance(points, dict) or not points:
        raise NotAProject(f"its {FILE} has no entry_points")
    kinds = [kind for kind in ("python_env", "conda_env", "docker_env") if kind in document]
    return Project({str(name): _entry_point(name, point) for name, point in points.items()}, "".join(kinds[:1]))


def _entry_point(name: Any, point: Any) -> EntryPoint:
    parameters = point.get("parameters") or {} if isinstance(point, dict) else None
    if not isinstance(parameters, dict) or not isinstance(point.get("command"), str):
        raise NotAProject(f"its entry point {name} has no command")
    return EntryPoint({str(key): not _has_default(value) for key, value in parameters.items()})


def _has_default(parameter: Any) -> bool:
    return isinstance(parameter, dict) and parameter.get("default") is not None


def project_faults(
    project: Project, name: str, entry_point: str, environment: str, args: Iterable[str], inputs: Iterable[str]
) -> list[ProjectFault]:
    """Return what a project would not do as its task says.

    Args:
        project: What it holds.
        name: The folder, for messages.
        entry_point: The task's.
        environment: The task's.
        args: Names of the task's arguments.
        inputs: Names of the task's inputs.
    """
    found: list[ProjectFault] = []
    if project.environment == "docker_env":
        found.append(ProjectFault("project", "", f"{name} names a docker_env",
                                  "a container is the profile's: profile: with on: docker"))  # fmt: skip
    point = project.entry_points.get(entry_point)
    if point is None:
        known = list(project.entry_points)
        return [*found, ProjectFault("entry_point", "", f"{name} has no entry point {entry_point}",
                                     f"it has: {listing(known)}", near(entry_point, known))]  # fmt: skip
    given = [("args", arg) for arg in args] + [("inputs", arg) for arg in inputs]
    takes = f"{entry_point} takes: {listing(list(point.parameters))}"
    for key, arg in given:
        if arg not in point.parameters:
            found.append(ProjectFault(key, arg, f"{entry_point} of {name} has no parameter {arg}", takes,
                                      near(arg, list(point.parameters))))  # fmt: skip
    names = {arg for _, arg in given}
    for parameter, needed in point.parameters.items():
        if needed and parameter not in names:
            found.append(ProjectFault("args", "", f"{entry_point} of {name} needs the parameter {parameter}",
                                      "give it in args, or as a file of the part train in inputs"))  # fmt: skip
    return found
