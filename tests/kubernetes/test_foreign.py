"""A vendor's image without Python trains on a real cluster: ours stages before it and collects after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.releases import linear_graph

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="no KUBECONFIG: make cluster, make test-kubernetes"),
]
FIT = """\
set -e
echo "epoch 1/1 loss 0.5"
test "$1" = --depth=3
test "$EDGEWRIGHT_SEED" = 7
if command -v python python3; then echo "there is Python here"; exit 9; fi
cp model.onnx "$EDGEWRIGHT_OUTPUT/model.onnx"
echo "{\\"seen\\": $(wc -l < "${2#--rows=}")}" > "$EDGEWRIGHT_OUTPUT/metrics.json"
"""


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    flow, home = tmp_path / "flow", tmp_path / "home"
    flow.mkdir()
    home.mkdir()
    (flow / "data.csv").write_text("a,b,c,y\n" + "".join(f"{i % 3},{i % 5},{-i % 7},{i % 2}\n" for i in range(60)))
    (flow / "model.onnx").write_bytes(linear_graph(1.0))
    # this machine's Python and the code under test are seen by our two containers alone
    places = sorted({str(ROOT), sys.base_prefix, "/usr"})
    ours = {
        "env": [{"name": "PATH", "value": f"{Path(sys.executable).parent}:/usr/bin"}],
        "volumeMounts": [{"name": f"here-{i}", "mountPath": place} for i, place in enumerate(places)],
    }
    profile: dict[str, Any] = {
        "on": "kubernetes", "image": "localhost/vendor:1", "foreign": True, "runner": "localhost/step:1",
        "pull": "never", "mounts": [{"folder": str(home), "path": str(home), "read_only": False}],
        "pod": {"spec": {
            "securityContext": {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0},
            "volumes": [{"name": f"here-{i}", "hostPath": {"path": place}} for i, place in enumerate(places)],
            "initContainers": [{"name": "stage", **ours}], "containers": [{"name": "collect", **ours}],
        }},
    }  # fmt: skip

    def call(script: str, **more: Any) -> subprocess.CompletedProcess[str]:
        (flow / "fit.sh").write_text(script)
        document = {
            "dag_id": "vendor", "profiles": {"vendor": {**profile, **more}},
            "tasks": [
                {"id": "data", "uses": "ingest", "with": {"source": "data.csv", "label": "y"}},
                {"id": "model", "uses": "train", "profile": "vendor",
                 "with": {"data": {"$x": "data"}, "script": "fit.sh", "seed": 7, "args": {"depth": 3},
                          "inputs": {"rows": "train.csv"}}},
            ],
        }  # fmt: skip
        (flow / "pipeline.yaml").write_text(json.dumps(document))
        extra = {"conn_type": "kubernetes", "extra": {"kube_config_path": os.environ["KUBECONFIG"]}}
        env = {**os.environ, "EDGEWRIGHT_HOME": str(home), "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(extra)}
        command = [str(Path(sys.executable).parent / "edgewright"), "run", str(flow / "pipeline.yaml")]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)

    return call


def test_an_image_without_python_trains(train: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path):
    done = train(FIT)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "home" / "store" / "runs" / "vendor").glob("*/model/result.json")
    result = json.loads(file.read_text())
    assert result["metrics"]["seen"] == 61
    assert result["metrics"]["rows"] == 60
    assert result["outputs"]["model"]["kind"] == "model"


def test_a_command_that_fails_is_the_users_fault(train: Callable[..., subprocess.CompletedProcess[str]]):
    done = train("echo no licence >&2; exit 3\n")
    assert done.returncode == 1
    assert "fit.sh ended with 3" in done.stdout + done.stderr
    assert "no licence" in done.stdout + done.stderr


def test_a_command_that_leaves_nothing_is_said(train: Callable[..., subprocess.CompletedProcess[str]]):
    done = train("echo done\n")
    assert done.returncode == 1
    assert "left no model" in done.stdout + done.stderr


def test_a_command_that_needs_too_much_memory_is_said(train: Callable[..., subprocess.CompletedProcess[str]]):
    # the shell keeps a text that doubles until there is no room
    done = train("x=0123456789; while :; do x=$x$x; done\n", resources={"memory": "32Mi"})
    assert done.returncode == 1
    assert "OOMKilled: the step needed more than 32Mi" in done.stdout + done.stderr


def test_a_vendors_image_that_is_not_there_is_said(train: Callable[..., subprocess.CompletedProcess[str]]):
    done = train(FIT, image="localhost/absent:1")
    assert done.returncode == 1
    assert "the image localhost/absent:1 cannot be pulled" in done.stdout + done.stderr
