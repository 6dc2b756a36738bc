"""``edgewright sweep``: remove pods of steps that nobody waits for any more."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.gc import age

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgewright.cli.airflow_api import AirflowApi
    from edgewright.places.sweep import StepPod, Task
    from edgewright.steps.contract import Identity


@click.command("sweep")
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Default: KUBECONFIG, or the account of the pod around us.")  # fmt: skip
@click.option("--namespace", "-n", help="Default: that of the configuration.")
@click.option("--all-namespaces", "-A", is_flag=True, help="Look into all of them.")
@click.option("--airflow", "url", metavar="URL", help="Default: EDGEWRIGHT_AIRFLOW_URL, or the local stack.")
@click.option("--by-hand", callback=age, default="1d", show_default=True,
              help="How old a pod may get that edgewright run started.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Remove them. Without this, only show them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    kubeconfig: Path | None, namespace: str | None, all_namespaces: bool, url: str | None,
    by_hand: datetime.timedelta, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Remove pods of steps that nobody waits for any more.

    That is a pod whose run was deleted from Airflow, whose task has ended without it or is at a later try, and one that
    edgewright run started long ago. Pods of another installation (another artifact store) stay. Nothing is removed
    when Airflow does not answer.
    """
    from edgewright.cli.airflow_api import AirflowApi
    from edgewright.cli.output import print_json
    from edgewright.installation import Installation
    from edgewright.places.cluster import Cluster
    from edgewright.places.sweep import orphans, step_pods

    if namespace and all_namespaces:
        raise click.UsageError("--namespace and --all-namespaces exclude each other")
    cluster = Cluster(kubeconfig)
    pods = step_pods(cluster, None if all_namespaces else namespace or cluster.namespace)
    asked: Callable[[Identity], Task | None] = _Tasks(lambda: AirflowApi.local(url=url))
    found = list(orphans(pods, Installation.load().store, asked, by_hand))
    if yes:
        found = [(pod, why) for pod, why in found if cluster.remove_pod(pod.name, pod.namespace, pod.uid)]
    if as_json:
        print_json({"removed": yes, "pods": [_document(pod, why) for pod, why in found], "seen": len(pods)})
    else:
        click.echo(_text(found, len(pods), removed=yes))


class _Tasks:
    """Asks Airflow about tasks, once a run; only where there is something to ask."""

    def __init__(self, connect: Callable[[], AirflowApi]) -> None:
        self._connect = connect
        self._api: AirflowApi | None = None
        self._runs: dict[tuple[str, str], dict[tuple[str, int], Task]] = {}

    def __call__(self, identity: Identity) -> Task | None:
        """Return what Airflow says about a task; ``None`` where it does not know it."""
        key = (identity.dag_id, identity.run_id)
        if key not in self._runs:
            self._runs[key] = self._read(*key)
        return self._runs[key].get((identity.task_id, identity.map_index))

    def _read(self, dag_id: str, run_id: str) -> dict[tuple[str, int], Task]:
        from edgewright.errors import NotFound
        from edgewright.places.sweep import Task

        self._api = self._api or self._connect()
        try:
            rows = self._api.tasks(dag_id, run_id)
        except NotFound:
            return {}
        return {(row["task_id"], row["map_index"]): Task(row["state"], row["try_number"]) for row in rows}


def _document(pod: StepPod, why: str) -> dict[str, Any]:
    return {"name": pod.name, "namespace": pod.namespace, "phase": pod.phase, "why": why, **pod.identity.model_dump()}


def _text(found: list[tuple[StepPod, str]], seen: int, *, removed: bool) -> str:
    from edgewright.cli.output import count

    lines = [f"  {pod.namespace}/{pod.name} ({pod.phase}): {why}" for pod, why in found]
    verb = "removed" if removed else "would remove"
    lines.append(f"{verb} {count(len(found), 'pod')} of {count(seen, 'pod')} of steps")
    if found and not removed:
        lines.append("run it again with --yes to remove them")
    return "\n".join(lines)
