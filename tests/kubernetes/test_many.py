"""Fifty pods at once on a real cluster: all are there together, each answers its own request, none is left behind."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from support.cluster import Place, marks, pods, until

from edgewright.operators.pods import StepPod
from edgewright.spec.profiles import profile_of
from edgewright.steps.contract import Identity, Source, StepRequest

pytestmark = [*marks, pytest.mark.timeout(900)]
NUMBER = 50


class Instance:
    start_date = None

    def xcom_push(self, key: str, value: Any) -> None:
        """Names of pods are of no use here."""


class Task:
    """A task of which the triggerer waits for a pod."""

    def __init__(self, profile: Any, request: StepRequest) -> None:
        self.profile, self.request = profile, request
        self.context: Any = {"ti": Instance()}
        self.trigger: Any = None

    def _pod(self) -> StepPod:
        return StepPod(profile=self.profile, request=self.request, deferrable=True)

    def begin(self) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            self._pod().answer(self.context)
        self.trigger = deferred.value.trigger

    async def wait(self) -> Any:
        return (await anext(self.trigger.run())).payload

    def end(self, event: Any) -> Any:
        return self._pod().resume(self.context, event)


def test_fifty_pods_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", place.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    door = {"name": "door", "mountPath": str(place.home)}
    gate = {
        "name": "gate", "image": "localhost/vendor:1", "imagePullPolicy": "Never", "volumeMounts": [door],
        "command": ["sh", "-c", f"until [ -f {place.home}/open ]; do sleep 1; done"],
    }  # fmt: skip
    profile = place.profile()
    spec = {"initContainers": [gate], "volumes": [{"name": "door", "hostPath": {"path": str(place.home)}}]}
    profile["pod"]["spec"] |= spec
    run, tasks = uuid.uuid4().hex, []
    for number in range(NUMBER):
        folder = place.flow / str(number)
        folder.mkdir()
        (folder / "data.csv").write_text("a,y\n" + "".join(f"{row},{row % 2}\n" for row in range(10 + number)))
        request = StepRequest(
            step="ingest", config={"source": "data.csv", "label": "y"},
            identity=Identity(dag_id="many", run_id=run, task_id="data", map_index=number),
            source=Source(folder=str(folder)), store=f"file://{place.home}/store",
        )  # fmt: skip
        tasks.append(Task(profile_of("many", {"many": profile}), request))

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(Task.begin, tasks))
        until(lambda: sum(map(_at_the_gate, pods())) == NUMBER, 300)
        (place.home / "open").touch()
        events = asyncio.run(_all(tasks))
        results = list(workers.map(Task.end, tasks, events))

    assert [result.outputs["dataset"].meta["rows"] for result in results] == [10 + number for number in range(NUMBER)]
    assert len({result.outputs["dataset"].sha256 for result in results}) == NUMBER
    until(lambda: not pods())


async def _all(tasks: list[Task]) -> list[Any]:
    return await asyncio.gather(*(task.wait() for task in tasks))


def _at_the_gate(pod: dict[str, Any]) -> bool:
    states = pod["status"].get("initContainerStatuses") or []
    return any("running" in one["state"] for one in states)
