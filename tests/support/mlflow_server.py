"""A real MLflow server for tests: SQLite, loopback, a free port, no job workers, no telemetry."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

STARTS_WITHIN = 120.0


def free_port() -> int:
    """Return a port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class MlflowServer:
    """A server that can be stopped and started again at the same address, over the same database.

    Attributes:
        folder: Database, artifacts and log.
        port: Its port.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environ = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        }
        environ.pop("MLFLOW_TRACKING_URI", None)
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
            # on a busy machine a worker may not answer its supervisor within the default of 5 s, and would be killed
            *("--uvicorn-opts", "--timeout-worker-healthcheck 120"),
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environ, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(
                    f"the MLflow server did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}"
                )
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError), urlopen(f"{self.uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        """Stop it with its workers, as a machine that fails would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)
            self.process = None


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """Run a server for a while."""
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
