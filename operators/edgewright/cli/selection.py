"""What a run will do, decided before it does anything: which tasks, under which name, and what cannot be honoured."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable
from pathlib import Path

from edgewright.artifacts import ArtifactStore
from edgewright.cli.output import did_you_mean
from edgewright.cli.rules import RULES
from edgewright.errors import ConfigError, NotFound
from edgewright.spec.pipeline import Pipeline, Task
from edgewright.steps.contract import Identity


def select(pipeline: Pipeline, until: str | None, skip: Iterable[str]) -> list[Task]:
    """Return the tasks of a run: all, or one and everything that it needs.

    Raises:
        NotFound: a name is no task's.
    """
    known = {task.id: task for task in pipeline.tasks}
    for option, name in [("--until", until), *(("--skip", name) for name in skip)]:
        if name is not None and name not in known:
            raise NotFound(
                f"no such task: {name}{did_you_mean(name, known)}",
                where=option,
                hint=f"{pipeline.dag_id} has: {', '.join(known)}",
            )
    if until is None:
        return list(pipeline.tasks)
    wanted: set[str] = set()
    waiting = [until]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(known[name].needs)
    return [task for task in pipeline.tasks if task.id in wanted]


def check_honoured(tasks: Iterable[Task]) -> None:
    """Refuse before the run what cannot be honoured here.

    Raises:
        ConfigError: a task asks for a trigger rule that nobody knows.
    """
    for task in tasks:
        rule = task.arguments.get("trigger_rule", "all_success")
        if rule not in RULES:
            raise ConfigError(
                f"no such trigger rule: {rule}{did_you_mean(str(rule), RULES)}", where=f"tasks.{task.id}.trigger_rule"
            )


def claim_run_id(store: ArtifactStore, dag_id: str, moment: datetime.datetime) -> str:
    """Return a run id that nobody has: ``local__2026-11-20T20-15-30``, with a number behind it in a crowded second."""
    name = f"local__{moment:%Y-%m-%dT%H-%M-%S}"
    for number in range(1, 1000):
        run_id = name if number == 1 else f"{name}_{number}"
        key = Identity(dag_id=dag_id, run_id=run_id, task_id="x").key.removesuffix("/x")
        if not store.is_local:
            if not store.list_keys(key):
                return run_id
            continue
        try:
            Path(store.root.removeprefix("file://"), key).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:
            # the first step says better what is wrong with the store
            return run_id
        return run_id
    return f"{name}_{time.time_ns()}"
