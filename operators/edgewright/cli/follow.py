"""Following a run of Airflow: one line a task as it ends, the summary at the end, the log of what failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from edgewright.artifacts import ArtifactStore
from edgewright.cli.airflow_api import TASK_FINISHED, AirflowApi
from edgewright.cli.output import seconds
from edgewright.cli.summary import summarize
from edgewright.errors import UserFault
from edgewright.installation import Installation
from edgewright.steps.contract import Identity

_COLOURS = {"success": "green", "failed": "red", "upstream_failed": "red", "skipped": "yellow"}
_LOG_LINES = 40


def follow_run(api: AirflowApi, dag_id: str, run_id: str, say: Callable[[str], None], timeout: float) -> dict[str, Any]:
    """Show a run task by task until it has ended.

    Args:
        api: Airflow.
        dag_id: The Dag.
        run_id: The run.
        say: Told one line at a time.
        timeout: Seconds.

    Returns:
        The run's state, its tasks and the summary of its steps.
    """
    shown: dict[tuple[str, int], str] = {}
    run: dict[str, Any] = {}
    tasks: list[dict[str, Any]] = []
    for now, tasks in api.follow(dag_id, run_id, timeout):
        run = now
        ended = sum(task["state"] in TASK_FINISHED for task in tasks)
        for task in sorted(tasks, key=lambda t: (t["end_date"] or "9", t["task_id"])):
            key, state = (task["task_id"], task["map_index"]), task["state"] or "waiting"
            if shown.get(key) != state and (state in TASK_FINISHED or state in ("running", "up_for_retry")):
                shown[key] = state
                say(_line(task, state, ended, len(tasks)))
    results = results_of(dag_id, run_id, tasks)
    if run["state"] == "success" and not results:
        say(
            f"no results of this run in {Installation.load().store}: EDGEWRIGHT_STORE names the store that Airflow uses"
            " (or it has no steps, only operators)"
        )
    described = [
        {"task_id": t["task_id"], "map_index": t["map_index"], "state": t["state"], "duration": t["duration"]}
        for t in tasks
    ]
    for task in described:
        task["result"] = results.get((task["task_id"], task["map_index"]))
    return {
        "dag_id": dag_id,
        "run_id": run_id,
        "state": run["state"],
        "duration": run.get("duration"),
        "tasks": described,
        "summary": summarize(results.values()),
    }


def _line(task: dict[str, Any], state: str, ended: int, total: int) -> str:
    took = f" in {seconds(task['duration'])}" if task.get("duration") and state in TASK_FINISHED else ""
    name = task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"
    return f"[{ended}/{total}] {name:<16} {click.style(state, fg=_COLOURS.get(state))}{took}"


def results_of(dag_id: str, run_id: str, tasks: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the result documents of a run's steps by task and map index, in the order in which they ended."""
    store = ArtifactStore(Installation.load().store)
    found = {}
    for task in sorted(tasks, key=lambda t: t["end_date"] or "9"):
        identity = Identity(dag_id=dag_id, run_id=run_id, task_id=task["task_id"], map_index=task["map_index"])
        document = store.read_json(f"{identity.key}/result.json")
        if document is not None:
            found[(task["task_id"], task["map_index"])] = document
    return found


def raise_if_failed(api: AirflowApi, outcome: dict[str, Any], say: Callable[[str], None]) -> None:
    """Show the end of the log of the first failed task.

    Raises:
        UserFault: the run failed.
    """
    if outcome["state"] == "success":
        return
    failed = [task for task in api.tasks(outcome["dag_id"], outcome["run_id"]) if task["state"] == "failed"]
    failed.sort(key=lambda t: t["end_date"] or "")
    for task in failed[:1]:
        text = api.log(outcome["dag_id"], outcome["run_id"], task["task_id"], task["try_number"], task["map_index"])
        say(f"--- the end of the log of task {task['task_id']}, try {task['try_number']}")
        say("\n".join(text.splitlines()[-_LOG_LINES:]))
    names = ", ".join(task["task_id"] for task in failed) or "none of its tasks"
    results = [task["result"] for task in outcome["tasks"] if task["result"]]
    reasons = [r["error"]["message"] for r in results if r.get("error") and r["state"] == "failed"]
    raise UserFault(
        f"run {outcome['run_id']} of {outcome['dag_id']} failed: {names}", hint=reasons[0] if reasons else None
    )
