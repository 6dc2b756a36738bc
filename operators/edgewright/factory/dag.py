"""From a pipeline to an Airflow Dag. The same text gives the same serialized Dag, on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param

from edgewright.errors import ConfigError, EdgewrightError
from edgewright.factory.assets import schedule_of
from edgewright.factory.companion import add_settling, companion_of
from edgewright.factory.tasks import CALLBACKS, TaskBuilder, functions
from edgewright.operators.notify import Told
from edgewright.spec import load_pipeline, parse_pipeline
from edgewright.spec.pipeline import Pipeline
from edgewright.steps.code import importable

TAG = "edgewright"


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


def dags_of(pipelines: Iterable[Pipeline], *, shown: str | None = None) -> list[DAG]:
    """Return the Dags of pipelines, and of each one with events its hidden companion; errors as :func:`build_dag`."""
    found: list[DAG] = []
    for pipeline in pipelines:
        found.append(build_dag(pipeline, shown=shown))
        companion = companion_of(pipeline)
        if companion is not None:
            found.append(companion)
    return found


def build_dag(pipeline: Pipeline, *, shown: str | None = None) -> DAG:
    """Return the Dag of a validated pipeline.

    Args:
        pipeline: What to build.
        shown: How messages name the file. Default: its path.

    Raises:
        ConfigError: an operator or a function that it names does not exist, or refuses its arguments.
    """
    shown = shown or str(pipeline.file)
    try:
        if not _names_own_code(pipeline):
            return _build(pipeline, shown)
        with importable(pipeline.folder):
            return _build(pipeline, shown)
    except EdgewrightError:
        raise
    except Exception as error:
        raise ConfigError(
            f"Airflow does not take this pipeline: {type(error).__name__}: {error}", where=shown
        ) from error


def _names_own_code(pipeline: Pipeline) -> bool:
    """Whether an operator, a callback or a timetable may be the user's own, from the pipeline's folder."""
    named: list[Any] = [task.uses for task in pipeline.tasks if not task.is_step]
    for arguments in (pipeline.arguments, *(task.arguments for task in pipeline.tasks)):
        named.extend(arguments[name] for name in CALLBACKS if name in arguments)
    if isinstance(pipeline.schedule, Mapping):
        named.extend((pipeline.schedule.get("uses"), (pipeline.schedule.get("time") or {})))
    modules = {path.partition(".")[0] for path in _texts(named)}
    folder = str(pipeline.folder)
    return any(os.path.exists(f"{folder}/{name}.py") or os.path.isdir(f"{folder}/{name}") for name in modules)


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _texts(value)
    elif isinstance(values, Mapping):
        yield from _texts(values.get("uses"))


def _build(pipeline: Pipeline, shown: str) -> DAG:
    told = Told.of(pipeline)
    arguments = _dag_arguments(pipeline)
    for name, added in told.dag.items():
        arguments[name] = [*arguments.get(name, ()), *added]
    with DAG(pipeline.dag_id, schedule=schedule_of(pipeline.schedule), **arguments) as dag:
        TaskBuilder(pipeline, shown, told.tasks).build()
    add_settling(pipeline, dag)
    dag.fileloc = str(pipeline.file)
    return dag


# -- the Dag -----------------------------------------------------------------------------------------------------


def _dag_arguments(pipeline: Pipeline) -> dict[str, Any]:
    arguments = dict(pipeline.arguments)
    arguments["tags"] = sorted({TAG, *arguments.get("tags", ())})
    arguments["doc_md"] = _doc(pipeline)
    arguments["params"] = {name: _param(schema) for name, schema in pipeline.params.items()}
    for name in CALLBACKS:
        if name in arguments:
            arguments[name] = functions(arguments[name])
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
