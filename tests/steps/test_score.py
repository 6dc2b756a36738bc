"""``score``: every row of a file once, whatever its format, its quotes, its faults, and who is killed meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.releases import model_folder

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, DataError, GateFailed, NotFound
from edgewright.steps.contract import StepResult
from edgewright.steps.models import load_model
from edgewright.steps.score_scan import scan


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """A logistic regression on a, b and c, of which b may be missing."""
    folder = model_folder(tmp_path / "model")
    return ArtifactStore(tmp_path / "store").put(folder, "model", {}).model_dump(mode="json")


def rows_of(count: int) -> pd.DataFrame:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(random.normal(size=(count, 3)).round(5), columns=list("abc"))
    frame.loc[frame.index % 11 == 0, "b"] = np.nan
    frame.insert(0, "id", [f'p{i} "x",\nb' if i % 7 == 0 else f"p{i}" for i in range(count)])
    return frame


def parts(to: Path, pattern: str = "part-*.parquet") -> list[Path]:
    return sorted(to.glob(f"*/*/{pattern}"))


def predictions(to: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in parts(to)], ignore_index=True)


def rejected(to: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted(to.glob("*/*/_rejected/*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def expected(tmp_path: Path, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return load_model(tmp_path / "model").scores(frame)[:, 1]


def config(model: dict[str, Any], tmp_path: Path, source: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "source": source, "to": f"file://{tmp_path / 'out'}", "processes": 1, **more}


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet", "jsonl", "jsonl.gz"])
def test_every_format_gives_the_same_answers_in_the_files_order(form, model, run_step, pipeline_folder, tmp_path):
    frame = rows_of(3000)
    path = pipeline_folder / f"rows.{form}"
    if form == "parquet":
        frame.to_parquet(path, row_group_size=700)
    elif form.startswith("csv"):
        text = frame.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    else:
        text = frame.to_json(orient="records", lines=True).encode()
        path.write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    result = run_step("score", config(model, tmp_path, path.name, keep=["id"], shard_mib=0.03))
    found = predictions(tmp_path / "out")
    assert found["row"].tolist() == list(range(1, 3001))
    assert found["id"].tolist() == frame["id"].tolist()
    assert found["file"].unique().tolist() == [path.name]
    assert found["probability_1"].to_numpy() == pytest.approx(expected(tmp_path, frame), abs=1e-6)
    assert found["prediction"].tolist() == (found["probability_1"] > 0.5).astype(int).tolist()
    assert result.metrics["rows"] == 3000
    assert result.metrics["shards"] == (1 if form.endswith("gz") else pytest.approx(5, abs=4))
    assert list((tmp_path / "out").glob("*/*/_SUCCESS"))


@pytest.mark.parametrize("output", ["csv", "jsonl"])
def test_other_outputs_hold_the_same(output, model, run_step, pipeline_folder, tmp_path):
    frame = rows_of(50)
    frame.to_csv(pipeline_folder / "rows.csv", index=False)
    run_step("score", config(model, tmp_path, "rows.csv", keep=["id"], output=output))
    (path,) = parts(tmp_path / "out", f"part-*.{output}")
    found = pd.read_csv(path) if output == "csv" else pd.read_json(path, lines=True)
    assert list(found) == ["file", "row", "id", "prediction", "probability_0", "probability_1", "model"]
    assert found["id"].tolist() == frame["id"].tolist()
    assert found["probability_1"].to_numpy() == pytest.approx(expected(tmp_path, frame), abs=1e-6)


def test_a_row_that_cannot_be_scored_goes_aside_with_the_reason_and_the_others_are_scored(
    model, run_step, pipeline_folder, tmp_path
):
    lines = ["id,a,b,c", "1,1,2,3", "2,x,2,y", "", "4,1,2", "5,inf,2,3", "6,,2,3", "7,1,,3", "8,1,2,3,4"]
    lines.append('"9\n9",1,2,3')
    (pipeline_folder / "rows.csv").write_text("\n".join(lines))
    run_step("score", config(model, tmp_path, "rows.csv", keep=["id"], max_rejected=1))
    found = predictions(tmp_path / "out")
    assert found["row"].tolist() == [1, 7, 9]
    assert found["id"].tolist() == ["1", "7", "9\n9"]
    assert [(bad["row"], bad["reasons"]) for bad in rejected(tmp_path / "out")] == [
        (2, ["a: 'x' is no number", "c: 'y' is no number"]),
        (3, ["the line is empty"]),
        (4, ["3 values instead of 4"]),
        (5, ["a is infinite or too large"]),
        (6, ["a is missing, which it never was in training"]),
        (8, ["5 values instead of 4"]),
    ]


def test_bad_lines_of_json_go_aside(model, run_step, pipeline_folder, tmp_path):
    good = '{"a": 1, "b": 2, "c": 3}'
    lines = [good, "[1]", '{"a": "x", "b": 2, "c": 3}', "{", "", '{"a": true, "b": 2, "c": 3}', '{"a": 1, "c": 3}']
    (pipeline_folder / "rows.jsonl").write_text("\n".join([*lines, good]))
    run_step("score", config(model, tmp_path, "rows.jsonl", max_rejected=1))
    assert predictions(tmp_path / "out")["row"].tolist() == [1, 7, 8]
    assert [bad["row"] for bad in rejected(tmp_path / "out")] == [2, 3, 4, 5, 6]


def test_too_many_rejected_rows_fail_the_task_and_are_kept(model, run_step, pipeline_folder, tmp_path):
    (pipeline_folder / "rows.csv").write_text("a,b,c\n1,2,3\nx,2,3\n")
    with pytest.raises(GateFailed, match=r"rejected = 0\.5, gate <= 0\.01: FAILED"):
        run_step("score", config(model, tmp_path, "rows.csv"))
    assert len(rejected(tmp_path / "out")) == 1
    assert not (tmp_path / "out" / "latest.json").exists()


def test_a_second_run_scores_only_what_is_new(model, run_step, pipeline_folder, tmp_path):
    for name in "xy":
        rows_of(40).to_csv(pipeline_folder / f"{name}.csv", index=False)
    settings = config(model, tmp_path, "*.csv")
    assert run_step("score", settings).metrics["shards_reused"] == 0
    before = {path: path.stat().st_mtime_ns for path in parts(tmp_path / "out")}
    assert run_step("score", settings).metrics["shards_reused"] == 2
    rows_of(60).to_csv(pipeline_folder / "z.csv", index=False)
    result = run_step("score", settings)
    assert (result.metrics["shards"], result.metrics["shards_reused"], result.metrics["rows"]) == (3, 2, 140)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    latest = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert [Path(file["file"]).name for file in latest["files"]] == ["x.csv", "y.csv", "z.csv"]
    assert latest["complete"]


def test_a_marker_without_its_part_is_no_success(model, run_step, pipeline_folder, tmp_path):
    rows_of(400).to_csv(pipeline_folder / "rows.csv", index=False)
    settings = config(model, tmp_path, "rows.csv", shard_mib=0.005)
    first = run_step("score", settings)
    victim = parts(tmp_path / "out")[1]
    data = victim.read_bytes()
    victim.write_bytes(data[:100])
    second = run_step("score", settings)
    assert second.metrics["shards_reused"] == first.metrics["shards"] - 1
    assert victim.read_bytes() == data


def test_tasks_share_a_job(model, run_step, pipeline_folder, tmp_path):
    rows_of(1000).to_csv(pipeline_folder / "rows.csv", index=False)
    settings = config(model, tmp_path, "rows.csv", shard_mib=0.005)
    results = [
        run_step("score", {**settings, "slice": {"index": index, "of": 3}}, task=f"s{index}") for index in range(3)
    ]
    assert not list((tmp_path / "out").glob("*/*/_SUCCESS")) or results[2].metrics["rows"] == 1000
    assert [bool(result.notes[1:]) for result in results] == [True, True, False]
    assert predictions(tmp_path / "out")["row"].tolist() == list(range(1, 1001))


def contents(to: Path) -> dict[str, bytes]:
    kept = [path for path in to.rglob("*") if path.is_file() and path.suffix in (".parquet", ".jsonl")]
    return {str(path.relative_to(to)): path.read_bytes() for path in kept}


def test_workers_that_are_killed_leave_the_same_output(model, run_step, pipeline_folder, tmp_path):
    frame = rows_of(30_000)
    frame.loc[frame.index % 97 == 0, "a"] = np.nan
    frame.to_csv(pipeline_folder / "rows.csv", index=False)
    settings = config(model, tmp_path, "rows.csv", keep=["id"], shard_mib=0.02, max_rejected=1, engine="onnx")
    run_step("score", settings)
    undisturbed = contents(tmp_path / "out")
    assert len(undisturbed) > 50

    random, killed, over = np.random.default_rng(5), [], threading.Event()

    def kill() -> None:
        while not over.is_set() and len(killed) < 4:
            mine = [one for one in psutil.Process().children() if "score_worker" in " ".join(_arguments(one))]
            done = len(list((tmp_path / "disturbed").glob("*/*/_done/*.json")))
            if mine and done > 5 * len(killed):
                victim = mine[int(random.integers(len(mine)))]
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)
            time.sleep(float(random.uniform(0.001, 0.02)))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = run_step(
            "score", {**settings, "to": f"file://{tmp_path / 'disturbed'}", "processes": 2}, task="disturbed"
        )
    finally:
        over.set()
        killer.join()
    assert killed
    assert result.metrics["rows"] + result.metrics["rejected"] == 30_000
    assert contents(tmp_path / "disturbed") == undisturbed


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("a,b\n1,2\n", {}, "there is no column c"),
        ("a,a,b,c\n1,1,2,3\n", {}, "columns occur twice: a"),
        ("", {}, "the file is empty"),
        ('a,b,c\n1,"2,3\n', {}, "a quotation mark is never closed"),
        ("a,b,c\n1,2,3\n", {"keep": ["name"]}, "there is no column name"),
        ("a,b,c\n1,2,3\n", {"encoding": "utf-16"}, "cannot be cut into shards"),
        ("a,b,c\n1,2,3\n", {"source": "../rows.csv"}, "leads out of the pipeline's folder"),
        ("a,b,c\n1,2,3\n", {"source": "*.parquet"}, "no file fits"),
        ("a,b,c\n1,2,3\n", {"to": "relative"}, "not an address"),
    ],
)
def test_faults_are_named(text, more, message, model, run_step, pipeline_folder, tmp_path):
    (pipeline_folder / "rows.csv").write_text(text)
    with pytest.raises((DataError, ConfigError), match=message):
        run_step("score", {**config(model, tmp_path, "rows.csv"), **more})


def test_marks_that_are_ordinary_characters(model, run_step, pipeline_folder, tmp_path):
    (pipeline_folder / "rows.csv").write_text('id,a,b,c\n5" pipe,1,2,3\nx,1,2,3\n')
    run_step("score", config(model, tmp_path, "rows.csv", keep=["id"], quotes=False))
    assert predictions(tmp_path / "out")["id"].tolist() == ['5" pipe', "x"]


def test_a_model_that_is_not_registered_is_not_found(run_step, pipeline_folder, tmp_path):
    (pipeline_folder / "rows.csv").write_text("a,b,c\n1,2,3\n")
    settings = {"registered": "nobody@champion", "source": "rows.csv"}
    with pytest.raises(NotFound, match="nobody has no champion"):
        run_step("score", settings, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


def test_a_file_without_rows_gives_an_empty_part(model, run_step, pipeline_folder, tmp_path):
    (pipeline_folder / "one.csv").write_text("a,b,c\n1,2,3\n")
    pq.write_table(pq.read_table(_parquet(tmp_path)).slice(0, 0), pipeline_folder / "none.parquet")
    result: StepResult = run_step("score", config(model, tmp_path, "none.parquet"))
    assert result.metrics["rows"] == 0


def _parquet(folder: Path) -> Path:
    path = folder / "rows.parquet"
    rows_of(5).to_parquet(path)
    return path


# -- where records begin ------------------------------------------------------------------------------------------

cell = st.text(alphabet='ab,"\n', max_size=6)


@settings(max_examples=60, deadline=None)
@given(cells=st.lists(cell, max_size=40), cut=st.integers(1, 50), last=st.booleans())
def test_ranges_hold_whole_records_whatever_stands_in_quotes(cells, cut, last):
    import io

    records = [('"' + text.replace('"', '""') + '",x').encode() for text in cells]
    data = b"\n".join(records) + (b"\n" if last and records else b"")
    found = scan(lambda: io.BytesIO(data), 0, len(data), cut, quotes=True, threads=2, where="rows")
    assert found.rows == len(records)
    assert b"".join(data[one.start : one.stop] for one in found.cuts) == data
    row = 1
    for one in found.cuts:
        assert one.first_row == row
        whole = b"\n".join(records[row - 1 : row - 1 + one.rows])
        assert data[one.start : one.stop].removesuffix(b"\n") == whole
        row += one.rows
