"""``tasks:`` and ``templates:``: each entry becomes a :class:`~edgewright.spec.pipeline.Task`."""

from __future__ import annotations

from typing import Any

from edgewright.spec.arguments import STEP_ARGUMENTS, TASK_ARGUMENTS, read_arguments
from edgewright.spec.code import EntryPoints
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.pipeline import Task
from edgewright.spec.step_config import check_with
from edgewright.spec.steps import STEPS
from edgewright.spec.values import Values

_OWN = ("id", "uses", "needs", "extends", "with", "run", "profile")


class TaskReader:
    """Reads the tasks of one document.

    Args:
        document: The whole document.
        values: Parser of ``with:`` values.
        faults: Where to note.
    """

    def __init__(self, document: dict[str, Any], values: Values, faults: Faults) -> None:
        templates = document.get("templates")
        self._templates: dict[str, Any] = templates if isinstance(templates, dict) else {}
        profiles = document.get("profiles")
        self._profiles = {"local", *(profiles if isinstance(profiles, dict) else ())}
        self._values = values
        self._faults = faults
        self._entries = EntryPoints(values.folder, faults)

    def read(self, entry: Any, path: Path) -> Task | None:
        """Return one task, or ``None`` if it is not even a mapping with an id."""
        if not isinstance(entry, dict):
            self._faults.add(path, "a task is a mapping", allowed="{id: ..., uses: ..., with: {...}}", code="type")
            return None
        entry = self._extend(entry, path)
        task_id = entry.get("id")
        if not isinstance(task_id, str) or not task_id:
            self._faults.add(
                (*path, "id"), "a task needs an id", allowed="letters, digits, -, _ and .", code="missing-key"
            )
            return None
        if not all(character.isalnum() or character in "-_." for character in task_id) or len(task_id) > 200:
            self._faults.add(
                (*path, "id"), f"{task_id!r} is not an id", allowed="letters, digits, -, _ and .", code="value"
            )
        uses = self._uses(entry, path)
        is_step = uses in STEPS
        if entry.get("run") is not None:
            self._faults.add(
                (*path, "run"),
                "run: needs Airflow 3.4's task handlers",
                allowed="on Airflow 3.3 write uses:",
                code="unsupported",
                key=True,
            )
        return Task(
            id=task_id,
            uses=uses,
            needs=tuple(self._needs(entry.get("needs"), path)),
            config=self._config(entry, uses, path),
            arguments=self._arguments(entry, path, is_step=is_step),
            is_step=is_step,
            profile=self._profile(entry.get("profile"), path),
            position=self._faults.position(path),
        )

    # -- parts of a task ---------------------------------------------------------------------------------------

    def _uses(self, entry: dict[str, Any], path: Path) -> str | None:
        uses = entry.get("uses")
        if uses is None:
            return None
        if not isinstance(uses, str) or not uses:
            self._faults.add(
                (*path, "uses"),
                "uses: names a step or an operator",
                allowed=f"steps are: {listing(STEPS)}",
                code="type",
            )
            return None
        if uses not in STEPS and "." not in uses:
            self._faults.add(
                (*path, "uses"),
                f"no such step: {uses!r}",
                allowed=f"steps are: {listing(STEPS)}; an operator is named by its dotted path",
                suggestion=near(uses, STEPS),
                code="unknown-step",
            )
        return uses

    def _needs(self, needs: Any, path: Path) -> list[str]:
        if needs is None:
            return []
        if not isinstance(needs, list) or not all(isinstance(item, str) for item in needs):
            self._faults.add((*path, "needs"), "needs: is a list of task ids", allowed="[data, model]", code="type")
            return []
        return list(dict.fromkeys(needs))

    def _config(self, entry: dict[str, Any], uses: str | None, path: Path) -> dict[str, Any]:
        raw = entry.get("with")
        place = (*path, "with")
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            self._faults.add(place, "with: is a mapping", code="type")
            return {}
        config = self._values.parse(raw, place)
        if not isinstance(config, dict):
            self._faults.add(place, "with: holds arguments, not a marker", code="type")
            return {}
        if uses in STEPS:
            spec = STEPS[uses]
            check_with(spec, config, place if "with" in entry else path, self._faults)
            self._check_files(config, place)
        elif uses is None and config:
            self._faults.add(place, "with: needs uses:", code="value", key=True)
        return config

    def _check_files(self, config: dict[str, Any], path: Path) -> None:
        for name, value in config.items():
            if not isinstance(value, str):
                continue
            if name in ("entry", "fit", "schema") and ".py:" in value:
                self._entries.check(value, (*path, name))
            elif name in ("source", "holdout") and "://" not in value and "{{" not in value:
                self._check_source(value, (*path, name))

    def _check_source(self, value: str, path: Path) -> None:
        folder = self._values.folder.resolve()
        place = (folder / value).resolve()
        if not place.is_relative_to(folder):
            self._faults.add(
                path,
                f"{value} leads out of the pipeline's folder",
                allowed="a path inside of the folder, or an address such as file:///..., s3://...",
                code="path",
            )
        elif not place.exists():
            here = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
            self._faults.add(
                path,
                f"no such file: {value}",
                allowed=f"the folder holds: {listing(here)}",
                suggestion=near(value, here),
                code="missing-file",
            )

    def _arguments(self, entry: dict[str, Any], path: Path, *, is_step: bool) -> dict[str, Any]:
        table = {**TASK_ARGUMENTS, **STEP_ARGUMENTS} if is_step else TASK_ARGUMENTS
        values = {}
        for name, value in entry.items():
            if name in _OWN:
                continue
            if name in table:
                values[name] = value
            else:
                self._faults.unknown_key((*path, name), [*_OWN, *table])
        return read_arguments(values, table, path, self._faults)

    def _profile(self, profile: Any, path: Path) -> str | None:
        """Return the profile that can be honoured here; what cannot is a fault, never dropped."""
        place = (*path, "profile")
        if profile is None or profile == "local":
            return profile
        if isinstance(profile, dict) and set(profile) == {"prefer", "else"}:
            for key in ("prefer", "else"):
                self._known_profile(profile[key], (*place, key))
            return self._profile(profile["else"], path)
        if not isinstance(profile, str):
            self._faults.add(place, "not a profile", allowed="a name, or {prefer: NAME, else: local}", code="type")
        elif self._known_profile(profile, place):
            self._faults.add(
                place,
                f"profile {profile!r} cannot be honoured by this release",
                allowed="local, or {prefer: ..., else: local}",
                code="unsupported",
            )
        return None

    def _known_profile(self, name: Any, path: Path) -> bool:
        if name in self._profiles:
            return True
        self._faults.add(
            path,
            f"no such profile: {name!r}",
            allowed=f"profiles are: {listing(sorted(self._profiles))}",
            suggestion=near(name, self._profiles),
            code="unknown-profile",
        )
        return False

    # -- templates ---------------------------------------------------------------------------------------------

    def _extend(self, entry: dict[str, Any], path: Path) -> dict[str, Any]:
        """Return a task with what it extends merged in: ``with`` and ``run`` one level deep, the rest replaced."""
        if entry.get("extends") is None:
            return entry
        merged: dict[str, Any] = {}
        for name in self._names(entry["extends"], (*path, "extends")):
            merged = self._merge(merged, self._template(name, (), (*path, "extends")), path, name)
        own = {key: value for key, value in entry.items() if key != "extends"}
        return _merge(merged, own)

    def _names(self, value: Any, path: Path) -> list[str]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._faults.add(path, "extends: names templates", allowed="a name or a list of names", code="type")
            return []
        return names

    def _template(self, name: str, seen: tuple[str, ...], path: Path) -> dict[str, Any]:
        if name in seen:
            self._faults.add(
                path, f"templates extend each other in a circle: {' -> '.join((*seen, name))}", code="cycle"
            )
            return {}
        found = self._templates.get(name)
        if not isinstance(found, dict):
            if name not in self._templates:
                self._faults.add(
                    path,
                    f"no such template: {name!r}",
                    allowed=f"templates are: {listing(self._templates)}",
                    suggestion=near(name, self._templates),
                    code="unknown-template",
                )
            return {}
        merged: dict[str, Any] = {}
        if found.get("extends") is not None:
            for parent in self._names(found["extends"], ("templates", name, "extends")):
                merged = _merge(merged, self._template(parent, (*seen, name), path))
        return _merge(merged, {key: value for key, value in found.items() if key != "extends"})

    def _merge(self, base: dict[str, Any], over: dict[str, Any], path: Path, template: str) -> dict[str, Any]:
        """Merge a template in, and let faults of its values point at the template's own lines."""
        start: Path = ("templates", template)
        for positions in (self._faults.positions, self._faults.key_positions):
            for place in [p for p in positions if p[:2] == start and len(p) > 2]:
                positions.setdefault((*path, *place[2:]), positions[place])
        return _merge(base, over)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        if key in ("with", "run") and isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = {**out[key], **value}
        else:
            out[key] = value
    return out
