"""Real runs of the bracelet pipeline in homes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BRACELET = Path(__file__).parents[2] / "dags" / "bracelet"


@dataclass
class Workplace:
    """A copy of the pipeline with a home folder, and the command line in it.

    Attributes:
        folder: Working directory; holds the folder ``bracelet``.
    """

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def pipeline(self) -> Path:
        return self.folder / "bracelet"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEWRIGHT_", "AIRFLOW"))}
        return {**keep, "EDGEWRIGHT_HOME": str(self.home), **(extra or {})}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "edgewright.cli.main", *arguments]

    def call(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments), env=self.environment(env), cwd=self.folder, capture_output=True, text=True,
            timeout=240,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run the pipeline and return its JSON document."""
        done = self.call("run", "bracelet", "--json", *arguments)
        assert done.returncode == code, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """Return a fresh workplace."""
    shutil.copytree(BRACELET, tmp_path / "bracelet", ignore=shutil.ignore_patterns("__pycache__"))
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def shared_workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Return a workplace in which the pipeline has run once; do not change its files."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(BRACELET, folder / "bracelet", ignore=shutil.ignore_patterns("__pycache__"))
    return Workplace(folder)


@pytest.fixture(scope="session")
def first_run(shared_workplace: Workplace) -> dict[str, Any]:
    """Return the document of the first run in the shared workplace."""
    return shared_workplace.run("--skip", "live", "--run-id", "first")
