"""The cluster of ``make cluster``: its pods see this machine's folders, so they run the very code under test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
marks = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="no KUBECONFIG: make cluster, make test-kubernetes"),
]


def kubectl(*arguments: str, given: str | None = None) -> str:
    """Return what ``kubectl`` prints."""
    return subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=True).stdout


def pods() -> list[dict[str, Any]]:
    """Return all pods of the namespace."""
    found: list[dict[str, Any]] = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
    return found


def until(condition: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def evict(pod: str) -> None:
    """Ask the API to take a pod away, as a drained node does."""
    eviction = {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"},
        "deleteOptions": {"gracePeriodSeconds": 20},
    }  # fmt: skip
    kubectl("create", "--raw", f"/api/v1/namespaces/default/pods/{pod}/eviction", "-f", "-", given=json.dumps(eviction))


class Place:
    """A pipeline's folder and an installation, for runs on the cluster.

    Attributes:
        flow: The pipeline's folder.
        home: The installation's.
    """

    def __init__(self, root: Path) -> None:
        self.flow, self.home = root / "flow", root / "home"
        self.flow.mkdir()
        self.home.mkdir()

    def profile(self, **more: Any) -> dict[str, Any]:
        """Return a profile whose pods see the code under test and the store."""
        places = sorted({str(ROOT), sys.base_prefix, "/usr"})
        return {
            "on": "kubernetes", "image": "localhost/step:1", "pull": "never",
            "mounts": [{"folder": place, "path": place} for place in places]
            + [{"folder": str(self.home), "path": str(self.home), "read_only": False}],
            "env": {"PATH": f"{Path(sys.executable).parent}:/usr/bin"},
            "pod": {"spec": {"securityContext": {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}}},
            **more,
        }  # fmt: skip

    @property
    def environ(self) -> dict[str, str]:
        """The environment of our command."""
        extra = {"conn_type": "kubernetes", "extra": {"kube_config_path": os.environ["KUBECONFIG"]}}
        return {
            **os.environ, "EDGEWRIGHT_HOME": str(self.home), "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(extra),
        }  # fmt: skip

    def write(self, document: dict[str, Any], **files: str) -> Path:
        """Write a pipeline and its files (``model_py="..."``), and return its document."""
        for name, text in files.items():
            (self.flow / name.replace("_", ".")).write_text(text)
        file = self.flow / "pipeline.yaml"
        file.write_text(json.dumps(document))
        return file

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run our command to its end."""
        program = [str(Path(sys.executable).parent / "edgewright"), *arguments]
        return subprocess.run(program, env=self.environ, capture_output=True, text=True, timeout=400, check=False)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start our command."""
        program = [str(Path(sys.executable).parent / "edgewright"), *arguments]
        return subprocess.Popen(program, env=self.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
