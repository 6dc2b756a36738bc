"""What a triggerer needs for pods that run for long: ours beside KubernetesPodOperator's own trigger.

Each way in a process of its own, as in a triggerer: so many triggers, made by the operators themselves, in one event
loop. All wait for one and the same pod (the node of ``make cluster`` takes 110), which sleeps. Reported: memory before
and with them, processor time, and requests to the API server. Run it on that cluster:
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

POD: Any = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sleeper"},
    "spec": {"restartPolicy": "Never", "containers": [{
        "name": "step", "image": "localhost/vendor:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo epoch 1; sleep 3600"]}]},
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
    api.create_namespaced_pod("default", POD)
    try:
        while api.read_namespaced_pod("sleeper", "default").status.phase != "Running":
            time.sleep(0.5)
        for way in dispatch.RUNS:
            subprocess.run([sys.executable, *sys.argv, "--way", way], check=True)
    finally:
        api.delete_namespaced_pod("sleeper", "default", grace_period_seconds=0)


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
    return type(trigger), {**trigger.serialize()[1], "pod_name": "sleeper", "base_container_name": "step"}


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
    await kind(**arguments)._get_pod()  # imports, and the first connection
    process = psutil.Process()
    before = process.memory_info().rss
    tasks = [asyncio.create_task(anext(kind(**arguments).run())) for _ in range(options.pods)]
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
