"""Time that dispatching a step to Kubernetes costs: ours beside plain KubernetesPodOperator with its XCom sidecar.

Both run the same request by the same program in the same image on the same cluster. Before: from the operator's start
to the step's start; after: from the step's end to the operator's return, with the result at hand. ``--deferred`` does
what a triggerer does between an operator's two halves: runs its trigger, then the operator that resumes. Run it on the
cluster of ``make cluster``:  nsenter --net=/run/netns/edgewright-cluster env KUBECONFIG=... python bench/dispatch.py
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = "a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of one pod at a time")
    parser.add_argument("--together", type=int, default=4, help="pods at once, there and back")
    parser.add_argument("--deferred", action="store_true", help="the triggerer waits, not the worker")
    options = parser.parse_args()
    extra = {"kube_config_path": os.environ.pop("KUBECONFIG"), "xcom_sidecar_container_image": "localhost/vendor:1"}
    os.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = json.dumps({"conn_type": "kubernetes", "extra": extra})
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory(prefix="edgewright-dispatch-") as place:
        folder = Path(place)
        (folder / "flow").mkdir()
        (folder / "flow" / "data.csv").write_text(DATA)
        runs = {name: partial(run, deferred=options.deferred) for name, run in RUNS.items()}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for number in range(options.rounds + 1):
            for name, run in runs.items():
                measured = run(folder)
                if number:  # the first imports everything
                    found[name].append(measured)
        if options.rounds:
            _show("one pod at a time", found)
        together: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for name in [*runs, *reversed(runs)]:  # there and back: the machine's other work changes meanwhile
            run = runs[name]
            with ThreadPoolExecutor(options.together) as pool:
                together[name] += pool.map(lambda _, run=run: run(folder), range(options.together))
        _show(f"{options.together} pods at once", together)


def _show(what: str, found: dict[str, list[tuple[float, float]]]) -> None:
    print(f"{what} (median s of {len(next(iter(found.values())))})")
    base = [statistics.median(part) for part in zip(*found["plain operator, XCom sidecar"], strict=True)]
    for name, times in found.items():
        before, after = (statistics.median(part) for part in zip(*times, strict=True))
        ratio = (before + after) / sum(base)
        print(
            f"  {name:<30} before {before:6.2f}   after {after:6.2f}   together {before + after:6.2f}   x {ratio:.2f}"
        )


def _request(folder: Path) -> Any:
    from edgewright.steps.contract import Identity, Source, StepRequest

    identity = Identity(dag_id="bench", run_id=uuid.uuid4().hex, task_id="data")
    return StepRequest(step="ingest", config={"source": "data.csv", "label": "b"}, identity=identity, cache="off",
                       store=f"file://{folder}/store", source=Source(folder=str(folder / "flow")))  # fmt: skip


def _split(folder: Path, request: Any, start: float, end: float) -> tuple[float, float]:
    result = json.loads((folder / "store" / request.identity.key / "result.json").read_text())
    assert result["state"] == "success"
    began = datetime.datetime.fromisoformat(result["started"]).timestamp()
    return began - start, end - (began + result["duration"])


def _places(folder: Path) -> list[str]:
    return sorted({str(ROOT), sys.base_prefix, "/usr", str(folder)})


class _Instance:
    """What Airflow's operator asks of ``ti``."""

    start_date = None
    dag_id, task_id, map_index, try_number = "bench", "data", -1, 1

    def __init__(self) -> None:
        self.run_id = uuid.uuid4().hex

    def xcom_push(self, key: str, value: Any) -> None:
        """Drop names of pods."""


def _to_the_end(start: Callable[[], Any], resume: Callable[[Any], Any]) -> Any:
    """Run an operator, and its trigger where it defers."""
    from airflow.sdk.exceptions import TaskDeferred

    async def event_of(trigger: Any) -> Any:
        return (await anext(trigger.run())).payload

    again = start
    while True:
        try:
            return again()
        except TaskDeferred as deferred:
            event = asyncio.run(event_of(deferred.trigger))
            again = partial(resume, event)


def ours(folder: Path, deferred: bool) -> tuple[float, float]:
    from edgewright.operators.pods import StepPod
    from edgewright.spec.profiles import Profile

    mounts = [{"folder": place, "path": place, "read_only": place != str(folder)} for place in _places(folder)]
    root = {"spec": {"securityContext": {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}}}
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin"}
    profile = Profile.model_validate({"on": "kubernetes", "image": "localhost/step:1", "pull": "never",
                                      "mounts": mounts, "env": env, "pod": root})  # fmt: skip
    request = _request(folder)
    start = time.time()
    context: Any = {"ti": _Instance()}
    attend = lambda: StepPod(profile=profile, request=request, deferrable=deferred)  # noqa: E731
    _to_the_end(lambda: attend().answer(context), lambda event: attend().resume(context, event))
    return _split(folder, request, start, time.time())


def plain(folder: Path, deferred: bool) -> tuple[float, float]:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from kubernetes.client import models as k8s

    request = _request(folder)
    file = folder / f"{request.identity.run_id}.json"
    file.write_text(request.model_dump_json())
    places = _places(folder)
    volumes = [k8s.V1Volume(name=f"v{i}", host_path=k8s.V1HostPathVolumeSource(path=p)) for i, p in enumerate(places)]
    mounts = [k8s.V1VolumeMount(name=f"v{i}", mount_path=p) for i, p in enumerate(places)]
    command = f"python -m edgewright.steps {file} --json > /airflow/xcom/return.json"
    start = time.time()
    attend = lambda: KubernetesPodOperator(  # noqa: E731
        task_id="data", name="plain", image="localhost/step:1", image_pull_policy="Never", namespace="default",
        cmds=["sh", "-c", command], do_xcom_push=True,
        env_vars={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/tmp"},
        volumes=volumes, volume_mounts=mounts,
        deferrable=deferred, on_finish_action="delete_pod", reattach_on_restart=False,
    )  # fmt: skip
    context: Any = {"ti": _Instance(), "run_id": uuid.uuid4().hex, "task_instance": _Instance(), "dag": None}
    result = _to_the_end(lambda: attend().execute(context), lambda event: attend().trigger_reentry(context, event))
    assert result["state"] == "success"
    return _split(folder, request, start, time.time())


RUNS = {"ours": ours, "plain operator, XCom sidecar": plain}

if __name__ == "__main__":
    main()
