"""How tasks hang together: ids, ``needs``, references to outputs, order, circles."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Mapping
from dataclasses import replace

from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.pipeline import Reference, Task, iter_references
from edgewright.spec.steps import STEPS, StepConfig
from edgewright.spec.steps import base as steps_base


@functools.cache
def accepted_kinds(model: type[StepConfig]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of artifact that each input field takes; worked out once per model."""
    return steps_base.accepted_kinds(model)


def order_tasks(tasks: list[tuple[Path, Task]], references: list[tuple[Path, Reference]], faults: Faults) -> list[Task]:
    """Return the tasks in an order in which each comes after what it needs, as near to the document's as can be.

    Args:
        tasks: Each task with its place.
        references: Each reference with its place.
        faults: Where to note unknown tasks, duplicate ids, outputs that do not exist, and circles.
    """
    by_id: dict[str, Task] = {}
    places: dict[str, Path] = {}
    for path, task in tasks:
        if task.id in by_id:
            line = faults.position((*places[task.id], "id")).line
            faults.add(
                (*path, "id"),
                f"duplicate task id {task.id!r}",
                allowed=f"it stands in line {line} already",
                code="duplicate-id",
            )
            continue
        by_id[task.id] = task
        places[task.id] = path
    _check_needs(by_id, places, faults)
    owners = dict(tasks)
    for path, reference in references:
        _check_reference(path, reference, owners.get(path[:2]), by_id, faults)
    joined = {task.id: replace(task, needs=_all_needs(task)) for task in by_id.values()}
    return _sort(joined, places, faults)


def _all_needs(task: Task) -> tuple[str, ...]:
    references = (reference.task for reference in iter_references(task.config))
    return tuple(dict.fromkeys([*task.needs, *references]))


def _check_needs(by_id: dict[str, Task], places: dict[str, Path], faults: Faults) -> None:
    for task in by_id.values():
        for index, name in enumerate(task.needs):
            place = (*places[task.id], "needs", index)
            if name not in by_id:
                _unknown_task(name, place, by_id, faults)
            elif name == task.id:
                faults.add(place, f"task {name} needs itself", code="cycle")


def _unknown_task(name: str, path: Path, by_id: dict[str, Task], faults: Faults) -> None:
    faults.add(
        path,
        f"no such task: {name!r}",
        allowed=f"tasks are: {listing(by_id)}",
        suggestion=near(name, by_id),
        code="unknown-task",
    )


def _check_reference(
    path: Path, reference: Reference, taker: Task | None, by_id: dict[str, Task], faults: Faults
) -> None:
    if reference.task not in by_id:
        _unknown_task(reference.task, path, by_id, faults)
        return
    source = by_id[reference.task]
    if taker is None or taker.id == source.id:
        faults.add(path, f"task {source.id} takes its own output", code="cycle")
    elif source.is_step:
        _check_output(path, reference, source, taker, faults)


def _check_output(path: Path, reference: Reference, source: Task, taker: Task, faults: Faults) -> None:
    """Hold a reference to a step's output against what that step makes and what the taking field accepts."""
    outputs = STEPS[source.uses or ""].outputs
    field = str(path[3]) if len(path) > 3 else ""  # tasks[i].with.FIELD
    kinds = accepted_kinds(STEPS[taker.uses or ""].config).get(field, ()) if taker.is_step else ()
    if not kinds:
        return
    wanted = " or ".join(kinds)
    if reference.key is None:
        if not any(kind in kinds for kind in outputs.values()):
            faults.add(
                path,
                f"task {source.id} ({source.uses}) makes no {wanted}",
                allowed=f"it makes: {_outputs(outputs)}",
                code="wrong-kind",
            )
    elif reference.key not in outputs:
        faults.add(
            path,
            f"task {source.id} ({source.uses}) has no output {reference.key!r}",
            allowed=f"it makes: {_outputs(outputs)}",
            suggestion=near(reference.key, outputs),
            code="unknown-output",
        )
    elif outputs[reference.key] not in kinds:
        faults.add(
            path,
            f"output {reference.key} of task {source.id} is a {outputs[reference.key]}",
            allowed=f"{field} takes a {wanted}",
            code="wrong-kind",
        )


def _outputs(outputs: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in outputs.items()) or "nothing"


def _sort(by_id: dict[str, Task], places: dict[str, Path], faults: Faults) -> list[Task]:
    """Return the tasks in order: always the first one of the document whose needs are met (Kahn's algorithm)."""
    numbers = {name: number for number, name in enumerate(by_id)}
    tasks = list(by_id.values())
    following: dict[str, list[int]] = {}
    missing = []
    for number, task in enumerate(tasks):
        needs = [name for name in task.needs if name in by_id and name != task.id]
        missing.append(len(needs))
        for name in needs:
            following.setdefault(name, []).append(number)
    ready = [number for number, count in enumerate(missing) if not count]
    found: list[Task] = []
    while ready:
        task = tasks[heapq.heappop(ready)]
        found.append(task)
        for number in following.get(task.id, ()):
            missing[number] -= 1
            if not missing[number]:
                heapq.heappush(ready, number)
    if len(found) < len(tasks):
        circle = _circle({task.id for task in tasks} - {task.id for task in found}, by_id)
        first = min(circle, key=numbers.__getitem__)
        start = circle.index(first)
        shown = [*circle[start:-1], *circle[:start], first] if start else circle
        faults.add(
            (*places[first], "id"),
            f"tasks need each other in a circle: {' -> '.join(shown)}",
            allowed="each arrow is a needs: or a $x; take one out",
            code="cycle",
        )
    return found


def _circle(left: set[str], by_id: dict[str, Task]) -> list[str]:
    """Return one circle among tasks that all wait for each other; its first id is also its last."""
    path = [next(name for name in by_id if name in left)]
    while True:
        following = next(name for name in by_id[path[-1]].needs if name in left and name != path[-1])
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
