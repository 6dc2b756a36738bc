"""``score`` from tables and into tables, of a real PostgreSQL and a real Cassandra."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from support.releases import model_folder
from tests.steps.conftest import RunStep

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, DataError, GateFailed
from edgewright.steps.connections import connections_of
from edgewright.steps.models import load_model
from edgewright.streams.addresses import cassandra_address
from edgewright.streams.cassandra import Connection

ROWS = 4000


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """A logistic regression on a, b and c, of which b may be missing."""
    folder = model_folder(tmp_path / "model")
    return ArtifactStore(tmp_path / "store").put(folder, "model", {}).model_dump(mode="json")


def frame_of(count: int = ROWS) -> pd.DataFrame:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(random.normal(size=(count, 3)).round(5), columns=list("abc"))
    frame.loc[frame.index % 11 == 0, "b"] = np.nan
    return frame


def expected(tmp_path: Path) -> np.ndarray[Any, Any]:
    return load_model(tmp_path / "model").scores(frame_of())[:, 1]


@pytest.fixture(scope="module")
def database(postgres: Any) -> Iterator[tuple[str, Any]]:
    """A database with a table of patients: its address, and a connection."""
    import psycopg

    name = f"db_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    address = postgres.url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE patients (id uuid PRIMARY KEY, number bigint UNIQUE NOT NULL, ward text,"
            " a double precision, b double precision, c double precision)"
        )
        rows = [
            (uuid.UUID(int=number + 1), number, f"w{number % 3}", row.a, None if np.isnan(row.b) else row.b, row.c)
            for number, row in enumerate(frame_of().itertuples())
        ]
        with connection.cursor() as cursor, cursor.copy("COPY patients FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        yield address, connection


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLINIC", "postgres://postgres:unused@/")


def of(address: str) -> str:
    return address.replace("postgres@", "")  # the user comes from the connection


def asked(model: dict[str, Any], address: str, **more: Any) -> dict[str, Any]:
    sql = {"table": "patients", "split_by": "number", "parts": 7}
    return {"model": model, "source": of(address), "sql": sql, "connection": "clinic", "processes": 1, **more}


def test_a_table_is_scored_into_files_by_its_key(database: Any, model: Any, run_step: RunStep, tmp_path: Path):
    address, _ = database
    result = run_step("score", asked(model, address, keep=["ward", "number"], to=f"file://{tmp_path}/out"))
    assert (result.metrics["rows"], result.metrics["shards"]) == (ROWS, 7)
    found = pd.concat([pd.read_parquet(part) for part in sorted((tmp_path / "out").glob("*/*/part-*"))])
    assert list(found.columns)[:3] == ["id", "ward", "number"]
    found = found.sort_values("number")
    assert found["id"].tolist() == [str(uuid.UUID(int=number + 1)) for number in range(ROWS)]
    np.testing.assert_allclose(found["probability_1"], expected(tmp_path), atol=1e-5)
    again = run_step("score", asked(model, address, keep=["ward", "number"], to=f"file://{tmp_path}/out"))
    assert again.metrics["shards_reused"] == 7
    other = run_step("score", asked(model, address, keep=["ward", "number"], to=f"file://{tmp_path}/out"), run="r2")
    assert other.metrics["shards_reused"] == 0


def test_predictions_go_into_a_table_that_is_made_and_again_into_the_same_rows(
    database: Any, model: Any, run_step: RunStep, tmp_path: Path
):
    address, connection = database
    into = {"to": of(address), "to_connection": "clinic", "into": {"table": "risk"}}
    for run in ("r1", "r2"):
        result = run_step("score", asked(model, address, **into), run=run)
        assert result.metrics["shards_reused"] == 0
    assert result.tags["predictions"].endswith("#risk")
    rows = connection.execute("SELECT id, prediction, probability_1, model FROM risk ORDER BY id").fetchall()
    assert len(rows) == ROWS
    assert rows[0][0] == str(uuid.UUID(int=1))
    assert {row[3] for row in rows} == {result.tags["model"]}
    np.testing.assert_allclose([row[2] for row in rows], expected(tmp_path), atol=1e-5)


def test_a_table_without_rows_makes_a_table_with_the_types_of_its_key(
    database: Any, model: Any, run_step: RunStep, tmp_path: Path
):
    address, connection = database
    connection.execute("CREATE TABLE empty (day date, ward int, a real, b real, c real, PRIMARY KEY (day, ward))")
    into = {"to": of(address), "to_connection": "clinic", "into": {"table": "of_empty"}}
    given = {**asked(model, address, **into), "sql": {"table": "empty"}}
    assert run_step("score", given).metrics["rows"] == 0
    connection.execute("INSERT INTO empty VALUES ('2026-01-02', 3, 0.5, NULL, 1)")
    assert run_step("score", given, run="r2").metrics["rows"] == 1
    (row,) = connection.execute("SELECT day, ward, prediction FROM of_empty").fetchall()
    assert (row[0].isoformat(), row[1]) == ("2026-01-02", 3)


def test_predictions_go_back_into_the_table_that_was_read(database: Any, model: Any, run_step: RunStep, tmp_path: Path):
    address, connection = database
    into = {"to": of(address), "to_connection": "clinic", "into": {"table": "patients"}}
    with pytest.raises(DataError, match="no column prediction") as refused:
        run_step("score", asked(model, address, **into))
    assert refused.value.hint is not None
    connection.execute(refused.value.hint)
    try:
        run_step("score", asked(model, address, **into))
        rows = connection.execute("SELECT probability_1, ward FROM patients ORDER BY number").fetchall()
        np.testing.assert_allclose([row[0] for row in rows], expected(tmp_path), atol=1e-5)
        assert len(rows) == ROWS
        assert rows[1][1] == "w1"
    finally:
        for column in ("prediction", "probability_0", "probability_1", "model"):
            connection.execute(f"ALTER TABLE patients DROP COLUMN {column}")


@pytest.mark.slow
def test_workers_that_are_killed_leave_every_row_scored_once(
    database: Any, model: Any, run_step: RunStep, tmp_path: Path
):
    address, connection = database
    into = {"to": of(address), "to_connection": "clinic", "into": {"table": "killed"}, "engine": "onnx"}
    sql = {"table": "patients", "split_by": "number", "parts": 16, "fetch": 100}
    random, killed, over = np.random.default_rng(5), [], threading.Event()

    def kill() -> None:
        while not over.is_set() and not killed:
            mine = [one for one in psutil.Process().children() if "score_worker" in " ".join(_arguments(one))]
            done = len(list((tmp_path / "store").glob("**/_done/*.json")))
            if mine and done > 2:
                os.kill(mine[int(random.integers(len(mine)))].pid, signal.SIGKILL)
                killed.append(done)
            time.sleep(float(random.uniform(0.001, 0.02)))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = run_step("score", {**asked(model, address, **into), "sql": sql, "processes": 2})
    finally:
        over.set()
        killer.join()
    assert killed
    assert result.metrics["rows"] == ROWS
    rows = connection.execute("SELECT probability_1 FROM killed ORDER BY id").fetchall()
    np.testing.assert_allclose([row[0] for row in rows], expected(tmp_path), atol=1e-5)


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_query_needs_a_key_and_rows_without_one_go_aside(
    database: Any, model: Any, run_step: RunStep, tmp_path: Path
):
    address, _ = database
    query = (
        "SELECT NULLIF(number, 5) AS who, CASE WHEN number = 9 THEN 'none' ELSE a::text END AS a, b, c FROM patients"
    )
    given = {**asked(model, address, max_rejected=1), "sql": {"query": query}}
    with pytest.raises(ConfigError, match="a query has no primary key"):
        run_step("score", given)
    result = run_step("score", {**given, "key": ["who"], "to": f"file://{tmp_path}/out"})
    assert (result.metrics["rows"], result.metrics["rejected"]) == (ROWS - 2, 2)
    (aside,) = (tmp_path / "out").glob("*/*/_rejected/*.jsonl")
    reasons = [json.loads(line)["reasons"] for line in aside.read_text().splitlines()]
    assert sorted(reasons) == [["a: 'none' is no number"], ["who of the key is missing"]]
    with pytest.raises(ConfigError, match="a is a feature of the model"):
        run_step("score", {**given, "key": ["a"]})
    with pytest.raises(DataError, match="there is no such table"):
        run_step("score", {**given, "sql": {"table": "nobody"}})


def test_a_file_goes_into_a_table_by_file_and_row_or_by_a_key(
    model: Any, run_step: RunStep, pipeline_folder: Path, tmp_path: Path
):
    frame = frame_of(300)
    frame.insert(0, "patient", [f"p{number % 299}" for number in range(300)])
    frame.to_csv(pipeline_folder / "rows.csv", index=False)
    with sqlite3.connect(pipeline_folder / "risk.db") as made:
        made.execute("CREATE TABLE other (x)")
    given = {"model": model, "source": "rows.csv", "processes": 1, "to": "sqlite:///risk.db"}
    run_step("score", {**given, "into": {"table": "numbered"}})
    run_step("score", {**given, "into": {"table": "keyed"}, "key": ["patient"]})
    with sqlite3.connect(pipeline_folder / "risk.db") as made:
        assert made.execute('SELECT count(*), max("row"), min(file) FROM numbered').fetchone() == (300, 300, "rows.csv")
        assert made.execute("SELECT count(*) FROM keyed").fetchone() == (299,)


@pytest.fixture(scope="module")
def table(cassandra: Any) -> str:
    """A table of patients in Cassandra: its address."""
    keyspace = f"k{uuid.uuid4().hex[:8]}"
    address = f"cassandra://127.0.0.1:{cassandra.port}/{keyspace}.patients"
    with Connection(cassandra_address(address)) as session:
        session.execute(
            f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
        )
        session.execute(
            f"CREATE TABLE {keyspace}.patients (id uuid, visit int, a double, b double, c double, seen set<int>,"
            " PRIMARY KEY (id, visit))"
        )
        insert = session.prepare(f"INSERT INTO {keyspace}.patients (id, visit, a, b, c) VALUES (?, ?, ?, ?, ?)")
        from cassandra.concurrent import execute_concurrent_with_args

        rows = [
            (uuid.UUID(int=number + 1), number % 5, row.a, None if np.isnan(row.b) else row.b, row.c)
            for number, row in enumerate(frame_of().itertuples())
        ]
        execute_concurrent_with_args(session, insert, rows, concurrency=50)
    return address


def test_a_table_of_cassandra_goes_into_another_and_back_into_itself(
    table: str, model: Any, run_step: RunStep, tmp_path: Path
):
    given = {"model": model, "source": table, "cassandra": {"parts": 5}, "processes": 1}
    result = run_step("score", {**given, "to": table.replace(".patients", ".risk")})
    assert (result.metrics["rows"], result.metrics["shards"]) == (ROWS, 5)
    with pytest.raises(DataError, match="no column prediction") as refused:
        run_step("score", {**given, "to": table})
    with Connection(cassandra_address(table)) as session:
        session.execute(refused.value.hint)
        run_step("score", {**given, "to": table})
        keyspace = cassandra_address(table).keyspace
        key = session.cluster.metadata.keyspaces[keyspace].tables["risk"]
        for name in ("risk", "patients"):
            rows = list(session.execute(f"SELECT id, visit, probability_1, model FROM {keyspace}.{name}"))
            assert len(rows) == ROWS
            rows.sort(key=lambda row: row.id.int)
            np.testing.assert_allclose([row.probability_1 for row in rows], expected(tmp_path), atol=1e-5)
            assert {row.model for row in rows} == {result.tags["model"]}
    assert [column.name for column in key.partition_key] == ["id"]
    assert [column.cql_type for column in key.clustering_key] == ["int"]
    with pytest.raises(ConfigError, match="visit belongs to the table's primary key"):
        run_step("score", {**given, "key": ["id"], "to": table})


def test_both_connections_are_handed_over():
    assert connections_of({"source": "postgresql://h/d", "connection": "a", "to_connection": "b"}) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": ["postgresql://h/d", "a.csv"]}, "a table is scored by itself"),
        ({"source": "postgresql://h/d"}, "a database needs sql"),
        ({"source": "a.csv", "sql": {"table": "t"}}, "sql goes with a source of that kind"),
        ({"source": "a.csv", "to": "postgresql://h/d"}, "needs into"),
        ({"source": "a.csv", "into": {"table": "t"}}, "into goes with to: DATABASE"),
        ({"source": "cassandra://h/k.t", "delimiter": ";"}, "delimiter: for files"),
        ({"source": "a.csv", "to": "cassandra://h/k.t", "output": "csv"}, "output is for files"),
        ({"source": "a.csv", "to_connection": "x"}, "to_connection is for a table"),
    ],
)
def test_what_does_not_go_together_is_said(given: dict[str, Any], said: str):
    from pydantic import ValidationError

    from edgewright.spec.steps.score import ScoreConfig

    with pytest.raises(ValidationError, match=said):
        ScoreConfig.model_validate({"registered": "bracelet", **given})


def test_only_new_rows_are_scored_by_a_watermark(model: Any, run_step: RunStep, tmp_path: Path):
    clinic = tmp_path / "clinic.db"
    frame = frame_of(300).assign(id=range(300), at=[f"2026-01-{1 + number // 100:02}" for number in range(300)])
    with sqlite3.connect(clinic) as connection:
        frame.iloc[:200].to_sql("visits", connection, index=False)

    def score(run: str, **more: Any) -> Any:
        sql = {"table": "visits", "watermark": "at", "split_by": "id", "parts": 3}
        config = {"model": model, "source": f"sqlite:///{clinic}", "sql": sql, "key": ["id"], "processes": 1,
                  "to": f"file://{tmp_path}/out", **more}  # fmt: skip
        return run_step("score", config, run=run)

    def ids() -> list[int]:
        parts = sorted((tmp_path / "out").glob("*/*/part-*"))
        return sorted(value for part in parts for value in pd.read_parquet(part)["id"].tolist())

    assert score("r1").metrics["rows"] == 200
    nothing = score("r2")
    assert (nothing.metrics["rows"], nothing.metrics["shards"]) == (0, 0)
    assert ids() == list(range(200))
    with sqlite3.connect(clinic) as connection:
        frame.iloc[200:].to_sql("visits", connection, index=False, if_exists="append")
    # one whose rows are refused leaves them to the next
    with sqlite3.connect(clinic) as connection:
        connection.execute("UPDATE visits SET a = NULL WHERE id >= 250")
    with pytest.raises(GateFailed):
        score("r3")
    with sqlite3.connect(clinic) as connection:
        connection.execute("UPDATE visits SET a = 1 WHERE id >= 250")
    new = score("r4")
    assert (new.metrics["rows"], new.metrics["rejected"]) == (100, 0)
    latest = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert latest["rows"] == 100
    # a try after a crash, or a run that is cleared, keeps the rows that it began with
    assert score("r4").metrics["shards_reused"] == 3
    assert score("r5").metrics["rows"] == 0
    # another model, or another answer, is another beginning
    assert score("r6", probabilities=False).metrics["rows"] == 300


def test_a_late_run_takes_no_watermark_back(model: Any, run_step: RunStep, tmp_path: Path, monkeypatch):
    from edgewright.steps import score as module

    clinic = tmp_path / "clinic.db"
    frame = frame_of(200).assign(id=range(200))
    with sqlite3.connect(clinic) as connection:
        frame.iloc[:100].to_sql("visits", connection, index=False)
    config = {"model": model, "source": f"sqlite:///{clinic}", "key": ["id"], "processes": 1,
              "sql": {"table": "visits", "watermark": "id"}, "to": f"file://{tmp_path}/out"}  # fmt: skip
    monkeypatch.setattr(module, "remember", lambda out, plan: None)  # killed right before it would write it down
    assert run_step("score", config, run="slow").metrics["rows"] == 100
    monkeypatch.undo()
    monkeypatch.setenv("AIRFLOW_CONN_CLINIC", "postgres://postgres:unused@/")
    with sqlite3.connect(clinic) as connection:
        frame.iloc[100:].to_sql("visits", connection, index=False, if_exists="append")
    assert run_step("score", config, run="quick").metrics["rows"] == 200, "what was not noted is scored again"
    assert run_step("score", config, run="slow").metrics["shards_reused"] == 1
    assert run_step("score", config, run="last").metrics["rows"] == 0


def test_new_rows_of_postgresql_into_a_table(database: Any, model: Any, run_step: RunStep, tmp_path: Path):
    address, connection = database
    connection.execute("CREATE TABLE stream (id bigint PRIMARY KEY, at timestamptz, a float8, b float8, c float8)")
    insert = (
        "INSERT INTO stream SELECT n, '2026-01-01'::timestamptz + n * interval '1 s', n, 1, 2"
        " FROM generate_series(%s::int, %s::int) n"
    )
    connection.execute(insert, (1, 500))
    sql = {"table": "stream", "watermark": "at", "parts": 2, "split_by": "id"}
    into = {"to": of(address), "to_connection": "clinic", "into": {"table": "stream_risk"}}
    config = {**asked(model, address, **into), "sql": sql}
    assert run_step("score", config, run="r1").metrics["rows"] == 500
    connection.execute(insert, (501, 700))
    assert run_step("score", config, run="r2").metrics["rows"] == 200
    assert connection.execute("SELECT count(*), count(DISTINCT id) FROM stream_risk").fetchone() == (700, 700)
