"""Fixtures of real services that tests of several rooms share. Only such fixtures belong here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.mlflow_server import MlflowServer
from support.mlflow_server import mlflow_server as run_mlflow_server
from support.servers import cassandra, kafka, mosquitto, postgres, s3_server, schema_registry

__all__ = ["cassandra", "kafka", "mlflow_server", "mosquitto", "postgres", "s3_server", "schema_registry"]


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Return a running MLflow server (10 to 15 s to start). Use names of your own for models and experiments."""
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow-server")) as server:
        yield server
