"""One real local stack for all tests of this folder: Airflow's four processes, MLflow and the prediction service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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
    """

    home: Path
    dags: Path
    status: dict[str, Any]

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

    def trigger(self, *arguments: str) -> dict[str, Any]:
        """Run ``bracelet`` through Airflow, wait for it, and return the summary."""
        document: dict[str, Any] = json.loads(self.run("trigger", "bracelet", *arguments, "--wait", "--json").stdout)
        return document

    @property
    def urls(self) -> dict[str, str]:
        """Where the parts answer."""
        return dict(self.status["urls"])

    def airflow(self, user: str = "admin") -> httpx.Client:
        """Return a client of Airflow's web server that is logged in."""
        base = self.urls["airflow"]
        client = httpx.Client(base_url=base, timeout=30, follow_redirects=True)
        password = json.loads(Path(self.status["login_file"]).read_text())[user]
        answer = client.post("/auth/token", json={"username": user, "password": password})
        answer.raise_for_status()
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return client


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start the stack on an empty home, and stop it at the end."""
    folder = tmp_path_factory.mktemp("stack")
    dags = folder / "dags"
    shutil.copytree(ROOT / "dags" / "bracelet", dags / "bracelet", ignore=shutil.ignore_patterns("__pycache__"))
    found = Stack(folder / "home", dags, {})
    try:
        found.run("up", "--dags", str(dags), timeout=300)
        found.status = json.loads(found.run("status", "--json").stdout)
        yield found
    finally:
        found.run("down", check=False)


@pytest.fixture(scope="session")
def first_run(stack: Stack) -> dict[str, Any]:
    """The summary of the first run of ``bracelet`` on that stack."""
    return stack.trigger("--run-id", "first")
