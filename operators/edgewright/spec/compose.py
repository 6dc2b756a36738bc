"""One document from several: defaults, includes, the pipeline itself, one of its environments, variables.

Later ones win. Named things (params, profiles, templates, ...) are joined by name, tags and notices are added, an
included file's tasks come first, everything else is replaced. Every value keeps the place where it was written.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from edgewright.artifacts.digest import digest_json, sha256_bytes
from edgewright.errors import Fault
from edgewright.spec.faults import Faults, Origin, Path, listing, near
from edgewright.spec.inherit import Includes, Layer, defaults_of

_BY_NAME = ("params", "profiles", "templates", "step_defaults", "env", "task_defaults")
_ADDED = ("tags", "notify")
#: Keys that end here: what the rest of the reader sees has none of them.
KEYS = ("include", "environments", "env")
_NOT_INHERITED = {"dag_id": "each pipeline has its own", "environments": "write it in the pipeline"}
_NOT_IN_ENVIRONMENTS = ("$schema", "dag_id", "include", "environments")
_SECRET = re.compile(r"passw|secret|token|credential|(api|private|access|signing)_?key", re.IGNORECASE)
#: Stands for a value that nobody knows, and fits anywhere.
_ANYTHING = {"$t": ""}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_TYPES = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
}


@dataclass
class Composed:
    """What a document and all that it inherits say together.

    Attributes:
        document: The whole document.
        digest: Of every text that it was made of, and of the variables in it.
        inherited: Files beside its own.
        environment: Which of its environments it is for.
        environments: All that it has.
        foreign: What is wrong with the YAML of other files.
    """

    document: dict[str, Any]
    digest: str
    inherited: tuple[FilePath, ...] = ()
    environment: str | None = None
    environments: tuple[str, ...] = ()
    foreign: tuple[Fault, ...] = ()


def compose(document: dict[str, Any], text: str, file: FilePath, faults: Faults, environment: str | None) -> Composed:
    """Return the whole document.

    Args:
        document: The pipeline's own document.
        text: Its text.
        file: Its file; defaults and includes are looked for from there.
        faults: Where to note; afterwards it knows the places of inherited values, too.
        environment: One of ``environments:``; ``None``: the one that the installation says; ``""``: none.
    """
    digest = sha256_bytes(text.encode())
    defaults = defaults_of(file.parent)
    if not defaults and not any(key in document for key in KEYS):
        return Composed(document, digest)
    return _Composer(document, digest, file, faults).compose(defaults, environment)


class _Composer:
    def __init__(self, document: dict[str, Any], digest: str, file: FilePath, faults: Faults) -> None:
        self._own = Layer(file, document, faults.moved(), digest)
        self._faults = faults
        self._whole: dict[str, Any] = {}

    def compose(self, defaults: list[Layer], wanted: str | None) -> Composed:
        includes = Includes(self._own.file)
        for layer in defaults:
            self._check_defaults(layer)
            includes.of(layer.document, layer.file.parent, layer.faults)
        includes.of(self._own.document, self._own.file.parent, self._own.faults)
        layers = [*defaults, *includes.layers]
        for layer in layers:
            layer.faults.rename(self._shown(layer.file))
            self._check_inherited(layer)
            self._add(layer.document, layer.faults)
        self._add(self._own.document, self._own.faults)
        environments = self._own.document.get("environments")
        name = self._choose(environments, wanted)
        if name is not None and isinstance(environments, dict):
            self._overlay(environments[name], name)
        used = self._variables()
        for key in (*KEYS, "root"):
            self._whole.pop(key, None)
        self._faults.found.extend(fault for fault in self._own.faults.found)
        parts = {"own": self._own.sha256, "files": [layer.sha256 for layer in layers], "environment": name, "env": used}
        plain = not layers and name is None and not used
        return Composed(
            self._whole,
            self._own.sha256 if plain else digest_json(parts),
            tuple(layer.file for layer in layers),
            name,
            tuple(environments) if isinstance(environments, dict) else (),
            tuple(fault for layer in layers for fault in layer.faults.found),
        )

    def _shown(self, file: FilePath) -> str:
        """Return how messages name another file: as they name the pipeline's."""
        away = os.path.relpath(file, self._own.file.parent.absolute())
        return os.path.normpath(os.path.join(os.path.dirname(self._faults.file), away))

    # -- joining -------------------------------------------------------------------------------------------------

    def _add(self, document: dict[str, Any], faults: Faults, at: Path = ()) -> None:
        """Put a document over what there is."""
        for key, value in document.items():
            place = (*at, key)
            present = self._whole.get(key)
            if key in (*_ADDED, "tasks") and isinstance(present, list) and isinstance(value, list):
                self._append(key, present, value, place, faults)
            elif key in _BY_NAME and isinstance(present, dict) and isinstance(value, dict):
                self._join(key, present, value, place, faults)
            else:
                self._put((key,), value, place, faults)

    def _put(self, target: Path, value: Any, place: Path, faults: Faults) -> None:
        holder: Any = self._whole
        for part in target[:-1]:
            holder = holder[part]
        holder[target[-1]] = value
        self._faults.forget(target)
        self._faults.redirects[target] = Origin(faults, place)

    def _append(self, key: str, present: list[Any], value: list[Any], place: Path, faults: Faults) -> None:
        self._whole[key] = [*present, *value]
        for index in range(len(value)):
            self._faults.redirects[key, len(present) + index] = Origin(faults, (*place, index))

    def _join(self, key: str, present: dict[str, Any], value: dict[str, Any], place: Path, faults: Faults) -> None:
        self._whole[key] = present = dict(present)
        for name, item in value.items():
            before = present.get(name)
            if key == "params" and isinstance(before, dict) and not isinstance(item, dict) and item is not None:
                item = {"default": item}
                self._faults.redirects[key, name, "default"] = Origin(faults, (*place, name))
            if key != "task_defaults" and isinstance(before, dict) and isinstance(item, dict):
                present[name] = self._joined(before, item, (key, name), (*place, name), faults)
            else:
                self._put((key, name), item, (*place, name), faults)

    def _joined(
        self, before: dict[str, Any], item: dict[str, Any], target: Path, place: Path, faults: Faults
    ) -> dict[str, Any]:
        """Return two entries of one name as one: ``with`` one level deep, everything else as a whole."""
        whole = dict(before)
        for inner, value in item.items():
            if inner == "with" and isinstance(value, dict) and isinstance(before.get(inner), dict):
                whole[inner] = {**before[inner], **value}
                for name in value:
                    self._faults.redirects[*target, inner, name] = Origin(faults, (*place, inner, name))
            else:
                whole[inner] = value
                self._faults.forget((*target, inner))
                self._faults.redirects[*target, inner] = Origin(faults, (*place, inner))
        return whole

    # -- environments ----------------------------------------------------------------------------------------------

    def _choose(self, environments: Any, wanted: str | None) -> str | None:
        if environments is None or wanted == "":
            return None
        if not isinstance(environments, dict) or not all(isinstance(v, dict) for v in environments.values()):
            self._own.faults.add(("environments",), "must be a mapping of names",
                                 allowed="{dev: {schedule: null}, prod: {}}", code="type")  # fmt: skip
            return None
        for name, overlay in environments.items():
            for key in overlay:
                if key in _NOT_IN_ENVIRONMENTS:
                    self._own.faults.add(("environments", name, key), f"{key} is the same in all environments",
                                         allowed="write it at the top", code="unsupported", key=True)  # fmt: skip
        wanted = _setting() if wanted is None else wanted
        if wanted is None or wanted in environments:
            return wanted
        message, allowed = f"no such environment: {wanted!r}", f"environments are: {listing(environments)}"
        self._own.faults.add(("environments",), message, allowed=allowed, suggestion=near(wanted, environments),
                             code="unknown-environment")  # fmt: skip
        return None

    def _overlay(self, overlay: dict[str, Any], name: str) -> None:
        at = ("environments", name)
        kept = {key: value for key, value in overlay.items() if key not in (*_NOT_IN_ENVIRONMENTS, "tasks", *_ADDED)}
        self._add(kept, self._own.faults, at)
        for key in _ADDED:
            if key in overlay:
                self._put((key,), overlay[key], (*at, key), self._own.faults)
        tasks = overlay.get("tasks")
        if tasks is None:
            return
        if not isinstance(tasks, dict) or not all(isinstance(change, dict) for change in tasks.values()):
            self._own.faults.add((*at, "tasks"), "must be a mapping of task ids", allowed="{model: {profile: gpu}}",
                                 code="type")  # fmt: skip
            return
        entries = dict(_entries(self._whole.get("tasks"), "", ("tasks",)))
        for task, change in tasks.items():
            if task not in entries:
                self._own.faults.add((*at, "tasks", task), f"no such task: {task!r}",
                                     allowed=f"tasks are: {listing(entries)}", suggestion=near(task, entries),
                                     code="unknown-task", key=True)  # fmt: skip
                continue
            self._change(entries[task], change, (*at, "tasks", task))

    def _change(self, target: Path, change: dict[str, Any], place: Path) -> None:
        """Change a task as a template would: ``with`` one level deep, everything else as a whole."""
        self._whole["tasks"] = _copied(self._whole["tasks"], target[1:])
        entry: Any = self._whole
        for part in target:
            entry = entry[part]
        for key, value in change.items():
            if key == "with" and isinstance(value, dict) and isinstance(entry.get("with"), dict):
                entry["with"] = dict(entry["with"])
                for name, item in value.items():
                    self._put((*target, "with", name), item, (*place, key, name), self._own.faults)
            else:
                self._put((*target, key), value, (*place, key), self._own.faults)

    # -- variables -------------------------------------------------------------------------------------------------

    def _variables(self) -> dict[str, Any]:
        """Replace ``$env`` by what the environment says; return what was used."""
        declared = self._whole.get("env")
        if declared is None:
            return {}
        if not isinstance(declared, dict):
            self._faults.add(("env",), "must be a mapping of names", allowed="{BUCKET: {default: raw}}", code="type")
            return {}
        values = {name: self._variable(name, entry) for name, entry in declared.items()}
        values = {name: _ANYTHING if value is None else value for name, value in values.items()}
        used: dict[str, Any] = {}
        for key, value in self._whole.items():
            if key not in KEYS:
                self._whole[key] = self._filled(value, (key,), values, used)
        return used

    def _variable(self, name: str, entry: Any) -> Any:
        place = ("env", name)
        entry = entry if isinstance(entry, dict) else {} if entry is None else {"default": entry}
        for key in entry:
            if key not in ("default", "type", "description"):
                self._faults.unknown_key((*place, key), ("default", "type", "description"))
        kind = entry.get("type", "string")
        if not isinstance(kind, str) or kind not in _TYPES:
            allowed = f"allowed are: {listing(_TYPES)}"
            self._faults.add((*place, "type"), f"{kind!r} is not allowed here", allowed=allowed,
                             suggestion=near(kind, _TYPES), code="value")  # fmt: skip
            return None
        if not _NAME.match(name) or _SECRET.search(name):
            allowed = "letters, digits and _" if not _NAME.match(name) else "secrets come from Airflow connections"
            self._faults.add(place, f"{name} cannot be read into a document", allowed=allowed, code="value", key=True)
            return None
        text = os.environ.get(name)
        if text is None:
            if entry.get("default") is None:
                message = f"the environment variable {name} is not set"
                self._faults.add(place, message, allowed="set it, or give a default:", code="unset-variable", key=True)
            return entry.get("default")
        try:
            return _TYPES[kind](text)  # type: ignore[operator]
        except (ValueError, KeyError):
            self._faults.add(place, f"the environment variable {name} is {text[:40]!r}, which is no {kind}",
                             allowed=f"a {kind}", code="type", key=True)  # fmt: skip
            return None

    def _filled(self, value: Any, path: Path, values: dict[str, Any], used: dict[str, Any]) -> Any:
        if isinstance(value, dict):
            if len(value) == 1 and "$env" in value:
                return self._fill(value["$env"], (*path, "$env"), values, used)
            if "$const" in value:
                return value
            return {key: self._filled(item, (*path, key), values, used) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, (*path, index), values, used) for index, item in enumerate(value)]
        return value

    def _fill(self, text: Any, path: Path, values: dict[str, Any], used: dict[str, Any]) -> Any:
        if not isinstance(text, str) or not text:
            self._faults.add(path, "must be text", allowed="{$env: NAME} or {$env: 's3://${NAME}/x'}", code="marker")
            return _ANYTHING
        names = _PLACEHOLDER.findall(text) if "${" in text else [text]
        for name in names:
            if name not in values:
                self._faults.add(path, f"{name} is not declared", allowed=f"declared under env: are: {listing(values)}",
                                 suggestion=near(name, values), code="unknown-variable")  # fmt: skip
                return _ANYTHING
            used[name] = values[name]
        return values[text] if "${" not in text else _PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)

    # -- what may stand where --------------------------------------------------------------------------------------

    def _check_defaults(self, layer: Layer) -> None:
        if "tasks" in layer.document:
            self._note(layer, ("tasks",), "defaults hold no tasks", "write them in a file, and include: it")
        if layer.document.get("root") not in (None, True, False):
            self._note(layer, ("root",), "must be true or false", "true ends the search for defaults.yaml upwards")

    def _check_inherited(self, layer: Layer) -> None:
        for key, why in _NOT_INHERITED.items():
            if key in layer.document:
                self._note(layer, (key,), f"{key} cannot be inherited", why)

    @staticmethod
    def _note(layer: Layer, path: Path, message: str, allowed: str) -> None:
        noted = any(fault.message == message for fault in layer.faults.found)
        if not noted:
            layer.faults.add(path, message, allowed=allowed, code="unsupported", key=True)


def _setting() -> str | None:
    """Return the environment that this installation is."""
    from edgewright.installation import Installation

    return Installation.load().environment


def _entries(entries: Any, prefix: str, path: Path) -> list[tuple[str, Path]]:
    """Return the place of every task and group by its full id."""
    found: list[tuple[str, Path]] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            name = f"{prefix}{entry['id']}"
            found.append((name, (*path, index)))
            found.extend(_entries(entry.get("tasks"), f"{name}.", (*path, index, "tasks")))
    return found


def _copied(value: Any, path: Path) -> Any:
    """Return a value whose containers along a path are copies, so that cached documents stay as they are."""
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if path:
        copy[path[0]] = _copied(copy[path[0]], path[1:])
    return copy
