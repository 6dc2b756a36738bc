"""How a run of the local runner ended, task by task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from edgewright.cli.rules import State
from edgewright.spec.pipeline import Task


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
        instances: How each one of a mapped task ended, in the order of its items.
        index: Which instance of a mapped task it is; -1: it is no instance.
        label: What this instance is for, in a few words.
    """

    task: Task
    state: State
    duration: float = 0.0
    tries: int = 1
    value: Any = None
    result: dict[str, Any] | None = None
    error: Exception | None = None
    reason: str = ""
    instances: list[TaskOutcome] = field(default_factory=list)
    index: int = -1
    label: str = ""

    @property
    def name(self) -> str:
        """The task's id; of an instance ``task[2] (alpha=0.01)``."""
        return self.task.id if self.index < 0 else f"{self.task.id}[{self.index}] ({self.label})"

    @classmethod
    def of_instances(cls, task: Task, instances: list[TaskOutcome]) -> TaskOutcome:
        """Return how a mapped task ended: failed as soon as one instance did, else by the best of them."""
        states = [instance.state for instance in instances]
        state = next((s for s in ("failed", "upstream_failed", "success") if s in states), "skipped")
        failed = [instance for instance in instances if instance.state == "failed"]
        reason = next((instance.reason for instance in instances if instance.reason), "")
        return cls(
            task,
            cast(State, state),
            duration=sum(instance.duration for instance in instances),
            tries=max((instance.tries for instance in instances), default=0),
            value=[instance.value for instance in instances],
            error=failed[0].error if failed else None,
            reason=reason if state != "success" else "",
            instances=instances,
        )

    @property
    def states(self) -> list[State]:
        """What trigger rules of later tasks look at: the state, or that of every instance."""
        return [instance.state for instance in self.instances] or [self.state]

    @property
    def cached(self) -> bool:
        """Whether an earlier result was reused."""
        if self.instances:
            return all(instance.cached for instance in self.instances)
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
            **({"map_index": self.index, "item": self.label} if self.index >= 0 else {}),
            **({"instances": [instance.document() for instance in self.instances]} if self.instances else {}),
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
        chosen: Which instances ``best_of`` chose, each a sentence by the id of the task or group.
    """

    dag_id: str
    run_id: str
    params: dict[str, Any] = field(default_factory=dict)
    tasks: list[TaskOutcome] = field(default_factory=list)
    duration: float = 0.0
    chosen: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[TaskOutcome]:
        """The tasks that failed themselves; a failed teardown fails no run."""
        return [outcome for outcome in self.tasks if outcome.state == "failed" and outcome.task.teardown is None]

    @property
    def state(self) -> Literal["success", "failed"]:
        """``failed`` as soon as one task failed."""
        return "failed" if self.failed else "success"

    @property
    def results(self) -> list[dict[str, Any]]:
        """Result documents of all steps that got so far."""
        every = (one for outcome in self.tasks for one in (outcome.instances or [outcome]))
        return [one.result for one in every if one.result]

    def task(self, task_id: str) -> TaskOutcome:
        """Return a task's outcome by id."""
        return next(outcome for outcome in self.tasks if outcome.task.id == task_id)
