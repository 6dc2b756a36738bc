"""``run:``: a task that Airflow hands to a worker of another language (``@task.stub``, AIP-108)."""

from __future__ import annotations

import functools
import linecache
from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import XComArg
from airflow.sdk import task as task_decorators

from edgewright.errors import ConfigError
from edgewright.spec.pipeline import Constant, Reference, Task


def build_handler(task: Task, arguments: Mapping[str, Any], operators: Mapping[str, Any], file: str) -> Any:
    """Return the operator that stands for a handler in another language.

    Args:
        task: The task.
        arguments: Its id and task-level arguments, ready for Airflow.
        operators: The tasks before it.
        file: The document, for messages.

    Raises:
        ConfigError: Airflow refuses it.
    """
    values = {name: _value(value, operators) for name, value in task.config.items()}
    try:
        made = task_decorators.stub(**arguments)(_stub(tuple(values)))(**values)
    except (TypeError, ValueError) as error:
        where = f"{file}:{task.position.line}:{task.position.column}"
        raise ConfigError(f"run: of task {task.id}: {error}", where=where) from error
    return made.operator


def _value(value: Any, operators: Mapping[str, Any]) -> Any:
    if isinstance(value, Reference):
        return XComArg(operators[value.task])
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Mapping):
        return {key: _value(item, operators) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item, operators) for item in value]
    return value


@functools.cache
def _stub(names: tuple[str, ...]) -> Callable[..., None]:
    """Return an empty function with these parameters.

    Airflow takes the handler's parameters from its signature, and reads its source to see that it is empty: the
    source is put where ``inspect`` looks for it.

    Args:
        names: Identifiers; :func:`edgewright.spec.handlers.read_handler` let no other names through.
    """
    file = f"<handler({', '.join(names)})>"
    source = f"def _stub({', '.join(names)}):\n    ...\n"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    found: dict[str, Any] = {}
    exec(compile(source, file, "exec"), found)  # noqa: S102 (checked identifiers only)
    stub: Callable[..., None] = found["_stub"]
    return stub
