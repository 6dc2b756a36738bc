"""Rows of databases: a real PostgreSQL, and SQLite where any database will do."""

from __future__ import annotations

import datetime
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.steps.conftest import RunStep

from edgewright.errors import ConfigError, DataError, Unavailable
from edgewright.steps.contract import StepResult
from edgewright.steps.data import Dataset

ROWS = 1000


def opened(result: StepResult) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


def ids(result: StepResult) -> list[int]:
    return sorted(opened(result).frame("train")["id"])


@pytest.fixture
def database(postgres: Any) -> Iterator[tuple[str, Any]]:
    """A database of the test's own with a table of 1,000 readings: its address, and a connection of the superuser."""
    import psycopg

    name = f"db_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    address = postgres.url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA vitals")
        connection.execute("CREATE SEQUENCE counter")
        connection.execute(
            "CREATE TABLE vitals.day (id bigint, pulse numeric(6,2), name text, at timestamptz, born date, ok boolean,"
            " nothing double precision)"
        )
        connection.execute(
            "INSERT INTO vitals.day SELECT n, CASE WHEN n % 10 = 0 THEN NULL ELSE n / 4.0 END, 'p' || n % 7,"
            " timestamptz '2026-01-01 00:00:00+02' + n * interval '1 minute', date '1990-01-01' + n::int,"
            f" n % 2 = 0, NULL FROM generate_series(1, {ROWS}) n"
        )
        yield address, connection


def of(address: str) -> str:
    return address.replace("postgres@", "")  # the user comes from the connection


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VITALS", "postgres://postgres:unused@/")


def test_a_table_becomes_a_dataset_with_the_databases_types(database: Any, connected: None, run_step: RunStep):
    address, _ = database
    result = run_step("ingest", {"source": of(address), "connection": "vitals", "sql": {"table": "vitals.day"}})
    found = opened(result)
    types = {column["name"]: column["type"] for column in found.columns}
    assert types == {
        "id": "integer", "pulse": "number", "name": "string", "at": "timestamp", "born": "date", "ok": "boolean",
        "nothing": "string",
    }  # fmt: skip
    assert found.manifest["rows"] == ROWS
    assert found.manifest["missing"] == {"pulse": ROWS // 10, "nothing": ROWS}
    first = found.frame("train").set_index("id").loc[1]
    assert first["pulse"] == 0.25
    assert first["at"] == datetime.datetime(2025, 12, 31, 22, 1)
    assert "unused" not in str(found.manifest)
    assert found.manifest["source"]["uri"] == of(address) + "#vitals.day"


def test_a_query_is_sent_as_it_stands(database: Any, run_step: RunStep):
    address, _ = database
    query = "SELECT id, name, '12:30' AS time, pulse::float8 FROM vitals.day WHERE name LIKE 'p1%' ORDER BY id DESC;"
    result = run_step("ingest", {"source": address, "sql": {"query": query, "fetch": 100}, "label": "name"})
    frame = opened(result).frame("train")
    assert list(frame["id"]) == [n for n in range(ROWS, 0, -1) if n % 7 == 1]
    assert set(frame["time"]) == {"12:30"}


def test_parts_by_ranges_hold_every_row_once(database: Any, run_step: RunStep):
    address, connection = database
    connection.execute("INSERT INTO vitals.day (id, name) VALUES (NULL, 'x')")
    for column in ("id", "at", "born", "pulse"):
        sql = {"table": "vitals.day", "split_by": column, "parts": 7}
        result = run_step("ingest", {"source": address, "columns": ["name", "id", "at", "born", "pulse"], "sql": sql})
        found = sorted(value for value in opened(result).frame("train")["id"] if value == value)
        assert found == list(range(1, ROWS + 1)), column
        assert result.metrics["rows"] == ROWS + 1


def test_a_retry_reads_only_the_parts_that_lack(database: Any, run_step: RunStep, monkeypatch: pytest.MonkeyPatch):
    from edgewright.steps.row_source_sql import SqlSource

    address, _ = database
    config = {"source": address, "sql": {"table": "vitals.day", "split_by": "id", "parts": 4, "parallel": 1}}
    read = SqlSource.read
    asked: list[str] = []

    def failing(self: Any, part: Any) -> Any:
        asked.append(part.name)
        if part.name == "0002" and len(asked) == 3:
            raise DataError("the value of a moment ago")
        return read(self, part)

    monkeypatch.setattr(SqlSource, "read", failing)
    with pytest.raises(DataError, match="of a moment ago"):
        run_step("ingest", config)
    assert asked[:3] == ["0000", "0001", "0002"]
    asked[:] = ["first try"] * 3
    result = run_step("ingest", config)
    assert "0002" in asked
    assert not {"0000", "0001"} & set(asked)
    assert ids(result) == list(range(1, ROWS + 1))


def test_a_watermark_reads_only_what_is_new(database: Any, run_step: RunStep):
    address, connection = database
    config = {"source": address, "columns": ["id", "at"], "sql": {"table": "vitals.day", "watermark": "at"}}
    first = run_step("ingest", config, run="r1")
    assert first.metrics["rows"] == ROWS
    again = run_step("ingest", config, run="r2")
    assert again.outputs["dataset"].sha256 != ""
    assert again.metrics["rows"] == ROWS
    connection.execute("INSERT INTO vitals.day (id, at) VALUES (5001, '2027-01-01'), (5002, '2027-01-02')")
    connection.execute("DELETE FROM vitals.day WHERE id <= 500")  # what was read stays read
    third = run_step("ingest", config, run="r3")
    assert ids(third) == [*range(1, ROWS + 1), 5001, 5002]
    assert opened(third).manifest["source"]["watermark"]["value"].startswith("2027-01-02")
    assert any("2 new rows" in line for line in third.notes) or third.metrics["rows"] == ROWS + 2


def test_two_runs_at_the_same_time_take_no_row_twice(database: Any, run_step: RunStep, tmp_path: Path):
    from edgewright.steps.increments import Increments

    address, _ = database
    config = {"source": address, "columns": ["id", "at"], "sql": {"table": "vitals.day", "watermark": "id"}}
    add = Increments.add

    def slow(self: Any, rows: Any, highest: Any) -> bool:
        if not began:
            began.append(True)
            other.append(run_step("ingest", config, run="other"))
        return add(self, rows, highest)

    began: list[bool] = []
    other: list[StepResult] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Increments, "add", slow)
        mine = run_step("ingest", config, run="mine")
    assert ids(mine) == ids(other[0]) == list(range(1, ROWS + 1))
    files = list((tmp_path / "store" / "increments").rglob("*.parquet"))
    assert len(files) == 1


def test_personal_columns_are_never_stored_as_they_came(
    database: Any, run_step: RunStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGEWRIGHT_PSEUDONYM_KEY", "k1:" + "A" * 43)
    address, connection = database
    connection.execute("UPDATE vitals.day SET name = 'Adelheid-Planted'")
    personal = {"name": "drop", "born": "drop"}
    sql = {"table": "vitals.day", "watermark": "id", "split_by": "id", "parts": 3}
    result = run_step("ingest", {"source": address, "sql": sql, "personal": personal})
    assert {"name", "born"} & {column["name"] for column in opened(result).columns} == set()
    for path in (tmp_path / "store").rglob("*.parquet"):
        import pyarrow.parquet as pq

        assert "name" not in pq.read_schema(path).names
    with pytest.raises(DataError, match="no column 'nmae'"):
        run_step("ingest", {"source": address, "sql": {"table": "vitals.day"}, "personal": {"nmae": "drop"}}, run="r2")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ({"table": "vitals.night"}, 'relation "vitals.night" does not exist'),
        ({"query": "SELEKT 1"}, "syntax error"),
        ({"table": "vitals.day", "watermark": "age"}, 'column "age" does not exist'),
        ({"table": "vitals.day", "split_by": "name"}, "neither numbers nor times"),
        ({"query": "SELECT 1 AS a WHERE false"}, "there is no row"),
        ({"query": "SELECT ARRAY[1] AS a"}, "column a holds values of type list"),
        ({"query": "SELECT nextval('counter')"}, "read-only transaction"),
        ({"query": "DELETE FROM vitals.day RETURNING id"}, "syntax error"),
    ],
)
def test_what_the_database_refuses_is_the_users_fault(database: Any, run_step: RunStep, sql: Any, says: str):
    with pytest.raises(DataError, match=says):
        run_step("ingest", {"source": database[0], "sql": sql})


def test_a_database_that_is_away_is_tried_again(run_step: RunStep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgewright.steps.row_sources.time.sleep", lambda seconds: None)
    with pytest.raises(Unavailable, match="does not answer"):
        run_step("ingest", {"source": "postgresql://127.0.0.1:1/none", "sql": {"table": "t"}})


def test_a_missing_connection_or_driver_says_how_to_mend_it(run_step: RunStep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AIRFLOW_CONN_NONE", raising=False)
    with pytest.raises(ConfigError, match="AIRFLOW_CONN_NONE"):
        run_step("ingest", {"source": "postgresql://db/none", "connection": "none", "sql": {"table": "t"}})
    with pytest.raises(ConfigError, match="driver is not here"):
        run_step("ingest", {"source": "mysql+nodriver://db/none", "sql": {"table": "t"}})


def test_sqlite_in_the_pipelines_folder(run_step: RunStep, pipeline_folder: Path):
    with sqlite3.connect(pipeline_folder / "heart.db") as connection:
        connection.execute("CREATE TABLE beats (id INTEGER, rate REAL, y INTEGER)")
        connection.executemany("INSERT INTO beats VALUES (?, ?, ?)", [(n, n / 2, n % 2) for n in range(200)])
    connection.close()
    config = {"source": "sqlite:///heart.db", "sql": {"table": "beats"}, "label": "y", "split": {"test": 0.25}}
    result = run_step("ingest", config)
    assert opened(result).manifest["rows"] == 200
    assert set(opened(result).part_names) == {"train", "test"}
    result = run_step("ingest", {**config, "types": {"id": "string"}}, run="r2")
    assert {c["name"]: c["type"] for c in opened(result).columns}["id"] == "string"
