"""Names inside groups: what ``needs:`` and ``$x`` mean from where they stand, and which instances of a mapped task.

A name is looked for among the neighbours first, then in the group around, and so on to the top. ``group.task`` names
a task of a group from outside; in ``needs:`` a group stands for all of its tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from edgewright.spec.faults import Faults, Path
from edgewright.spec.pipeline import Best, ForEach, Group, Reference, Task


class Scopes:
    """The names of one document.

    Args:
        tasks: Each task with its place.
        groups: Each group with its place.
        group_needs: What each group waits for, as the document has it.
    """

    def __init__(
        self,
        tasks: list[tuple[Path, Task]],
        groups: list[tuple[Path, Group]],
        group_needs: Mapping[str, Iterable[str]],
    ) -> None:
        self.tasks = {task.id: task for _, task in tasks}
        self.groups = {group.id: group for _, group in groups}
        self._needs = group_needs
        self._owners: dict[Path, Task | Group] = dict([*tasks, *groups])

    def find(self, name: str, scope: str | None) -> str | None:
        """Return the full id of a task or group by a name that stands in a group, or ``None``."""
        while scope:
            if (found := f"{scope}.{name}") in self.tasks or found in self.groups:
                return found
            scope = self.groups[scope].parent if scope in self.groups else None
        return name if name in self.tasks or name in self.groups else None

    def needs_of(self, group: Group) -> tuple[str, ...]:
        """Return what a group waits for, as the document has it."""
        return tuple(self._needs.get(group.id, ()))

    def owner(self, path: Path) -> tuple[Path, Task | Group | None]:
        """Return the task or group that a place belongs to, with its own place."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._owners:
                return path[:length], self._owners[path[:length]]
        return (), None

    def mapped(self, task: Task) -> Task | Group | None:
        """Return the task or group that has the ``for_each`` which a task runs by."""
        if task.for_each is not None:
            return task
        group = self.groups.get(task.group or "")
        while group is not None and group.for_each is None:
            group = self.groups.get(group.parent or "")
        return group

    def whole(self, task: Task) -> Task:
        """Return a task with full names in all that it waits for and takes."""
        setups = tuple(self.find(name, task.group) or name for name in task.teardown or ())
        needs = [*task.needs, *setups, *self._around(task)]
        full = dict.fromkeys(one for name in needs for one in self._expand(self.find(name, task.group) or name))
        changed = replace(task, needs=tuple(name for name in full if name != task.id or name in task.needs))
        config = self._rewritten(task.config, task)
        mapping = task.for_each
        if mapping is not None and mapping.source is not None:
            mapping = ForEach(source=self._rewritten(mapping.source, task, "all"))
        return replace(changed, config=config, for_each=mapping, teardown=setups if task.teardown is not None else None)

    def whole_group(self, group: Group) -> Group:
        """Return a group with full names in what it runs once for each of."""
        if group.for_each is None or group.for_each.source is None:
            return group
        return replace(group, for_each=ForEach(source=self._rewritten(group.for_each.source, group, "all")))

    def _around(self, task: Task) -> Iterator[str]:
        """Yield what the groups around a task wait for: a task of a group starts no sooner than its group."""
        scope = task.group
        while scope:
            group = self.groups[scope]
            for name in self._needs.get(scope, ()):
                yield self.find(name, group.parent) or name
            if group.for_each is not None:
                for reference in _references(group.for_each.source):
                    yield self.find(reference.task, group.parent) or reference.task
            scope = group.parent

    def _expand(self, name: str) -> Iterator[str]:
        """Yield the tasks that a full name stands for."""
        if name in self.groups and name not in self.tasks:
            yield from (task for task in self.tasks if task.startswith(f"{name}."))
        else:
            yield name

    def _rewritten(self, value: Any, taker: Task | Group, mapped: str | None = None) -> Any:
        if isinstance(value, Reference):
            return self.resolved(value, taker, everything=mapped == "all")
        if isinstance(value, dict):
            return {key: self._rewritten(item, taker, mapped) for key, item in value.items()}
        if isinstance(value, list):
            return [self._rewritten(item, taker, mapped) for item in value]
        return value

    def resolved(self, reference: Reference, taker: Task | Group, *, everything: bool = False) -> Reference:
        """Return a reference with the full name of its task, and which of that task's instances it means."""
        scope = taker.group if isinstance(taker, Task) else taker.parent
        name = self.find(reference.task, scope) or reference.task
        source = self.tasks.get(name)
        owner = self.mapped(source) if source is not None else None
        if owner is None:
            return replace(reference, task=name)
        if isinstance(taker, Task) and isinstance(owner, Group) and self.mapped(taker) is owner:
            return replace(reference, task=name, items="same")
        best: Best | None = owner.best
        return replace(reference, task=name, items="all" if everything or best is None else best)


def _references(value: Any) -> Iterator[Reference]:
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _references(item)


def check_names(
    references: list[tuple[Path, Reference]], scopes: Scopes, faults: Faults
) -> list[tuple[Path, Reference]]:
    """Return references with full names; one that names a group is a fault and left out."""
    found = []
    for path, reference in references:
        _, owner = scopes.owner(path)
        if owner is None:
            continue
        resolved = scopes.resolved(reference, owner, everything="for_each" in path)
        if resolved.task in scopes.groups and resolved.task not in scopes.tasks:
            inside = [name for name in scopes.tasks if name.startswith(f"{resolved.task}.")]
            faults.add(path, f"{reference.task} is a group, and has no output of its own",
                       allowed=f"one of its tasks: {', '.join(inside[:12])}", code="reference")  # fmt: skip
            continue
        found.append((path, resolved))
    return found
