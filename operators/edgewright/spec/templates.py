"""``templates:`` and ``extends:``: parts of tasks that several tasks share.

As in Airflow 3.4's grammar: ``with`` and ``run`` are merged one level deep, everything else is replaced; a task's own
keys win over its templates, and later templates over earlier ones.
"""

from __future__ import annotations

from typing import Any

from edgewright.spec.arguments import STEP_ARGUMENTS, TASK_ARGUMENTS, read_arguments
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.steps import STEPS

_DEEP = ("with", "run")


class Templates:
    """The templates of one document.

    Args:
        document: The whole document, for its ``templates:``, ``task_defaults:`` and ``step_defaults:``.
        keys: Keys that a task may have.
        faults: Where to note.
    """

    def __init__(self, document: dict[str, Any], keys: list[str], faults: Faults) -> None:
        templates = document.get("templates")
        self._tasks, self._steps = _defaults(document, faults)
        self._faults = faults
        self._known: dict[str, Any] = templates if isinstance(templates, dict) else {}
        if templates is not None and not isinstance(templates, dict):
            faults.add(("templates",), "must be a mapping of names", code="type")
        for name, template in self._known.items():
            place = ("templates", name)
            if not isinstance(template, dict):
                faults.add(place, "a template is a mapping", allowed="{uses: ..., with: {...}}", code="type")
                continue
            for key in template:
                if key not in keys:
                    faults.unknown_key((*place, key), keys)
            self._expand(name, (), place)  # a template that nobody takes is looked at, too

    def extend(self, entry: dict[str, Any], path: Path) -> dict[str, Any]:
        """Return a task with what it extends merged in; faults of inherited values point at the template's text."""
        if entry.get("extends") is None and not self._tasks and not self._steps:
            return entry
        merged = _Merged()
        if entry.get("extends") is not None:
            for index, name in enumerate(self._names(entry["extends"], (*path, "extends"))):
                merged.add_all(self._expand(name, (), self._place(entry["extends"], path, index)))
        merged.add({key: value for key, value in entry.items() if key != "extends"}, path)
        merged = self._over_defaults(merged)
        for place, origin in merged.origins.items():
            if origin != (*path, *place):
                self._faults.redirects[(*path, *place)] = origin
        return merged.values

    def _over_defaults(self, task: _Merged) -> _Merged:
        """Return a task with what all tasks, and all of its step, have unless they say otherwise."""
        uses = str(task.values.get("uses"))
        whole = _Merged()
        is_step = uses in STEPS
        whole.add(
            {key: value for key, value in self._tasks.items() if is_step or key in TASK_ARGUMENTS}, ("task_defaults",)
        )
        if is_step and isinstance(self._steps.get(uses), dict):
            whole.add(self._steps[uses], ("step_defaults", uses))
        whole.add_all(task)
        return whole

    def _expand(self, name: str, seen: tuple[str, ...], path: Path) -> _Merged:
        merged = _Merged()
        if name in seen:
            circle = " -> ".join((*seen[seen.index(name) :], name))
            self._faults.add(path, f"templates extend each other in a circle: {circle}", code="cycle")
            return merged
        template = self._known.get(name)
        if name not in self._known:
            self._faults.add(
                path,
                f"no such template: {name!r}",
                allowed=f"templates are: {listing(self._known)}",
                suggestion=near(name, self._known),
                code="unknown-template",
            )
        if not isinstance(template, dict):
            return merged
        place: Path = ("templates", name)
        if template.get("extends") is not None:
            for index, parent in enumerate(self._names(template["extends"], (*place, "extends"))):
                merged.add_all(self._expand(parent, (*seen, name), self._place(template["extends"], place, index)))
        merged.add({key: value for key, value in template.items() if key != "extends"}, place)
        return merged

    def _names(self, value: Any, path: Path) -> list[str]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._faults.add(path, "must name templates", allowed="a name or a list of names", code="type")
            return []
        return names

    @staticmethod
    def _place(value: Any, path: Path, index: int) -> Path:
        return (*path, "extends", index) if isinstance(value, list) else (*path, "extends")


class _Merged:
    """Merged keys, and where in the document each of them stands."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Path, Path] = {}

    def add(self, values: dict[str, Any], place: Path) -> None:
        origins: dict[Path, Path] = {}
        for key, value in values.items():
            origins[(key,)] = (*place, key)
            if key in _DEEP and isinstance(value, dict):
                origins.update({(key, inner): (*place, key, inner) for inner in value})
        self._merge(values, origins)

    def add_all(self, other: _Merged) -> None:
        self._merge(other.values, other.origins)

    def _merge(self, values: dict[str, Any], origins: dict[Path, Path]) -> None:
        for key, value in values.items():
            present = self.values.get(key)
            if key in _DEEP and isinstance(value, dict) and isinstance(present, dict):
                self.values[key] = {**present, **value}
            else:
                self.values[key] = value
                for place in [place for place in self.origins if place[0] == key]:
                    del self.origins[place]
        self.origins.update(origins)


def _defaults(document: dict[str, Any], faults: Faults) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what all tasks have, and what all tasks of a step have, after noting what is wrong with it."""
    tasks = _checked(document.get("task_defaults"), ("task_defaults",), ["profile"], faults)
    steps = document.get("step_defaults")
    if steps is None:
        return tasks, {}
    if not isinstance(steps, dict):
        faults.add(("step_defaults",), "must be a mapping of steps", allowed="{train: {retries: 0}}", code="type")
        return tasks, {}
    for name, values in steps.items():
        if name not in STEPS:
            faults.unknown_key(("step_defaults", name), STEPS, "step")
        else:
            _checked(values, ("step_defaults", name), ["profile", "with"], faults)
    return tasks, steps


def _checked(values: Any, path: Path, own: list[str], faults: Faults) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        faults.add(path, "must be a mapping of a task's arguments", allowed="{retries: 2, pool: gpu}", code="type")
        return {}
    table = {**TASK_ARGUMENTS, **STEP_ARGUMENTS}
    for name in values:
        if name not in table and name not in own:
            faults.unknown_key((*path, name), [*own, *table])
    known = {name: value for name, value in values.items() if name in table and value is not None}
    read_arguments(known, table, path, faults)
    return {name: value for name, value in values.items() if name in table or name in own}
