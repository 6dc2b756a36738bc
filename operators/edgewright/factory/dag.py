"""From a pipeline to an Airflow Dag. The same text gives the same serialized Dag, on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, Param

from edgewright.errors import ConfigError, EdgewrightError
from edgewright.factory.arguments import coerced, dotted
from edgewright.factory.plain import build_operator
from edgewright.operators import steps as step_operators
from edgewright.operators.base import PipelineSource, StepOperator
from edgewright.spec import load_pipeline, parse_pipeline
from edgewright.spec.arguments import STEP_DEFAULTS
from edgewright.spec.markers import encode
from edgewright.spec.pipeline import Pipeline, Task
from edgewright.steps.code import importable

TAG = "edgewright"
_CALLBACKS = (
    "on_execute_callback", "on_failure_callback", "on_success_callback", "on_retry_callback", "on_skipped_callback",
)  # fmt: skip


def dag_from_yaml(document: str | Path, *, folder: str | Path | None = None) -> DAG:
    """Return the Dag of a pipeline.

    Args:
        document: Path of a YAML file, or the YAML text itself (a text of more than one line).
        folder: Folder of the user's code and data. Default: the file's folder; for a text the working directory.

    Raises:
        SpecError: with every fault of the document, by line and column.
        ConfigError: the file cannot be read, or an operator that it names does not exist.
    """
    if isinstance(document, str) and "\n" in document:
        return build_dag(parse_pipeline(document, Path(folder or ".").resolve() / "pipeline.yaml"))
    path = Path(document)
    if folder is None:
        return build_dag(load_pipeline(path), shown=str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    pipeline = parse_pipeline(text, Path(folder).resolve() / path.name, shown=str(path))
    return build_dag(pipeline, shown=str(path))


def build_dag(pipeline: Pipeline, *, shown: str | None = None) -> DAG:
    """Return the Dag of a validated pipeline.

    Args:
        pipeline: What to build.
        shown: How messages name the file. Default: its path.

    Raises:
        ConfigError: an operator or a function that it names does not exist, or refuses its arguments.
    """
    shown = shown or str(pipeline.file)
    if pipeline.triggers:
        # dropped, they would leave a pipeline that never starts
        raise ConfigError("triggers: events cannot start a pipeline in this release", where=shown,
                          hint="give it a schedule, or start it by hand")  # fmt: skip
    try:
        # operators and callbacks may be the user's own, from the pipeline's folder
        with importable(pipeline.folder):
            return _build(pipeline, shown)
    except EdgewrightError:
        raise
    except Exception as error:
        raise ConfigError(
            f"Airflow does not take this pipeline: {type(error).__name__}: {error}", where=shown
        ) from error


def _build(pipeline: Pipeline, shown: str) -> DAG:
    with DAG(pipeline.dag_id, schedule=_schedule(pipeline.schedule), **_dag_arguments(pipeline)) as dag:
        operators: dict[str, BaseOperator] = {}
        for task in pipeline.tasks:
            operators[task.id] = _operator(pipeline, task, operators, shown)
            for name in task.needs:
                if name not in operators[task.id].upstream_task_ids:
                    operators[task.id].set_upstream(operators[name])
    dag.fileloc = str(pipeline.file)
    return dag


# -- the Dag -----------------------------------------------------------------------------------------------------


def _dag_arguments(pipeline: Pipeline) -> dict[str, Any]:
    arguments = dict(pipeline.arguments)
    arguments["tags"] = sorted({TAG, *arguments.get("tags", ())})
    arguments["doc_md"] = _doc(pipeline)
    arguments["params"] = {name: _param(schema) for name, schema in pipeline.params.items()}
    for name in _CALLBACKS:
        if name in arguments:
            arguments[name] = _functions(arguments[name])
    return arguments


def _doc(pipeline: Pipeline) -> str:
    """Return the Dag's page: what the author says, and the text that the Dag was made from."""
    parts = [pipeline.arguments.get("doc_md") or pipeline.arguments.get("description") or ""]
    fence = "```"
    while fence in pipeline.text:
        fence += "`"
    parts.append(f"{fence}yaml\n{pipeline.text.rstrip()}\n{fence}")
    return "\n\n".join(part for part in parts if part)


def _param(schema: Mapping[str, Any]) -> Param:
    rest = {key: value for key, value in schema.items() if key not in ("default", "description")}
    default = {"default": schema["default"]} if "default" in schema else {}
    return Param(**default, description=schema.get("description"), **rest)


def _schedule(schedule: Any) -> Any:
    if not isinstance(schedule, Mapping):
        return schedule
    timetable = dotted(schedule["uses"], "schedule.uses")
    return timetable(**coerced(timetable, schedule.get("with") or {}))


# -- tasks -------------------------------------------------------------------------------------------------------


def step_operator(name: str) -> type[StepOperator]:
    """Return the operator of a step."""
    found: type[StepOperator] = getattr(step_operators, f"{name.capitalize()}Operator")
    return found


def _operator(pipeline: Pipeline, task: Task, operators: Mapping[str, BaseOperator], shown: str) -> BaseOperator:
    arguments = _task_arguments(task)
    if not task.is_step:
        return build_operator(task, arguments, operators, shown)
    origin = PipelineSource(pipeline.folder.resolve(), pipeline.file.name, pipeline.digest)
    return step_operator(task.uses or "")(
        task_id=task.id,
        config=encode(task.config),
        profile=task.profile,
        preferred=task.preferred,
        origin=origin,
        **{**STEP_DEFAULTS, **arguments},
    )


def _task_arguments(task: Task) -> dict[str, Any]:
    arguments = dict(task.arguments)
    for name in _CALLBACKS:
        if name in arguments:
            arguments[name] = _functions(arguments[name])
    for name in ("inlets", "outlets"):
        if name in arguments:
            arguments[name] = [Asset(address) for address in arguments[name]]
    return arguments


def _functions(paths: str | list[str]) -> list[Any]:
    return [dotted(path, "callback") for path in ([paths] if isinstance(paths, str) else paths)]
