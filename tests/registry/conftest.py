"""Registries: the same tests run against a real server and against a SQLite database."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.registry import Registry


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'deep' / 'mlflow.db'}"


@pytest.fixture(params=["server", "sqlite"])
def uri(request: pytest.FixtureRequest) -> str:
    if request.param == "server":
        return str(request.getfixturevalue("mlflow_server").uri)
    return str(request.getfixturevalue("database"))


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def name() -> str:
    """Return a model's name that no other test uses."""
    return f"model-{uuid.uuid4().hex[:8]}"
