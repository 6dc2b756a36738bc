"""``for_each:`` and ``best_of:``: tasks and groups that run once for each item, and which instance stands for all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.pipeline import Best, Constant, ForEach, Reference, Task, Template
from edgewright.spec.steps import STEPS
from edgewright.spec.values import Values

#: What Airflow maps a task over at most ([core] max_map_length).
MOST_ITEMS = 1024
#: Metrics of which less is better: ``best_of`` asks for the mode instead of guessing.
_LOSSES = ("loss", "error", "rmse", "mae", "mse", "mape", "brier", "latency", "size", "drop", "difference")
_ALLOWED = 'a list, {NAME: [...], ...} for all combinations, {$x: TASK}, or {$t: "{{ params.NAME }}"}'


def read_for_each(value: Any, path: Path, values: Values, params: Mapping[str, Any], faults: Faults) -> ForEach | None:
    """Return what a task or group runs once for each of.

    Args:
        value: Value of ``for_each:``.
        path: Its place.
        values: Parser of values; notes the references.
        params: The document's params.
        faults: Where to note.
    """
    parsed = values.parse(value, path)
    if isinstance(parsed, Constant):
        parsed = parsed.value
    if isinstance(parsed, (Reference, Template)):
        _check_source(parsed, path, params, faults)
        return ForEach(source=parsed)
    if isinstance(parsed, dict):
        return _combinations(parsed, path, params, faults)
    if not isinstance(parsed, list) or _has_marker(parsed):
        if parsed is not None or value is None:
            faults.add(path, "must be what the task runs once for each of", allowed=_ALLOWED, code="type")
        return None
    return _literal(parsed, path, faults)


def _combinations(axes: dict[str, Any], path: Path, params: Mapping[str, Any], faults: Faults) -> ForEach | None:
    if not axes:
        faults.add(path, "there is nothing to run for", allowed=_ALLOWED, code="value")
        return None
    wrong = False
    for name, axis in axes.items():
        place = (*path, name)
        if not name.isidentifier():
            faults.add(place, f"{name!r} is no name", allowed="letters, digits and _: {{ item.NAME }}", code="value",
                       key=True)  # fmt: skip
        if isinstance(axis, (Reference, Template)):
            _check_source(axis, place, params, faults)
        elif not isinstance(axis, list) or not axis or _has_marker(axis):
            faults.add(place, "must be a list of values", allowed='[0.1, 1], {$x: TASK} or {$t: "{{ params.NAME }}"}',
                       code="type")  # fmt: skip
            wrong = True
    if wrong:
        return None
    if any(isinstance(axis, (Reference, Template)) for axis in axes.values()):
        return ForEach(source=axes)
    return _literal(combine(axes), path, faults)


def combine(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all combinations of some lists by name, the last one changing fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _literal(items: list[Any], path: Path, faults: Faults) -> ForEach | None:
    if not items:
        faults.add(path, "there is nothing to run for", allowed=_ALLOWED, code="value")
        return None
    if len(items) > MOST_ITEMS:
        faults.add(path, f"{len(items):,} items", allowed=f"at most {MOST_ITEMS:,}, as Airflow maps", code="value")
        return None
    return ForEach(tuple(items))


def _check_source(source: Reference | Template, path: Path, params: Mapping[str, Any], faults: Faults) -> None:
    from edgewright.spec.markers import pure_param

    if isinstance(source, Reference):
        return
    name = pure_param(source.text)
    if name is None:
        faults.add(path, "this template is text, not a list", allowed='a param alone: {$t: "{{ params.NAME }}"}',
                   code="type")  # fmt: skip
        return
    kinds = params.get(name, {}).get("type")
    if name in params and kinds is not None and "array" not in kinds:
        faults.add(path, f"param {name} is no list", allowed="a param of type: array", code="type")


def _has_marker(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_marker, value.values()))
    if isinstance(value, list):
        return any(map(_has_marker, value))
    return isinstance(value, (Reference, Template, Constant))


def read_best(value: Any, path: Path, tasks: Mapping[str, Task], faults: Faults) -> Best | None:
    """Return which instance stands for all.

    Args:
        value: Value of ``best_of:``: a metric, or ``{metric: ..., mode: ..., task: ...}``.
        path: Its place.
        tasks: Those that may measure it, by the name that is used there: one for a task, those of a group.
        faults: Where to note.
    """
    entry = {"metric": value} if isinstance(value, str) else value
    if not isinstance(entry, dict) or not isinstance(entry.get("metric"), str) or not entry["metric"]:
        faults.add(path, "must name a metric", allowed="roc_auc, or {metric: rmse, mode: min}", code="type")
        return None
    for key in entry:
        if key not in ("metric", "mode", "task"):
            faults.unknown_key((*path, key), ("metric", "mode", "task"))
    metric, mode = entry["metric"], entry.get("mode")
    if mode is None and any(word in metric for word in _LOSSES):
        faults.add(path, f"is more {metric} better, or less?", allowed="{metric: " + metric + ", mode: min}",
                   code="ambiguous-mode")  # fmt: skip
    elif mode not in (None, "max", "min"):
        faults.add((*path, "mode"), f"{mode!r} is not allowed here", allowed="allowed are: max, min",
                   suggestion=near(mode, ("max", "min")), code="value")  # fmt: skip
    measuring = _measuring(entry.get("task"), metric, path, tasks, faults)
    if measuring is None:
        return None
    _check_metric(metric, measuring, (*path, "metric") if isinstance(value, dict) else path, faults)
    return Best(metric, "min" if mode == "min" else "max", measuring.id)


def _measuring(name: Any, metric: str, path: Path, tasks: Mapping[str, Task], faults: Faults) -> Task | None:
    if name is not None:
        if isinstance(name, str) and name in tasks:
            return tasks[name]
        faults.add((*path, "task"), f"no such task here: {name!r}", allowed=f"tasks here are: {listing(tasks)}",
                   suggestion=near(name, tasks), code="unknown-task")  # fmt: skip
        return None
    if len(tasks) == 1:
        return next(iter(tasks.values()))
    fitting = [task for task in tasks.values() if task.is_step and _measures(task, metric)]
    if len(fitting) == 1:
        return fitting[0]
    allowed = f"{{metric: {metric}, task: NAME}}; tasks here are: {listing(tasks)}"
    count = "several tasks" if fitting else "no task"
    faults.add(path, f"{count} of the group may measure {metric}", allowed=allowed, code="missing-key")
    return None


def _measures(task: Task, metric: str) -> bool:
    names = STEPS[task.uses or ""].metrics
    return any(metric == name or (name[-1] == "*" and metric.startswith(name[:-1])) for name in names)


def _check_metric(metric: str, task: Task, path: Path, faults: Faults) -> None:
    if task.is_step and STEPS[task.uses or ""].metrics and not _measures(task, metric):
        names = STEPS[task.uses or ""].metrics
        faults.add(path, f"{task.uses} does not measure {metric!r}", allowed=f"it measures: {listing(names, 40)}",
                   suggestion=near(metric, names), code="unknown-metric")  # fmt: skip
