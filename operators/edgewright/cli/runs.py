"""Runs as the artifact store remembers them: who looks for a run, a task's key or its result asks here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from edgewright.artifacts import ArtifactStore
from edgewright.cli.output import did_you_mean
from edgewright.errors import ConfigError, NotFound

LATEST = "latest"


@dataclass(frozen=True)
class TaskRun:
    """One task of one run.

    Attributes:
        dag_id: The pipeline.
        run_id: The run.
        task_id: The task, with ``[<map_index>]`` behind it where it was mapped.
        folder: Key of its documents in the store.
    """

    dag_id: str
    run_id: str
    task_id: str
    folder: str

    def read(self, store: ArtifactStore, name: str) -> dict[str, Any]:
        """Return one of its documents; empty where there is none."""
        return store.read_json(f"{self.folder}/{name}.json") or {}


def list_task_runs(store: ArtifactStore, dag_id: str | None = None, document: str = "result") -> list[TaskRun]:
    """Return every task of every run that left a result (or another document)."""
    prefix = "runs" if dag_id is None else f"runs/{dag_id}"
    found = []
    for key in store.list_keys(prefix):
        parts = key.split("/")
        if len(parts) == 5 and parts[4] == f"{document}.json":
            dag, run, task = (unquote(part) for part in parts[1:4])
            name, _, index = task.partition("@")
            shown = f"{name}[{index}]" if index else name
            found.append(TaskRun(dag, run, shown, key.rpartition("/")[0]))
    return found


def order(store: ArtifactStore, tasks: Iterable[TaskRun]) -> list[tuple[TaskRun, dict[str, Any]]]:
    """Return tasks with their results, the earliest first."""
    pairs = [(task, task.read(store, "result")) for task in tasks]
    return sorted(pairs, key=lambda pair: pair[1].get("started", ""))


def find_task_run(tasks: list[TaskRun], store: ArtifactStore, run_id: str, task_id: str) -> TaskRun:
    """Return one task of one run; ``latest`` is the run in which the task ran last.

    Raises:
        NotFound: there is no such run or task.
        ConfigError: several pipelines have such a run.
    """
    if not tasks:
        raise NotFound("there are no runs here", where=store.root, hint="edgewright run FILE makes one")
    runs = {task.run_id for task in tasks}
    if run_id != LATEST and run_id not in runs:
        newest = ", ".join(sorted(runs)[-3:])
        raise NotFound(f"no such run: {run_id}{did_you_mean(run_id, runs)}", hint=f"such as: {newest}, or latest")
    of_run = [task for task in tasks if run_id in (LATEST, task.run_id)]
    matching = [task for task in of_run if task.task_id == task_id]
    if not matching:
        known = sorted({task.task_id for task in of_run})
        raise NotFound(
            f"no such task in that run: {task_id}{did_you_mean(task_id, known)}",
            hint=f"steps that ran: {', '.join(known)} (plain operators are never cached)",
        )
    if run_id == LATEST:
        return order(store, matching)[-1][0]
    if len(matching) > 1:
        dags = ", ".join(task.dag_id for task in matching)
        raise ConfigError(f"several pipelines have a run {run_id}: {dags}", hint="say which one with --dag")
    return matching[0]
