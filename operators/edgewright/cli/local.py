"""Run a pipeline here and now, in this process: no scheduler, no server, the same steps and the same artifacts.

Tasks run one after the other in the document's order. A task that fails stops what depends on it by its trigger rule;
everything else still runs, as in Airflow. Faults of the system (never the user's) are tried again as often as the
task's ``retries`` say.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edgewright.artifacts import ArtifactStore
from edgewright.cli.limits import retry_delay, time_limit, worth_retrying
from edgewright.cli.params import complete
from edgewright.cli.rules import State, decide
from edgewright.cli.selection import check_honoured, claim_run_id, select
from edgewright.cli.source import source_of
from edgewright.cli.templates import render, run_context
from edgewright.errors import ConfigError, EdgewrightError, Skipped
from edgewright.installation import Installation
from edgewright.spec.pipeline import Constant, Pipeline, Reference, Task
from edgewright.steps.contract import Identity, StepRequest
from edgewright.steps.execute import execute
from edgewright.steps.request import pure_param, resolve_config


@dataclass
class TaskOutcome:
    """How one task ended.

    Attributes:
        task: The task.
        state: As Airflow names it.
        duration: Seconds, all tries together.
        tries: How often it was tried.
        value: What its XCom would hold: a step's result document, or an operator's return value.
        result: The step's result document, also of one that failed, if it got that far.
        error: Why it failed.
        reason: Why it was skipped.
    """

    task: Task
    state: State
    duration: float = 0.0
    tries: int = 1
    value: Any = None
    result: dict[str, Any] | None = None
    error: Exception | None = None
    reason: str = ""

    @property
    def cached(self) -> bool:
        """Whether an earlier result was reused."""
        return bool(self.result and self.result["cache"]["hit"])

    def document(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        return {
            "task_id": self.task.id,
            "uses": self.task.uses,
            "state": self.state,
            "duration": round(self.duration, 4),
            "tries": self.tries,
            "cached": self.cached,
            "reason": self.reason or None,
            "error": None if self.error is None else str(self.error),
            "result": self.result,
            "value": None if self.task.is_step else self.value,
        }


@dataclass
class RunOutcome:
    """How a run ended.

    Attributes:
        dag_id: The pipeline.
        run_id: The run.
        params: Its params.
        tasks: The tasks that were asked for, in the order in which they came.
        duration: Seconds.
    """

    dag_id: str
    run_id: str
    params: dict[str, Any] = field(default_factory=dict)
    tasks: list[TaskOutcome] = field(default_factory=list)
    duration: float = 0.0

    @property
    def failed(self) -> list[TaskOutcome]:
        """The tasks that failed themselves."""
        return [outcome for outcome in self.tasks if outcome.state == "failed"]

    @property
    def state(self) -> Literal["success", "failed"]:
        """``failed`` as soon as one task failed."""
        return "failed" if self.failed else "success"

    @property
    def results(self) -> list[dict[str, Any]]:
        """Result documents of all steps that got so far."""
        return [outcome.result for outcome in self.tasks if outcome.result]

    def task(self, task_id: str) -> TaskOutcome:
        """Return a task's outcome by id."""
        return next(outcome for outcome in self.tasks if outcome.task.id == task_id)


class Progress(Protocol):
    """Who wants to know how a run goes on."""

    def started(self, index: int, total: int, task: Task) -> None:
        """Take note that a task begins; ``index`` counts from 1."""

    def finished(self, index: int, total: int, outcome: TaskOutcome) -> None:
        """Take note of how a task ended."""

    def waiting(self, task: Task, error: Exception, delay: float) -> None:
        """Take note that a task failed and is tried again after ``delay`` seconds."""


class LocalRunner:
    """Runs one pipeline once.

    Args:
        pipeline: What to run.
        installation: Where things are kept; default: the one that the environment points to.
        store: Root of the artifact store; default: the installation's.
        params: Typed params; what is left out has its default.
        run_id: Name of the run; default: ``local__`` and the time.
        until: Run only this task and what it needs.
        skip: Tasks to leave out; what depends on them is skipped as well, by its trigger rule.
        cache: ``use`` earlier results, ``refresh`` them, or leave the cache ``off``.
        progress: Who wants to know.

    Raises:
        ConfigError: params, a profile or a trigger rule cannot be honoured here.
        NotFound: ``until`` or ``skip`` names no task.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        installation: Installation | None = None,
        store: str | None = None,
        params: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        until: str | None = None,
        skip: Iterable[str] = (),
        cache: Literal["use", "refresh", "off"] = "use",
        progress: Progress | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.installation = installation or Installation.load()
        self.params = complete(pipeline.params, params or {})
        self.skip = frozenset(skip)
        self.tasks = select(pipeline, until, self.skip)
        check_honoured([task for task in self.tasks if task.id not in self.skip])
        self.cache = cache
        self.moment = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        self.store = ArtifactStore(store or self.installation.store)
        self._wanted_run_id = run_id
        self.run_id = run_id or ""
        self._progress = progress
        self._outcomes: dict[str, TaskOutcome] = {}
        self._pushed: dict[tuple[str, str], Any] = {}
        self._to_skip: set[str] = set()

    def run(self) -> RunOutcome:
        """Run the tasks and return how they ended; a failing task is an outcome, not an exception."""
        self.installation.home.mkdir(parents=True, exist_ok=True)
        self.run_id = self._wanted_run_id or claim_run_id(self.store, self.pipeline.dag_id, self.moment)
        self._source = source_of(self.pipeline)
        self._context = run_context(
            dag_id=self.pipeline.dag_id, run_id=self.run_id, moment=self.moment, params=self.params, pull=self.pull
        )
        clock = time.perf_counter()
        for index, task in enumerate(self.tasks, start=1):
            if self._progress:
                self._progress.started(index, len(self.tasks), task)
            outcome = self._outcomes[task.id] = self._task(task)
            if self._progress:
                self._progress.finished(index, len(self.tasks), outcome)
        return RunOutcome(
            self.pipeline.dag_id,
            self.run_id,
            self.params,
            list(self._outcomes.values()),
            time.perf_counter() - clock,
        )

    # -- one task ------------------------------------------------------------------------------------------------

    def _task(self, task: Task) -> TaskOutcome:
        if task.id in self.skip:
            return TaskOutcome(task, "skipped", tries=0, reason="left out by --skip")
        if task.id in self._to_skip:
            return TaskOutcome(task, "skipped", tries=0, reason="a task before it chose another branch")
        states = {name: self._outcomes[name].state for name in task.needs if name in self._outcomes}
        verdict = decide(str(self._arguments(task).get("trigger_rule", "all_success")), states.values())
        if verdict != "run":
            bad = [name for name, state in states.items() if state != "success"]
            reason = f"needs {', '.join(bad or states)}"
            return TaskOutcome(task, verdict, tries=0, reason=reason)
        return self._try(task)

    def _try(self, task: Task) -> TaskOutcome:
        clock = time.perf_counter()
        retries = int(self._arguments(task).get("retries") or 0)
        for number in range(1, retries + 2):
            outcome = self._once(task, number)
            outcome.tries, outcome.duration = number, time.perf_counter() - clock
            if outcome.error is None or number > retries or not worth_retrying(outcome.error):
                break
            delay = retry_delay(self._arguments(task), number)
            if self._progress:
                self._progress.waiting(task, outcome.error, delay)
            time.sleep(delay)
        return outcome

    def _once(self, task: Task, number: int) -> TaskOutcome:
        identity = Identity(dag_id=self.pipeline.dag_id, run_id=self.run_id, task_id=task.id, try_number=number)
        try:
            if task.uses and not task.is_step:
                from edgewright.cli.operators_here import prepare_airflow

                # seconds, once; the task's own time does not begin before
                prepare_airflow()
            with time_limit(self._arguments(task).get("execution_timeout"), task.id):
                value = self._act(task, identity)
        except Skipped as error:
            return TaskOutcome(task, "skipped", reason=error.message, result=self._kept(task, identity))
        except Exception as error:
            return TaskOutcome(task, "failed", error=error, result=self._kept(task, identity))
        return TaskOutcome(task, "success", value=value, result=value if task.is_step else None)

    def _act(self, task: Task, identity: Identity) -> Any:
        if task.uses is None:
            return None
        if task.is_step:
            return execute(self._request(task, identity), store=self.store).model_dump(mode="json")
        from edgewright.cli.operators_here import run_operator

        outcome = run_operator(
            self.pipeline,
            task,
            config=self._resolved(task.config),
            context={**self._context, "try_number": identity.try_number},
            pull=self.pull,
            push=lambda key, value: self._pushed.__setitem__((task.id, key), value),
        )
        self._to_skip |= outcome.skip
        return outcome.value

    def _request(self, task: Task, identity: Identity) -> StepRequest:
        assert task.uses is not None
        config = resolve_config(
            task.uses,
            self._without_operator_keys(task.config),
            result_of=self._value_of,
            render=lambda text: render(text, {**self._context, "task": task}),
            params=self.params,
        )
        return StepRequest(
            step=task.uses,
            config=config,
            identity=identity,
            source=self._source,
            store=self.store.root,
            tracking_uri=self.installation.tracking_uri,
            params=self.params,
            data_time=self.moment.isoformat(),
            registered_model=self.pipeline.registered_model,
            cache=self.cache,
        )

    def _kept(self, task: Task, identity: Identity) -> dict[str, Any] | None:
        """Return the document that a failed step left: its gates and its report are worth showing."""
        if not task.is_step:
            return None
        with contextlib.suppress(EdgewrightError):
            document = self.store.read_json(f"{identity.key}/result.json")
            if isinstance(document, dict) and document["state"] != "success":
                return document
        return None

    # -- values of other tasks -----------------------------------------------------------------------------------

    def pull(
        self, task_ids: str | Iterable[str] | None = None, key: str = "return_value", default: Any = None, **_: Any
    ) -> Any:
        """Do what ``ti.xcom_pull`` does, on the values of this run."""
        if task_ids is not None and not isinstance(task_ids, str):
            return [self.pull(name, key, default) for name in task_ids]
        if task_ids is None:
            found = [self.pull(name, key) for name in self._outcomes]
            return next((value for value in reversed(found) if value is not None), default)
        if (task_ids, key) in self._pushed:
            return self._pushed[task_ids, key]
        outcome = self._outcomes.get(task_ids)
        return outcome.value if outcome is not None and key == "return_value" else default

    def _value_of(self, task_id: str) -> Any:
        outcome = self._outcomes.get(task_id)
        if outcome is None or outcome.state != "success":
            state = "was not run" if outcome is None else f"ended {outcome.state}"
            raise ConfigError(f"the output of task {task_id} is not there: it {state}")
        return outcome.value

    def _without_operator_keys(self, value: Any) -> Any:
        """Replace references to what an operator pushed under a key; results of steps know their keys themselves."""
        if isinstance(value, Reference) and value.key is not None and not self.pipeline.task(value.task).is_step:
            return Constant(self._reference(value))
        if isinstance(value, Mapping):
            return {key: self._without_operator_keys(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._without_operator_keys(item) for item in value]
        return value

    def _reference(self, reference: Reference) -> Any:
        value = self._value_of(reference.task)
        if reference.key is None or reference.key == "return_value":
            return value
        if (reference.task, reference.key) in self._pushed:
            return self._pushed[reference.task, reference.key]
        if self.pipeline.task(reference.task).is_step:
            for place in ("outputs", "metrics", "tags"):
                if reference.key in value[place]:
                    return value[place][reference.key]
        elif isinstance(value, Mapping) and reference.key in value:
            return value[reference.key]
        raise ConfigError(f"task {reference.task} has no output {reference.key}")

    def _resolved(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return an operator's ``with:`` with references and typed params as constants; templates stay templates."""

        def resolve(value: Any) -> Any:
            if isinstance(value, Reference):
                return Constant(self._reference(value))
            name = pure_param(value.text) if hasattr(value, "text") else None
            if name is not None and name in self.params:
                return Constant(self.params[name])
            if isinstance(value, Mapping):
                return {key: resolve(item) for key, item in value.items()}
            if isinstance(value, list):
                return [resolve(item) for item in value]
            return value

        return {key: resolve(value) for key, value in config.items()}

    # -- arguments -----------------------------------------------------------------------------------------------

    def _arguments(self, task: Task) -> dict[str, Any]:
        return {**(self.pipeline.arguments.get("default_args") or {}), **task.arguments}
