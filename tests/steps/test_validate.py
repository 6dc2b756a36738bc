"""validate: rules and schemas, quarantine with reasons, thresholds, leakage, and schemas that do not behave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, DataError, GateFailed, UserCodeError
from edgewright.steps.contract import StepResult
from edgewright.steps.data import Dataset

BRACELET = Path(__file__).parents[2] / "dags" / "bracelet"
SPLIT = {"test": 0.25, "seed": 7, "stratify": True}


def folder_of(result: StepResult, name: str = "dataset") -> Path:
    return Path(result.outputs[name].uri.removeprefix("file://"))


def opened(result: StepResult, name: str = "dataset") -> Dataset:
    return Dataset.open(folder_of(result, name))


@pytest.fixture
def ingest(run_step: Any, pipeline_folder: Path) -> Any:
    """Write a CSV file and ingest it."""

    def run(text: str, **config: Any) -> dict[str, Any]:
        (pipeline_folder / "data.csv").write_text(text)
        result = run_step("ingest", {"source": "data.csv", **config})
        return result.outputs["dataset"].model_dump(mode="json")

    return run


@pytest.fixture
def small(ingest: Any) -> dict[str, Any]:
    return ingest("age,name,y\n" + "".join(f"{20 + n},n{n},{n % 2}\n" for n in range(10)), label="y")


def schema(folder: Path, body: str) -> None:
    (folder / "schema.py").write_text(f"import pandera.pandas as pa\n{body}\n")


def test_the_bracelets_data_are_right(run_step: Any, ingest: Any, pipeline_folder: Path) -> None:
    shutil.copy(BRACELET / "schema.py", pipeline_folder)
    data = ingest((BRACELET / "cleveland.csv").read_text(), label="num", split=SPLIT)
    result = run_step("validate", {"data": data, "schema": "schema.py:Bracelet"})
    assert result.metrics == {"rows": 303, "rejected": 0, "rejected_share": 0}
    assert set(result.outputs) == {"dataset", "report"}
    assert [gate.passed for gate in result.gates] == [True]


def test_what_is_right_stays_the_same_dataset(run_step: Any, small: Any) -> None:
    result = run_step("validate", {"data": small, "columns": {"age": {"minimum": 0}}})
    assert result.outputs["dataset"] == ArtifactRef.model_validate(small)


def test_wrong_rows_go_aside_with_their_place_and_reason(run_step: Any, small: Any) -> None:
    rules = {"age": {"minimum": 22}, "name": {"allowed": ["n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8"]}}
    result = run_step("validate", {"data": small, "columns": rules, "max_rejected": 0.3})
    assert opened(result).rows("train") == 7
    aside = opened(result, "quarantine").frame("train")
    assert aside[["age", "name", "_part", "_row", "_reason"]].to_dict("records") == [
        {"age": 20, "name": "n0", "_part": "train", "_row": 1, "_reason": "age: is less than 22"},
        {"age": 21, "name": "n1", "_part": "train", "_row": 2,
         "_reason": "age: is less than 22; name: is none of ['n0', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n8']"},
        {"age": 29, "name": "n9", "_part": "train", "_row": 10,
         "_reason": "name: is none of ['n0', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n8']"},
    ]  # fmt: skip
    assert result.metrics["rejected_share"] == 0.3


def test_too_many_wrong_rows_fail_the_task_and_keep_the_report(run_step: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(GateFailed) as caught:
        run_step("validate", {"data": small, "columns": {"age": {"maximum": 25}}, "max_rejected": 0.1})
    assert "rejected_share = 0.4, gate <= 0.1: FAILED" in str(caught.value)
    assert "4 of 10 rows: 4 x age: is more than 25 (such as row 7 of train: 26)" in str(caught.value)
    document = json.loads((tmp_path / "store/runs/test/r1/validate/result.json").read_text())
    assert set(document["outputs"]) == {"dataset", "quarantine", "report"}


def test_no_right_row_at_all_never_passes(run_step: Any, small: Any) -> None:
    with pytest.raises(GateFailed, match="10 of 10 rows"):
        run_step("validate", {"data": small, "columns": {"age": {"maximum": 1}}, "max_rejected": 1})


@pytest.mark.parametrize(
    ("text", "rule", "rejected"),
    [
        ("a,b\n1,x\n,y\n3,z\n", {"missing": False}, [2]),
        ("a,b\n1,x\n,y\n3,z\n", {"missing": 0.2}, [2]),
        ("a,b\n1,x\n,y\n3,z\n", {"missing": 0.5}, []),
        ("a,b\n1,x\n1,y\n,z\n,w\n", {"unique": True}, [2]),
        ("a,b\n1.5,x\n2.5,y\n", {"maximum": 2.0, "type": "number"}, [2]),
        ("a,b\n1,x\n7,y\n,z\n", {"allowed": [1, 2]}, [2]),
        ("a,b\nAB1,x\nab1,y\n,z\n", {"pattern": "[A-Z]+[0-9]"}, [2]),
    ],
)
def test_each_rule_finds_its_rows(run_step: Any, ingest: Any, text: str, rule: Any, rejected: list[int]) -> None:
    result = run_step("validate", {"data": ingest(text), "columns": {"a": rule}, "max_rejected": 0.9})
    found = opened(result, "quarantine").frame("train")._row.tolist() if rejected else []
    assert found == rejected
    assert result.metrics["rejected"] == len(rejected)


def test_uniqueness_holds_over_batches_and_parts(run_step: Any, ingest: Any, pipeline_folder: Path) -> None:
    rows = [f"{n},{n % 3}" for n in range(140_000)] + ["5,9", "139999,9"]
    data = ingest("id,b\n" + "\n".join(rows) + "\n", split={"test": 0.3})
    schema(pipeline_folder, "S = pa.DataFrameSchema({'id': pa.Column(int, unique=True), 'b': pa.Column(int)})")
    for config in ({"columns": {"id": {"unique": True}}}, {"schema": "schema.py:S"}):
        result = run_step("validate", {"data": data, **config, "max_rejected": 0.01})
        aside = opened(result, "quarantine").frame("train")
        assert sorted(aside.id) == [5, 139_999]
        assert set(aside._reason) == {"id: occurs before"}


def test_columns_that_are_unique_together(run_step: Any, ingest: Any, pipeline_folder: Path) -> None:
    data = ingest("a,b,c\n1,1,x\n1,2,y\n1,1,z\n")
    schema(pipeline_folder, "S = pa.DataFrameSchema({'a': pa.Column(), 'b': pa.Column()}, unique=['a', 'b'])")
    result = run_step("validate", {"data": data, "schema": "schema.py:S", "max_rejected": 0.5})
    assert opened(result, "quarantine").frame("train")._row.tolist() == [3]


def test_a_schema_finds_every_fault_of_a_row(run_step: Any, ingest: Any, pipeline_folder: Path) -> None:
    data = ingest("a,b\n1,1.5\n-1,9.5\n3,\n4,4.5\n", label=None)
    schema(
        pipeline_folder,
        "class Rows(pa.DataFrameModel):\n"
        "    a: int = pa.Field(ge=0)\n"
        "    b: float = pa.Field(le=5)\n"
        "    @pa.dataframe_check\n"
        "    def small_sum(cls, rows):\n"
        "        return rows.a + rows.b.fillna(0) < 8\n",
    )
    result = run_step("validate", {"data": data, "schema": "schema.py:Rows", "max_rejected": 1})
    reasons = dict(opened(result, "quarantine").frame("train")[["_row", "_reason"]].itertuples(index=False))
    assert set(reasons) == {2, 3, 4}
    assert set(reasons[2].split("; ")) == {
        "a: fails greater_than_or_equal_to(0)", "b: fails less_than_or_equal_to(5)", "fails small_sum"
    }  # fmt: skip
    assert reasons[3] == "b: is missing"
    assert reasons[4] == "fails small_sum"


def test_integers_with_gaps_are_floats_in_every_batch(run_step: Any, ingest: Any, pipeline_folder: Path) -> None:
    data = ingest("a\n" + "1\n" * 70_000 + "NA\n")
    schema(pipeline_folder, "S = pa.DataFrameSchema({'a': pa.Column(float, nullable=True)})")
    assert run_step("validate", {"data": data, "schema": "schema.py:S"}).metrics["rejected"] == 0


def test_values_that_cannot_be_converted_are_rows(run_step: Any, ingest: Any, pipeline_folder: Path) -> None:
    data = ingest("a,b\n1,1\nhigh,2\n3,3\n", types={"a": "string"})
    schema(pipeline_folder, "S = pa.DataFrameSchema({'a': pa.Column(float, coerce=True)})")
    result = run_step("validate", {"data": data, "schema": "schema.py:S", "max_rejected": 0.5})
    (reason,) = opened(result, "quarantine").frame("train")._reason
    assert reason == "a: cannot be converted to float64"


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("S = pa.DataFrameSchema({'weight': pa.Column(int)})", DataError, "column weight is missing"),
        ("S = pa.DataFrameSchema({'age': pa.Column(int)}, strict=True)", DataError, "column name is not in the schema"),
        ("S = pa.DataFrameSchema({'name': pa.Column(int)})", DataError, "column name is not of type int64"),
        ("S = pa.DataFrameSchema({'age': pa.Column(int, pa.Check(lambda s: s.mean() < 3, name='low'))})", DataError,
         "age as a whole fails low"),
        ("def boom(s):\n    raise ValueError('boom')\nS = pa.DataFrameSchema({'age': pa.Column(int, pa.Check(boom))})",
         UserCodeError, "a check of schema.py:S raised: boom: ValueError"),
        ("S = {'age': int}", UserCodeError, "schema.py:S is no pandera schema but a dict"),
        ("T = 1", UserCodeError, "schema.py has no S"),
        ("raise RuntimeError('no')", UserCodeError, "raised RuntimeError: no"),
        ("S = (", UserCodeError, "SyntaxError"),
    ],
)  # fmt: skip
def test_schemas_that_do_not_fit(
    run_step: Any, small: Any, pipeline_folder: Path, body: str, error: type[Exception], message: str
) -> None:
    schema(pipeline_folder, body)
    with pytest.raises(error) as caught:
        run_step("validate", {"data": small, "schema": "schema.py:S"})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ({"agee": {"minimum": 1}}, DataError, "there is no column 'agee'.*did you mean \"age\""),
        ({"age": {"type": "string"}}, DataError, "column age is of type integer, not string"),
        ({"name": {"minimum": 1}}, ConfigError, "column name is of type string: it has no minimum"),
        ({"age": {"pattern": "x"}}, ConfigError, "a pattern is for text"),
        ({"name": {"pattern": "("}}, ConfigError, "no regular expression"),
    ],
)
def test_rules_that_do_not_fit(run_step: Any, small: Any, rules: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        run_step("validate", {"data": small, "columns": rules})


def test_a_column_that_need_not_be_there(run_step: Any, small: Any) -> None:
    rules = {"weight": {"minimum": 1, "required": False}}
    assert run_step("validate", {"data": small, "columns": rules}).metrics["rejected"] == 0


def test_rows_that_stand_in_two_parts_are_leakage(run_step: Any, ingest: Any, pipeline_folder: Path) -> None:
    data = ingest("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(200)), label="y", split=SPLIT)
    (pipeline_folder / "prepare.py").write_text("def coarse(frame):\n    return frame.assign(a=frame.a // 50)\n")
    coarse = run_step("transform", {"data": data, "entry": "prepare.py:coarse"}).outputs["dataset"]
    data = coarse.model_dump(mode="json")
    with pytest.raises(DataError, match=r"rows of train stand in test too \(leakage\), such as row 1: \{"):
        run_step("validate", {"data": data})
    assert run_step("validate", {"data": data, "leakage": False}).metrics["rejected"] == 0


def test_the_rarest_class_has_a_smallest_share(run_step: Any, ingest: Any) -> None:
    data = ingest("a,y\n" + "".join(f"{n},{int(n < 5)}\n" for n in range(100)), label="y")
    assert run_step("validate", {"data": data, "min_class_share": 0.05}).gates[1].passed
    with pytest.raises(GateFailed, match=r"class_share = 0.05, gate >= 0.1: FAILED \(class 1: 5 rows\)"):
        run_step("validate", {"data": data, "min_class_share": 0.1})
    config = {"data": data, "columns": {"a": {"minimum": 5}}, "max_rejected": 0.5, "min_class_share": 0.01}
    with pytest.raises(GateFailed, match=r"class_share = 0, gate >= 0.01: FAILED \(class 1: 0 rows\)"):
        run_step("validate", config)


def test_the_report_is_a_page_of_its_own(run_step: Any, ingest: Any) -> None:
    data = ingest("a,b\n1,<b>\n-2,y\n")
    result = run_step("validate", {"data": data, "columns": {"a": {"minimum": 0}}, "max_rejected": 0.5})
    folder = folder_of(result, "report")
    page = (folder / "report.html").read_text()
    assert "a: is less than 0" in page
    assert "http" not in page.replace("http-equiv", "")
    document = json.loads((folder / "report.json").read_text())
    assert document["reasons"] == [{"reason": "a: is less than 0", "count": 1, "example": "row 2 of train: -2"}]
    assert document["parts"] == {"train": {"kept": 1, "rejected": 1}}
    assert result.outputs["report"].meta["page"] == "report.html"


def test_the_same_rows_and_rules_give_the_same_digests(run_step: Any, small: Any) -> None:
    config = {"data": small, "columns": {"age": {"minimum": 22}}, "max_rejected": 0.5}
    one, two = run_step("validate", config, cache="off"), run_step("validate", config, run="r2", cache="off")
    assert {n: o.sha256 for n, o in one.outputs.items()} == {n: o.sha256 for n, o in two.outputs.items()}
