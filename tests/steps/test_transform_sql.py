"""``transform`` by SQL on DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.steps.conftest import ref

from edgewright.errors import UserCodeError
from edgewright.steps.data import Dataset

ROWS = "".join(f"{n},{n % 50 / 2},{'a' if n % 3 else 'b'},{n % 2}\n" for n in range(400))


def opened(result: Any) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


@pytest.fixture
def transform(run_step: Any, pipeline_folder: Path) -> Any:
    (pipeline_folder / "data.csv").write_text("id,chol,kind,y\n" + ROWS)
    data = ref(run_step("ingest", {"source": "data.csv", "label": "y", "split": {"test": 0.25}}), "dataset")

    def run(sql: str, run: str = "r1", **args: Any) -> Any:
        return run_step("transform", {"data": data, "sql": sql, "args": args}, run=run)

    return run


def test_every_part_goes_through_the_query_in_order(transform: Any):
    sql = (
        "SELECT id, chol - (SELECT avg(chol) FROM train) AS above, kind = $word AS odd, y FROM data WHERE id >= $least"
    )
    result = transform(sql, word="b", least=100)
    found = opened(result)
    assert {c["name"]: c["type"] for c in found.columns} == {
        "id": "integer", "above": "number", "odd": "boolean", "y": "integer",
    }  # fmt: skip
    train, test = found.frame("train"), found.frame("test")
    assert sorted([*train["id"], *test["id"]]) == list(range(100, 400))
    assert train["id"].is_monotonic_increasing
    again = opened(transform(sql, run="r2", word="b", least=100))
    assert again.folder == found.folder
    record = found.transforms[0]
    assert (record["kind"], record["sql"]) == ("sql", sql)
    assert result.metrics["rows"] == 300


def test_what_is_learnt_is_learnt_from_train(transform: Any):
    found = opened(
        transform("SELECT *, (SELECT count(*) FROM train) AS seen, (SELECT count(*) FROM data) AS here FROM data")
    )
    assert set(found.frame("test")["seen"]) == {found.rows("train")}
    assert set(found.frame("test")["here"]) == {found.rows("test")}


def test_random_numbers_are_the_same_each_time(transform: Any, tmp_path: Path):
    def digest(limit: float, run: str) -> Any:
        return transform("SELECT *, random() AS chance FROM data WHERE chol < $limit", run=run, limit=limit)

    first = digest(20.0, "r1").outputs["dataset"].sha256
    import shutil

    shutil.rmtree(tmp_path / "store" / "cache")
    assert digest(20.0, "r2").outputs["dataset"].sha256 == first


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT age, y FROM data", '(?s)Referenced column "age" not found.*data and train have: id, chol'),
        ("SELECT 1 AS y; SELECT 2 AS y", "one SELECT"),
        ("COPY data TO 'out.csv'", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "(?i)permission|disabled"),
        ("SELECT id FROM data", "lost the label y"),
        ("SELECT * FROM data WHERE false", "left no rows of train"),
        ("SELECT y, [1, 2] AS pair FROM data", "column pair of type list"),
        ("SELECT * FROM data WHERE id > $limit", "(?i)parameter"),
    ],
)
def test_what_is_wrong_is_said(transform: Any, sql: str, says: str):
    with pytest.raises(UserCodeError, match=says):
        transform(sql)
