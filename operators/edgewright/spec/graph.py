"""How tasks hang together: ids, ``needs``, references to outputs, order, circles."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Mapping
from dataclasses import replace

from edgewright.spec.combinations import check_combinations
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.pipeline import Best, Group, Reference, Task, iter_references
from edgewright.spec.scopes import Scopes, check_names
from edgewright.spec.steps import STEPS, StepConfig
from edgewright.spec.steps import base as steps_base


@functools.cache
def accepted_kinds(model: type[StepConfig]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of artifact that each input field takes; worked out once per model."""
    return steps_base.accepted_kinds(model)


def order_tasks(
    entries: list[tuple[Path, Task]],
    groups: list[tuple[Path, Group]],
    group_needs: Mapping[str, tuple[str, ...]],
    references: list[tuple[Path, Reference]],
    faults: Faults,
) -> tuple[list[Task], list[Group]]:
    """Return the tasks in an order in which each comes after what it needs, as near to the document's as can be.

    Names become full ones: ``group.task``.

    Args:
        entries: Each task with its place.
        groups: Each group with its place.
        group_needs: What each group waits for.
        references: Each reference with its place.
        faults: Where to note unknown tasks, duplicate ids, outputs that do not exist, and circles.
    """
    scopes = Scopes(entries, groups, group_needs)
    _check_unique(entries, groups, faults)
    _check_needs(entries, groups, scopes, faults)
    for path, reference in check_names(references, scopes, faults):
        _check_reference(path, reference, scopes, faults)
    by_id: dict[str, Task] = {}
    places: dict[str, Path] = {}
    plain = not groups and not any(task.for_each or task.teardown for _, task in entries)
    for path, task in entries:
        if task.id not in by_id:
            whole = task if plain else scopes.whole(task)
            needs = _all_needs(whole)
            by_id[task.id] = whole if needs == whole.needs else replace(whole, needs=needs)
            places[task.id] = path
    ordered = _sort(by_id, places, faults)
    check_combinations([(places[task.id], task) for task in ordered], faults)
    return ordered, [scopes.whole_group(group) for _, group in groups]


def _check_unique(entries: list[tuple[Path, Task]], groups: list[tuple[Path, Group]], faults: Faults) -> None:
    places: dict[str, Path] = {}
    things: list[tuple[Path, Task | Group]] = [*entries, *groups]
    for path, thing in sorted(things, key=lambda entry: entry[0]):
        if thing.id in places:
            line = faults.position((*places[thing.id], "id")).line
            what = "task id" if isinstance(thing, Task) else "id of a group"
            faults.add(
                (*path, "id"),
                f"duplicate {what} {thing.id!r}",
                allowed=f"it stands in line {line} already",
                code="duplicate-id",
            )
        places.setdefault(thing.id, path)


def _all_needs(task: Task) -> tuple[str, ...]:
    source = task.for_each.source if task.for_each is not None else None
    names = list(task.needs)
    for reference in iter_references([task.config, source]):
        names.append(reference.task)
        if isinstance(reference.items, Best):
            names.append(reference.items.task)
    return tuple(dict.fromkeys(names))


def _check_needs(
    entries: list[tuple[Path, Task]], groups: list[tuple[Path, Group]], scopes: Scopes, faults: Faults
) -> None:
    wanted = [((*path, "needs"), task.id, task.group, task.needs) for path, task in entries]
    wanted += [((*path, "needs"), group.id, group.parent, scopes.needs_of(group)) for path, group in groups]
    wanted += [((*path, "teardown"), task.id, task.group, task.teardown) for path, task in entries if task.teardown]
    for path, own, scope, needs in wanted:
        for index, name in enumerate(needs):
            found = scopes.find(name, scope)
            place = (*path, index)
            if found is None:
                _unknown_task(name, place, scopes, scope, faults)
            elif found == own:
                faults.add(place, f"task {name} needs itself", code="cycle")
            elif path[-1] == "teardown" and (found not in scopes.tasks or not scopes.tasks[found].setup):
                faults.add(place, f"{name} is no setup task", allowed="a task with setup: true", code="value")
            elif own.startswith(f"{found}."):
                faults.add(place, f"{name} is the group that it is in", allowed="a task beside it", code="cycle")
            elif found.startswith(f"{own}.") and own in scopes.groups:
                message = f"{name} is in the group that would wait for it"
                faults.add(place, message, allowed="a task outside of the group", code="cycle")


def _unknown_task(name: str, path: Path, scopes: Scopes, scope: str | None, faults: Faults) -> None:
    prefix = f"{scope}." if scope else ""
    near_by = [task.removeprefix(prefix) for task in scopes.tasks]
    faults.add(
        path,
        f"no such task: {name!r}",
        allowed=f"tasks are: {listing(near_by)}",
        suggestion=near(name, [*near_by, *scopes.groups]),
        code="unknown-task",
    )


def _check_reference(path: Path, reference: Reference, scopes: Scopes, faults: Faults) -> None:
    place, taker = scopes.owner(path)
    source = scopes.tasks.get(reference.task)
    if source is None:
        scope = taker.group if isinstance(taker, Task) else taker.parent if taker else None
        _unknown_task(reference.task, path, scopes, scope, faults)
    elif isinstance(taker, Task) and taker.id == source.id:
        faults.add(path, f"task {source.id} takes its own output", code="cycle")
    elif isinstance(taker, Group) and source.id.startswith(f"{taker.id}."):
        faults.add(path, f"group {taker.id} takes an output of its own", code="cycle")
    elif isinstance(taker, Task) and source.is_step and path[len(place)] == "with":
        _check_output(path, path[len(place) + 1 :], reference, source, taker, faults)


def _check_output(path: Path, inside: Path, reference: Reference, source: Task, taker: Task, faults: Faults) -> None:
    """Hold a reference to a step's output against what that step makes and what the taking field accepts."""
    outputs = STEPS[source.uses or ""].outputs
    field = str(inside[0])
    kinds = accepted_kinds(STEPS[taker.uses or ""].config).get(field, ()) if taker.is_step else ()
    if not kinds:
        return
    wanted = " or ".join(kinds)
    if reference.items == "all" and len(inside) == 2:  # FIELD.$x, not FIELD[0].$x
        faults.add(
            path,
            f"{source.id} runs once for each item, and {field} takes one {wanted}",
            allowed="choose by best_of: beside its for_each:, or take all of them in a group of their own",
            code="mapped",
        )
    elif reference.key is None:
        if not any(kind in kinds for kind in outputs.values()):
            faults.add(
                path,
                f"task {source.id} ({source.uses}) makes no {wanted}",
                allowed=f"it makes: {_outputs(outputs)}",
                code="wrong-kind",
            )
    elif reference.key not in outputs and steps_base.TEXT not in kinds:  # a tag or a metric may be that text
        faults.add(
            path,
            f"task {source.id} ({source.uses}) has no output {reference.key!r}",
            allowed=f"it makes: {_outputs(outputs)}",
            suggestion=near(reference.key, outputs),
            code="unknown-output",
        )
    elif outputs.get(reference.key, steps_base.TEXT) not in kinds:
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
