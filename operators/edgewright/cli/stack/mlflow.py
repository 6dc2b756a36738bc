"""MLflow's part of the local stack: a tracking server and registry on SQLite that also hands out the artifacts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from edgewright.cli.stack.ports import HOST

#: The server's database; runs without a stack have one of their own, because the two keep files in different ways.
DATABASE = "mlflow-server.db"


def command(home: Path, port: int) -> list[str]:
    """Return the server's command line."""
    return [
        str(Path(sys.executable).parent / "mlflow"), "server",
        "--host", HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{home / DATABASE}",
        "--artifacts-destination", str(home / "mlartifacts"), "--serve-artifacts",
        "--uvicorn-opts", "--timeout-worker-healthcheck 60",
    ]  # fmt: skip


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return its environment: no job workers (ten more processes), no telemetry."""
    return {**variables, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
