"""One real local stack for all tests of this folder: Airflow's four processes, MLflow and the prediction service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
EDGEWRIGHT = Path(sys.executable).parent / "edgewright"


@dataclass
class Stack:
    """A running stack, driven through its front door.

    Attributes:
        home: Its home folder.
        dags: Its folder of pipelines, a copy that tests may edit.
        status: What ``edgewright status --json`` says.
        mails: What its mail server took.
    """

    home: Path
    dags: Path
    status: dict[str, Any]
    mails: list[Any] = field(default_factory=list)

    def run(self, *arguments: str, check: bool = True, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run ``edgewright ARGUMENTS`` as a user would."""
        done = subprocess.run(
            [str(EDGEWRIGHT), *arguments],
            env={**os.environ, "EDGEWRIGHT_HOME": str(self.home), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"edgewright {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def trigger(self, *arguments: str, dag_id: str = "bracelet", check: bool = True) -> dict[str, Any]:
        """Run a pipeline through Airflow, wait for it, and return the summary."""
        done = self.run("trigger", dag_id, *arguments, "--wait", "--json", check=check)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    @property
    def urls(self) -> dict[str, str]:
        """Where the parts answer."""
        return dict(self.status["urls"])

    def airflow(self, user: str = "admin") -> httpx.Client:
        """Return a client of Airflow's web server that is logged in."""
        password = json.loads(Path(self.status["login_file"]).read_text())[user]
        login = {"username": user, "password": password}
        answer = httpx.post(f"{self.urls['airflow']}/auth/token", json=login, timeout=30)
        answer.raise_for_status()
        token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return httpx.Client(base_url=self.urls["airflow"], timeout=30, follow_redirects=True, headers=token)
