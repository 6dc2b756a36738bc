"""The chart on a real cluster: validated by its API, installed, tested, upgraded, rolled back; a sandbox's walls.

What runs is the very service and MLflow of this environment: the pods see this machine's folders. The cluster has no
service names and no autoscaler, so ``helm test`` asks the pod by its address.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chart_values import CARDIO, COMBINATIONS, LEAST, over
from support.prediction_service import ReleaseMaker
from support.tools import call, demand

from edgewright.places.pods import build_pod
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import Identity, StepRequest

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "edgewright"
SPACE = "chart"
LAUNCHER = "system:serviceaccount:airflow:airflow-worker"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="no KUBECONFIG: make cluster, make test-kubernetes"),
]
Json = dict[str, Any]


def kubectl(*arguments: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=check, timeout=120)


def until(what: Callable[[], Any], why: str, seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{why}: {kubectl('-n', SPACE, 'get', 'pods', '-o', 'wide').stdout}")


@pytest.fixture(scope="module", autouse=True)
def _namespace() -> Iterator[None]:
    demand("helm")
    kubectl("create", "namespace", SPACE, check=False)
    kubectl("create", "priorityclass", "web", "--value=10", check=False)
    yield
    kubectl("delete", "priorityclass", "web", check=False)
    spaces = kubectl("get", "namespaces", "-l", "app.kubernetes.io/part-of=edgewright", "-o", "name").stdout.split()
    kubectl("delete", "--wait=true", "--timeout=100s", f"namespace/{SPACE}", *spaces, check=False)


def helm(*arguments: str | Path) -> str:
    done = call("helm", *arguments, "--namespace", SPACE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def values_of(folder: Path, values: Json, name: str = "values") -> Path:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(values))
    return file


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_api_takes_every_object_strictly(name: str, tmp_path: Path):
    release = f"dry{list(COMBINATIONS).index(name)}"  # namespaces take a while to go: each has its own
    text = helm("template", release, CHART, "--values", values_of(tmp_path, over(LEAST, COMBINATIONS[name])))
    # a dry run in a namespace that is not there yet is refused: they come first
    spaces = {line.split()[-1] for line in text.splitlines() if line.startswith("  namespace: ")} - {SPACE}
    made = [space for space in spaces if kubectl("create", "namespace", space, check=False).returncode == 0]
    try:
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text, check=False)
        assert done.returncode == 0, done.stderr
        assert "unknown field" not in done.stderr
    finally:
        kubectl("delete", "--wait=false", *(f"namespace/{space}" for space in made), check=False)


@pytest.fixture
def values(tmp_path: Path) -> Json:
    """What runs this environment's own programs in the cluster's empty image."""
    releases = tmp_path / "releases"
    ReleaseMaker(releases).make(1, name="bracelet")
    places = sorted({str(ROOT), sys.base_prefix, "/usr", str(tmp_path)})
    image = {"repository": "localhost/step", "tag": "1", "pullPolicy": "Never"}
    return {
        "extraVolumes": [{"name": f"here-{i}", "hostPath": {"path": place}} for i, place in enumerate(places)],
        "extraVolumeMounts": [{"name": f"here-{i}", "mountPath": place, "readOnly": True}
                              for i, place in enumerate(places)],
        "extraEnv": [{"name": "PATH", "value": f"{Path(sys.executable).parent}:/usr/bin"}],
        # the interpreter of this machine may lie in a folder that only root can read
        "podSecurityContext": {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0},
        "store": {"uri": "file:///tmp/store"}, "trackingUri": f"file://{releases}",
        "serving": {"image": image, "existingSecret": "serving", "models": ["bracelet"], "replicas": 2,
                    "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "1Gi"}}},
        "mlflow": {"image": image, "existingSecret": "mlflow", "artifacts": "file:///tmp/artifacts", "workers": 1,
                   "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "3Gi"}}},
    }  # fmt: skip


def _ready(component: str) -> list[Json]:
    label = f"app.kubernetes.io/component={component}"
    found = json.loads(kubectl("-n", SPACE, "get", "pods", "-l", label, "-o", "json").stdout)["items"]
    left = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
    return [pod for pod in left if ("Ready", "True") in
            {(one["type"], one["status"]) for one in pod["status"].get("conditions", [])}]  # fmt: skip


def test_install_test_upgrade_roll_back_and_remove(values: Json, tmp_path: Path):
    for name, keys in (("serving", {"admin-token": "a" * 20, "predict-token": "p" * 20}),
                       ("mlflow", {"backend-store-uri": "sqlite:////tmp/mlflow.db"})):  # fmt: skip
        kubectl("-n", SPACE, "create", "secret", "generic", name, *(f"--from-literal={k}={v}" for k, v in keys.items()))
    helm("install", "ml", CHART, "--values", values_of(tmp_path, values), "--wait", "--timeout", "180s")
    pods = _ready("serving")
    assert len(pods) == 2
    assert len(_ready("mlflow")) == 1
    assert "Predictions:" in helm("get", "notes", "ml")

    more = over(
        values, {"serving": {"replicas": 3}, "tests": {"servingUrl": f"http://{pods[0]['status']['podIP']}:8500"}}
    )
    helm("upgrade", "ml", CHART, "--values", values_of(tmp_path, more, "more"), "--wait", "--timeout", "180s")
    assert len(_ready("serving")) == 3
    assert {pod["metadata"]["name"] for pod in pods} <= {pod["metadata"]["name"] for pod in _ready("serving")}, (
        "what did not change is left alone"
    )
    assert "Succeeded" in helm("test", "ml", "--timeout", "120s")
    assert "bracelet" in kubectl("-n", SPACE, "logs", "ml-edgewright-test-serving").stdout

    broken = over(more, {"serving": {"image": {"tag": "absent"}}})
    helm("upgrade", "ml", CHART, "--values", values_of(tmp_path, broken, "broken"))
    until(lambda: "ErrImageNeverPull" in kubectl("-n", SPACE, "get", "pods").stdout, "the broken pod is not there")
    assert len(_ready("serving")) == 3, "a version that does not start takes nothing away"
    helm("rollback", "ml", "1", "--wait", "--timeout", "180s")
    until(lambda: len(_ready("serving")) == 2, "two pods after the rollback")
    helm("uninstall", "ml", "--wait", "--timeout", "120s")
    assert not _ready("serving")


def _pod(gpus: int, **more: Any) -> str:
    request = StepRequest(step="train", identity=Identity(dag_id="d", run_id="r", task_id=f"t{gpus}"), store="s3://b/s")
    profile = Profile(on="kubernetes", image="localhost/step:1", pull="never",
                      resources={"cpu": "100m", "memory": "64Mi", "nvidia.com/gpu": gpus}, **more)  # fmt: skip
    return json.dumps(build_pod(profile, request))


def test_a_sandbox_lets_its_steps_in_and_nothing_else(tmp_path: Path):
    only = {"serving": {"enabled": False}, "mlflow": {"enabled": False}, "trackingUri": "https://m.example",
            "steps": {"launchers": [{"name": "airflow-worker", "namespace": "airflow"}]},
            "sandboxes": [CARDIO]}  # fmt: skip
    helm("install", "rooms", CHART, "--values", values_of(tmp_path, only))
    room = "rooms-edgewright-cardio"
    try:
        as_airflow = ("-n", room, "--as", LAUNCHER)
        start = (*as_airflow, "create", "--dry-run=server", "-f", "-")
        until(
            lambda: kubectl("-n", room, "get", "serviceaccount", "default", check=False).returncode == 0, "no account"
        )
        taken = until(lambda: (lambda d: d if d.returncode == 0 else None)(kubectl(*start, text=_pod(2), check=False)),
                      "a step's pod is not let in", 30)  # fmt: skip
        assert "created" in taken.stdout
        refused = kubectl(*start, text=_pod(3), check=False)
        assert "exceeded quota: sandbox" in refused.stderr
        unsafe = kubectl(*start, text=_pod(1, mounts=[{"path": "/host", "folder": "/"}]), check=False)
        assert 'violates PodSecurity "restricted' in unsafe.stderr
        for verb, thing, answer in (("delete", "pods", "yes"), ("get", "secrets", "no"), ("create", "roles", "no"),
                                    ("list", "resourcequotas", "yes"), ("delete", "resourcequotas", "no")):  # fmt: skip
            assert kubectl(*as_airflow, "auth", "can-i", verb, thing, check=False).stdout.strip() == answer, (
                verb,
                thing,
            )
        other = kubectl("-n", "default", "--as", LAUNCHER, "auth", "can-i", "create", "pods", check=False)
        assert other.stdout.strip() == "no", "another namespace is not this team's"
    finally:
        helm("uninstall", "rooms")
    assert kubectl("get", "namespace", room).returncode == 0, "a team's namespace outlives the release"
