"""A pipeline as a hand-written Dag: what the YAML stands for, to read or to go on from.

The module belongs beside the pipeline's folder. Texts are templates in a hand-written Dag, so what only looks like one
is wrapped in ``literal()``. A text that may be a time or a duration passes ``coerced()``: which argument of an operator
or a timetable wants which type is known only where its provider is installed.
"""

from __future__ import annotations

import ast
import datetime
import keyword
import re
from collections.abc import Mapping
from typing import Any

from edgewright.spec.arguments import STEP_DEFAULTS, Invalid, duration, moment
from edgewright.spec.pipeline import Constant, Pipeline, Reference, Task, Template, iter_references
from edgewright.spec.render_limits import left_out, refuse_mapping

_OPERATORS = "edgewright.operators"
_EMPTY = "airflow.providers.standard.operators.empty.EmptyOperator"
_TAKEN = (
    "datetime", "STEP", "DAG", "Param", "Asset", "AssetAlias", "AssetAll", "AssetAny", "AssetOrTimeSchedule",
    "CronTriggerTimetable", "literal", "task",
)  # fmt: skip
_CALENDAR = re.compile(r"P(\d+[YMWD])+(T(\d+[HMS])+)?")
#: What Airflow would render, or read as the name of a template file.
_LOOKS_RENDERED = re.compile(r"\{[{%#]|\.(sh|bash|sql)$")


def operator_path(task: Task) -> str | None:
    """Return the dotted path of the operator that runs a task; ``None`` for an empty task."""
    if task.is_step and task.uses:
        return f"{_OPERATORS}.{task.uses.capitalize()}Operator"
    return task.uses


def python(pipeline: Pipeline) -> str:
    """Return the source of a module with the pipeline's Dag.

    Raises:
        ConfigError: it runs tasks once for each item, which such a module does not say.
    """
    refuse_mapping(pipeline, "a hand-written Dag")
    return _Module(pipeline).source()


class _Module:
    """One module: names are given once, and only what is used is imported."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.imported: dict[str, str] = {}
        self.uses_datetime = False
        self.variables: dict[str, str] = {}

    def source(self) -> str:
        """Return the module's text."""
        for task in self.pipeline.tasks:
            self.variables[task.id] = self._variable(task.id)
        dag = self._name("airflow.sdk.DAG")
        body = [*self._defaults(), "", f"with {dag}(", *(f"    {line}" for line in self._dag_arguments()), "):"]
        for task in self.pipeline.tasks:
            body += [f"    {line}" for line in self._task(task)]
        for task in self.pipeline.tasks:
            implied = {reference.task for reference in iter_references(task.config)}
            body += [
                f"    {self.variables[name]} >> {self.variables[task.id]}" for name in task.needs if name not in implied
            ]
        body += [f"    {line}" for task in self.pipeline.tasks for line in self._around(task)]
        return "\n".join([*self._head(), *self._imports(), *body]) + "\n"

    def _around(self, task: Task) -> list[str]:
        """Return what makes a task one that sets up or tears down."""
        name = self.variables[task.id]
        lines = [f"{name}.as_setup()"] if task.setup else []
        if task.teardown is not None:
            setups = ", ".join(self.variables[setup] for setup in task.teardown)
            lines.append(f"{name}.as_teardown({f'setups=[{setups}]' if setups else ''})")
        return lines

    # -- names ---------------------------------------------------------------------------------------------------

    def _variable(self, task_id: str) -> str:
        name = "".join(character if character.isalnum() else "_" for character in task_id)
        if not name.isidentifier() or keyword.iskeyword(name) or name in _TAKEN:
            name = f"t_{name}"
        while name in self.variables.values():
            name += "_"
        return name

    def _name(self, path: str) -> str:
        """Return how the module calls what a dotted path names, and import it."""
        if path not in self.imported:
            name = path.rpartition(".")[2]
            taken = {*self.imported.values(), *self.variables.values(), *_TAKEN}
            while name in taken and not path.startswith("airflow.sdk."):
                name += "_"
            self.imported[path] = name
        return self.imported[path]

    def _imports(self) -> list[str]:
        groups: dict[str, list[str]] = {}
        for path, name in sorted(self.imported.items()):
            module, _, original = path.rpartition(".")
            groups.setdefault(module, []).append(original if original == name else f"{original} as {name}")
        lines = [f"from {module} import {', '.join(names)}" for module, names in sorted(groups.items())]
        return (["import datetime", ""] if self.uses_datetime else []) + lines

    def _head(self) -> list[str]:
        text = str(self.pipeline.arguments.get("description") or self.pipeline.dag_id)
        quoted = f'"""{text}."""'
        try:
            plain = ast.literal_eval(quoted) == f"{text}."
        except (SyntaxError, ValueError):
            plain = False
        said = ("schedule.assets", ".setup", ".teardown")
        notes = [f"# not part of this Dag: {words}" for words in left_out(self.pipeline) if not words.endswith(said)]
        return [quoted if plain else repr(text), "", *notes, *([""] if notes else [])]

    # -- the Dag -------------------------------------------------------------------------------------------------

    def _dag_arguments(self) -> list[str]:
        pipeline = self.pipeline
        lines = [f"dag_id={pipeline.dag_id!r},", f"schedule={self._schedule(pipeline.schedule)},"]
        lines += [f"{key}={self._argument(key, value)}," for key, value in pipeline.arguments.items()]
        if pipeline.params:
            lines.append("params={")
            lines += [f"    {name!r}: {self._param(schema)}," for name, schema in pipeline.params.items()]
            lines.append("},")
        return lines

    def _defaults(self) -> list[str]:
        if not any(task.is_step for task in self.pipeline.tasks):
            return []
        lines = [f"    {key!r}: {self._plain(value)}," for key, value in STEP_DEFAULTS.items()]
        return ["", "# only faults of the system are tried again", "STEP = {", *lines, "}"]

    def _schedule(self, schedule: Any) -> str:
        if not isinstance(schedule, Mapping):
            return repr(schedule)
        if "assets" in schedule:
            assets, time = self._condition(schedule["assets"]), schedule.get("time")
            if time is None:
                return assets
            timetable = self._schedule(time)
            if isinstance(time, str):
                timetable = f"{self._name('airflow.sdk.CronTriggerTimetable')}({time!r}, timezone='UTC')"
            return f"{self._name('airflow.sdk.AssetOrTimeSchedule')}(timetable={timetable}, assets={assets})"
        name, given = self._name(schedule["uses"]), schedule.get("with") or {}
        values = [f"{key}={self._plain(value)}" for key, value in given.items() if not _may_be_time(value)]
        return f"{name}({', '.join([*values, *self._times(name, given)])})"

    def _times(self, name: str, given: Mapping[str, Any]) -> list[str]:
        """Return the arguments that may be times or durations, as whatever the class that takes them wants."""
        times = {key: value for key, value in given.items() if _may_be_time(value)}
        if not times:
            return []
        return [f"**{self._name('edgewright.factory.arguments.coerced')}({name}, {self._plain(times)})"]

    def _condition(self, value: Any) -> str:
        """Return when assets start a Dag."""
        value = {"all": value} if isinstance(value, list) else value
        for key, kind in (("any", "AssetAny"), ("all", "AssetAll")):
            if isinstance(value, Mapping) and key in value:
                return f"{self._name(f'airflow.sdk.{kind}')}({', '.join(map(self._condition, value[key]))})"
        return self._asset(value)

    def _asset(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self._name('airflow.sdk.Asset')}({value!r})"
        kind = "AssetAlias" if "alias" in value else "Asset"
        given = {"name" if key == "alias" else key: item for key, item in value.items()}
        return f"{self._name(f'airflow.sdk.{kind}')}({', '.join(f'{key}={item!r}' for key, item in given.items())})"

    def _param(self, schema: Mapping[str, Any]) -> str:
        parts = [repr(schema["default"])] if "default" in schema else []
        rest = {key: value for key, value in schema.items() if key != "default"}
        named = {key: value for key, value in rest.items() if key.isidentifier() and not keyword.iskeyword(key)}
        parts += [f"{key}={value!r}" for key, value in named.items()]
        if other := {key: value for key, value in rest.items() if key not in named}:
            parts.append(f"**{other!r}")
        return f"{self._name('airflow.sdk.Param')}({', '.join(parts)})"

    # -- tasks ---------------------------------------------------------------------------------------------------

    def _task(self, task: Task) -> list[str]:
        if task.is_handler:
            return self._handler(task)
        operator = self._name(operator_path(task) or _EMPTY)
        lines = [f"{self.variables[task.id]} = {operator}(", f"    task_id={task.id!r},"]
        times = {} if task.is_step else {key: value for key, value in task.config.items() if _may_be_time(value)}
        rest = {key: value for key, value in task.config.items() if key not in times}
        lines += [f"    {key}={self._value(value, step=task.is_step)}," for key, value in rest.items()]
        lines += [f"    {line}," for line in self._times(operator, times)]
        given = task.arguments
        if task.is_step and not STEP_DEFAULTS.keys() & given.keys():
            lines.append("    **STEP,")
        elif task.is_step:
            given = {**STEP_DEFAULTS, **given}
        lines += [f"    {key}={self._argument(key, value)}," for key, value in given.items()]
        if task.is_step:
            lines.append(f"    folder={self.pipeline.folder.resolve().name!r},")
            places = {"profile": task.profile, "preferred": task.preferred}
            lines += [f"    {key}={value!r}," for key, value in places.items() if value is not None]
        return [*lines, ")"]

    def _handler(self, task: Task) -> list[str]:
        """Return the empty function that stands for a handler in another language, and its call."""
        given = [
            f"task_id={task.id!r}",
            *(f"{key}={self._argument(key, value)}" for key, value in task.arguments.items()),
        ]
        values = ", ".join(f"{key}={self._value(value, step=False)}" for key, value in task.config.items())
        variable = self.variables[task.id]
        return [
            f"@{self._name('airflow.sdk.task')}.stub({', '.join(given)})",
            f"def {variable}_handler({', '.join(task.config)}): ...",
            f"{variable} = {variable}_handler({values}).operator",
        ]

    def _argument(self, key: str, value: Any) -> str:
        """Return a Dag's or a task's own argument, which Airflow never renders."""
        if key.startswith("on_") and key.endswith("_callback"):
            return "[" + ", ".join(self._name(path) for path in ([value] if isinstance(value, str) else value)) + "]"
        if key in ("inlets", "outlets"):
            return f"[{', '.join(map(self._asset, value))}]"
        return self._plain(value)

    def _value(self, value: Any, *, step: bool) -> str:
        """Return a value of ``with:``."""
        if isinstance(value, Reference):
            key = "" if value.key is None else f"[{value.key!r}]"
            return f"{self.variables[value.task]}.output{key}"
        if isinstance(value, Template):
            return repr(value.text)
        if isinstance(value, Constant):
            return self._literal(value.value) if _is_read_as_more(value.value, step=step) else self._plain(value.value)
        if isinstance(value, Mapping):
            items = (f"{key!r}: {self._value(item, step=step)}" for key, item in value.items())
            return "{" + ", ".join(items) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(self._value(item, step=step) for item in value) + "]"
        return self._literal(value) if _is_read_as_more(value, step=step) else self._plain(value)

    def _literal(self, value: Any) -> str:
        return f"{self._name('airflow.sdk.literal')}({self._plain(value)})"

    def _plain(self, value: Any) -> str:
        if isinstance(value, datetime.timedelta):
            self.uses_datetime = True
            return f"datetime.timedelta(seconds={value.total_seconds():g})"
        if isinstance(value, (datetime.datetime, datetime.date)):
            self.uses_datetime = True
            return f"datetime.{type(value).__name__}.fromisoformat({value.isoformat()!r})"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{key!r}: {self._plain(item)}" for key, item in value.items()) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(self._plain(item) for item in value) + "]"
        return repr(value)


def _may_be_time(value: Any) -> bool:
    """Whether a value is text that reads as a time or a duration, or a list of such texts."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) and _may_be_time(item) for item in value)
    if not isinstance(value, str):
        return False
    for reader in (duration, moment):
        try:
            reader(value)
        except Invalid:
            continue
        return True
    return _CALENDAR.fullmatch(value) is not None


def _is_read_as_more(value: Any, *, step: bool) -> bool:
    """Whether a hand-written Dag would see a template, a template file or a marker in a literal value."""
    if isinstance(value, str):
        return _LOOKS_RENDERED.search(value) is not None
    if isinstance(value, Mapping):
        marked = step and any(str(key).startswith("$") for key in value)
        return marked or any(_is_read_as_more(item, step=step) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_is_read_as_more(item, step=step) for item in value)
