"""The tasks of a Dag: groups, steps, any operator, once or once for each item, set up and torn down."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk import TaskGroup, XComArg

from edgewright import operators
from edgewright.factory.arguments import dotted
from edgewright.factory.assets import assets
from edgewright.factory.handlers import build_handler
from edgewright.factory.plain import build_operator
from edgewright.operators.base import PipelineSource, StepOperator
from edgewright.operators.compat import mapped_group, without_params
from edgewright.operators.mapping import LABEL, Items, ItemsOperator, uses_item
from edgewright.spec.airflow_rules import ITEMS_SUFFIX
from edgewright.spec.arguments import STEP_DEFAULTS
from edgewright.spec.markers import encode
from edgewright.spec.pipeline import ForEach, Group, Pipeline, Task, iter_references

CALLBACKS = (
    "on_execute_callback", "on_failure_callback", "on_success_callback", "on_retry_callback", "on_skipped_callback",
)  # fmt: skip


def step_operator(name: str) -> type[StepOperator]:
    """Return the operator of a step."""
    found: type[StepOperator] = getattr(operators, f"{name.capitalize()}Operator")
    return found


def functions(paths: str | list[str]) -> list[Any]:
    """Return the functions of dotted paths."""
    return [dotted(path, "callback") for path in ([paths] if isinstance(paths, str) else paths)]


class TaskBuilder:
    """Builds the tasks of one Dag, inside of its ``with``.

    Args:
        pipeline: The pipeline.
        shown: How messages name its file.
        told: Callbacks that every task of a step gets beside its own, by argument.

    Raises:
        ConfigError: an operator or a function does not exist, or refuses its arguments.
    """

    def __init__(self, pipeline: Pipeline, shown: str, told: Mapping[str, Mapping[str, list[Any]]]) -> None:
        self._pipeline = pipeline
        self._shown = shown
        self._told = told
        self._operators: dict[str, Any] = {}
        self._groups: dict[str, TaskGroup] = {}
        self._items: dict[str, Items] = {}

    def build(self) -> None:
        """Build all of them."""
        for task in self._pipeline.tasks:
            if task.group is not None:
                self._open(self._pipeline.group(task.group))
            operator = self._operators[task.id] = self._operator(task)
            for name in task.needs:
                if name not in operator.upstream_task_ids:
                    operator.set_upstream(self._operators[name])
        for name, items in self._items.items():
            if items.task is not None:
                # Airflow asks the group itself what it maps over
                self._groups[name].set_upstream(self._operators[items.task])
        for task in self._pipeline.tasks:
            self._set_up(task)

    # -- groups and items --------------------------------------------------------------------------------------

    def _open(self, group: Group) -> TaskGroup:
        """Return Airflow's group, made when the first task of it comes (what it maps over exists by then)."""
        if group.id in self._groups:
            return self._groups[group.id]
        parent = self._open(self._pipeline.group(group.parent)) if group.parent else None
        arguments: dict[str, Any] = {
            "group_id": group.id.rpartition(".")[2],
            "tooltip": group.tooltip,
            "parent_group": parent,
        }
        if group.for_each is None:
            made = TaskGroup(**arguments)
        else:
            self._items[group.id] = self._list(group.for_each, group.id, parent)
            made = mapped_group(self._expanded(self._items[group.id]), **arguments)
        self._groups[group.id] = made
        return made

    def _list(self, mapping: ForEach, name: str, group: TaskGroup | None) -> Items:
        """Return the items; where only a run knows them, a task before lists them."""
        if mapping.items is not None:
            return Items(values=mapping.items)
        local = f"{name.rpartition('.')[2]}{ITEMS_SUFFIX}"
        lister = ItemsOperator(task_id=local, source=json.dumps(encode(mapping.source)), of=name, task_group=group)
        for reference in iter_references(mapping.source):
            lister.set_upstream(self._operators[reference.task])
        self._operators[lister.task_id] = lister
        return Items(task=lister.task_id)

    def _expanded(self, items: Items) -> Any:
        """Return what Airflow maps over: one empty mapping for each item, which every instance finds by its index."""
        if items.values is not None:
            return [{} for _ in items.values]
        return XComArg(self._operators[items.task or ""])

    def _items_of(self, task: Task) -> Items | None:
        """Return the items of a task, its own or those of a group around it."""
        group = task.group
        while group is not None:
            if group in self._items:
                return self._items[group]
            group = self._pipeline.group(group).parent
        return None

    # -- one task ------------------------------------------------------------------------------------------------

    def _operator(self, task: Task) -> Any:
        group = self._groups.get(task.group or "")
        arguments = {**self._arguments(task), "task_id": task.id.removeprefix(f"{task.group}.")}
        if group is not None:
            arguments["task_group"] = group
        items = self._items_of(task)
        if task.for_each is not None:
            items = self._list(task.for_each, task.id, group)
        if items is not None and (task.is_step or uses_item(task.config)):
            arguments.setdefault("map_index_template", LABEL)
        expanded = None if task.for_each is None or items is None else self._expanded(items)
        if task.is_handler:
            return build_handler(task, arguments, self._operators, self._shown)
        if not task.is_step:
            return build_operator(task, arguments, self._operators, self._shown, items=items, expanded=expanded)
        operator_class = step_operator(task.uses or "")
        whole = {
            "config": encode(task.config),
            "profile": task.profile,
            "preferred": task.preferred,
            "profiles": self._pipeline.profiles,
            "origin": self._origin(),
            "items": items,
            **STEP_DEFAULTS,
            **arguments,
        }
        with without_params():
            if expanded is None:
                return operator_class(**whole)
            return operator_class.partial(**whole).expand_kwargs(expanded)

    @functools.cache  # noqa: B019 (the builder lives as long as one build)
    def _origin(self) -> PipelineSource:
        return PipelineSource(self._pipeline.folder.resolve(), self._pipeline.file.name, self._pipeline.digest)

    def _arguments(self, task: Task) -> dict[str, Any]:
        arguments = dict(task.arguments)
        for name in CALLBACKS:
            if name in arguments:
                arguments[name] = functions(arguments[name])
        for name, added in self._told.get(task.uses or "", {}).items():
            arguments[name] = [*arguments.get(name, ()), *added]
        for name in ("inlets", "outlets"):
            if name in arguments:
                arguments[name] = assets(arguments[name])
        return arguments

    def _set_up(self, task: Task) -> None:
        operator = self._operators[task.id]
        if task.setup:
            operator.as_setup()
        if task.teardown is not None:
            operator.as_teardown(setups=[self._operators[name] for name in task.teardown] or None)
