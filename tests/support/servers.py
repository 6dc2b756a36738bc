"""Real servers for tests, on loopback and free ports; a test that needs one is skipped where it cannot run here."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.cli.dev.base import Server
from edgewright.cli.dev.cassandra import CassandraServer
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.mariadb import MariaDbServer
from edgewright.cli.dev.mosquitto import MosquittoServer
from edgewright.cli.dev.postgres import PostgresServer
from edgewright.cli.dev.s3 import S3Server
from edgewright.cli.dev.schema_registry import SchemaRegistryServer
from edgewright.errors import ConfigError, Unavailable


def demand(kind: type[Server]) -> None:
    """Skip the test with the reason where a server cannot run on this machine.

    Where EDGEWRIGHT_DEMAND_SERVERS is set, it fails instead: so CI can say that nothing was left out.
    """
    try:
        kind.check()
    except (ConfigError, Unavailable) as error:
        if os.environ.get("EDGEWRIGHT_DEMAND_SERVERS"):
            raise
        pytest.skip(f"{kind.name}: {error.message}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Return a running broker (4 s to start). Use topics and groups of your own, and never stop this one."""
    demand(KafkaServer)
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraServer]:
    """Return a running node (10 s to start). Use keyspaces of your own, and never stop this one."""
    demand(CassandraServer)
    with CassandraServer(tmp_path_factory.mktemp("cassandra")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return a running object store with SQS. Use buckets and queues of your own."""
    demand(S3Server)
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a running PostgreSQL. Use databases of your own."""
    demand(PostgresServer)
    # pytest's folders are closed to others, and for root it runs as another user
    folder = Path(tempfile.mkdtemp(prefix="edgewright-postgres-"))
    try:
        with PostgresServer(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """Return a running MariaDB (5 s to start). Use tables of your own."""
    demand(MariaDbServer)
    with MariaDbServer(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoServer]:
    """Return a running MQTT broker. Use topics and client ids of your own."""
    demand(MosquittoServer)
    with MosquittoServer(tmp_path_factory.mktemp("mosquitto")) as server:
        yield server


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchemaRegistryServer]:
    """Return a running schema registry (4 s to start). Use subjects of your own."""
    demand(SchemaRegistryServer)
    with SchemaRegistryServer(tmp_path_factory.mktemp("schema-registry")) as server:
        yield server
