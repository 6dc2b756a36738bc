"""evaluate: what is measured, what gates say, and what the report shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, DataError, GateFailed
from edgewright.steps.contract import StepResult

CLASSIFIER = """
from sklearn.linear_model import LogisticRegression

def fit(data):
    return LogisticRegression(max_iter=1000).fit(data.X, data.y)
"""
REGRESSOR = CLASSIFIER.replace("LogisticRegression(max_iter=1000)", "LinearRegression()").replace(
    "LogisticRegression", "LinearRegression"
)


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["sex"] = random.integers(2, size=rows)
    frame["y"] = (frame.a + 0.5 * frame.b + random.normal(scale=0.5, size=rows) > 0).astype(int)
    return frame


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path)
    place.model_py(CLASSIFIER)
    return place


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    return place.dataset({"train": table(200, 1), "test": table(80, 2)}, "y")


def trained(place: Workplace, data: ArtifactRef) -> ArtifactRef:
    return place.run("train", data=data, entry="model.py:fit").outputs["model"]


def metrics_json(place: Workplace, result: StepResult) -> dict[str, object]:
    return json.loads((place.store.fetch(result.outputs["report"]) / "metrics.json").read_text())  # type: ignore[no-any-return]


def test_metrics_report_and_gates(place: Workplace, data: ArtifactRef) -> None:
    result = place.run(
        "evaluate",
        model=trained(place, data),
        data=data,
        slices=["sex", "a"],
        gates={"accuracy": ">= 0.75", "accuracy_vs_champion": ">= -0.01"},
    )
    assert [(g.metric, g.passed) for g in result.gates] == [("accuracy", True), ("accuracy_vs_champion", True)]
    assert result.gates[1].value is None
    assert "no champion" in result.gates[1].note
    folder = place.store.fetch(result.outputs["report"])
    names = ["calibration.png", "confusion_matrix.png", "metrics.json", "report.html", "roc.png"]
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == names
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert page.index("<h2>Gates") < page.index("<h2>Metrics")
    assert "By sex" in page
    document = metrics_json(place, result)
    assert document["metrics"]["accuracy"] == result.metrics["accuracy"]  # type: ignore[index]
    assert sum(map(sum, document["confusion"])) == document["rows"] == 80  # type: ignore[arg-type]


def test_a_failed_gate_fails_the_task_and_keeps_the_report(place: Workplace, data: ArtifactRef) -> None:
    with pytest.raises(GateFailed, match=r"accuracy = 0\.\d+, gate >= 0.999: FAILED"):
        place.run("evaluate", model=trained(place, data), data=data, gates={"accuracy": ">= 0.999", "f1": "> 0"})
    kept = place.last("evaluate")
    assert kept["state"] == "failed"
    assert [g["passed"] for g in kept["gates"]] == [False, True]
    page = Path(kept["outputs"]["report"]["uri"].removeprefix("file://")) / "report.html"
    assert "1 of 2 gates failed" in page.read_text()


def test_a_gate_with_a_typo_lists_what_was_measured(place: Workplace, data: ArtifactRef) -> None:
    with pytest.raises(ConfigError, match="no such metric: accurracy") as caught:
        place.run("evaluate", model=trained(place, data), data=data, gates={"accurracy": ">= 0.7"})
    assert "balanced_accuracy" in str(caught.value)


def test_a_gate_of_another_kind_of_model_is_refused(place: Workplace, data: ArtifactRef) -> None:
    with pytest.raises(ConfigError, match="no such metric: r2"):
        place.run("evaluate", model=trained(place, data), data=data, gates={"r2": ">= 0.7"})


def test_a_gate_that_the_rows_cannot_answer_does_not_pass_silently(place: Workplace) -> None:
    one_class = table(80, 2).query("y == 1").reset_index(drop=True)
    data = place.dataset({"train": table(200, 1), "test": one_class}, "y")
    model = trained(place, data)
    assert "roc_auc" not in place.run("evaluate", model=model, data=data).metrics
    with pytest.raises(DataError, match="roc_auc cannot be measured on the part test"):
        place.run("evaluate", model=model, data=data, gates={"roc_auc": ">= 0.7"})


def test_the_holdout_is_measured_where_there_is_one(place: Workplace) -> None:
    data = place.dataset({"train": table(200, 1), "test": table(80, 2), "holdout": table(50, 3)}, "y")
    result = place.run("evaluate", model=trained(place, data), data=data)
    assert result.metrics["rows"] == 50
    assert result.outputs["report"].meta["part"] == "holdout"


def test_regression(place: Workplace) -> None:
    place.model_py(REGRESSOR)
    frames = {name: table(rows, 4).assign(y=lambda f: 3.0 * f.a + f.b) for name, rows in (("train", 99), ("test", 40))}
    data = place.dataset(frames, "y")
    result = place.run("evaluate", model=trained(place, data), data=data, gates={"r2": ">= 0.9", "rmse": "<= 0.1"})
    assert {"mae", "rmse", "r2"} <= set(result.metrics)
    folder = place.store.fetch(result.outputs["report"])
    assert {"predicted_and_true.png", "residuals.png"} <= {p.name for p in folder.iterdir()}


def test_several_classes_with_text_labels(place: Workplace) -> None:
    def three(rows: int, seed: int) -> pd.DataFrame:
        frame = table(rows, seed)
        return frame.assign(y=np.select([frame.a < -0.4, frame.a < 0.4], ["low", "middle"], "high"))

    data = place.dataset({"train": three(300, 1), "test": three(90, 2)}, "y")
    result = place.run("evaluate", model=trained(place, data), data=data, gates={"roc_auc": "> 0.9", "f1": "> 0.5"})
    assert metrics_json(place, result)["classes"] == ["high", "low", "middle"]


def test_the_page_escapes_what_comes_from_data(place: Workplace) -> None:
    frames = {
        name: table(rows, 5).assign(y=lambda f: f.y.map({0: "no", 1: "<script>alert(1)</script>"}))
        for name, rows in (("train", 99), ("test", 40))
    }
    data = place.dataset(frames, "y")
    result = place.run("evaluate", model=trained(place, data), data=data, slices=["y"])
    page = (place.store.fetch(result.outputs["report"]) / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_equal_evaluations_have_equal_charts(place: Workplace, data: ArtifactRef) -> None:
    model = trained(place, data)
    folders = []
    for _ in range(2):
        request = place.request("evaluate", model=model, data=data)
        request.cache = "off"
        from edgewright.steps.execute import execute

        folders.append(place.store.fetch(execute(request, store=place.store).outputs["report"]))
    assert folders[0] == folders[1]


def test_a_column_that_the_model_needs_is_missing(place: Workplace, data: ArtifactRef) -> None:
    model = trained(place, data)
    other = place.dataset({"train": table(50, 1).drop(columns="b"), "test": table(50, 2).drop(columns="b")}, "y")
    with pytest.raises(DataError, match="the data have no b, which the model needs"):
        place.run("evaluate", model=model, data=other)
