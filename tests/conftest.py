"""Fixtures of real services that several rooms share, and what keeps tests apart. Nothing else belongs here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mlflow_server import MlflowServer
from support.mlflow_server import mlflow_server as run_mlflow_server
from support.servers import cassandra, kafka, mariadb, mosquitto, postgres, s3_server, schema_registry

__all__ = ["cassandra", "kafka", "mariadb", "mlflow_server", "mosquitto", "postgres", "s3_server", "schema_registry"]

HERE = Path(__file__).parent
#: Rooms whose files share servers that take long to start.
ONE_PROCESS = ("cli", "stack", "streams")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests of one file, or of one room with servers of its own, run in one process of ``pytest -n``."""
    for item in items:
        place = item.path.relative_to(HERE)
        group = place.parts[0] if place.parts[0] in ONE_PROCESS else place.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Give the loggers their levels back: a command that a test calls in this process sets them for all of it."""
    loggers = [logging.getLogger(), logging.getLogger("edgewright")]
    before = [(one, one.level, one.disabled, one.propagate, list(one.handlers)) for one in loggers]
    yield
    for one, level, disabled, propagate, handlers in before:
        one.setLevel(level)
        one.disabled, one.propagate, one.handlers = disabled, propagate, handlers


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Return a running MLflow server (10 to 15 s to start). Use names of your own for models and experiments."""
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow-server")) as server:
        yield server
