"""What a change of a pipeline does: tasks added, removed and changed, the schedule, the params."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgewright.spec.markers import encode
from edgewright.spec.pipeline import Pipeline, Task


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


@dataclass
class Plan:
    """What a change does to one Dag.

    Attributes:
        dag_id: Its id.
        state: ``added``, ``removed``, ``changed`` or ``same``.
        added: Ids of new tasks.
        removed: Ids of tasks that are gone; their history stays in Airflow but gets no new runs.
        changed: Differences by task id.
        dag: Differences of the Dag itself (schedule, params, arguments).
        reruns: Ids of steps whose cached results no longer answer, with everything after them.
    """

    dag_id: str
    state: str
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, list[Change]] = field(default_factory=dict)
    dag: list[Change] = field(default_factory=list)
    reruns: list[str] = field(default_factory=list)


def compare(old: Pipeline | None, new: Pipeline | None, changed_files: set[str] | None = None) -> Plan:
    """Return what it means to go from one version of a pipeline to another.

    Args:
        old: The version that runs now; ``None`` for a new pipeline.
        new: The version that would run; ``None`` for one that is removed.
        changed_files: Files of the pipeline's folder whose contents differ between the two.
    """
    if new is None:
        assert old is not None, "one of the two must be there"
        return Plan(old.dag_id, "removed", removed=[task.id for task in old.tasks])
    if old is None:
        ids = [task.id for task in new.tasks]
        return Plan(new.dag_id, "added", added=ids, reruns=[task.id for task in new.tasks if task.is_step])
    before, after = {t.id: t for t in old.tasks}, {t.id: t for t in new.tasks}
    plan = Plan(new.dag_id, "same")
    plan.added = [name for name in after if name not in before]
    plan.removed = [name for name in before if name not in after]
    for name in after:
        if name in before and (found := _differences("", _task(before[name]), _task(after[name]))):
            plan.changed[name] = found
    plan.dag = _differences("", _dag(old), _dag(new))
    plan.reruns = _reruns(new, plan, changed_files or set())
    if plan.added or plan.removed or plan.changed or plan.dag or plan.reruns:
        plan.state = "changed"
    return plan


def _reruns(new: Pipeline, plan: Plan, changed_files: set[str]) -> list[str]:
    """Return the steps that must run again: those whose ``with:``, code or source changed, and what takes from them."""
    stale: list[str] = []
    for task in new.tasks:
        touched = task.id in plan.added or any(
            c.place.startswith(("with", "uses")) for c in plan.changed.get(task.id, [])
        )
        if task.is_step and (touched or _uses_files(task, changed_files) or any(up in stale for up in task.needs)):
            stale.append(task.id)
    return stale


def _uses_files(task: Task, changed: set[str]) -> bool:
    """Whether a step may depend on one of the files: its entry points' folder code, or a source that it reads."""
    values = [value for value in task.config.values() if isinstance(value, str)]
    has_code = any(".py:" in value for value in values)
    code_changed = any(name.endswith(".py") for name in changed)
    return (has_code and code_changed) or any(value in changed for value in values)


def _task(task: Task) -> dict[str, Any]:
    return {
        "uses": task.uses,
        "needs": sorted(task.needs),
        "profile": task.profile,
        "with": encode(task.config),
        **{key: str(value) for key, value in task.arguments.items()},
    }


def _dag(pipeline: Pipeline) -> dict[str, Any]:
    arguments = {key: str(value) for key, value in pipeline.arguments.items()}
    return {"schedule": pipeline.schedule, "params": pipeline.params, **arguments}


def _differences(place: str, old: Any, new: Any) -> list[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[Change] = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += _differences(f"{place}.{key}" if place else str(key), old.get(key), new.get(key))
        return found
    return [] if old == new else [Change(place, old, new)]
