"""site-anomaly: a model a substation, trained where the registry holds none that fits, on that substation's nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kube_nodes import KubeNodes

EXAMPLE = Path(__file__).parents[2] / "dags" / "site-anomaly" / "pipeline.yaml"
XY = {"site": "TransformerXY", "values": {"feeder": "F3", "alarm": 0.8}}
NORTH = {"site": "North", "values": {"feeder": "F9", "alarm": 0.7}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def cluster() -> Iterator[KubeNodes]:
    with KubeNodes({"xy-1": {"substation": "TransformerXY"}, "n-1": {"substation": "North"}}) as found:
        yield found


def run(root: Path, cluster: KubeNodes, sites: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the example and return its summary."""
    params = [f"sites={json.dumps(sites)}", f"bundles={root / 'bundles'}"]
    program = [str(Path(sys.executable).parent / "edgewright"), "run", str(EXAMPLE), "--json"]
    environ = {
        **os.environ, "EDGEWRIGHT_HOME": str(root / "place"), "AIRFLOW_CONN_KUBERNETES_DEFAULT": cluster.connection(),
    }  # fmt: skip
    command = [*program, *(part for param in params for part in ("--param", param))]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def said(cluster: KubeNodes) -> dict[str, Any]:
    """Return what each node was given: model, version and values."""
    found = {}
    for pod in list(cluster.pods.values()):
        metadata = pod.template["metadata"]
        labels, values = metadata["labels"], json.loads(metadata["annotations"]["edgewright.dev/values"])
        found[pod.node] = (labels["edgewright.dev/model"], labels["edgewright.dev/version"], values)
    return found


def test_each_site_has_its_model_and_its_values(tmp_path: Path, cluster: KubeNodes) -> None:
    (tmp_path / "bundles").mkdir()
    run(tmp_path, cluster, [XY])
    assert said(cluster) == {"xy-1": ("anomaly-TransformerXY", "1", XY["values"])}

    changed = {**XY, "values": {"feeder": "F3", "alarm": 0.9}}
    summary = json.dumps(run(tmp_path, cluster, [changed, NORTH]))
    assert said(cluster) == {
        "xy-1": ("anomaly-TransformerXY", "1", changed["values"]), "n-1": ("anomaly-North", "1", NORTH["values"]),
    }  # fmt: skip
    # only the new site was trained; the other one has its version and what was compiled, and says so
    assert "only values changed (alarm); version 1 (onnx) is reused as it is" in summary
    results = [json.loads(file.read_text()) for file in (tmp_path / "place").glob("store/runs/*/*/*model*/result.json")]
    assert sorted(one["cache"]["hit"] for one in results) == [False, False, True]
