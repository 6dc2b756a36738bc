"""Trainings of one ``for_each:`` in MLflow: runs beneath one parent, which holds their comparison.

The parent belongs to the task of the run, whichever of its instances comes first; a lease lets only one of them make
it. Each evaluation of an instance draws the comparison anew, of all that were measured so far: the last one has them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewright.artifacts.locks import Lease
from edgewright.registry.connection import Connection
from edgewright.steps.context import StepContext
from edgewright.steps.tracking import IDENTITY, experiment_of

#: MLflow's own tag: its pages show a run beneath the one that this names.
PARENT = "mlflow.parentRunId"
#: What runs are compared by, where they have it: the first of these.
_METRICS = ("roc_auc", "accuracy", "r2", "rmse")
_LEASE = 120.0
#: More than Airflow maps, with those of earlier tries.
_MOST_RUNS = 5000


def parent_tags(context: StepContext, experiment: str, tags: dict[str, str]) -> dict[str, str]:
    """Return the tag that puts an instance's run beneath its parent; nothing for a task that is not mapped.

    Args:
        context: The train step.
        experiment: Name of the experiment.
        tags: Lineage of the instance; the parent has what is the same for all.

    Raises:
        Unavailable: MLflow does not answer.
    """
    request = context.request
    identity = request.identity
    if identity.map_index < 0 or not request.tracking_uri:
        return {}
    key = identity.model_copy(update={"map_index": -1}).key
    connection = Connection(request.tracking_uri)
    with Lease(context.store, f"sweeps/{key}", seconds=_LEASE).hold(), connection.calls("open a run") as client:
        experiment_id = experiment_of(client, connection, experiment)
        found = client.search_runs([experiment_id], filter_string=f"tags.`{IDENTITY}` = '{key}'", max_results=1)
        if found:
            return {PARENT: found[0].info.run_id}
        shared = {name: tags[name] for name in ("edgewright.dag_id", "edgewright.run_id", "edgewright.task_id")}
        made = client.create_run(
            experiment_id, run_name=f"{identity.task_id} {identity.run_id} (all)", tags={**shared, IDENTITY: key}
        )
        client.set_terminated(made.info.run_id, status="FINISHED")  # nobody knows who comes last
        return {PARENT: made.info.run_id}


def compare(context: StepContext, run_id: str) -> None:
    """Draw the comparison of a run with those beside it, and keep it with their parent.

    Args:
        context: The evaluate step of an instance.
        run_id: The run that trained what was evaluated.

    Raises:
        Unavailable: MLflow does not answer.
    """
    request = context.request
    if request.identity.map_index < 0:
        return
    connection = Connection(request.tracking_uri)
    with connection.calls("compare runs") as client:
        run = client.get_run(run_id)
        parent = run.data.tags.get(PARENT)
        if parent is None:
            return
        with Lease(context.store, f"sweeps/comparison/{parent}", seconds=_LEASE).hold():
            which = f"tags.`{PARENT}` = '{parent}'"
            beneath = client.search_runs([run.info.experiment_id], which, max_results=_MOST_RUNS)
            folder = context.folder("comparison")
            if _write(beneath, folder):
                client.log_artifacts(parent, str(folder), "comparison")


def _write(runs: Sequence[Any], folder: Path) -> bool:
    """Write table and plot of the runs that were measured; return whether there are two of them."""
    metric = next((name for name in _METRICS if any(name in run.data.metrics for run in runs)), None)
    measured = [run for run in runs if metric in run.data.metrics]
    if metric is None or len(measured) < 2:
        return False
    names = sorted({name for run in measured for name in run.data.params})
    varying = [name for name in names if len({run.data.params.get(name) for run in measured}) > 1]
    better = min if metric == "rmse" else max
    measured.sort(key=lambda run: (run.data.metrics[metric], run.info.run_id), reverse=better is max)
    metrics = sorted({name for run in measured for name in run.data.metrics})
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["run", *varying, *metrics])
        for run in measured:
            settings = [run.data.params.get(name, "") for name in varying]
            table.writerow([run.info.run_id, *settings, *(run.data.metrics.get(name, "") for name in metrics)])
    from edgewright.steps.plots import comparison

    values = {name: [run.data.params.get(name) for run in measured] for name in varying}
    (folder / "comparison.png").write_bytes(comparison(metric, [r.data.metrics[metric] for r in measured], values))
    return True
