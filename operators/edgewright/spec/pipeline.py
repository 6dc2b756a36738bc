"""A validated pipeline: what the factory, the local runner and the command line work on. Plain data, no Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reference:
    """``{$x: task}`` or ``{$x: {task: t, key: k}}``: another task's output.

    Attributes:
        task: Id of that task.
        key: Name of one of its outputs; ``None`` takes what fits (a step) or the return value (an operator).
    """

    task: str
    key: str | None = None


@dataclass(frozen=True)
class Template:
    """``{$t: "..."}``: a Jinja template. Nothing but ``{{ params.X }}`` is the typed param itself."""

    text: str


@dataclass(frozen=True)
class Constant:
    """``{$const: ...}``: taken as it is, never looked into."""

    value: Any


@dataclass(frozen=True)
class Position:
    """Where a node of the document starts, counted from 1."""

    line: int
    column: int
    end_column: int = 0


@dataclass(frozen=True)
class Task:
    """One entry under ``tasks:``.

    Attributes:
        id: Its id.
        uses: A step's short name, an operator's dotted path, or ``None`` for an empty task.
        needs: Ids that it waits for, those of ``$x`` included, in the document's order.
        config: Its ``with:`` with markers parsed into :class:`Reference`, :class:`Template` and :class:`Constant`;
            ``$f`` is already read.
        arguments: Task-level arguments (retries, trigger_rule, pool, ...), as Airflow names them.
        is_step: Whether ``uses`` names a step.
        profile: Name of the place to run; for ``{prefer: a, else: b}`` this is ``b``.
        preferred: Name of the place that is taken instead where the installation has it: ``a``.
        position: Where it is in the file.
    """

    id: str
    uses: str | None
    needs: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    is_step: bool = False
    profile: str | None = None
    position: Position = Position(1, 1)
    preferred: str | None = None


@dataclass(frozen=True)
class Pipeline:
    """One validated document.

    Attributes:
        dag_id: Its id.
        file: The document's path.
        text: Its text, as read.
        digest: sha256 of its text.
        schedule: Cron text, preset, ``{"uses": ..., "with": ...}`` of a timetable, or ``None``.
        params: JSON Schema fragment (with ``default``) by name.
        tasks: In an order in which every task comes after what it needs.
        arguments: Further Dag arguments (description, tags, start_date, catchup, max_active_runs, ...).
        triggers: Event sources, each ``{kind: {...}}`` as in the document.
        profiles: The document's own places to run, by name.
    """

    dag_id: str
    file: Path
    text: str
    digest: str
    schedule: Any = None
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    triggers: tuple[dict[str, Any], ...] = ()
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that holds the document, the user's code and small data."""
        return self.file.parent

    @property
    def registered_model(self) -> str | None:
        """Name that the pipeline publishes under, if its text says one."""
        names = (task.config.get("name") for task in self.tasks if task.uses == "publish")
        return next((name for name in names if isinstance(name, str)), None)

    def task(self, task_id: str) -> Task:
        """Return a task by id.

        Raises:
            KeyError: there is none of that id.
        """
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(task_id)


def iter_references(value: Any) -> Iterator[Reference]:
    """Yield every reference inside a parsed ``with:`` value."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from iter_references(item)
    elif isinstance(value, list):
        for item in value:
            yield from iter_references(item)
