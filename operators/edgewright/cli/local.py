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
from typing import Any, Literal, Protocol

from edgewright.artifacts import ArtifactStore
from edgewright.cli.batch import claim_file, settle_file
from edgewright.cli.limits import retry_delay, time_limit, worth_retrying
from edgewright.cli.outcome import RunOutcome, TaskOutcome
from edgewright.cli.params import complete
from edgewright.cli.places import answer, check_places
from edgewright.cli.pulling import pulling
from edgewright.cli.rules import State, Verdict, decide
from edgewright.cli.selection import check_honoured, claim_run_id, select
from edgewright.cli.source import source_of
from edgewright.cli.templates import render, run_context
from edgewright.cli.waiting import waiting
from edgewright.errors import ConfigError, EdgewrightError, Skipped
from edgewright.installation import Installation
from edgewright.spec.markers import item_at, pure_item, pure_param
from edgewright.spec.pipeline import Best, Constant, ForEach, Pipeline, Reference, Task, Template
from edgewright.steps.contract import Identity, StepRequest
from edgewright.steps.mapping import choose, items_of_mapping, label
from edgewright.steps.request import resolve_config


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
        batch: Address of a file of messages that the run is to take as a batch of events.

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
        batch: str | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.batch = batch
        self._claim: str | None = None
        self.installation = installation or Installation.load()
        self.params = complete(pipeline.params, params or {})
        self.skip = frozenset(skip)
        self.tasks = select(pipeline, until, self.skip)
        check_honoured([task for task in self.tasks if task.id not in self.skip])
        self.cache = cache
        self.moment = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        self.store = ArtifactStore(store or self.installation.store)
        check_places(pipeline, [task for task in self.tasks if task.id not in self.skip], self.installation, self.store)
        self._wanted_run_id = run_id
        self.run_id = run_id or ""
        self._progress = progress
        self._outcomes: dict[str, TaskOutcome] = {}
        self._pushed: dict[tuple[str, str, int], Any] = {}
        self._items: dict[str, list[Any]] = {}
        self._chosen: dict[str, str] = {}
        self._now: tuple[int, Any] | None = None  # map index and item of the instance at hand
        self._to_skip: set[str] = set()

    def run(self) -> RunOutcome:
        """Run the tasks and return how they ended; a failing task is an outcome, not an exception."""
        self.installation.home.mkdir(parents=True, exist_ok=True)
        self.run_id = self._wanted_run_id or claim_run_id(self.store, self.pipeline.dag_id, self.moment)
        if self.batch is not None:
            self._claim = claim_file(self.store, self.pipeline, self.run_id, self.batch)
        self._source = source_of(self.pipeline)
        self._context = run_context(
            dag_id=self.pipeline.dag_id, run_id=self.run_id, moment=self.moment, params=self.params, pull=self.pull,
            batch=self._claim,
        )  # fmt: skip
        clock = time.perf_counter()
        done = (self.pipeline, self.store, self.run_id, lambda: self._all_done)
        with pulling(*done), waiting(*done):
            self._run_tasks()
        ended = RunOutcome(
            self.pipeline.dag_id,
            self.run_id,
            self.params,
            list(self._outcomes.values()),
            time.perf_counter() - clock,
            self._chosen,
        )
        if self._claim is not None:
            settle_file(self.store, self.pipeline.dag_id, self.run_id, self._claim, success=ended.state == "success")
        return ended

    def _run_tasks(self) -> None:
        for index, task in enumerate(self.tasks, start=1):
            if self._progress:
                self._progress.started(index, len(self.tasks), task)
            outcome = self._outcomes[task.id] = self._task(task)
            if self._progress:
                self._progress.finished(index, len(self.tasks), outcome)

    @property
    def _all_done(self) -> bool:
        """Whether every task of the pipeline was come to, and none failed."""
        bad = {"failed", "upstream_failed"}
        whole = len(self._outcomes) == len(self.pipeline.tasks)
        return whole and not any(outcome.state in bad for outcome in self._outcomes.values())

    # -- one task ------------------------------------------------------------------------------------------------

    def _task(self, task: Task) -> TaskOutcome:
        if task.id in self.skip:
            return TaskOutcome(task, "skipped", tries=0, reason="left out by --skip")
        if task.id in self._to_skip:
            return TaskOutcome(task, "skipped", tries=0, reason="a task before it chose another branch")
        owner, mapping = self._mapping_of(task)
        if mapping is None:
            return self._decided(task, None)
        if owner not in self._items:
            verdict = self._verdict(task, None)
            if verdict is not None:
                return verdict
            try:
                self._items[owner] = items_of_mapping(mapping, self._in_list, owner)
            except ConfigError as error:
                return TaskOutcome(task, "failed", error=error)
        if not self._items[owner]:
            return TaskOutcome(task, "skipped", tries=0, reason="there are no items")
        instances = []
        for index, item in enumerate(self._items[owner]):
            self._now = (index, item)
            outcome = self._decided(task, owner)
            outcome.index, outcome.label = index, label(item)
            instances.append(outcome)
        self._now = None
        return TaskOutcome.of_instances(task, instances)

    def _mapping_of(self, task: Task) -> tuple[str, ForEach | None]:
        """Return what a task runs once for each of, and the id of the task or group that says so."""
        if task.for_each is not None:
            return task.id, task.for_each
        group = self.pipeline.group(task.group) if task.group else None
        while group is not None and group.for_each is None:
            group = self.pipeline.group(group.parent) if group.parent else None
        return (group.id, group.for_each) if group else ("", None)

    def _decided(self, task: Task, owner: str | None) -> TaskOutcome:
        return self._verdict(task, owner) or self._try(task)

    def _verdict(self, task: Task, owner: str | None) -> TaskOutcome | None:
        """Return how a task ends that its trigger rule does not let run; in a mapped group, instance by instance."""
        states: dict[str, list[State]] = {}
        for name in task.needs:
            if (outcome := self._outcomes.get(name)) is None:
                continue
            inside = owner is not None and name.startswith(f"{owner}.") and outcome.instances
            states[name] = [outcome.instances[self._now[0]].state] if inside and self._now else outcome.states
        verdict = self._rule(task, states)
        if verdict == "run":
            return None
        bad = [name for name, found in states.items() if set(found) != {"success"}]
        return TaskOutcome(task, verdict, tries=0, reason=f"needs {', '.join(bad or states)}")

    def _rule(self, task: Task, states: Mapping[str, list[State]]) -> Verdict:
        if task.teardown is not None and "trigger_rule" not in self._arguments(task):
            # it cleans up whatever became of the tasks between, if there is anything to clean up
            return decide("all_success", [state for name in task.teardown for state in states.get(name, ())])
        rule = str(self._arguments(task).get("trigger_rule", "all_success"))
        return decide(rule, [state for found in states.values() for state in found])

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
        identity = Identity(dag_id=self.pipeline.dag_id, run_id=self.run_id, task_id=task.id, try_number=number,
                            map_index=self._now[0] if self._now else -1)  # fmt: skip
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
            request = self._request(task, identity)
            return answer(self.pipeline, task, request, self.installation, self.store).model_dump(mode="json")
        from edgewright.cli.operators_here import run_operator

        outcome = run_operator(
            self.pipeline,
            task,
            config=self._resolved(task.config),
            context={**self._context, **self._item_names(), "try_number": identity.try_number},
            pull=self.pull,
            push=lambda key, value: self._pushed.__setitem__((task.id, key, identity.map_index), value),
        )
        self._to_skip |= outcome.skip
        return outcome.value

    def _request(self, task: Task, identity: Identity) -> StepRequest:
        assert task.uses is not None
        config = resolve_config(
            task.uses,
            self._without_operator_keys(task.config),
            result_of=self._value_of,
            render=lambda text: render(text, {**self._context, **self._item_names(), "task": task}),
            params=self.params,
            item=self._now[1] if self._now else None,
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
            batch=self._claim,
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
        if (task_ids, key, -1) in self._pushed:
            return self._pushed[task_ids, key, -1]
        outcome = self._outcomes.get(task_ids)
        return outcome.value if outcome is not None and key == "return_value" else default

    def _item_names(self) -> dict[str, Any]:
        return {"item": self._now[1]} if self._now else {}

    def _in_list(self, source: Reference | Template) -> Any:
        """Return what ``for_each:`` takes its items from."""
        if isinstance(source, Reference):
            return self._reference(source)
        return self.params[pure_param(source.text) or ""]

    def _value_of(self, reference: Reference) -> Any:
        """Return what a task made: a list for all instances of a mapped one."""
        outcome = self._outcomes.get(reference.task)
        if reference.items == "all" and outcome is not None:
            return [one.value for one in outcome.instances if one.state == "success"]
        chosen = self._instance(outcome, reference)
        if chosen is None or chosen.state != "success":
            state = "was not run" if chosen is None else f"ended {chosen.state}"
            raise ConfigError(f"the output of task {reference.task} is not there: it {state}")
        return chosen.value

    def _instance(self, outcome: TaskOutcome | None, reference: Reference) -> TaskOutcome | None:
        if outcome is None or not outcome.instances:
            return outcome
        return outcome.instances[self._index_of(reference)]

    def _index_of(self, reference: Reference) -> int:
        """Return which instance of a mapped task a reference means."""
        if isinstance(reference.items, Best):
            return self._best(reference.items)
        return self._now[0] if self._now else 0

    def _best(self, best: Best) -> int:
        """Return which instance of a mapped task is the best, and remember it for the summary."""
        instances = self._outcomes[best.task].instances
        index = choose(best, [one.value if one.state == "success" else None for one in instances])
        value = instances[index].value
        measured = (value.get("metrics") if isinstance(value.get("metrics"), Mapping) else value)[best.metric]
        self._chosen[best.task] = (
            f"the best of {len(instances)} by {best.metric} is [{index}] {instances[index].label}: {measured:.4g}"
        )
        return index

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
        if reference.items == "all":
            indexes = [i for i, one in enumerate(self._outcomes[reference.task].instances) if one.state == "success"]
            return [self._part(reference, value, index)
                    for index, value in zip(indexes, self._value_of(reference), strict=True)]  # fmt: skip
        value = self._value_of(reference)
        return self._part(reference, value, -1 if reference.items is None else self._index_of(reference))

    def _part(self, reference: Reference, value: Any, index: int) -> Any:
        if reference.key is None or reference.key == "return_value":
            return value
        if (reference.task, reference.key, index) in self._pushed:
            return self._pushed[reference.task, reference.key, index]
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
            name = pure_param(value.text) if isinstance(value, Template) else None
            if name is not None and name in self.params:
                return Constant(self.params[name])
            path = pure_item(value.text) if isinstance(value, Template) else None
            if path is not None and self._now is not None:
                return Constant(_part_of_item(self._now[1], path, value.text))
            if isinstance(value, Mapping):
                return {key: resolve(item) for key, item in value.items()}
            if isinstance(value, list):
                return [resolve(item) for item in value]
            return value

        return {key: resolve(value) for key, value in config.items()}

    # -- arguments -----------------------------------------------------------------------------------------------

    def _arguments(self, task: Task) -> dict[str, Any]:
        return {**(self.pipeline.arguments.get("default_args") or {}), **task.arguments}


def _part_of_item(item: Any, path: tuple[str | int, ...], text: str) -> Any:
    try:
        return item_at(item, path)
    except KeyError as error:
        raise ConfigError(f"template {text!r}: the item has no {error.args[0]!r}") from None
