"""What a triggerer needs for pods that run for long: ours beside KubernetesPodOperator's own trigger.

Each way in a process of its own, as in a triggerer: so many triggers, made by the operators themselves, in one event
loop. Each waits for a pod of its own. These are real objects of the API server, but no node runs them (that of
``make cluster`` takes 110): nothing schedules them, and they are told to be running. Reported: memory before and with
them, processor time, and requests to the API server. Run it on that cluster:
nsenter --net=/run/netns/edgewright-cluster env KUBECONFIG=... python bench/waiting.py [--pods 200] [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dispatch
import psutil

from edgewright.places.pods import SELECTOR

#: Labels as the pods of steps have them; plain pods do not mind.
LABELS = dict(one.split("=") for one in SELECTOR.split(","))
POD: Any = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"labels": LABELS},
    "spec": {"restartPolicy": "Never", "schedulerName": "nobody", "containers": [{
        "name": "step", "image": "localhost/vendor:1", "command": ["sleep", "3600"]}]},
}  # fmt: skip
RUNNING: Any = {
    "phase": "Running",
    "containerStatuses": [{
        "name": "step", "ready": True, "restartCount": 0, "image": "localhost/vendor:1", "imageID": "", "started": True,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--way", choices=list(dispatch.RUNS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    if options.way:
        asyncio.run(wait(options))
        return
    from kubernetes import client, config

    config.load_kube_config(os.environ["KUBECONFIG"])
    api = client.CoreV1Api()
    names = [f"sleeper-{number}" for number in range(options.pods)]
    try:
        for name in names:
            api.create_namespaced_pod("default", {**POD, "metadata": {"name": name, "labels": LABELS}})
            api.patch_namespaced_pod_status(name, "default", {"status": RUNNING})
        for way in dispatch.RUNS:
            subprocess.run([sys.executable, *sys.argv, "--way", way], check=True)
    finally:
        for name in names:
            with contextlib.suppress(client.ApiException):
                api.delete_namespaced_pod(name, "default", grace_period_seconds=0)


def trigger_of(way: str) -> tuple[type[Any], dict[str, Any]]:
    """Return an operator's trigger, and its arguments for the pod that sleeps."""
    found: list[Any] = []

    def keep(start: Any, resume: Any) -> Any:
        from airflow.sdk.exceptions import TaskDeferred

        try:
            start()
        except TaskDeferred as deferred:
            found.append(deferred.trigger)
        raise LookupError  # the rest is of no use here

    dispatch._to_the_end = keep
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "flow").mkdir()
        (folder / "flow" / "data.csv").write_text(dispatch.DATA)
        with contextlib.suppress(LookupError):
            dispatch.RUNS[way](folder, deferred=True)
    (trigger,) = found
    _delete(trigger.pod_name)
    return type(trigger), {**trigger.serialize()[1], "pod_namespace": "default", "base_container_name": "step"}


def _delete(name: str) -> None:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    KubernetesHook(conn_id="kubernetes_default").core_v1_client.delete_namespaced_pod(
        name, "default", grace_period_seconds=0
    )


async def wait(options: argparse.Namespace) -> None:
    """Let triggers wait, and print what that takes."""
    from kubernetes_asyncio.client import ApiClient

    extra = {"kube_config_path": os.environ.pop("KUBECONFIG"), "xcom_sidecar_container_image": "localhost/vendor:1"}
    os.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = json.dumps({"conn_type": "kubernetes", "extra": extra})
    kind, arguments = await asyncio.to_thread(trigger_of, options.way)
    logging.disable(logging.WARNING)
    asked, call = [0], ApiClient.call_api

    async def counted(self: Any, *given: Any, **named: Any) -> Any:
        asked[0] += 1
        return await call(self, *given, **named)

    ApiClient.call_api = counted
    each = [kind(**{**arguments, "pod_name": f"sleeper-{number}"}) for number in range(options.pods)]
    await kind(**{**arguments, "pod_name": "sleeper-0"})._get_pod()  # imports, and the first connection
    process = psutil.Process()
    before = process.memory_info().rss
    tasks = [asyncio.create_task(anext(trigger.run())) for trigger in each]
    await asyncio.sleep(20)
    asked[0], processor, start = 0, time.process_time(), time.monotonic()
    await asyncio.sleep(options.seconds)
    seconds = time.monotonic() - start
    print(
        f"{options.way:<30} {options.pods} pods: {before >> 20} MiB, then {process.memory_info().rss >> 20} MiB;"
        f" {(time.process_time() - processor) / seconds * 100:.0f} % of a core, {asked[0] / seconds:.0f} requests/s,"
        f" {sum(task.done() for task in tasks)} ended",
        flush=True,
    )
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    main()
