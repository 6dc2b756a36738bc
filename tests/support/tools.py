"""The real Helm and the real Docker Compose, built from their Go modules by ``make tools``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("EDGEWRIGHT_TEST_TOOLS", Path.home() / ".cache" / "edgewright" / "tools"))


def demand(name: str) -> Path:
    """Return a program, or skip the test and say why."""
    program = FOLDER / name
    if not program.exists():
        pytest.skip(f"no {name} here: make tools builds it (Go)")
    return program


def call(name: str, *arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; its end is the caller's to judge."""
    command = [str(demand(name)), *map(str, arguments)]
    environ = {**os.environ, **(env or {})}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240, check=False)
