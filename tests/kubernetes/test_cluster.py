"""The bracelet on a real cluster: training on a GPU profile, quantizing on an FPGA profile (both faked as capacity).

Runs where ``KUBECONFIG`` leads to the cluster of ``make cluster``: its pods see this machine's folders, so they run the
very code under test. Skipped, with the reason, elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEVICES = {"nvidia.com/gpu": "2", "xilinx.com/fpga-vck190": "1"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="no KUBECONFIG: make cluster, make test-kubernetes"),
]


def kubectl(*arguments: str) -> str:
    return subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", autouse=True)
def _devices() -> None:
    """Give the node hardware that it does not have."""
    from kubernetes import client, config

    config.load_kube_config(os.environ["KUBECONFIG"])
    patch = {"status": {"capacity": DEVICES, "allocatable": DEVICES}}
    client.CoreV1Api().patch_node_status("node", patch)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    folder, home = tmp_path / "bracelet", tmp_path / "home"
    shutil.copytree(ROOT / "dags" / "bracelet", folder)
    home.mkdir()
    places = {str(ROOT), sys.base_prefix, "/usr"}
    common: dict[str, Any] = {
        "on": "kubernetes", "image": "localhost/step:1", "pull": "never",
        "mounts": [{"folder": place, "path": place} for place in sorted(places)]
        + [{"folder": str(home), "path": str(home), "read_only": False}],
        "env": {"PATH": f"{Path(sys.executable).parent}:/usr/bin"},
        "pod": {"spec": {"securityContext": {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}}},
    }  # fmt: skip

    def call(train: dict[str, Any], quantize: dict[str, Any] | None = None, *arguments: str) -> Any:
        profiles = {"gpu": {**common, **train}, **({"fpga": {**common, **quantize}} if quantize else {})}
        file = folder / "pipeline.yaml"
        text = (ROOT / "dags" / "bracelet" / "pipeline.yaml").read_text()
        text = text.replace("tasks:", f"profiles: {json.dumps(profiles)}\ntasks:", 1)
        text = text.replace("uses: train\n", "uses: train\n    profile: gpu\n")
        if quantize:
            text = text.replace("uses: quantize\n", "uses: quantize\n    profile: fpga\n")
        file.write_text(text)
        extra = {"conn_type": "kubernetes", "extra": {"kube_config_path": os.environ["KUBECONFIG"]}}
        env = {**os.environ, "EDGEWRIGHT_HOME": str(home), "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(extra)}
        command = [str(Path(sys.executable).parent / "edgewright"), "run", str(file), "--skip", "live", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)

    yield call
    deadline = time.monotonic() + 30  # a deleted pod takes its grace period to go
    while (left := kubectl("get", "pods", "--no-headers")) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, "a pod was left behind"


def test_train_on_a_gpu_and_quantize_on_an_fpga(run):
    done = run({"resources": {"nvidia.com/gpu": 1, "memory": "2Gi"}}, {"resources": {"xilinx.com/fpga-vck190": 1}})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "onnx-int8" in done.stdout
    assert "bracelet version 1 as champion" in done.stdout


def test_a_device_that_no_node_has_is_said_in_one_line(run):
    done = run({"resources": {"nvidia.com/gpu": 3}, "start_timeout": 3}, None, "--until", "model")
    assert done.returncode == 70
    assert "no node offers nvidia.com/gpu: 3; nodes have at most nvidia.com/gpu: 2" in done.stdout + done.stderr


def test_an_image_that_is_not_there_is_said_in_one_line(run):
    done = run({"image": "localhost/absent:1", "start_timeout": 5}, None, "--until", "model")
    assert done.returncode == 1
    assert "the image localhost/absent:1 cannot be pulled" in done.stdout + done.stderr


def test_too_little_memory_is_said_in_one_line(run):
    done = run({"resources": {"memory": "48Mi"}}, None, "--until", "model")
    assert done.returncode == 1
    assert "OOMKilled: the step needed more than 48Mi" in done.stdout + done.stderr


def test_a_pod_that_is_deleted_starts_again(run):
    deleted = threading.Event()

    def delete() -> None:
        for _ in range(300):
            rows = [line.split() for line in kubectl("get", "pods", "--no-headers").splitlines()]
            running = [row[0] for row in rows if len(row) > 2 and row[2] == "Running"]
            if running:
                kubectl("delete", "pod", running[0], "--grace-period=1")
                deleted.set()
                return
            time.sleep(0.1)

    thread = threading.Thread(target=delete)
    thread.start()
    done = run({"resources": {"nvidia.com/gpu": 1}}, None, "--until", "model")
    thread.join()
    assert deleted.is_set()
    assert done.returncode == 0, done.stdout + done.stderr
