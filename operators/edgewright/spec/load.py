"""From YAML text to a validated :class:`~edgewright.spec.pipeline.Pipeline`, or all of its faults at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError, Fault, SpecError
from edgewright.spec.airflow_rules import check_rules, is_continuous
from edgewright.spec.arguments import DAG_ARGUMENTS, REFUSED_DAG_ARGUMENTS, read_arguments
from edgewright.spec.code import check_callbacks, check_operator
from edgewright.spec.compose import KEYS, Composed, compose
from edgewright.spec.documents import documents
from edgewright.spec.faults import Faults
from edgewright.spec.faults import Path as Place
from edgewright.spec.graph import order_tasks
from edgewright.spec.groups import Entries
from edgewright.spec.nodes import read
from edgewright.spec.notify import read_notify
from edgewright.spec.params import read_params
from edgewright.spec.pipeline import Group, Pipeline, Task
from edgewright.spec.profiles import read_profiles
from edgewright.spec.schedule import read_schedule
from edgewright.spec.signatures import check_arguments
from edgewright.spec.tasks import TaskReader
from edgewright.spec.triggers import read_triggers
from edgewright.spec.values import Values

#: The address in ``$schema`` of our own documents; documents of Airflow's own grammar name theirs.
SCHEMA = "https://edgewright.dev/schema/pipeline/v1.json"
SCHEMAS = (SCHEMA, "https://airflow.apache.org/schemas/dag/")
_OWN = (
    "$schema",
    "dag_id",
    "schedule",
    "params",
    "templates",
    "tasks",
    "profiles",
    "triggers",
    "notify",
    "task_defaults",
    "step_defaults",
)


def load_pipeline(
    path: Path, *, dag_id: str | None = None, thorough: bool = False, environment: str | None = None
) -> Pipeline:
    """Return the pipeline of a file.

    Args:
        path: The file.
        dag_id: Which one, where it holds several.
        thorough: Hold operators' arguments against their sources, too.
        environment: Which of its ``environments:`` it is read for, see :func:`parse_pipelines`.

    Raises:
        SpecError: with every fault of the file.
        ConfigError: the file cannot be read, or holds several pipelines and it is not said which, or not that one.
    """
    found = load_pipelines(path, thorough=thorough, environment=environment)
    fitting = [pipeline for pipeline in found if dag_id in (None, pipeline.dag_id)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(pipeline.dag_id for pipeline in found)
    message = f"there is no pipeline {dag_id}" if dag_id else "this file holds several pipelines"
    raise ConfigError(message, where=str(path), hint=f"say which one: {names}")


def load_pipelines(path: Path, *, thorough: bool = False, environment: str | None = None) -> list[Pipeline]:
    """Return every pipeline of a file, in its order.

    Args:
        path: The file.
        thorough: Hold operators' arguments against their sources, too.
        environment: Which of their ``environments:`` they are read for, see :func:`parse_pipelines`.

    Raises:
        SpecError: with every fault of the file.
        ConfigError: the file cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError("no such file", where=str(path)) from error
    except IsADirectoryError as error:
        raise ConfigError("this is a folder", where=str(path), hint="name the YAML file in it") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot be read: {reason}", where=str(path)) from error
    return parse_pipelines(text, path, thorough=thorough, environment=environment)


def parse_pipelines(
    text: str, file: Path, *, shown: str | None = None, thorough: bool = False, environment: str | None = None
) -> list[Pipeline]:
    """Return every pipeline of a text: documents are divided by ``---``. Arguments as :func:`parse_pipeline`.

    Raises:
        SpecError: with every fault of all documents.
    """
    found: list[Pipeline] = []
    faults: list[Fault] = []
    lines: dict[str, int] = {}
    for part in documents(text):
        try:
            pipeline = parse_pipeline(part, file, shown=shown, thorough=thorough, environment=environment)
        except SpecError as error:
            faults.extend(error.faults)
            continue
        line = len(part) - len(part.lstrip("\n")) + 1
        if pipeline.dag_id in lines:
            message, allowed = f"duplicate dag_id {pipeline.dag_id!r}", f"a document from line {lines[pipeline.dag_id]}"
            place = shown or str(file)
            faults.append(Fault(place, line, 1, "dag_id", message, f"{allowed} has it already", code="duplicate-dag"))
        lines[pipeline.dag_id] = line
        found.append(replace(pipeline, text=part.lstrip("\n")))
    if faults:
        raise SpecError(faults)
    return found


def parse_pipeline(
    text: str, file: Path, *, shown: str | None = None, thorough: bool = False, environment: str | None = None
) -> Pipeline:
    """Return the pipeline of a text that is one document.

    Args:
        text: The document.
        file: Where it is (or would be): the folder of the user's code follows from it.
        shown: How faults name the file. Default: the path as given.
        thorough: Hold operators' arguments against their sources, too. Costs milliseconds for each kind of operator;
            Airflow finds the same when it builds the Dag.
        environment: Which of the document's ``environments:`` it is read for; default: the one that the installation
            says (and a thorough look is at all of them); ``""``: none.

    Raises:
        SpecError: with every fault of the document.
    """
    faults = Faults(shown or str(file))
    document = read(text, faults)
    if document is None or not isinstance(document, dict):
        if not faults.found:
            faults.add((), "a pipeline is a mapping", allowed="it starts with $schema: and dag_id:", code="type")
        raise SpecError(faults.found)
    composed = compose(document, text, file, faults, environment)
    pipeline = _read_document(composed, text, file, faults, thorough=thorough)
    if thorough and environment is None:
        for name in ("", *composed.environments):
            if (name or None) != composed.environment:
                faults.found.extend(_faults_in(name, text, file, faults.file))
    if faults.found or composed.foreign:
        raise SpecError(_once([*composed.foreign, *faults.found]))
    return pipeline


def _faults_in(environment: str, text: str, file: Path, shown: str) -> list[Fault]:
    """Return what is wrong with a document in one of its environments."""
    try:
        parse_pipeline(text, file, shown=shown, thorough=True, environment=environment)
    except SpecError as error:
        return error.faults
    return []


def _once(faults: list[Fault]) -> list[Fault]:
    """Return faults without repetitions.

    What several tasks inherit from one template is one fault, and a value that nobody can read needs no second one.
    """
    unclear = {(fault.line, fault.column) for fault in faults if fault.code == "ambiguous"}
    return list(
        {
            (fault.file, fault.line, fault.column, fault.code, fault.message): fault
            for fault in reversed(faults)
            if fault.code == "ambiguous" or (fault.line, fault.column) not in unclear
        }.values()
    )


def _read_document(composed: Composed, text: str, file: Path, faults: Faults, *, thorough: bool) -> Pipeline:
    document = composed.document
    _check_head(document, faults)
    _check_keys(document, faults)
    known = {key: value for key, value in document.items() if key in DAG_ARGUMENTS and value is not None}
    params = read_params(document.get("params"), ("params",), faults)
    profiles = read_profiles(document.get("profiles"), faults, file.parent if thorough else None)
    values = Values(file.parent, set(params), faults, thorough=thorough)
    tasks, groups, places = _read_tasks(document, values, params, profiles, faults, thorough=thorough)
    dag_id = document.get("dag_id")
    schedule = _read_schedule(document.get("schedule"), file, faults, thorough=thorough)
    arguments = read_arguments(known, DAG_ARGUMENTS, (), faults)
    if thorough:
        check_callbacks(arguments, file.parent, (), faults)
    if is_continuous(schedule):
        arguments.setdefault("max_active_runs", 1)  # Airflow's default of 16 is refused
    pipeline = Pipeline(
        dag_id=dag_id if isinstance(dag_id, str) else "",
        file=file,
        text=text,
        digest=composed.digest,
        schedule=schedule,
        params=params,
        tasks=tuple(tasks),
        groups=tuple(groups),
        arguments=arguments,
        triggers=read_triggers(document.get("triggers"), faults, file.parent),
        profiles=profiles,
        notify=read_notify(document.get("notify"), values, faults, thorough=thorough),
        environment=composed.environment,
        inherited=composed.inherited,
    )
    check_rules(pipeline, places, faults)
    return pipeline


def _check_head(document: dict[str, Any], faults: Faults) -> None:
    schema = document.get("$schema")
    if schema is not None and not (isinstance(schema, str) and schema.startswith(SCHEMAS)):
        faults.add(("$schema",), f"{schema!r} is no schema of a pipeline", allowed=SCHEMA, code="schema")
    dag_id = document.get("dag_id")
    if "dag_id" not in document:
        faults.add((), "dag_id is required", allowed="letters, digits, -, _ and .", code="missing-key")
    elif not isinstance(dag_id, str) or not dag_id:
        faults.add(("dag_id",), f"{dag_id!r} is no dag_id", allowed="text: letters, digits, -, _ and .", code="type")
    elif len(dag_id) > 250 or not all(character.isalnum() or character in "-_." for character in dag_id):
        faults.add(("dag_id",), f"{dag_id!r} is no dag_id", allowed="letters, digits, -, _ and .", code="value")


def _check_keys(document: dict[str, Any], faults: Faults) -> None:
    for key in document:
        if (instead := REFUSED_DAG_ARGUMENTS.get(key)) is not None:
            faults.add((key,), f"{key!r} cannot be set", allowed=instead, code="unsupported", key=True)
        elif key not in _OWN and key not in DAG_ARGUMENTS:
            faults.unknown_key((key,), [*_OWN, *KEYS, *DAG_ARGUMENTS])


def _read_schedule(value: Any, file: Path, faults: Faults, *, thorough: bool) -> Any:
    schedule = read_schedule(value, ("schedule",), faults)
    for place, part in ((("schedule",), schedule), (("schedule", "time"), _time_of(schedule))):
        if isinstance(part, dict) and isinstance(part.get("uses"), str):
            check_operator(part["uses"], file.parent, (*place, "uses"), faults)
            if thorough:
                given = part.get("with") or {}
                check_arguments(part["uses"], given, file.parent, (*place, "with") if given else place, faults)
    return schedule


def _time_of(schedule: Any) -> Any:
    return schedule.get("time") if isinstance(schedule, dict) else None


def _read_tasks(
    document: dict[str, Any],
    values: Values,
    params: dict[str, Any],
    profiles: dict[str, Any],
    faults: Faults,
    *,
    thorough: bool,
) -> tuple[list[Task], list[Group], dict[str, Place]]:
    """Return the tasks, the groups, and where each of them stands."""
    entries = document.get("tasks")
    if not isinstance(entries, list) or not entries:
        place = ("tasks",) if "tasks" in document else ()
        faults.add(
            place,
            "a pipeline needs tasks",
            allowed="a list of {id: ..., uses: ..., with: ...}",
            code="missing-key",
        )
        return [], [], {}
    reader = TaskReader(document, params, profiles, values, faults, thorough=thorough)
    found = Entries(reader, values, params, faults)
    found.read(entries, ("tasks",))
    places = {task.id: path for path, task in found.tasks}
    return *order_tasks(found.tasks, found.groups, found.needs, values.references, faults), places
