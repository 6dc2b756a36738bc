"""Airflow in this process, for the factory's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import airflow_env

airflow_env.prepare()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Edgewright home of its own, as every operator will find it."""
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    for name in ("EDGEWRIGHT_STORE", "EDGEWRIGHT_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"
