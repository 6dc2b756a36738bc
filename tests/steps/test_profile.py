"""Profiles of datasets, held against pandas, and what changed between two versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from edgewright.steps.data import Dataset
from edgewright.steps.profile import profile
from edgewright.steps.profile_diff import compare
from edgewright.steps.profile_page import page


def frame_of(rows: int, seed: int = 1, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    age = random.integers(20, 80, rows)
    frame = pd.DataFrame({
        "age": age, "pressure": age * 1.5 + random.normal(0, 3, rows) + shift, "kind": random.choice(["a", "b"], rows),
        "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(age, unit="D"), "y": random.integers(0, 2, rows),
    })  # fmt: skip
    frame.loc[frame.index[::10], "pressure"] = np.nan
    return frame


@pytest.fixture
def dataset_of(run_step: Any, pipeline_folder: Path) -> Any:
    def make(frame: pd.DataFrame, **config: Any) -> Dataset:
        frame.to_csv(pipeline_folder / "data.csv", index=False)
        result = run_step("ingest", {"source": "data.csv", "label": "y", "split": {"test": 0.25}, **config})
        return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))

    return make


def test_a_profile_says_what_pandas_says(dataset_of: Any):
    frame = frame_of(2000)
    found = profile(dataset_of(frame))
    assert (found["rows"], found["sampled"], sum(found["parts"].values())) == (2000, 2000, 2000)
    columns = {column["name"]: column for column in found["columns"]}
    pressure = columns["pressure"]
    assert pressure["missing"] == 200
    assert pressure["mean"] == pytest.approx(frame["pressure"].mean())
    assert pressure["deviation"] == pytest.approx(frame["pressure"].std(ddof=0))
    assert pressure["quantiles"]["0.95"] == pytest.approx(frame["pressure"].quantile(0.95))
    assert sum(pressure["histogram"]["counts"]) == 1800
    assert (columns["age"]["minimum"], columns["age"]["distinct"]) == (frame["age"].min(), frame["age"].nunique())
    counts = frame["kind"].value_counts()
    assert {entry["value"]: entry["count"] for entry in columns["kind"]["frequent"]} == counts.to_dict()
    assert columns["at"]["maximum"] == str(frame["at"].max().date())
    names, values = found["correlations"]["columns"], found["correlations"]["values"]
    assert names == ["age", "pressure", "y"]
    assert values[0][1] == pytest.approx(frame["age"].corr(frame["pressure"]), abs=1e-3)


def test_a_large_dataset_is_sampled_and_counted_whole(dataset_of: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgewright.steps.profile.SAMPLE", 300)
    frame = frame_of(2000)
    found = profile(dataset_of(frame), ["train"])
    assert found["rows"] == found["parts"]["train"] > found["sampled"]
    assert 200 <= found["sampled"] <= 300
    assert found["columns"][0]["minimum"] == 20


def test_odd_columns_have_a_profile_too(dataset_of: Any):
    frame = pd.DataFrame({"y": [0, 1] * 50, "none": [None] * 100, "one": [1.5] * 100, "inf": [np.inf, 1.0] * 50,
                          "ok": [True, False] * 50, "id": range(100)})  # fmt: skip
    found = profile(dataset_of(frame))
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["none"]["missing"] == 100
    assert columns["one"]["deviation"] == 0
    assert columns["inf"]["maximum"] == 1.0
    assert [entry["count"] for entry in columns["ok"]["frequent"]] == [50, 50]
    html = page(found, "odd").html()
    assert html.count("<img") == 1 + len([c for c in columns.values() if "histogram" in c or "frequent" in c])


def test_a_difference_names_columns_rows_and_distributions(dataset_of: Any):
    frame = frame_of(2000).assign(id=range(2000))
    before = dataset_of(frame)
    same = compare(before, before)
    assert {column["verdict"] for column in same["columns"]} <= {"same", "not comparable"}
    assert (same["rows"]["added"], same["rows"]["removed"]) == (0, 0)
    more = pd.concat([frame.iloc[100:], frame_of(300, seed=2).assign(id=range(2000, 2300))])
    grown = compare(before, dataset_of(more))
    assert grown["rows"] == {"before": 2000, "after": 2200, "added": 300, "removed": 100}
    shifted = compare(
        before, dataset_of(frame_of(2000, shift=40).assign(id=range(2000)).rename(columns={"kind": "sort"}))
    )
    assert shifted["schema"]["added"] == ["sort"]
    assert shifted["schema"]["removed"] == ["kind"]
    verdicts = {column["name"]: column["verdict"] for column in shifted["columns"]}
    assert verdicts["pressure"] == "changed much"
    assert verdicts["age"] == "same"
    retyped = compare(before, dataset_of(frame, types={"age": "string"}))
    assert retyped["schema"]["changed"] == [{"name": "age", "before": "integer", "after": "string"}]
