"""Run a plain Airflow operator in this process, without Airflow's scheduler, server or database.

The operator is built from its dotted path, its template fields are rendered by Airflow's own code, and it is executed
with a context that holds what a task can know here. Sensors poke, a deferral waits for its trigger's first event, a
branch skips what it does not follow. Connections and variables come from the environment (``AIRFLOW_CONN_X``,
``AIRFLOW_VAR_X``). What needs a server (starting another Dag, waiting for a person) is refused.

This module imports Airflow, so it is imported only when a run comes to such a task.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewright.errors import ConfigError, Skipped, UserCodeError
from edgewright.installation import find_home
from edgewright.spec.pipeline import Constant, Pipeline, Task, Template
from edgewright.steps.code import importable

#: Lines of a failing operator's log that are shown.
LAST_LINES = 20
_NO_FAILURES = ("AirflowSkipException", "DownstreamTasksSkipped")
log = logging.getLogger("edgewright.operators")


@dataclass
class OperatorOutcome:
    """What an operator did: its return value, and the tasks that it decided to skip."""

    value: Any = None
    skip: set[str] = field(default_factory=set)


class _Literal:
    """A value in a template field that is taken as it is; Airflow asks such objects to resolve themselves."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def resolve(self, context: Any) -> Any:
        return self.value

    def iter_references(self) -> tuple[()]:
        return ()


@dataclass
class _TaskInstance:
    """What operators ask of ``ti``."""

    dag_id: str
    run_id: str
    task_id: str
    task: Any
    try_number: int
    xcom_pull: Callable[..., Any]
    push: Callable[[str, Any], None]
    start_date: datetime.datetime
    map_index: int = -1
    max_tries: int = 0
    hostname: str = "localhost"
    state: str = "running"

    def xcom_push(self, key: str, value: Any, **_: Any) -> None:
        """Keep a value under a key for later tasks."""
        self.push(key, value)

    def get_first_reschedule_date(self, context: Any) -> None:
        """Say that a sensor was never rescheduled; here it waits in place."""


def run_operator(
    pipeline: Pipeline,
    task: Task,
    *,
    config: Mapping[str, Any],
    context: Mapping[str, Any],
    pull: Callable[..., Any],
    push: Callable[[str, Any], None],
) -> OperatorOutcome:
    """Build, render and execute one operator, after :func:`prepare_airflow`.

    Args:
        pipeline: The pipeline; a branch looks at what comes after it.
        task: The task.
        config: Its ``with:``, references already replaced by constants.
        context: The run's template context.
        pull: What ``ti.xcom_pull`` does.
        push: What ``ti.xcom_push`` does.

    Raises:
        ConfigError: there is no such operator, it does not take these arguments, or it needs a server.
        Skipped: the operator skipped itself.
    """
    with importable(pipeline.folder), _airflow_exceptions(task) as outcome, operator_log():
        operator = _build(pipeline, task, config)
        instance = _TaskInstance(
            pipeline.dag_id, context["run_id"], task.id, operator, context["try_number"], pull, push,
            datetime.datetime.now(datetime.UTC),
        )  # fmt: skip
        full = {
            **context,
            "task": operator,
            "dag": operator.dag,
            "ti": instance,
            "task_instance": instance,
            "task_instance_key_str": f"{pipeline.dag_id}__{task.id}__{context['ds_nodash']}",
            "inlets": [],
            "outlets": [],
        }
        operator.render_template_fields(full)
        outcome.value = _execute(operator, full)
    return outcome


def prepare_airflow() -> None:
    """Import Airflow with its files below the home folder (unless the environment says otherwise) and our log kept."""
    os.environ.setdefault("AIRFLOW_HOME", str(find_home() / "airflow"))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import airflow.sdk

    # importing Airflow points every log of the process at its own handler and level
    assert airflow.sdk
    root.handlers[:] = handlers
    root.setLevel(level)


@contextlib.contextmanager
def operator_log() -> Iterator[None]:
    """Send what operators log to our log; when one fails, its last lines are shown even if nobody asked for them."""
    import structlog

    last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)

    def sink(logger: Any, method: str, event: dict[str, Any]) -> Any:
        text = str(event.get("event", ""))
        if event.get("positional_args"):
            with contextlib.suppress(TypeError, ValueError):
                text %= event["positional_args"]
        last.append(text)
        log.log(logging.getLevelNamesMapping().get(method.upper(), logging.INFO), "| %s", text)
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [sink]
    try:
        yield
    except Exception as error:
        wanted = type(error).__name__ not in _NO_FAILURES and not log.isEnabledFor(logging.INFO)
        if wanted:
            for line in last:
                log.warning("| %s", line)
        raise
    finally:
        processors[:] = before


def _build(pipeline: Pipeline, task: Task, config: Mapping[str, Any]) -> Any:
    """Return the operator inside a Dag of placeholders that have the pipeline's order."""
    from airflow.sdk import DAG, BaseOperator

    operator_class = load_operator(str(task.uses))
    templated = set(getattr(operator_class, "template_fields", ()))
    arguments = {name: _argument(value, name in templated) for name, value in config.items()}
    with DAG(pipeline.dag_id, schedule=None) as dag:
        try:
            operator = operator_class(task_id=task.id, **arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{task.uses}: {error}", where=f"tasks.{task.id}.with") from error
        for other in pipeline.tasks:
            if other.id != task.id:
                BaseOperator(task_id=other.id)
        for other in pipeline.tasks:
            if other.needs:
                dag.get_task(other.id).set_upstream([dag.get_task(name) for name in other.needs])
    # a sensor that frees its slot between two looks has no slot to free here
    if getattr(operator, "mode", None) == "reschedule":
        operator.mode = "poke"
    return operator


def load_operator(path: str) -> type[Any]:
    """Return an operator class by its dotted path.

    Raises:
        ConfigError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"no such operator: {path}: {error}", hint="is its provider package installed?") from error
    if not (isinstance(found, type) and hasattr(found, "execute")):
        raise ConfigError(f"{path} is not an operator", hint="an operator is a class with an execute method")
    return found


def _argument(value: Any, templated: bool) -> Any:
    if isinstance(value, Constant):
        return _Literal(value.value) if templated else value.value
    if isinstance(value, Template):
        return value.text
    if isinstance(value, Mapping):
        return {key: _argument(item, templated) for key, item in value.items()}
    if isinstance(value, list):
        return [_argument(item, templated) for item in value]
    return value


def _execute(operator: Any, context: dict[str, Any]) -> Any:
    """Execute and, as often as the operator defers, wait for the trigger and resume."""
    from airflow.sdk.bases.operator import ExecutorSafeguard
    from airflow.sdk.exceptions import TaskDeferred

    def call() -> Any:
        return operator.execute(context)

    step: Callable[[], Any] = call
    # says who runs the operator, as Airflow's task runner does; otherwise every execute warns
    token = ExecutorSafeguard.tracker.set(operator)
    try:
        while True:
            try:
                return step()
            except TaskDeferred as deferral:
                step = _resume(operator, context, deferral)
    except Exception:
        raise
    except BaseException:
        # interrupted or out of time: what the operator started outside of this process must end too
        operator.on_kill()
        raise
    finally:
        ExecutorSafeguard.tracker.reset(token)


def _resume(operator: Any, context: dict[str, Any], deferral: Any) -> Callable[[], Any]:
    event = asyncio.run(_first_event(deferral))
    kind = type(event).__name__
    if kind == "TaskFailedEvent":
        raise UserCodeError(f"the trigger of {operator.task_id} ended it as failed")
    if kind == "TaskSkippedEvent":
        raise Skipped("its trigger skipped it")
    if kind == "TaskSuccessEvent":
        return lambda: None
    method, kwargs = deferral.method_name, dict(deferral.kwargs or {})
    if event is None:
        method, kwargs = "__fail__", {"error": "Trigger timeout"}
    else:
        kwargs["event"] = event.payload
    return lambda: operator.resume_execution(method, kwargs, context)


async def _first_event(deferral: Any) -> Any:
    """Return the trigger's first event, or ``None`` when the deferral's time is over."""
    limit = deferral.timeout.total_seconds() if deferral.timeout is not None else None
    try:
        async with asyncio.timeout(limit):
            async for event in deferral.trigger.run():
                return event
    except TimeoutError:
        return None
    finally:
        await deferral.trigger.cleanup()
    raise UserCodeError("the trigger ended without an event")


@contextlib.contextmanager
def _airflow_exceptions(task: Task) -> Iterator[OperatorOutcome]:
    """Turn what Airflow's runner would act on into what ours does."""
    from airflow.sdk import exceptions as airflow

    outcome = OperatorOutcome()
    needs_server: tuple[type[BaseException], ...] = (airflow.DagRunTriggerException, airflow.TaskAwaitingInput)
    try:
        yield outcome
    except airflow.AirflowSkipException as error:
        raise Skipped(str(error) or "the operator skipped itself") from error
    except airflow.DownstreamTasksSkipped as error:
        outcome.skip = {item if isinstance(item, str) else item[0] for item in error.tasks}
        # the values of branching operators are the names that they follow; nobody after them needs more
        outcome.value = None
    except needs_server as error:
        raise ConfigError(
            f"{task.uses} needs Airflow's server ({type(error).__name__})",
            where=f"tasks.{task.id}",
            hint=f"leave it out with --skip {task.id}, or run the pipeline in Airflow: edgewright trigger",
        ) from error
    except airflow.AirflowTaskTimeout as error:
        raise UserCodeError(str(error) or "the operator ran out of time") from error
    except SystemExit as error:
        raise UserCodeError(f"{task.uses} called sys.exit({error.code!r})") from error
    finally:
        sys.stdout.flush()
