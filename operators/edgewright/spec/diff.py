"""What a change of a pipeline does: tasks, schedule, params, and which cached results no longer answer."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from edgewright.spec.markers import encode
from edgewright.spec.next_runs import next_runs
from edgewright.spec.pipeline import ForEach, Group, Pipeline, Task, Template, iter_references
from edgewright.spec.steps import STEPS

#: Returns the files that differ and that a task's results depend on, as ``(part of its cache key, name)``.
ChangedFiles = Callable[[Task], Iterable[tuple[str, str]]]
_PARAM = re.compile(r"\bparams\s*(?:\.\s*(\w+)|\[\s*['\"](.+?)['\"]\s*\])")


@dataclass(frozen=True)
class Change:
    """One difference at a place: ``old`` or ``new`` is ``None`` where it was not, or is no longer, there."""

    place: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.place}: {self.new!r} (new)"
        if self.new is None:
            return f"{self.place}: {self.old!r} (gone)"
        return f"{self.place}: {self.old!r} -> {self.new!r}"


@dataclass(frozen=True)
class Miss:
    """One reason why a task's cached result no longer answers.

    Attributes:
        part: Which part of the cache key differs: ``step``, ``config``, ``inputs``, ``code``, ``image`` or ``state``.
        text: What of it, in words.
    """

    part: str
    text: str


@dataclass
class Plan:
    """What a change does to one Dag.

    Attributes:
        dag_id: Its id.
        state: ``added``, ``removed``, ``changed`` or ``same``.
        added: Ids of new tasks.
        removed: Ids of tasks that are gone; their history stays in Airflow but gets no new runs.
        changed: Differences by task id.
        dag: Differences of the Dag itself (schedule, params, groups, arguments).
        misses: Why a step runs again instead of being answered from the cache, by task id. Steps that are never
            cached are not among them.
        next_runs: The next runs ``before`` and ``after`` (ISO 8601, UTC) where they differ; ``None``: only Airflow
            knows.
        notes: What else is worth knowing.
    """

    dag_id: str
    state: str
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, list[Change]] = field(default_factory=dict)
    dag: list[Change] = field(default_factory=list)
    misses: dict[str, list[Miss]] = field(default_factory=dict)
    next_runs: dict[str, list[str] | None] | None = None
    notes: list[str] = field(default_factory=list)


def compare(
    old: Pipeline | None,
    new: Pipeline | None,
    changed_files: ChangedFiles | None = None,
    *,
    now: datetime.datetime | None = None,
) -> Plan:
    """Return what it means to go from one version of a pipeline to another.

    Args:
        old: The version that runs now; ``None`` for a new pipeline.
        new: The version that would run; ``None`` for one that is removed.
        changed_files: Says which files of a task differ between the two.
        now: The moment from which the next runs are counted. Default: now.
    """
    if new is None:
        assert old is not None, "one of the two must be there"
        plan = Plan(old.dag_id, "removed", removed=[task.id for task in old.tasks])
    elif old is None:
        plan = Plan(new.dag_id, "added", added=[task.id for task in new.tasks])
    else:
        plan = _between(old, new, changed_files or (lambda _: ()))
    before, after = _next(old, now), _next(new, now)
    if before != after:
        plan.next_runs = {"before": before, "after": after}
    return plan


def _between(old: Pipeline, new: Pipeline, changed_files: ChangedFiles) -> Plan:
    before, after = {t.id: t for t in old.tasks}, {t.id: t for t in new.tasks}
    plan = Plan(new.dag_id, "same")
    plan.added = [name for name in after if name not in before]
    plan.removed = [name for name in before if name not in after]
    for name in after:
        if name in before and (found := _differences("", _task(before[name]), _task(after[name]))):
            plan.changed[name] = found
    plan.dag = _differences("", _dag(old), _dag(new))
    plan.misses = _misses(new, plan, changed_files)
    if plan.added or plan.removed or plan.changed or plan.dag or plan.misses:
        plan.state = "changed"
    return plan


# -- the cache ---------------------------------------------------------------------------------------------------


def _misses(new: Pipeline, plan: Plan, changed_files: ChangedFiles) -> dict[str, list[Miss]]:
    """Return why steps run again: their own change, that of their code or source, and of what they take from."""
    found: dict[str, list[Miss]] = {}
    ran: set[str] = set()
    defaults = {c.place.split(".")[1] for c in plan.dag if c.place.startswith("params.") and ".default" in c.place}
    for task in new.tasks:
        reasons = [] if task.id in plan.added else _reasons(task, plan, changed_files, ran, defaults)
        if task.id in plan.added or reasons or (not task.is_step and any(up in ran for up in task.needs)):
            ran.add(task.id)
        if reasons and _is_cached(task):
            found[task.id] = reasons
    return found


def _is_cached(task: Task) -> bool:
    return task.is_step and task.uses is not None and STEPS[task.uses].cached and task.arguments.get("cache") != "off"


def _reasons(task: Task, plan: Plan, changed_files: ChangedFiles, ran: set[str], defaults: set[str]) -> list[Miss]:
    reasons = [Miss(part, str(change)) for change in plan.changed.get(task.id, ()) if (part := _part(change))]
    around = [f"groups.{name}.for_each" for name in _groups_of(task)]
    reasons += [Miss("config", str(change)) for change in plan.dag if change.place.startswith(tuple(around))]
    used = sorted(defaults & _params(task.config))
    reasons += [Miss("config", f"the default of params.{name} changed") for name in used]
    reasons += [Miss(part, f"{name} changed") for part, name in changed_files(task)]
    taken = {name for name in task.needs if name in ran and name in _taken(task.config)}
    return reasons + [Miss("inputs", f"{name} runs again") for name in task.needs if name in taken]


def _part(change: Change) -> str:
    """Return which part of a cache key a difference of a task belongs to; an empty text for none."""
    root, _, rest = change.place.partition(".")
    if root == "uses":
        return "step"
    if root == "profile":
        return "image"
    if root in ("with", "for_each"):
        marked = any(isinstance(value, dict) and "$x" in value for value in (change.old, change.new))
        return "inputs" if marked or "$x" in rest else "config"
    return ""


def _groups_of(task: Task) -> list[str]:
    """Return the ids of the groups around a task."""
    parts = task.group.split(".") if task.group else []
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _params(value: Any) -> set[str]:
    """Return the params that a value's templates name."""
    if isinstance(value, Template):
        return {first or second for first, second in _PARAM.findall(value.text)}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for item in items for name in _params(item)}


def _taken(value: Any) -> set[str]:
    """Return the tasks whose outputs a value takes."""
    return {reference.task for reference in iter_references(value)}


# -- the pipeline ------------------------------------------------------------------------------------------------


def _next(pipeline: Pipeline | None, now: datetime.datetime | None) -> list[str] | None:
    if pipeline is None:
        return []
    start, end = (pipeline.arguments.get(name) for name in ("start_date", "end_date"))
    return next_runs(pipeline.schedule, now or datetime.datetime.now(datetime.UTC), start=start, end=end)


def _task(task: Task) -> dict[str, Any]:
    return {
        "uses": task.uses,
        "needs": sorted(task.needs),
        "profile": {"prefer": task.preferred, "else": task.profile} if task.preferred else task.profile,
        "group": task.group,
        "for_each": _for_each(task.for_each),
        "best_of": asdict(task.best) if task.best else None,
        "setup": task.setup or None,
        "teardown": list(task.teardown) if task.teardown is not None else None,
        "run" if task.is_handler else "with": encode(task.config),
        **{key: str(value) for key, value in task.arguments.items()},
    }


def _for_each(value: ForEach | None) -> Any:
    if value is None:
        return None
    return list(value.items) if value.items is not None else encode(value.source)


def _group(group: Group) -> dict[str, Any]:
    best = asdict(group.best) if group.best else None
    return {"tooltip": group.tooltip or None, "for_each": _for_each(group.for_each), "best_of": best}


def _dag(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "schedule": pipeline.schedule,
        "params": pipeline.params,
        "environment": pipeline.environment,
        "groups": {group.id: _group(group) for group in pipeline.groups},
        "profiles": pipeline.profiles,
        "triggers": list(pipeline.triggers) or None,
        "notify": list(pipeline.notify) or None,
        **{key: str(value) for key, value in pipeline.arguments.items()},
    }


def _differences(place: str, old: Any, new: Any) -> list[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[Change] = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += _differences(f"{place}.{key}" if place else str(key), old.get(key), new.get(key))
        return found
    return [] if old == new else [Change(place, old, new)]
