"""Rows of a real Cassandra node, by ranges of tokens."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.steps.conftest import RunStep

from edgewright.errors import ConfigError, DataError, Unavailable
from edgewright.steps.data import Dataset
from edgewright.streams.addresses import cassandra_address
from edgewright.streams.cassandra import Connection

ROWS = 500


def opened(result: Any) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


@pytest.fixture(scope="module")
def table(cassandra: Any) -> Iterator[str]:
    """A table of 500 rows in 500 partitions: its address."""
    keyspace = f"k{uuid.uuid4().hex[:8]}"
    address = f"cassandra://127.0.0.1:{cassandra.port}/{keyspace}.day"
    with Connection(cassandra_address(address)) as session:
        session.execute(
            f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
        )
        session.execute(
            f"CREATE TABLE {keyspace}.day (id int, half text, pulse decimal, at timestamp, born date, ok boolean,"
            ' key uuid, "Mixed" double, seen set<int>, PRIMARY KEY ((id, half)))'
        )
        insert = session.prepare(
            f"INSERT INTO {keyspace}.day (id, half, pulse, at, born, ok, key) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        at = datetime.datetime(2026, 1, 1, 12)
        waiting = [
            session.execute_async(
                insert, (n, "a", None if n % 5 == 0 else n / 4, at, at.date(), n % 2 == 0, uuid.uuid4())
            )
            for n in range(ROWS)
        ]
        for answer in waiting:
            answer.result()
    return address


COLUMNS = ["id", "pulse", "at", "born", "ok", "key", "Mixed"]


@pytest.mark.parametrize("parts", [1, 7, 64])
def test_every_row_comes_once_with_the_tables_types(table: str, run_step: RunStep, parts: int):
    how = {"parts": parts, "parallel": 3, "fetch": 10}
    result = run_step("ingest", {"source": table, "columns": COLUMNS, "cassandra": how})
    found = opened(result)
    assert {c["name"]: c["type"] for c in found.columns} == {
        "id": "integer", "pulse": "number", "at": "timestamp", "born": "date", "ok": "boolean", "key": "string",
        "Mixed": "number",
    }  # fmt: skip
    frame = found.frame("train")
    assert sorted(frame["id"]) == list(range(ROWS))
    assert found.manifest["missing"] == {"pulse": ROWS // 5, "Mixed": ROWS}
    assert frame["born"].iloc[0] == datetime.date(2026, 1, 1)


def test_a_connection_brings_node_user_and_password(table: str, run_step: RunStep, monkeypatch: pytest.MonkeyPatch):
    place, _, name = table.removeprefix("cassandra://").partition("/")
    monkeypatch.setenv("AIRFLOW_CONN_STORE", f"cassandra://somebody:geheim@{place}")
    config = {"source": f"cassandra:///{name}", "connection": "store", "columns": ["id", "ok"], "label": "ok"}
    result = run_step("ingest", config)
    assert result.outputs["dataset"].meta["rows"] == ROWS
    assert "geheim" not in str(opened(result).manifest)
    assert opened(result).manifest["source"]["uri"] == table


@pytest.mark.parametrize(
    ("name", "columns", "says"),
    [
        ("nights", None, "there is no such table"),
        ("day", None, r"cannot be in a dataset: seen \(set<int>\)"),
        ("day", ["id", "puls"], "no column 'puls'"),
    ],
)
def test_what_does_not_fit_is_said(table: str, run_step: RunStep, name: str, columns: Any, says: str):
    with pytest.raises(DataError, match=says):
        run_step("ingest", {"source": table.replace(".day", f".{name}"), "columns": columns})


def test_a_missing_table_or_node(run_step: RunStep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgewright.steps.row_sources.time.sleep", lambda seconds: None)
    with pytest.raises(ConfigError, match="names no table"):
        run_step("ingest", {"source": "cassandra://127.0.0.1/vitals"})
    with pytest.raises(Unavailable, match="does not answer"):
        run_step("ingest", {"source": "cassandra://127.0.0.1:1/vitals.day"})
