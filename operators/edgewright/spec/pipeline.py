"""A validated pipeline: what the factory, the local runner and the command line work on. Plain data, no Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Best:
    """``best_of:``: which of a mapped task's (or group's) instances stands for all of them.

    Attributes:
        metric: What is compared.
        mode: Whether the largest or the smallest is the best; of equal ones it is the first.
        task: Id of the task that measures it.
    """

    metric: str
    mode: Literal["max", "min"]
    task: str


@dataclass(frozen=True)
class Reference:
    """``{$x: task}`` or ``{$x: {task: t, key: k}}``: another task's output.

    Attributes:
        task: Id of that task.
        key: Name of one of its outputs; ``None`` takes what fits (a step) or the return value (an operator).
        items: Which instances of a mapped task: ``"same"`` the one of the same item, ``"all"`` a list of all, a
            :class:`Best` the best one; ``None`` for a task that is not mapped.
    """

    task: str
    key: str | None = None
    items: Best | Literal["same", "all"] | None = None


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
class ForEach:
    """``for_each:``: a task or a group runs once for each item.

    Attributes:
        items: The items, where the document says them.
        source: What a run makes them of, where it does not: a reference, a template that is a param, or a mapping of
            lists of which some are such (all combinations).
    """

    items: tuple[Any, ...] | None = None
    source: Any = None

    @property
    def names(self) -> list[str] | None:
        """Names that every item has, or ``None`` where items are no mappings or only a run knows them."""
        if isinstance(self.source, dict):
            return sorted(self.source)
        if not self.items or not all(isinstance(item, dict) for item in self.items):
            return None
        return sorted(set.intersection(*map(set, self.items)))


@dataclass(frozen=True)
class Group:
    """A task with ``tasks:``: a group of tasks.

    Attributes:
        id: Its id, with those of the groups around it in front: ``outer.inner``.
        parent: Id of the group around it.
        tooltip: One line for Airflow's graph.
        for_each: What it runs once for each of.
        best: Which instance stands for all.
        position: Where it is in the file.
    """

    id: str
    parent: str | None = None
    tooltip: str = ""
    for_each: ForEach | None = None
    best: Best | None = None
    position: Position = Position(1, 1)


@dataclass(frozen=True)
class Task:
    """One entry under ``tasks:``.

    Attributes:
        id: Its id, with those of the groups around it in front: ``sweep.model``.
        uses: A step's short name, an operator's dotted path, or ``None`` for an empty task.
        needs: Ids that it waits for, those of ``$x`` included, in the document's order.
        config: Its ``with:`` with markers parsed into :class:`Reference`, :class:`Template` and :class:`Constant`;
            ``$f`` is already read.
        arguments: Task-level arguments (retries, trigger_rule, pool, ...), as Airflow names them.
        is_step: Whether ``uses`` names a step.
        is_handler: Whether a handler in another language does it (``run:``); ``config`` is what it is called with.
        profile: Name of the place to run; for ``{prefer: a, else: b}`` this is ``b``.
        preferred: Name of the place that is taken instead where the installation has it: ``a``.
        position: Where it is in the file.
        group: Id of the group that it is in.
        for_each: What it runs once for each of; that of a group around it is the group's.
        best: Which instance stands for all.
        setup: Whether it sets up what other tasks need.
        teardown: Ids of the setup tasks that it cleans up after; ``None``: it is no teardown.
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
    group: str | None = None
    for_each: ForEach | None = None
    best: Best | None = None
    setup: bool = False
    teardown: tuple[str, ...] | None = None
    is_handler: bool = False

    @property
    def does(self) -> str:
        """What it does, for people: ``uses``, ``run`` for a handler in another language, ``nothing``."""
        return self.uses or ("run" if self.is_handler else "nothing")


@dataclass(frozen=True)
class Pipeline:
    """One validated document.

    Attributes:
        dag_id: Its id.
        file: The document's path.
        text: Its text, as read.
        digest: sha256 of its text and of all that it inherits.
        schedule: Cron text, preset, ``{"uses": ..., "with": ...}`` of a timetable, or ``None``.
        params: JSON Schema fragment (with ``default``) by name.
        tasks: In an order in which every task comes after what it needs; those of groups among them.
        groups: Groups of tasks, outer ones first.
        arguments: Further Dag arguments (description, tags, start_date, catchup, max_active_runs, ...).
        triggers: Event sources, each ``{kind: {...}}`` as in the document.
        profiles: The document's own places to run, by name.
        notify: Who is told what, each ``{kind: {...}}`` as in the document.
        environment: Which of its ``environments:`` it was read for.
        inherited: Files that it was read from beside its own.
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
    groups: tuple[Group, ...] = ()
    notify: tuple[dict[str, Any], ...] = ()
    environment: str | None = None
    inherited: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that holds the document, the user's code and small data."""
        return self.file.parent

    @property
    def registered_model(self) -> str | None:
        """Name that the pipeline publishes under, if its text says one."""
        names = (task.config.get("name") for task in self.tasks if task.uses == "publish")
        return next((name for name in names if isinstance(name, str)), None)

    @property
    def pulls(self) -> dict[str, str]:
        """Connections of the topics that tasks pull from, by topic; by an empty text where a template names it."""
        found: dict[str, str] = {}
        for task in self.tasks:
            if task.uses == "ingest" and task.config.get("since_last_run"):
                source, connection = task.config.get("source"), task.config.get("connection") or "kafka_default"
                known = isinstance(source, str) and isinstance(connection, str)
                found[str(source).removeprefix("kafka://") if known else ""] = str(connection) if known else ""
        return found

    @property
    def takes_events(self) -> bool:
        """Whether its runs take what came from elsewhere, so that the end of a run says what becomes of that."""
        return bool(self.triggers or self.pulls or any(task.uses == "wait" for task in self.tasks))

    def task(self, task_id: str) -> Task:
        """Return a task by id.

        Raises:
            KeyError: there is none of that id.
        """
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(task_id)

    def group(self, group_id: str) -> Group:
        """Return a group by id.

        Raises:
            KeyError: there is none of that id.
        """
        for group in self.groups:
            if group.id == group_id:
                return group
        raise KeyError(group_id)

    def mapping_of(self, task: Task) -> ForEach | None:
        """Return what a task runs once for each of: its own, or that of a group around it."""
        group = task.group
        if task.for_each is not None:
            return task.for_each
        while group is not None:
            found = self.group(group)
            if found.for_each is not None:
                return found.for_each
            group = found.parent
        return None


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
