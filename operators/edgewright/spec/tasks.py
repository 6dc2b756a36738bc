"""Each entry under ``tasks:`` becomes a :class:`~edgewright.spec.pipeline.Task`."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any

from edgewright.spec.arguments import REFUSED_ARGUMENTS, STEP_ARGUMENTS, TASK_ARGUMENTS, read_arguments
from edgewright.spec.code import EntryPoints, check_callbacks, check_operator, locate
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.handlers import read_handler
from edgewright.spec.pipeline import Task
from edgewright.spec.programs import PROGRAM_FIELDS, check_program
from edgewright.spec.signatures import check_task_operator
from edgewright.spec.step_config import check_with, known_names
from edgewright.spec.steps import STEPS
from edgewright.spec.templates import Templates
from edgewright.spec.values import Values

_OWN = (
    "id", "uses", "needs", "extends", "with", "run", "profile", "for_each", "search", "best_of", "setup",
    "teardown",
)  # fmt: skip
_STEP_TABLE = {**TASK_ARGUMENTS, **STEP_ARGUMENTS}
_ENTRY_FIELDS = frozenset({"entry", "fit", "schema"})
_SOURCE_FIELDS = frozenset({"source", "holdout"})
#: Items of a mapped task that its arguments are held against.
_MOST_ITEMS = 20
_DATA = re.compile(r"\.(csv|tsv|txt|json|jsonl|ndjson|parquet)(\.gz)?$", re.IGNORECASE)


class TaskReader:
    """Reads the tasks of one document.

    Args:
        document: The whole document.
        params: The document's params.
        profiles: The document's own profiles.
        values: Parser of ``with:`` values.
        faults: Where to note.
        thorough: Whether to read the sources of operators.
    """

    def __init__(
        self,
        document: dict[str, Any],
        params: dict[str, Any],
        profiles: dict[str, Any],
        values: Values,
        faults: Faults,
        *,
        thorough: bool = False,
    ) -> None:
        self._thorough = thorough
        defaults = {name: param["default"] for name, param in params.items() if param.get("default") is not None}
        self._known = known_names(defaults)
        self._templates = Templates(document, [*_OWN, *_STEP_TABLE], faults)
        self._profiles = ["local", *profiles]
        self._values = values
        self._faults = faults
        self._entries = EntryPoints(values.folder, faults)

    def whole(self, entry: Any, path: Path) -> dict[str, Any] | None:
        """Return an entry with what it extends merged in, or ``None`` if it is no mapping."""
        if not isinstance(entry, dict):
            self._faults.add(path, "a task is a mapping", allowed="{id: ..., uses: ..., with: {...}}", code="type")
            return None
        return self._templates.extend(entry, path)

    def read(self, entry: dict[str, Any], path: Path) -> Task | None:
        """Return one task of a whole entry, or ``None`` if it has no id; ``needs`` and references are as written."""
        task_id = self._id(entry, path)
        uses = self._uses(entry, path)
        is_step = uses in STEPS
        meant = uses
        if uses and "." not in uses and not is_step and entry.get("with"):
            meant = near(uses, STEPS)  # so that faults of its with: need not wait for the name to be mended
        profile, preferred = self._profile(entry.get("profile"), (*path, "profile"))
        task = Task(
            id=task_id or "",
            uses=uses,
            needs=tuple(self.needs(entry.get("needs"), path)),
            config=self._config(entry, meant, path),
            arguments=self._arguments(entry, path, is_step=meant in STEPS),
            is_step=is_step,
            is_handler=entry.get("run") is not None,
            profile=profile,
            preferred=preferred,
            position=self._faults.position(path),
            setup=self._setup(entry.get("setup"), path),
            teardown=self._teardown(entry.get("teardown"), path),
        )
        return task if task_id else None

    # -- parts of a task ---------------------------------------------------------------------------------------

    def _id(self, entry: dict[str, Any], path: Path) -> str | None:
        task_id = entry.get("id")
        letters = "letters, digits, -, _ and ."
        if "id" not in entry:
            self._faults.add(path, "a task needs an id", allowed=letters, code="missing-key")
            return None
        place = (*path, "id")
        if not isinstance(task_id, str) or not task_id:
            self._faults.add(place, f"{task_id!r} is no id", allowed=f"text: {letters}; quote it", code="type")
            return None
        if not all(character.isalnum() or character in "-_." for character in task_id) or len(task_id) > 200:
            self._faults.add(place, f"{task_id[:60]!r} is no id", allowed=f"{letters}, at most 200", code="value")
        return task_id

    def _uses(self, entry: dict[str, Any], path: Path) -> str | None:
        uses = entry.get("uses")
        if uses is None:
            return None
        if not isinstance(uses, str) or not uses:
            self._faults.add(
                (*path, "uses"),
                "must be the name of a step or an operator",
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
        elif uses not in STEPS:
            check_operator(uses, self._values.folder, (*path, "uses"), self._faults)
        return uses

    def needs(self, needs: Any, path: Path) -> list[str]:
        """Return the names under ``needs:``."""
        if needs is None:
            return []
        if not isinstance(needs, list) or not all(isinstance(item, str) for item in needs):
            names = f"[{needs}]" if isinstance(needs, str) else "[data, model]"
            self._faults.add((*path, "needs"), "must be a list of task ids", allowed=f"write {names}", code="type")
            return []
        return needs

    def _setup(self, value: Any, path: Path) -> bool:
        if value not in (None, True, False):
            self._faults.add((*path, "setup"), f"{value!r} is not allowed here", allowed="true or false", code="type")
        return value is True

    def _teardown(self, value: Any, path: Path) -> tuple[str, ...] | None:
        """Return the ids of the setup tasks that a task cleans up after; they come first, like what it needs."""
        if value is None or value is False:
            return None
        names = [] if value is True else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            allowed = "true, or the list of its setup tasks, such as [cluster]"
            self._faults.add((*path, "teardown"), f"{value!r} is not allowed here", allowed=allowed, code="type")
            return ()
        return tuple(names)

    def _config(self, entry: dict[str, Any], uses: str | None, path: Path) -> dict[str, Any]:
        if entry.get("run") is not None:
            return read_handler(entry, path, self._values, self._faults)
        raw = entry.get("with")
        place = (*path, "with")
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            self._faults.add(place, "must be a mapping of arguments", code="type")
            return {}
        config = self._values.parse(raw, place)
        if not isinstance(config, dict):
            self._faults.add(place, "must be a mapping of arguments, not a marker", code="type")
            return {}
        if uses in STEPS:
            for known in self._known_names():
                check_with(STEPS[uses], config, known, place if "with" in entry else path, self._faults)
            self._check_files(config, place, globs=uses == "score")
        elif entry.get("uses") is None and config:
            self._faults.add(place, "there is no uses: to take these arguments", code="value", key=True)
        elif uses is not None:
            self._check_misplaced(config, place)
            if self._thorough:
                check_task_operator(uses, config, self._values.folder, path, self._faults)
        return config

    def _known_names(self) -> list[dict[str, Any]]:
        """Return what names in templates stand for: once, or once for each of the first items."""
        mapping = self._values.mapping
        if mapping is None or not mapping.items:
            return [self._known]
        return [{**self._known, **known_names({}, item)} for item in mapping.items[:_MOST_ITEMS]]

    def _check_misplaced(self, config: dict[str, Any], path: Path) -> None:
        """Refuse what belongs beside ``with:``; Airflow's own grammar does, too."""
        for name in config:
            if name in TASK_ARGUMENTS or name in REFUSED_ARGUMENTS:
                why = REFUSED_ARGUMENTS.get(name)
                self._faults.add(
                    (*path, name),
                    f"{name!r} {'cannot be set' if why else 'is an argument of the task'}",
                    allowed=why or "write it beside with:, not inside",
                    code="unknown-key",
                    key=True,
                )

    def _check_files(self, config: dict[str, Any], path: Path, *, globs: bool) -> None:
        for name, value in config.items():
            if not isinstance(value, str):
                continue
            if name in _ENTRY_FIELDS and ".py:" in value:
                self._entries.check(value, (*path, name))
            elif name in _SOURCE_FIELDS and value and "://" not in value and "{{" not in value:
                if not (globs and _fits_some(self._values.folder, value)):
                    self._check_source(value, (*path, name))
            elif name in PROGRAM_FIELDS and value:
                check_program(name, config, self._values.folder, path, self._faults)

    def _check_source(self, value: str, path: Path) -> None:
        found = locate(self._values.folder, value)
        if found is not None and not found[1]:
            self._faults.add(
                path,
                f"{value} leads out of the pipeline's folder",
                allowed="a path inside of the folder, or an address such as file:///..., s3://...",
                code="path",
            )
        elif found is None or not found[0].exists():
            here = _data_files(self._values.folder)
            self._faults.add(
                path,
                f"no such file: {value}",
                allowed=f"data files here are: {listing(here)}",
                suggestion=near(value, here),
                code="missing-file",
            )

    def _arguments(self, entry: dict[str, Any], path: Path, *, is_step: bool) -> dict[str, Any]:
        table = _STEP_TABLE if is_step else TASK_ARGUMENTS
        values = {}
        for name, value in entry.items():
            if name in _OWN:
                continue
            if name in table:
                if value is not None:
                    values[name] = value
            elif name in REFUSED_ARGUMENTS:
                self._faults.add((*path, name), f"{name!r} cannot be set on a task", allowed=REFUSED_ARGUMENTS[name],
                                 code="unsupported", key=True)  # fmt: skip
            else:
                self._faults.unknown_key((*path, name), [*_OWN, *table])
        found = read_arguments(values, table, path, self._faults)
        if self._thorough:
            check_callbacks(found, self._values.folder, path, self._faults)
        return found

    def _profile(self, profile: Any, path: Path) -> tuple[str | None, str | None]:
        """Return where the task runs, and where it would rather run."""
        if isinstance(profile, dict) and profile:
            for key in profile:
                if key not in ("prefer", "else"):
                    self._faults.unknown_key((*path, key), ("prefer", "else"))
            for key in {"prefer", "else"} - set(profile):
                self._faults.add(path, f"{key}: is required", allowed="{prefer: NAME, else: local}", code="missing-key")
            fallback = self._profile_name(profile.get("else", "local"), (*path, "else"))
            return fallback, self._profile_name(profile.get("prefer", "local"), (*path, "prefer"))
        return (None, None) if profile is None else (self._profile_name(profile, path), None)

    def _profile_name(self, name: Any, path: Path) -> str | None:
        """Return a profile's name. The installation may know more than the document, so only near misses are faults."""
        if not isinstance(name, str) or not name:
            self._faults.add(
                path, f"{name!r} is no profile", allowed="a name, or {prefer: NAME, else: local}", code="type"
            )
            return None
        if name not in self._profiles and (meant := near(name, self._profiles)):
            self._faults.add(
                path,
                f"no such profile: {name!r}",
                allowed=f"profiles are: {listing(self._profiles)}, and those of the installation",
                suggestion=meant,
                code="unknown-profile",
            )
        return name


def _fits_some(folder: FilePath, value: str) -> bool:
    """Whether a path with ``*`` means at least one file."""
    return "*" in value and not value.startswith("/") and any(folder.glob(value))


def _data_files(folder: FilePath) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if _DATA.search(p.name)) if folder.is_dir() else []
