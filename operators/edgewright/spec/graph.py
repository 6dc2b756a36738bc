"""How tasks hang together: ids, ``needs``, references to outputs, order, circles."""

from __future__ import annotations

from dataclasses import replace

from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.pipeline import Reference, Task, iter_references
from edgewright.spec.steps import STEPS
from edgewright.spec.steps.base import accepted_kinds


def order_tasks(tasks: list[tuple[Path, Task]], references: list[tuple[Path, Reference]], faults: Faults) -> list[Task]:
    """Return the tasks in an order in which each comes after what it needs, as near to the document's as can be."""
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
        needs = dict.fromkeys([*task.needs, *(reference.task for reference in iter_references(task.config))])
        by_id[task.id] = replace(task, needs=tuple(needs))
        places[task.id] = path
    _check_needs(by_id, places, faults)
    for path, reference in references:
        _check_reference(path, reference, by_id, places, faults)
    return _sort(by_id, places, faults)


def _check_needs(by_id: dict[str, Task], places: dict[str, Path], faults: Faults) -> None:
    for task in by_id.values():
        for index, name in enumerate(task.needs):
            place = (*places[task.id], "needs", index)
            if place not in faults.positions:
                continue  # it comes from a reference, which is checked by itself
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


def _owner(path: Path, places: dict[str, Path]) -> str | None:
    return next((task_id for task_id, place in places.items() if path[: len(place)] == place), None)


def _check_reference(
    path: Path, reference: Reference, by_id: dict[str, Task], places: dict[str, Path], faults: Faults
) -> None:
    if reference.task not in by_id:
        _unknown_task(reference.task, path, by_id, faults)
        return
    owner = _owner(path, places)
    if owner == reference.task:
        faults.add(path, f"task {owner} takes its own output", code="cycle")
        return
    source = by_id[reference.task]
    if not source.is_step or owner is None:
        return
    spec = STEPS[source.uses or ""]
    depth = len(places[owner])
    taker = by_id[owner]
    field = path[depth + 1] if len(path) > depth + 1 else None
    kinds = accepted_kinds(STEPS[taker.uses or ""].config).get(str(field), ()) if taker.is_step else ()
    if reference.key is None:
        if kinds and not any(kind in kinds for kind in spec.outputs.values()):
            faults.add(
                path,
                f"task {source.id} ({source.uses}) makes no {' or '.join(kinds)}",
                allowed=f"it makes: {_outputs(spec.outputs)}",
                code="wrong-kind",
            )
    elif kinds and reference.key not in spec.outputs:
        faults.add(
            path,
            f"task {source.id} ({source.uses}) has no output {reference.key!r}",
            allowed=f"it makes: {_outputs(spec.outputs)}",
            suggestion=near(reference.key, spec.outputs),
            code="unknown-output",
        )
    elif kinds and spec.outputs[reference.key] not in kinds:
        faults.add(
            path,
            f"output {reference.key} of task {source.id} is a {spec.outputs[reference.key]}",
            allowed=f"{field} takes a {' or '.join(kinds)}",
            code="wrong-kind",
        )


def _outputs(outputs: dict[str, str]) -> str:  # type: ignore[type-arg,unused-ignore]
    return ", ".join(f"{name} ({kind})" for name, kind in outputs.items()) or "nothing"


def _sort(by_id: dict[str, Task], places: dict[str, Path], faults: Faults) -> list[Task]:
    done: dict[str, Task] = {}
    waiting = list(by_id.values())
    while waiting:
        ready = next((t for t in waiting if all(n in done or n not in by_id or n == t.id for n in t.needs)), None)
        if ready is None:
            circle = _circle(waiting, by_id)
            faults.add(
                (*places[circle[0]], "id"), f"tasks need each other in a circle: {' -> '.join(circle)}", code="cycle"
            )
            break
        waiting.remove(ready)
        done[ready.id] = ready
    return list(done.values())


def _circle(waiting: list[Task], by_id: dict[str, Task]) -> list[str]:
    """Return one circle among tasks that all wait for each other; its first id is also its last."""
    left = {task.id for task in waiting}
    path = [waiting[0].id]
    while True:
        following = next(name for name in by_id[path[-1]].needs if name in left and name != path[-1])
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
