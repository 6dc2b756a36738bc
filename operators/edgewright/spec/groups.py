"""The entries under ``tasks:``: a task, or a group with ``tasks:`` of its own, to any depth."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from edgewright.spec.faults import Faults, Path
from edgewright.spec.mapping import read_best, read_for_each
from edgewright.spec.pipeline import ForEach, Group, Task
from edgewright.spec.search import is_adaptive, read_adaptive, read_search
from edgewright.spec.steps import STEPS
from edgewright.spec.tasks import TaskReader
from edgewright.spec.values import Values

GROUP_KEYS = ("id", "tasks", "needs", "for_each", "search", "best_of", "tooltip")
_GROUP_ID = re.compile(r"[\w-]{1,200}\Z")


class Entries:
    """Reads the tasks and groups of one document.

    Args:
        reader: Reads one task.
        values: Parser of values.
        params: The document's params.
        faults: Where to note.

    Attributes:
        tasks: Each task with its place, ids and needs as the document has them.
        groups: Each group with its place, outer ones first.
        needs: What each group waits for, by its id.
    """

    def __init__(self, reader: TaskReader, values: Values, params: dict[str, Any], faults: Faults) -> None:
        self._reader = reader
        self._values = values
        self._params = params
        self._faults = faults
        self.tasks: list[tuple[Path, Task]] = []
        self.groups: list[tuple[Path, Group]] = []
        self.needs: dict[str, tuple[str, ...]] = {}

    def read(self, entries: list[Any], path: Path, group: Group | None = None, mapping: ForEach | None = None) -> None:
        """Read entries and all that is in them.

        Args:
            entries: The list.
            path: Its place.
            group: The group that they are in.
            mapping: What that group (or one around it) runs once for each of.
        """
        for index, entry in enumerate(entries):
            place = (*path, index)
            if isinstance(entry, dict) and "tasks" in entry:
                self._group(entry, place, group, mapping)
            else:
                self._task(entry, place, group, mapping)

    def _task(self, entry: Any, path: Path, group: Group | None, mapping: ForEach | None) -> None:
        entry = self._reader.whole(entry, path)
        if entry is None:
            return
        self._inside(entry, path)
        if is_adaptive(entry):
            entry = read_adaptive(entry, path, self._faults)
        own = self._mapping(entry, path, mapping)
        self._values.mapping, self._values.is_mapped = (
            own or mapping,
            bool(own or mapping or entry.get("for_each") or entry.get("search")),
        )
        task = self._reader.read(entry, path)
        if task is None:
            return
        if group is not None:
            task = replace(task, id=f"{group.id}.{task.id}", group=group.id)
        if own is not None:
            task = replace(task, for_each=own)
        if entry.get("best_of") is not None:
            best = read_best(entry["best_of"], (*path, "best_of"), {task.id: task}, self._faults)
            task = replace(task, best=best)
        self.tasks.append((path, task))

    def _inside(self, entry: dict[str, Any], path: Path) -> None:
        config = entry.get("with")
        uses = entry.get("uses")
        if isinstance(uses, str) and uses in STEPS and isinstance(config, dict) and "search" in config:
            self._faults.add((*path, "with", "search"), "'search' is an argument of the task", code="unknown-key",
                             allowed="write it beside with:, not inside", key=True)  # fmt: skip

    def _mapping(self, entry: dict[str, Any], path: Path, around: ForEach | None) -> ForEach | None:
        """Return what an entry itself runs once for each of."""
        key = "search" if entry.get("search") is not None else "for_each"
        place = (*path, key)
        if key == "search" and entry.get("for_each") is not None:
            self._faults.add(place, "search: and for_each: both say what runs several times", allowed="one of them",
                             code="value", key=True)  # fmt: skip
            return None
        if entry.get(key) is None:
            if entry.get("best_of") is not None:
                self._faults.add((*path, "best_of"), "there is only one to choose from",
                                 allowed="add for_each: or search:", code="value", key=True)  # fmt: skip
            return None
        if around is not None:
            self._faults.add(place, "a group around it runs several times already, and Airflow maps one level deep",
                             allowed="write all combinations at the group: {NAME: [...], OTHER: [...]}",
                             code="unsupported", key=True)  # fmt: skip
            return None
        self._values.is_mapped = False
        if is_adaptive(entry):  # of a group
            self._faults.add(place, "method: optuna is for one task, not for a group", code="unsupported", key=True,
                             allowed="write it at the task that trains, or say method: random")  # fmt: skip
            return None
        if key == "search":
            return read_search(entry["search"], place, self._faults)
        return read_for_each(entry["for_each"], place, self._values, self._params, self._faults)

    def _group(self, entry: dict[str, Any], path: Path, parent: Group | None, mapping: ForEach | None) -> None:
        for key in entry:
            if key not in GROUP_KEYS:
                self._faults.unknown_key((*path, key), GROUP_KEYS, "key of a group")
        group_id = self._id(entry, path)
        inner = entry["tasks"]
        if not isinstance(inner, list) or not inner:
            self._faults.add((*path, "tasks"), "a group needs tasks", allowed="a list of {id: ..., uses: ...}",
                             code="type")  # fmt: skip
            inner = []
        own = self._mapping(entry, path, mapping)
        tooltip = entry.get("tooltip") or ""
        if not isinstance(tooltip, str):
            self._faults.add((*path, "tooltip"), "must be text", code="type")
            tooltip = ""
        full = f"{parent.id}.{group_id}" if parent else group_id
        group = Group(full, parent.id if parent else None, tooltip, own, None, self._faults.position(path))
        number = len(self.groups)
        self.groups.append((path, group))
        self.needs[full] = tuple(self._reader.needs(entry.get("needs"), path))
        first = len(self.tasks)
        self.read(inner, (*path, "tasks"), group, own or mapping)
        if entry.get("best_of") is not None and own is not None:
            tasks = {task.id.removeprefix(f"{full}."): task for _, task in self.tasks[first:]}
            best = read_best(entry["best_of"], (*path, "best_of"), tasks, self._faults)
            self.groups[number] = (path, replace(group, best=best))

    def _id(self, entry: dict[str, Any], path: Path) -> str:
        group_id = entry.get("id")
        allowed = "letters, digits, - and _, at most 200"
        if "id" not in entry:
            self._faults.add(path, "a group needs an id", allowed=allowed, code="missing-key")
        elif not isinstance(group_id, str) or not _GROUP_ID.match(group_id):
            self._faults.add((*path, "id"), f"{group_id!r} is no id of a group", allowed=allowed, code="value")
        else:
            return group_id
        return "".join(map(str, path))
