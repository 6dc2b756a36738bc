"""Any Airflow operator as a task of a pipeline: literal unless marked, as Airflow 3.4 reads its own YAML.

Only fields with a marker are templates, and inside of them only what is marked. ``{{ params.X }}`` alone is the typed
param itself, as everywhere in a pipeline.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk import BaseOperator, XComArg, literal

from edgewright.errors import ConfigError, Fault, SpecError
from edgewright.factory.arguments import coerced, dotted
from edgewright.operators.base import StepOperator
from edgewright.operators.compat import arguments_of
from edgewright.operators.mapping import Items, ItemValue
from edgewright.operators.values import pull
from edgewright.spec.faults import listing, near
from edgewright.spec.markers import encode
from edgewright.spec.pipeline import Constant, Reference, Task, Template
from edgewright.steps.request import pure_param

EMPTY = "airflow.providers.standard.operators.empty.EmptyOperator"


@dataclass(frozen=True)
class TypedParam:
    """A param of the run with its type; Airflow asks such values to resolve themselves."""

    name: str
    text: str

    def resolve(self, context: Any) -> Any:
        """Return the param's value."""
        return context["params"][self.name]

    def serialize(self) -> dict[str, str]:
        """Return how the value is shown in a serialized Dag."""
        return {"$t": self.text}


@dataclass(frozen=True)
class Output:
    """An output of a task that Airflow's own reference cannot say: one by name, or of instances of a mapped task."""

    reference: Reference

    def resolve(self, context: Any) -> Any:
        """Return the output."""
        return pull(context, self.reference)

    def serialize(self) -> Any:
        """Return how the value is shown in a serialized Dag."""
        return encode(self.reference)


def build_operator(
    task: Task,
    arguments: Mapping[str, Any],
    operators: Mapping[str, Any],
    file: str,
    *,
    items: Items | None = None,
    expanded: Any = None,
) -> Any:
    """Return the operator of a task that is no step.

    Args:
        task: The task.
        arguments: Its id and task-level arguments, ready for Airflow.
        operators: The tasks before it.
        file: The document, for messages.
        items: What it, or a group around it, runs once for each of.
        expanded: What Airflow maps the task itself over.

    Raises:
        ConfigError: there is no such operator, or it refuses its arguments.
        SpecError: a marker stands in a field that Airflow does not render.
    """
    where = f"{file}:{task.position.line}:{task.position.column}"
    operator_class = dotted(task.uses or EMPTY, where)
    if not (isinstance(operator_class, type) and issubclass(operator_class, BaseOperator)):
        raise ConfigError(f"{task.uses} is no operator", where=where)
    if issubclass(operator_class, StepOperator):
        raise ConfigError(f"{task.uses} is a step", where=where, hint=f"write uses: {operator_class.step}")
    if task.profile not in (None, "local"):
        hint = "an operator of Airflow has its place by its own arguments, such as queue: or executor:"
        raise ConfigError(f"profile {task.profile!r} is for steps", where=where, hint=hint)
    marked = {name for name, value in task.config.items() if _is_marked(value)}
    _refuse(task, operator_class, marked, file)
    literals = {name: _literal(value) for name, value in task.config.items() if name not in marked}
    lowered = {name: _lowered(task.config[name], operators, items) for name in sorted(marked)}
    try:
        if expanded is not None:
            templated = set(operator_class.template_fields)
            kept = {name: literal(value) if name in templated else value
                    for name, value in coerced(operator_class, literals).items()}  # fmt: skip
            return operator_class.partial(**arguments, **kept, **lowered).expand_kwargs(expanded)
        operator = operator_class(**coerced(operator_class, literals), **lowered, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{task.uses}: {error}", where=where) from error
    # a field that the document sets is a template only if it is marked; the operator's own defaults still render
    fields = tuple(f for f in operator.template_fields if f not in task.config or f in marked)
    if fields != operator.template_fields:  # setting any attribute of an operator is slow
        operator.template_fields = fields
    if fields and operator.template_ext:
        operator.template_ext = ()
    return operator


def _refuse(task: Task, operator_class: type[BaseOperator], marked: set[str], file: str) -> None:
    """Raise every fault of a ``with:`` that can be seen without calling the operator."""
    fields, base, known = _arguments(operator_class)
    if known.issuperset(task.config) and fields.issuperset(marked):
        return
    faults: list[Fault] = []

    def add(name: str, message: str, allowed: str, code: str, suggestion: str | None = None) -> None:
        place = f"{task.id}.with.{name}"
        line, column = task.position.line, task.position.column
        faults.append(Fault(file, line, column, place, message, allowed, suggestion, code=code))

    for name in task.config:
        if name in base:
            add(name, f"{name} is an argument of every task", "write it beside uses:, not below with:", "misplaced")
        elif name not in known:
            allowed = f"it takes: {listing(sorted(known), 20)}"
            add(name, f"{operator_class.__name__} takes no {name}", allowed, "unknown-key", near(name, known))
        elif name in marked - fields:
            allowed = f"it renders: {listing(sorted(fields))}"
            add(name, f"{operator_class.__name__} does not render {name}, so $x and $t cannot stand there", allowed,
                "not-templated")  # fmt: skip
    if faults:
        raise SpecError(faults)


@functools.cache
def _arguments(operator_class: type[BaseOperator]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return which arguments Airflow renders, which every task has, and which are the operator's own."""
    base = arguments_of(BaseOperator)
    return frozenset(operator_class.template_fields), base, arguments_of(operator_class) - base


def _is_marked(value: Any) -> bool:
    if isinstance(value, (Reference, Template)):
        return True
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_is_marked(item) for item in items)


def _literal(value: Any) -> Any:
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value


def _lowered(value: Any, operators: Mapping[str, Any], items: Items | None) -> Any:
    """Return a value of a field that Airflow renders: what is not marked is kept from being rendered."""
    if isinstance(value, Reference):
        plain = value.key is None and value.items is None
        return XComArg(operators[value.task]) if plain else Output(value)
    if isinstance(value, Template):
        name = pure_param(value.text)
        if name is not None:
            return TypedParam(name, value.text)
        return value.text if items is None else ItemValue(value.text, items)
    if isinstance(value, Constant):
        return literal(value.value)
    if isinstance(value, Mapping):
        return {key: _lowered(item, operators, items) for key, item in value.items()}
    if isinstance(value, list):
        return [_lowered(item, operators, items) for item in value]
    return literal(value)
