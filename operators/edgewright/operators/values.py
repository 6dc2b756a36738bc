"""Between what a Dag author writes and the plain JSON with markers that an operator keeps.

In a hand-written Dag a value may hold another task (or its ``.output``), and its texts are Jinja templates, as Airflow
users expect. In a YAML pipeline every text is literal unless it is marked. Both end as the same markers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator, XComArg

from edgewright.errors import ConfigError
from edgewright.operators.compat import LITERAL, RETURN_KEY
from edgewright.spec.markers import encode
from edgewright.spec.pipeline import Best, Constant, Reference, Template

log = logging.getLogger("edgewright.operators")


def to_markers(value: Any, sources: list[Any], where: str) -> Any:
    """Return a value of a hand-written Dag as plain JSON with markers.

    Args:
        value: What the author wrote.
        sources: Gets the operators whose output the value takes.
        where: Name of the value, for messages.

    Raises:
        ConfigError: the value is nothing that JSON can say.
    """
    if isinstance(value, XComArg):
        return encode(_reference(value, sources, where))
    if isinstance(value, BaseOperator):
        sources.append(value)
        return encode(Reference(value.task_id))
    if isinstance(value, LITERAL):
        return {"$const": value.value}
    if isinstance(value, str):
        return encode(Template(value)) if "{{" in value or "{%" in value else value
    if isinstance(value, Mapping):
        return {str(key): to_markers(item, sources, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_markers(item, sources, f"{where}.{index}") for index, item in enumerate(value)]
    if isinstance(value, (Reference, Template, Constant)):
        return encode(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ConfigError(f"{type(value).__name__} is no value that a step can take", where=where,
                      hint="text, numbers, lists, mappings, or another task's output")  # fmt: skip


def _reference(value: XComArg, sources: list[Any], where: str) -> Reference:
    key = getattr(value, "key", None)
    if key is None:
        raise ConfigError(
            "a mapped or zipped output cannot be taken", where=where, hint="take task.output or task.output['key']"
        )
    operator = value.operator  # type: ignore[attr-defined]
    sources.append(operator)
    return Reference(operator.task_id, None if key == RETURN_KEY else key)


def pull(context: Any, reference: Reference) -> Any:
    """Return what a reference to a task that is no step of ours means: a pushed key, else an entry of what it returned.

    Raises:
        ConfigError: the task left nothing there.
    """
    if reference.items == "all":
        return [_part(value, reference) for value in returned(context, reference)]
    if reference.key is not None:
        pushed = _pulled(context, reference, reference.key)
        if pushed is not None:
            return pushed
    return _part(returned(context, reference), reference)


def _part(value: Any, reference: Reference) -> Any:
    if reference.key is None:
        return value
    if isinstance(value, Mapping):
        for place in (value, *(value.get(name) for name in ("outputs", "metrics", "tags"))):
            if isinstance(place, Mapping) and reference.key in place:
                return place[reference.key]
    raise ConfigError(f"task {reference.task} has no output {reference.key}")


def returned(context: Any, reference: Reference) -> Any:
    """Return what a reference's task returned: a list for all instances of a mapped task, else one value.

    Raises:
        ConfigError: it returned nothing: it was skipped, failed, or has no result.
    """
    value = _pulled(context, reference, RETURN_KEY)
    if value is None:
        raise ConfigError(
            f"the output of task {reference.task} is not there",
            hint="it was skipped, it failed, or it returns nothing",
        )
    return value


def _pulled(context: Any, reference: Reference, key: str) -> Any:
    instance = context["ti"]
    if reference.items is None:
        return instance.xcom_pull(task_ids=reference.task, key=key)
    if reference.items == "same":
        return instance.xcom_pull(task_ids=reference.task, key=key, map_indexes=instance.map_index)
    if reference.items == "all":
        found = [value for value in instance.xcom_pull(task_ids=[reference.task], key=key) if value is not None]
        return [value for value in found if not isinstance(value, Mapping) or value.get("state") != "failed"]
    return instance.xcom_pull(task_ids=reference.task, key=key, map_indexes=_best(context, reference.items))


def _best(context: Any, best: Best) -> int:
    from edgewright.steps.mapping import choose

    results = context["ti"].xcom_pull(task_ids=[best.task])
    index = choose(best, results)
    log.info("%s %s is best in instance %d of task %s", best.mode, best.metric, index, best.task)
    return index
