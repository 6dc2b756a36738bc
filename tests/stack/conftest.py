"""One real local stack for all tests of this folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stack_support import ROOT, Stack


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
