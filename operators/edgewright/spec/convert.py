"""dag-factory 1.x documents to ours. What cannot be said in our language is listed, and kept as a comment.

A task that lost something it cannot do without (its function, its mapping) becomes one that fails and says so: a
pipeline that is not converted to its end must never look as if it did its work.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgewright.errors import Fault, SpecError
from edgewright.spec.arguments import DAG_ARGUMENTS, TASK_ARGUMENTS, Invalid, duration
from edgewright.spec.dagfactory import Mapped, Unsayable, duration_text, merge, normal, read, sayable
from edgewright.spec.load import SCHEMA, parse_pipeline

_STANDARD = "airflow.providers.standard"
_BASH = f"{_STANDARD}.operators.bash.BashOperator"
#: Modules of Airflow 1 and 2 whose operators moved into the standard provider.
_MOVED = {
    "bash_operator": "bash", "python_operator": "python", "dummy_operator": "empty", "dummy": "empty",
    "branch_operator": "branch", "dagrun_operator": "trigger_dagrun", "sensors.external_task_sensor": "external_task",
}  # fmt: skip
_HERE = {
    "operators": (
        "bash",
        "python",
        "empty",
        "branch",
        "trigger_dagrun",
        "latest_only",
        "datetime",
        "weekday",
        "smooth",
    ),
    "sensors": ("bash", "python", "date_time", "external_task", "filesystem", "time", "time_delta", "weekday"),
}
_SECONDS = {"retry_delay_sec": "retry_delay", "max_retry_delay_sec": "max_retry_delay",
            "execution_timeout_sec": "execution_timeout", "execution_timeout_secs": "execution_timeout",
            "retry_delay_secs": "retry_delay"}  # fmt: skip
_DAG_RENAMED = {"concurrency": "max_active_tasks", "dagrun_timeout_sec": "dagrun_timeout"}
_DAG_OWN = frozenset({"tasks", "task_groups", "default_args", "schedule", "schedule_interval", "params", "timezone"})
_NOT_NEEDED = {"default_view": "Airflow 3 has no such setting", "orientation": "Airflow 3 has no such setting"}
_FUNCTIONS = ("python_callable", "python_callable_name", "python_callable_file")
#: What a task can lose and still do its work.
_HARMLESS = frozenset({*TASK_ARGUMENTS, *_SECONDS})
#: Every round takes out what the check refuses; a fault may hide another.
_ROUNDS = 20
_NO_FUNCTION = "a function cannot be given to an operator; write a step with entry:, or an operator of your own"


@dataclass(frozen=True)
class Loss:
    """Something that could not be converted.

    Attributes:
        line: Where it stands in the dag-factory document, counted from 1; 0 where it stands in another file.
        path: Its place, such as ``tasks.load.expand``.
        reason: Why, and what to write instead.
        value: What stood there.
    """

    line: int
    path: str
    reason: str
    value: Any = None


@dataclass
class Converted:
    """One Dag in our language.

    Attributes:
        dag_id: Its id.
        text: The document; it has no faults.
        losses: What could not be converted.
    """

    dag_id: str
    text: str
    losses: list[Loss]


@dataclass
class _Task:
    """A task on its way: what is written, what was lost, and where it stood."""

    name: str
    source: Mapped
    entry: dict[str, Any]
    losses: list[Loss] = field(default_factory=list)

    def lose(self, key: str, reason: str) -> None:
        self.losses.append(Loss(self.source.line(key), f"tasks.{self.name}.{key}", reason, self.source.get(key)))

    def fail(self) -> None:
        """Become a task that fails and says why; order, retries and the rest of the Dag stay."""
        self.entry["uses"] = _BASH
        self.entry["with"] = {"bash_command": f"echo 'edgewright convert: task {self.name} is not converted'; exit 1"}


def convert(text: str, file: Path, defaults: str | None = None, *, folder: Path | None = None) -> list[Converted]:
    """Return the Dags of a dag-factory document.

    Args:
        text: The document.
        file: Where it stands, for messages.
        defaults: Text of the ``defaults.yml`` that dag-factory would read with it.
        folder: Where the pipelines' folders will be; operators of one's own are looked for there. Default: the file's.

    Raises:
        ConfigError: it is not YAML, or no dag-factory document.
    """
    document = read(text, file)
    common = document.get("default") or Mapped()
    if defaults is not None:
        common = merge(common, read(defaults, file.with_name("defaults.yml"), foreign=True))
    return [
        _Dag(str(name), merge(body, common), file, folder or file.parent).converted()
        for name, body in document.items()
        if name not in ("default", "task_groups") and isinstance(body, Mapped)
    ]


def operator_path(path: str) -> str:
    """Return where an operator is in Airflow 3."""
    *modules, name = path.split(".")
    if modules[:1] != ["airflow"] or modules[1:2] == ["providers"] or len(modules) != 3:
        return path
    kind, module = modules[1], modules[2]
    module = _MOVED.get(module, "external_task" if module == "external_task_sensor" else module)
    name = "EmptyOperator" if name == "DummyOperator" else name
    return f"{_STANDARD}.{kind}.{module}.{name}" if module in _HERE.get(kind, ()) else path


class _Dag:
    """Converts one Dag."""

    def __init__(self, name: str, source: Mapped, file: Path, folder: Path) -> None:
        self.name = str(source.get("dag_id") or name)
        self.source = source
        self.file = file
        self.folder = folder
        self.losses: list[Loss] = []
        self.head: dict[str, Any] = {"$schema": SCHEMA, "dag_id": self.name}
        self.template: dict[str, Any] = {}
        self.groups = _named(source.get("task_groups"), "group_name")
        self.tasks: list[_Task] = []

    def converted(self) -> Converted:
        self._head()
        self._defaults()
        sources = _named(self.source.get("tasks"), "task_id")
        ids = {name: self._id(name, task) for name, task in sources.items()}
        for name, task in sources.items():
            self.tasks.append(self._task(name, task, ids))
        for name, group in self.groups.items():
            self._lose(group.place or 0, f"task_groups.{name}", "its tasks keep their ids and their order; put them "
                       "below tasks: of one entry to see them as a group", None)  # fmt: skip
        self._order(sources, ids)
        text = self._settled()
        losses = [*self.losses, *(loss for task in self.tasks for loss in task.losses)]
        return Converted(self.name, text, sorted(losses, key=lambda loss: (loss.line, loss.path)))

    def _lose(self, line: int, path: str, reason: str, value: Any) -> None:
        self.losses.append(Loss(line, path, reason, value))

    # -- the Dag's own keys ------------------------------------------------------------------------------------

    def _head(self) -> None:
        for key, value in self.source.items():
            name = _DAG_RENAMED.get(key, key)
            if key in _DAG_OWN or key == "dag_id" or value is None:
                continue
            if name not in DAG_ARGUMENTS:
                reason = _NOT_NEEDED.get(key, "it cannot be written in a document")
                self._lose(self.source.line(key), key, reason, value)
            else:
                self._argument(self.head, self.source, key, name, key, DAG_ARGUMENTS)
        self._schedule()
        self._params()
        zone = self.source.get("timezone")
        if zone not in (None, "UTC", "Etc/UTC"):
            self._lose(self.source.line("timezone"), "timezone", "times are UTC or carry their own offset", zone)

    def _argument(self, target: dict[str, Any], source: Mapped, key: str, name: str, path: str, table: Any) -> None:
        """Take over an argument, if its reader takes it."""
        try:
            value = _in_words(sayable(source[key]), table[name])
            table[name](value)
        except Unsayable as error:
            self._lose(source.line(key), path, str(error), source[key])
        except Invalid as error:
            what = "a relative date has no fixed meaning" if name.endswith("_date") else "not of its type"
            self._lose(source.line(key), path, f"{what}; allowed: {error}", source[key])
        else:
            target[name] = value

    def _schedule(self) -> None:
        key = "schedule" if "schedule" in self.source else "schedule_interval"
        value = self.source.get(key)
        if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
            return
        if isinstance(value, str):
            self.head["schedule"] = value
            return
        if isinstance(value, Mapped) and str(value.get("__type__", "")).endswith("timedelta"):
            timetable = "airflow.timetables.trigger.DeltaTriggerTimetable"
            self.head["schedule"] = {"uses": timetable, "with": {"delta": sayable(value)}}
            return
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            self.head["schedule"] = {"assets": [str(item) for item in value]}
            return
        self._lose(self.source.line(key), key, "write a schedule by assets as {assets: [...]}", value)

    def _params(self) -> None:
        params = self.source.get("params")
        if not isinstance(params, Mapped):
            return
        for name, value in params.items():
            try:
                kind = isinstance(value, Mapped) and str(value.get("__type__", "")).endswith("Param")
                plain = (
                    {k: sayable(v) for k, v in value.items() if k != "__type__"}
                    if kind
                    else {"default": sayable(value)}
                )
                self.head.setdefault("params", {})[name] = plain
            except Unsayable as error:
                self._lose(params.line(name), f"params.{name}", str(error), value)

    def _defaults(self) -> None:
        """Make ``default_args`` a template that every task extends; Dag-wide dates move to the Dag."""
        found = self.source.get("default_args")
        if not isinstance(found, Mapped):
            return
        for key, value in found.items():
            name = _SECONDS.get(key, key)
            path = f"default_args.{key}"
            if value is None:
                continue
            if name in ("start_date", "end_date"):
                if name not in self.head:
                    self._argument(self.head, found, key, name, path, DAG_ARGUMENTS)
            elif name in TASK_ARGUMENTS:
                self._argument(self.template, found, key, name, path, TASK_ARGUMENTS)
            else:
                self._lose(found.line(key), path, "it is no argument of every task", value)

    # -- tasks -------------------------------------------------------------------------------------------------

    def _id(self, name: str, task: Mapped) -> str:
        """Return a task's id in Airflow; the ids of its groups stand before it."""
        parts, group, seen = [name], task.get("task_group_name"), set()
        while group in self.groups and group not in seen:
            seen.add(group)
            if self.groups[group].get("prefix_group_id", True):
                parts.insert(0, str(group))
            group = self.groups[group].get("parent_group_name")
        return ".".join(parts)

    def _task(self, name: str, source: Mapped, ids: dict[str, str]) -> _Task:
        task = _Task(name, source, {"id": ids[name]})
        if self.template:
            task.entry["extends"] = "defaults"
        uses = source.get("operator")
        task.entry["uses"] = operator_path(str(uses)) if uses else None
        self._fatal(task)
        given: dict[str, Any] = {}
        for key, value in source.items():
            if key in ("operator", "dependencies", "task_group_name", "parent_group_name", "decorator", "expand",
                       "partial", "variables_as_arguments", *_FUNCTIONS) or value is None:  # fmt: skip
                continue
            self._task_key(task, key, given)
        self._map(task, given)
        if any(loss.path.rpartition(".")[2] not in _HARMLESS for loss in task.losses):
            task.fail()
        elif given:
            task.entry["with"] = given
        return task

    def _map(self, task: _Task, given: dict[str, Any]) -> None:
        """Turn ``expand`` over lists into ``for_each``; what it shares out by ``partial`` stands in ``with``."""
        shared, axes = task.source.get("partial"), task.source.get("expand")
        if isinstance(shared, Mapped):
            inner = _Task(task.name, shared, {})
            for key in shared:
                self._task_key(inner, key, given)
            task.losses += inner.losses
            task.entry |= inner.entry
        elif shared is not None:
            task.lose("partial", "it is a mapping of arguments")
        if axes is None:
            return
        if not isinstance(axes, Mapped) or not all(_is_plain_list(axis) for axis in axes.values()):
            task.lose(
                "expand", "only lists that are written out are taken over; write for_each: {$x: TASK} for an output"
            )
            return
        task.entry["for_each"] = {str(name): sayable(axis) for name, axis in axes.items()}
        given |= {str(name): {"$t": f"{{{{ item.{name} }}}}"} for name in axes}

    def _fatal(self, task: _Task) -> None:
        if "decorator" in task.source:
            task.lose("decorator", _NO_FUNCTION)
        elif not task.source.get("operator"):
            task.lose("operator", "a task names its operator")
        if "variables_as_arguments" in task.source:
            task.lose("variables_as_arguments", 'write {$t: "{{ var.value.NAME }}"} for the argument')
        for key in _FUNCTIONS:
            if key in task.source:
                task.lose(key, _NO_FUNCTION)
        for key in ("bash_command", "sql"):
            value = task.source.get(key)
            if isinstance(value, str) and value.strip().endswith((".sh", ".bash", ".sql")) and " " not in value.strip():
                task.lose(
                    key, "Airflow reads this file as a template; put it beside pipeline.yaml and write {$t: {$f: FILE}}"
                )

    def _task_key(self, task: _Task, key: str, given: dict[str, Any]) -> None:
        name = _SECONDS.get(key, key)
        value = task.source[key]
        try:
            if name in TASK_ARGUMENTS:
                plain = _in_words(sayable(value), TASK_ARGUMENTS[name])
                TASK_ARGUMENTS[name](plain)
                task.entry[name] = plain
            else:
                # a shell replaces variables itself
                given[name] = sayable(value, markers=True, variables=name == "bash_command")
        except Unsayable as error:
            task.lose(key, str(error))
        except Invalid as error:
            task.lose(key, f"not of its type; allowed: {error}")

    def _order(self, sources: dict[str, Mapped], ids: dict[str, str]) -> None:
        """Write ``needs``; a group stands for its last tasks, and its own dependencies hold for its first ones."""
        wanted = {name: [str(n) for n in normal(source.get("dependencies"))] for name, source in sources.items()}
        members = {group: [n for n, s in sources.items() if self._is_in(s, group)] for group in self.groups}
        for group, source in self.groups.items():
            for name in members[group]:
                if not set(wanted[name]) & set(members[group]):
                    wanted[name] += [str(n) for n in normal(source.get("dependencies"))]
        for task in self.tasks:
            needs: list[str] = []
            for name in wanted[task.name]:
                inner = members.get(name)
                last = [n for n in inner or () if not any(n in wanted[other] for other in inner or ())]
                found = [ids[n] for n in (last if inner is not None else [name]) if n in ids]
                if not found:
                    task.lose("dependencies", f"there is no task or group {name}, or it is empty")
                needs += found
            if needs:
                task.entry["needs"] = list(dict.fromkeys(needs))

    def _is_in(self, task: Mapped, group: str) -> bool:
        name, seen = task.get("task_group_name"), set()
        while name in self.groups and name not in seen:
            if name == group:
                return True
            seen.add(name)
            name = self.groups[name].get("parent_group_name")
        return False

    # -- the text ----------------------------------------------------------------------------------------------

    def _settled(self) -> str:
        """Return the text, after taking out whatever our own check refuses; each is a loss with the check's words."""
        refused: list[Fault] = []
        for _ in range(_ROUNDS):
            text = self._text()
            try:
                parse_pipeline(text, self.folder / self.name / "pipeline.yaml", thorough=True)
            except SpecError as error:
                refused = [fault for fault in error.faults if not _is_callback(fault)]
                if not refused:
                    return text
                for fault in refused:
                    self._take_out(fault.path, fault.message + (f"; {fault.allowed}" if fault.allowed else ""))
            else:
                return text
        raise SpecError(refused)

    def _take_out(self, path: str, reason: str) -> None:
        if path.startswith("tasks["):
            number, _, rest = path.removeprefix("tasks[").partition("]")
            task, key = self.tasks[int(number)], rest.removeprefix(".").split(".")
            if key[0] == "with" and len(key) > 1:
                task.lose(key[1].split("[")[0], reason)
                task.fail()
                return
            if key[0] in task.entry and key[0] not in ("id", "uses", "with"):
                del task.entry[key[0]]
                task.lose(key[0], reason)
                return
            task.lose("operator", reason)
            task.fail()
        elif path.startswith("templates."):
            key = path.split(".")
            name = key[2].split("[")[0] if len(key) > 2 else ""
            self.template.pop(name, None)
            self._lose(0, f"default_args.{name}", reason, None)
        else:
            key = path.split("[")[0].split(".")
            target = self.head if len(key) == 1 or key[0] != "params" else self.head["params"]
            name = key[0] if target is self.head else key[1]
            value = target.pop(name, None)
            self._lose(self.source.line(key[0]), path or "tasks", reason, value)

    def _text(self) -> str:
        parts = [f"# converted from {self.file.name} (dag-factory) by edgewright convert\n"]
        parts += [_comment(loss, "") for loss in self.losses]
        parts.append(_dump(self.head))
        if self.template:
            parts.append(_dump({"templates": {"defaults": self.template}}))
        parts.append("tasks:\n")
        order = ("id", "extends", "for_each", "uses", "needs")
        for task in self.tasks:
            parts += [_comment(loss, "  ") for loss in task.losses]
            keys = [*order, *(key for key in task.entry if key not in (*order, "with")), "with"]
            entry = {key: task.entry[key] for key in keys if task.entry.get(key) is not None}
            block = _dump([entry])
            parts.append("".join(f"  {line}\n" if line else "\n" for line in block.splitlines()))
        return "".join(parts)


def _in_words(value: Any, reader: Any) -> Any:
    """Return seconds as a duration for people."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return duration_text(datetime.timedelta(seconds=value)) if is_number and reader is duration else value


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, (str, int, float, bool)) for item in value)


def _named(value: Any, key: str) -> dict[str, Mapped]:
    """Return tasks or groups by name, from a mapping or from a list whose entries say their names."""
    if isinstance(value, Mapped):
        return {str(name): entry for name, entry in value.items() if isinstance(entry, Mapped)}
    entries = [entry for entry in normal(value) if isinstance(entry, Mapped)]
    return {str(entry.get(key)): entry.without(key) for entry in entries}


def _is_callback(fault: Fault) -> bool:
    """Whether a function was not found that is called when something happens: it may lie where the Dags will."""
    return fault.code == "missing-entry" and "_callback" in fault.path


def _comment(loss: Loss, indent: str) -> str:
    place = f"line {loss.line}" if loss.line else "defaults"
    lines = [f"not converted ({place}): {loss.path}: {loss.reason}"]
    if loss.value is not None:
        lines += _dump({loss.path.rpartition(".")[2]: normal_value(loss.value)}).rstrip().splitlines()
    return "".join(f"{indent}# {line}\n" for line in " ".join(lines[:1]).splitlines() + lines[1:])


def normal_value(value: Any) -> Any:
    """Return a value as plain mappings and lists, for a comment."""
    if isinstance(value, dict):
        return {str(key): normal_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normal_value(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class _Dumper(yaml.SafeDumper):
    """Writes text that YAML 1.1 and 1.2 read alike."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text.rstrip("\n") and text.strip() == text.strip(" ") else None
    if text[:1] in tuple("+-.0123456789"):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _dump(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))
