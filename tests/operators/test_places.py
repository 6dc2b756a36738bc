"""Steps in processes and pods, through Airflow: an API server of ours runs each pod's command as a process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from support import airflow_env
from support.kube_api import KubeApi

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, DataError, SystemFault, UserFault
from edgewright.operators import IngestOperator
from edgewright.operators.pods import StepPod
from edgewright.places.pods import pod_name
from edgewright.spec.profiles import profile_of
from edgewright.steps.contract import Identity, Source, StepRequest
from edgewright.steps.execute import execute

pytestmark = pytest.mark.airflow
BRACELET = Path(__file__).resolve().parents[2] / "dags" / "bracelet"


class Instance:
    start_date = None

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeApi]:
    with KubeApi() as api:
        file = api.kubeconfig(tmp_path / "kubeconfig")
        connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(file), "namespace": "ml"}}
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
        yield api


@pytest.fixture
def request_(tmp_path: Path, home: Path) -> StepRequest:
    folder = tmp_path / "bracelet"
    shutil.copytree(BRACELET, folder)
    return StepRequest(
        step="ingest", config={"source": "cleveland.csv", "label": "num"},
        identity=Identity(dag_id="d", run_id="r", task_id="t"), source=Source(folder=str(folder)),
        store=f"file://{tmp_path}/store", tracking_uri=f"sqlite:///{tmp_path}/store/mlflow.db",
    )  # fmt: skip


def _profile(**more: Any) -> Any:
    return profile_of("p", {"p": {"on": "kubernetes", "image": "step:1", "volume_claim": "store", **more}})


def _pod(request: StepRequest, deferrable: bool = False, **more: Any) -> StepPod:
    return StepPod(profile=_profile(**more), request=request, deferrable=deferrable)


def test_a_pod_answers_and_is_gone_afterwards(kube: KubeApi, request_: StepRequest):
    result = _pod(request_).answer({"ti": Instance()})
    assert result.state == "success"
    assert result.outputs["dataset"].meta["rows"] == 303
    assert not kube.pods
    # the user's code came by its digest, not by its path
    text = kube.created[0]["metadata"]["annotations"]["edgewright.dev/request"]
    assert json.loads(text)["source"]["code"]["sha256"]
    assert kube.created[0]["metadata"]["namespace"] == "ml"


def test_a_snapshot_of_the_code_stays_as_long_as_its_run(kube: KubeApi, request_: StepRequest):
    import datetime

    from edgewright.artifacts import ArtifactStore
    from edgewright.artifacts.gc import Policy, plan

    _pod(request_).answer({"ti": Instance()})
    store, now = ArtifactStore(request_.store), datetime.timedelta(0)
    document = store.read_json(f"{request_.identity.key}/request.json")
    code = document["source"]["code"]["uri"].removeprefix(f"{store.root}/")
    kept = plan(store, policy=Policy(older_than=now, keep_runs=1, grace=now))
    assert code not in [removal.key for removal in kept.removals]
    gone = plan(store, policy=Policy(older_than=now, keep_runs=0, grace=now))
    assert code in [removal.key for removal in gone.removals]


def test_the_code_of_a_pod_that_waits_for_days_stays(kube: KubeApi, request_: StepRequest):
    import datetime

    from edgewright.artifacts import ArtifactStore
    from edgewright.artifacts.gc import Policy, plan

    kube.behaviours = ["unschedulable"]
    with pytest.raises(TaskDeferred):
        _pod(request_, deferrable=True, start_timeout="3d").answer({"ti": Instance()})
    report = plan(ArtifactStore(request_.store), policy=Policy(grace=datetime.timedelta(0)))
    assert not report.of("artifact")
    assert report.kept["artifact"] == 1


def test_what_a_step_finds_wrong_is_raised_here(kube: KubeApi, request_: StepRequest):
    request_.config["label"] = "nun"
    with pytest.raises(DataError, match="nun"):
        _pod(request_).answer({"ti": Instance()})
    assert not kube.pods


def test_a_pod_that_is_deleted_starts_again_within_the_same_try(kube: KubeApi, request_: StepRequest):
    import threading
    import time

    kube.behaviours = ["slow", "run"]

    def delete() -> None:
        while not kube.pods or next(iter(kube.pods.values())).process is None:
            time.sleep(0.05)
        time.sleep(1.5)
        kube.delete(pod_name(request_))

    thread = threading.Thread(target=delete)
    thread.start()
    result = _pod(request_).answer({"ti": Instance()})
    thread.join()
    assert result.state == "success"
    assert result.identity.try_number == 1
    assert len(kube.created) == 2


def test_a_pod_of_a_worker_that_died_is_found_again(kube: KubeApi, request_: StepRequest):
    first = _pod(request_, deferrable=True)
    with pytest.raises(TaskDeferred):
        first.answer({"ti": Instance()})
    kube.pods[pod_name(request_)].process.wait()
    # another worker, same task, same try: the pod's work is taken over, nothing is started
    result = _pod(request_).answer({"ti": Instance()})
    assert result.state == "success"
    assert len(kube.created) == 1


def test_what_was_made_here_is_reused_in_a_pod_and_the_other_way_round(kube: KubeApi, request_: StepRequest):
    def of(run: str, **change: Any) -> StepRequest:
        return request_.model_copy(update={"identity": Identity(dag_id="d", run_id=run, task_id="t"), **change})

    store = ArtifactStore(request_.store)
    data = execute(of("first"), store=store).outputs["dataset"]
    again = _pod(of("second")).answer({"ti": Instance()})
    assert again.cache is not None
    assert again.cache.hit, again.cache.reason
    assert again.outputs["dataset"] == data
    # a step with code of the user's, which a pod has from the store and this machine from its folder
    checks = {"step": "validate", "config": {"data": data.model_dump(mode="json"), "schema": "schema.py:Bracelet"}}
    made = _pod(of("second", **checks)).answer({"ti": Instance()})
    found = execute(of("third", **checks), store=store)
    assert found.cache is not None
    assert found.cache.hit, found.cache.reason
    assert found.outputs == made.outputs


def test_a_retry_takes_over_what_a_worker_that_died_left_at_work(kube: KubeApi, request_: StepRequest):
    kube.behaviours = ["slow", "run"]
    with pytest.raises(TaskDeferred):
        _pod(request_, deferrable=True).answer({"ti": Instance()})
    again = request_.model_copy(update={"identity": request_.identity.model_copy(update={"try_number": 2})})
    with pytest.raises(TaskDeferred):
        _pod(again, deferrable=True).answer({"ti": Instance()})
    assert len(kube.created) == 1
    metadata = kube.pods[pod_name(request_)].shown()["metadata"]
    assert metadata["labels"]["edgewright.dev/try"] == "2"
    assert json.loads(metadata["annotations"]["edgewright.dev/request"])["identity"]["try_number"] == 2
    # a try that failed is done again, and so is work for something else
    kube.pods[pod_name(request_)].process.kill()
    kube.pods[pod_name(request_)].process.wait()
    third = again.model_copy(update={"identity": again.identity.model_copy(update={"try_number": 3})})
    assert _pod(third).answer({"ti": Instance()}).state == "success"
    assert len(kube.created) == 2


def test_a_retry_of_other_work_starts_anew(kube: KubeApi, request_: StepRequest):
    kube.behaviours = ["slow", "run"]
    with pytest.raises(TaskDeferred):
        _pod(request_, deferrable=True).answer({"ti": Instance()})
    identity = request_.identity.model_copy(update={"try_number": 2})
    other = request_.model_copy(update={"identity": identity, "params": {"changed": 1}})
    assert _pod(other).answer({"ti": Instance()}).state == "success"
    assert len(kube.created) == 2


def test_the_triggerer_waits(kube: KubeApi, request_: StepRequest):
    with pytest.raises(TaskDeferred) as deferred:
        _pod(request_, deferrable=True).answer({"ti": Instance()})
    assert deferred.value.method_name == "trigger_reentry"
    kube.pods[pod_name(request_)].process.wait()
    event = {"status": "success", "name": pod_name(request_), "namespace": "ml"}
    result = _pod(request_, deferrable=True).resume({"ti": Instance()}, event)
    assert result.outputs["dataset"].meta["rows"] == 303
    assert not kube.pods


def test_a_kubeconfig_of_the_worker_is_not_in_the_way_of_the_connections_own(
    kube: KubeApi, request_: StepRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import asyncio

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(TaskDeferred) as deferred:
        _pod(request_, deferrable=True).answer({"ti": Instance()})
    trigger: Any = deferred.value.trigger

    async def first() -> Any:
        return (await anext(trigger.run())).payload

    event = asyncio.run(first())
    assert event["status"] == "success", event
    assert _pod(request_, deferrable=True).resume({"ti": Instance()}, event).state == "success"


def test_the_trigger_hears_of_the_end_of_its_pod(kube: KubeApi, request_: StepRequest):
    import asyncio

    from airflow.sdk.module_loading import import_string

    kube.behaviours = ["slow"]
    with pytest.raises(TaskDeferred) as deferred:
        _pod(request_, deferrable=True).answer({"ti": Instance()})
    path, arguments = deferred.value.trigger.serialize()  # as the triggerer gets it from the database
    trigger = import_string(path)(**arguments)

    async def wait() -> Any:
        event = asyncio.ensure_future(anext(trigger.run()))
        while trigger._heard is None or not trigger._heard[0].is_open:
            await asyncio.sleep(0.05)
        kube.pods[pod_name(request_)].process.kill()
        return (await event).payload

    event = asyncio.run(wait())
    assert event["status"] == "failed"
    with pytest.raises(SystemFault, match="the step left no result"):
        _pod(request_, deferrable=True).resume({"ti": Instance()}, event)


def test_unschedulable_says_what_nodes_have(kube: KubeApi, request_: StepRequest):
    kube.behaviours = ["unschedulable"]
    with pytest.raises(SystemFault, match="no node offers nvidia.com/gpu: 1; nodes have xilinx.com/fpga: 1"):
        _pod(request_, resources={"nvidia.com/gpu": 1}, start_timeout=2).answer({"ti": Instance()})
    assert not kube.pods


def test_an_image_that_is_not_there_is_said_in_one_line(kube: KubeApi, request_: StepRequest):
    kube.behaviours = ["no-image"]
    with pytest.raises(UserFault, match="ErrImageNeverPull: the image i cannot be pulled"):
        _pod(request_, start_timeout=2).answer({"ti": Instance()})
    assert not kube.pods


def test_a_quota_is_no_fault_of_the_user(kube: KubeApi, request_: StepRequest):
    kube.quota = 'pods "x" is forbidden: exceeded quota: team'
    with pytest.raises(SystemFault, match="exceeded quota: team"):
        _pod(request_).answer({"ti": Instance()})


def test_a_store_that_a_pod_does_not_see_is_refused(home: Path, tmp_path: Path):
    folder = tmp_path / "bracelet"
    shutil.copytree(BRACELET, folder)
    seen: list[BaseException] = []
    with DAG("refused", schedule=None) as dag:
        IngestOperator(
            task_id="it", source="cleveland.csv", folder=str(folder), profile="gpu",
            profiles={"gpu": {"on": "kubernetes", "image": "x"}},
            on_failure_callback=lambda context: seen.append(context["exception"]),
        )  # fmt: skip
    airflow_env.run(dag)
    assert "the artifact store is a folder of this machine" in str(seen[0])
    assert "volume_claim" in str(seen[0])


def test_a_step_in_a_process_of_its_own(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "bracelet"
    shutil.copytree(BRACELET, folder)
    with DAG("own", schedule=None) as dag:
        IngestOperator(
            task_id="it", source="cleveland.csv", label="num", folder=str(folder), profile="own",
            profiles={"own": {"on": "local", "env": {"TZ": "UTC"}}},
        )  # fmt: skip
    with caplog.at_level("INFO"):
        run = airflow_env.run(dag)
    assert airflow_env.states(run) == {"it": "success"}
    assert airflow_env.xcom(run, "it")["outputs"]["dataset"]["meta"]["rows"] == 303
    assert caplog.text.count("303 rows, 14 columns") == 1


def test_a_profile_that_nobody_has_is_refused():
    with pytest.raises(ConfigError, match="there is no profile gpu"):
        profile_of("gpu", {})
