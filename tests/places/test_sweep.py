"""edgewright sweep: pods that nobody waits for go, and all others stay."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner, Result
from support.kube_api import KubeApi

from edgewright.cli.main import cli
from edgewright.places.pods import BY_AIRFLOW, BY_HAND, build_pod, pod_name
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import Identity, StepRequest

OLD = "2026-01-01T00:00:00Z"


class Airflow(ThreadingHTTPServer):
    """Knows the task instances of some runs, as Airflow's REST API shows them.

    Attributes:
        runs: By Dag and run, rows of task instances.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[tuple[str, str], list[dict[str, Any]]] = {}


class _Handler(BaseHTTPRequestHandler):
    server: Airflow

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")]
        rows = self.server.runs.get((parts[4], parts[6]))
        document: Any = (
            {"detail": "not found"} if rows is None else {"task_instances": rows, "total_entries": len(rows)}
        )
        data = json.dumps(document).encode()
        self.send_response(404 if rows is None else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    server = Airflow()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def kube() -> Iterator[KubeApi]:
    with KubeApi() as api:
        api.behaviours = ["unschedulable"]
        yield api


@pytest.fixture
def sweep(kube: KubeApi, airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEWRIGHT_STORE", "s3://ours/store")
    monkeypatch.setenv("EDGEWRIGHT_AIRFLOW_TOKEN", "t")
    file = str(kube.kubeconfig(tmp_path / "kubeconfig"))
    url = f"http://127.0.0.1:{airflow.server_port}"
    return lambda *more: CliRunner().invoke(cli, ["sweep", "--kubeconfig", file, "--airflow", url, *more])


def start(kube: KubeApi, run: str, *, by: str = BY_AIRFLOW, store: str = "s3://ours/store", **identity: Any) -> str:
    """Make a pod of long ago; return its name."""
    request = StepRequest(step="train", store=store,
                          identity=Identity(**{"dag_id": "d", "run_id": run, "task_id": "t", **identity}))  # fmt: skip
    kube.create("ml", build_pod(Profile(on="kubernetes", image="i"), request, by))
    pod = kube.pods[pod_name(request)]
    pod.document["metadata"]["creationTimestamp"] = OLD
    return pod_name(request)


def row(state: str | None, try_number: int = 1, **more: Any) -> dict[str, Any]:
    return {"task_id": "t", "map_index": -1, "state": state, "try_number": try_number, **more}


def test_what_nobody_waits_for_goes_and_the_rest_stays(
    kube: KubeApi, airflow: Airflow, sweep: Callable[..., Result]
) -> None:
    for state in ("deferred", "running", "up_for_retry", "failed", "success"):
        airflow.runs["d", state] = [row(state)]
    airflow.runs["d", "later"] = [row("running", 2)]
    airflow.runs["d", "mapped"] = [row("success", map_index=0), row("running", map_index=1)]
    kept = [start(kube, run) for run in ("deferred", "running", "up_for_retry")]
    kept += [start(kube, "mapped", map_index=1), start(kube, "removed", store="s3://theirs/store")]
    gone = [start(kube, run) for run in ("failed", "success", "later", "removed")] + [
        start(kube, "mapped", map_index=0)
    ]
    shown = sweep()
    assert shown.exit_code == 0, shown.output
    assert "its task has ended: failed" in shown.output
    assert "its task is at try 2, and the pod is of try 1" in shown.output
    assert "Airflow has no task t in a run removed of d" in shown.output
    assert "would remove 5 pods of 10 pods of steps\nrun it again with --yes" in shown.output
    assert len(kube.pods) == 10
    done = json.loads(sweep("--yes", "--json").output)
    assert {pod["name"] for pod in done["pods"]} == set(gone)
    assert set(kube.pods) == set(kept)


def test_a_pod_by_hand_goes_when_it_is_old(kube: KubeApi, sweep: Callable[..., Result]) -> None:
    start(kube, "local__1", by=BY_HAND)
    assert "would remove 0 pods" in sweep("--by-hand", "5000w").output
    assert "started by hand" in sweep("--yes").output
    assert not kube.pods


def test_a_pod_of_a_moment_ago_stays(kube: KubeApi, sweep: Callable[..., Result]) -> None:
    name = start(kube, "new")
    from support.kube_api import _now

    kube.pods[name].document["metadata"]["creationTimestamp"] = _now()
    assert "removed 0 pods" in sweep("--yes").output
    assert name in kube.pods


def test_nothing_is_removed_when_airflow_does_not_answer(
    kube: KubeApi, airflow: Airflow, sweep: Callable[..., Result]
) -> None:
    name = start(kube, "removed")
    done = sweep("--yes", "--airflow", "http://127.0.0.1:1")
    assert done.exit_code != 0
    assert "Airflow does not answer" in str(done.exception) + done.output
    assert name in kube.pods
