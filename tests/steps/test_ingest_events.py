"""ingest with batches of events: replaced, added, too few, one row, one class, what stands in the holdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.errors import Skipped
from edgewright.steps.contract import StepResult
from edgewright.steps.data import Dataset
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.takes import settle

SOURCE = "age,chol,num\n" + "".join(f"{40 + n},{200 + n},{n % 2}\n" for n in range(20))


@pytest.fixture
def start(tmp_path: Path, pipeline_folder: Path, run_step: Any) -> Any:
    """Run ingest for a batch of rows: ``start([{...}], on_event="append")``."""
    (pipeline_folder / "data.csv").write_text(SOURCE)
    store = ArtifactStore(tmp_path / "store")
    log = BatchLog(store, "test", "kafka-t")

    def run(rows: list[dict[str, Any]] | None, run_id: str = "", success: bool = True, **config: Any) -> StepResult:
        claim = None
        if rows is not None:
            log.head()
            number = (log._head.number if log._head else 0) + 1
            data = b"".join(json.dumps({"offset": 0, "value": row}).encode() + b"\n" for row in rows)
            key, sha256 = log.write_data(f"b{number}", data)
            log.append(Batch(0, f"b{number}", "kafka", key, len(rows), size=len(data), sha256=sha256))
            run_id = run_id or f"event__b{number}"
            claim = log.write_claim(run_id, [number])
        config = {"source": "data.csv", "label": "num", **config}
        result: StepResult = run_step("ingest", config, run=run_id or "manual", batch=claim)
        settle(store, "test", run_id, claim, success=success, outcome={})
        return result

    return run


def rows_of(result: StepResult, part: str = "train") -> int:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://"))).rows(part)


ROW = {"age": 99, "chol": 300, "num": 1}


def test_ignore_takes_the_source_alone(start: Any) -> None:
    assert rows_of(start([ROW])) == 20


def test_replace_stands_alone_with_the_types_of_the_source(start: Any) -> None:
    result = start([{**ROW, "chol": None}], on_event="replace")
    manifest = Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://"))).manifest
    assert manifest["rows"] == 1
    assert [column["type"] for column in manifest["columns"]] == ["integer", "integer", "integer"]
    assert manifest["source"]["events"]["own"] == ["b1"]


def test_append_grows_with_every_run_that_ended_well(start: Any) -> None:
    assert rows_of(start([ROW], on_event="append")) == 21
    assert rows_of(start([{**ROW, "age": 98}], on_event="append", success=False)) == 22
    assert rows_of(start([{**ROW, "age": 97}, {**ROW, "age": 96}], on_event="append")) == 23
    assert rows_of(start(None, run_id="by-hand", on_event="append")) == 23


def test_the_same_run_sees_the_same_rows_again(start: Any, run_step: Any) -> None:
    first = start([ROW], on_event="append", success=False)
    start([{**ROW, "age": 98}], on_event="append")
    claim = "events/test/kafka-t/runs/event__b1.json"
    config = {"source": "data.csv", "label": "num", "on_event": "append"}
    again = run_step("ingest", config, run="event__b1", batch=claim, cache="off")
    assert again.outputs["dataset"].sha256 == first.outputs["dataset"].sha256


def test_too_few_rows_wait_for_the_next_batch(start: Any) -> None:
    with pytest.raises(Skipped, match=r"minimum.rows: 3"):
        start([ROW], on_event="replace", minimum={"rows": 3})
    with pytest.raises(Skipped, match=r"minimum.rows: 3"):
        start([{**ROW, "age": 98}], on_event="replace", minimum={"rows": 3})
    result = start([{**ROW, "age": 97, "num": 0}], on_event="replace", minimum={"rows": 3})
    assert rows_of(result) == 3


def test_one_class_is_a_clear_skip(start: Any) -> None:
    with pytest.raises(Skipped, match="only the class 1"):
        start([ROW, {**ROW, "age": 98}], on_event="replace", minimum={"per_class": 1})


@pytest.mark.parametrize("stratify", [True, False])
def test_one_row_with_a_split_is_a_clear_skip(start: Any, stratify: bool) -> None:
    with pytest.raises(Skipped, match="too few for this split"):
        start([ROW], on_event="replace", split={"test": 0.25, "stratify": stratify})


def test_decimal_numbers_in_events_widen_the_column(start: Any) -> None:
    result = start([{**ROW, "chol": 233.5}, {**ROW, "age": 71.0}], on_event="append")
    columns = Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://"))).manifest["columns"]
    assert {column["name"]: column["type"] for column in columns} == {
        "age": "integer", "chol": "number", "num": "integer"
    }  # fmt: skip


def test_messages_that_stand_in_the_holdout_are_left_out(start: Any, pipeline_folder: Path) -> None:
    (pipeline_folder / "holdout.csv").write_text("age,chol,num\n99,300,1\n98,300,0\n")
    result = start([ROW, {**ROW, "age": 50}], on_event="append", holdout="holdout.csv")
    assert rows_of(result) == 21
    assert any("stand in the holdout" in note for note in result.notes)


def test_fields_that_are_missing_or_unknown(start: Any) -> None:
    result = start([{"age": 99, "num": 1, "ward": "b"}], on_event="append")
    manifest = Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://"))).manifest
    assert manifest["missing"] == {"chol": 1}


def test_objects_of_a_batch_are_rows_and_stay_when_they_are_gone(start: Any, tmp_path: Path, run_step: Any) -> None:
    from edgewright.spec.triggers import ObjectsTrigger
    from edgewright.streams.objects import ObjectSource

    store = ArtifactStore(tmp_path / "store")
    folder = tmp_path / "in%20put"
    folder.mkdir()
    (folder / "a+b.csv").write_text("num,age,chol\n1,70,250\n0,71,251\n")
    (folder / "gone.csv").write_text("num,age,chol\n1,72,250\n")
    log = BatchLog(store, "test", "objects-in")
    trigger = {"uri": f"file://{tmp_path}/in*/*.csv", "every": 0.05, "batch": {"min_objects": 2}}
    source = ObjectSource(ObjectsTrigger.model_validate(trigger), {}, log)
    batch = next(found for _ in range(20) if (found := source.poll(0.1)))
    (folder / "gone.csv").unlink()
    claim = log.write_claim("event__o", [batch.number])
    config = {"source": "data.csv", "label": "num", "on_event": "append"}
    result = run_step("ingest", config, run="event__o", batch=claim)
    assert rows_of(result) == 22
    settle(store, "test", "event__o", claim, success=True, outcome={})
    (folder / "a+b.csv").unlink()
    assert rows_of(start([ROW], on_event="append")) == 23
