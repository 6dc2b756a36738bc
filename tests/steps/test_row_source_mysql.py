"""Tables of MySQL's kind as a source and as where predictions go, by a real MariaDB."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.releases import model_folder
from tests.steps.conftest import RunStep

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.mariadb import MariaDbServer
from edgewright.errors import DataError
from edgewright.steps.data import Dataset

ROWS = 900


@pytest.fixture
def table(mariadb: MariaDbServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """A table with a column of each type: its name, and an engine."""
    import sqlalchemy

    monkeypatch.setenv("AIRFLOW_CONN_CLINIC", "mysql://root@/")
    engine = sqlalchemy.create_engine(mariadb.url.replace("mariadb://", "mariadb+pymysql://"))
    name = f"t_{uuid.uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(
            f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, name VARCHAR(50), at DATETIME(6), ok TINYINT(1), cost"
            " DECIMAL(10,3), a DOUBLE, b DOUBLE, c DOUBLE, born DATE)"
        ))  # fmt: skip
    fill(engine, name, range(ROWS))
    yield name, engine
    engine.dispose()


def fill(engine: Any, name: str, numbers: range) -> None:
    import sqlalchemy

    rows = [
        {"id": n, "name": f"p'{n}\\", "at": f"2026-01-01 00:{n // 60:02}:{n % 60:02}.000001", "ok": n % 2,
         "cost": n / 8, "a": float(n), "b": None if n % 11 == 0 else 1.5, "c": 2.0, "born": "1970-01-02"}
        for n in numbers
    ]  # fmt: skip
    with engine.begin() as connection:
        columns = ", ".join(f":{column}" for column in rows[0])
        connection.execute(sqlalchemy.text(f"INSERT INTO {name} VALUES ({columns})"), rows)


def address(mariadb: MariaDbServer, scheme: str = "mariadb") -> str:
    return mariadb.url.replace("mariadb://root@", f"{scheme}://")


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql"])
def test_rows_of_every_type_in_parts(
    scheme: str, mariadb: MariaDbServer, table: Any, run_step: RunStep, tmp_path: Path
) -> None:
    name, _ = table
    sql = {"table": name, "split_by": "id", "parts": 3}
    result = run_step("ingest", {"source": address(mariadb, scheme), "connection": "clinic", "sql": sql})
    data = Dataset.open(ArtifactStore(tmp_path / "store").fetch(result.outputs["dataset"]))
    assert {column["name"]: column["type"] for column in data.manifest["columns"]} == {
        "id": "integer", "name": "string", "at": "timestamp", "ok": "integer", "cost": "number", "a": "number",
        "b": "number", "c": "number", "born": "date",
    }  # fmt: skip
    frame = data.frame("train").sort_values("id").reset_index(drop=True)
    assert frame["id"].tolist() == list(range(ROWS))
    assert frame["name"][7] == "p'7\\"
    assert (frame["at"][61].isoformat(), frame["cost"][3]) == ("2026-01-01T00:01:01.000001", 0.375)
    assert data.manifest["missing"] == {"b": len(range(0, ROWS, 11))}


def test_only_what_is_new_and_what_a_query_gives(mariadb: MariaDbServer, table: Any, run_step: RunStep) -> None:
    name, engine = table
    config = {"source": address(mariadb), "connection": "clinic", "sql": {"table": name, "watermark": "at"}}
    assert run_step("ingest", config).metrics["rows"] == ROWS
    fill(engine, name, range(ROWS, ROWS + 50))
    again = run_step("ingest", config, run="r2")
    assert again.metrics["rows"] == ROWS + 50
    query = {"query": f"SELECT id, a FROM {name} WHERE name LIKE 'p''1%' ORDER BY id"}
    found = run_step("ingest", {**config, "sql": query}, run="r3")
    assert found.metrics["rows"] == sum(str(n).startswith("1") for n in range(ROWS + 50))


def test_a_table_is_scored_into_another_and_new_rows_alone(
    mariadb: MariaDbServer, table: Any, run_step: RunStep, tmp_path: Path
) -> None:
    import sqlalchemy

    name, engine = table
    model = ArtifactStore(tmp_path / "store").put(model_folder(tmp_path / "model"), "model", {}).model_dump(mode="json")
    place = address(mariadb)
    config = {
        "model": model, "source": place, "connection": "clinic", "keep": ["name", "cost"], "processes": 2,
        "sql": {"table": name, "watermark": "at", "split_by": "id", "parts": 3},
        "to": place, "to_connection": "clinic", "into": {"table": f"{name}_risk"},
    }  # fmt: skip
    assert run_step("score", config).metrics["rows"] == ROWS
    fill(engine, name, range(ROWS, ROWS + 50))
    assert run_step("score", config, run="r2").metrics["rows"] == 50
    with engine.connect() as connection:
        statement = f"SELECT count(*), count(DISTINCT id), max(cost) FROM {name}_risk"
        count, different, most = connection.execute(sqlalchemy.text(statement)).one()
    assert (count, different, float(most)) == (ROWS + 50, ROWS + 50, (ROWS + 49) / 8)


def test_what_the_database_refuses_is_said(
    mariadb: MariaDbServer, table: Any, run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"source": address(mariadb), "connection": "clinic", "sql": {"table": "nothing"}}
    with pytest.raises(DataError, match="nothing"):
        run_step("ingest", config)
    monkeypatch.setenv("AIRFLOW_CONN_STRANGER", "mysql://nobody:wrong@/")
    with pytest.raises(DataError, match="the database refuses") as raised:
        run_step("ingest", {**config, "connection": "stranger", "sql": {"table": table[0]}})
    assert "wrong" not in str(raised.value)
