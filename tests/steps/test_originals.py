"""A scikit-learn transform is applied again at evaluation and serving: it becomes part of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from edgewright.steps.contract import StepResult
from edgewright.steps.models import load_model, read_document

NUMBERS = """
from sklearn.preprocessing import StandardScaler

def fit(train):
    return StandardScaler().fit(train[["age", "chol"]])
"""
WORDS = """
from sklearn.preprocessing import OneHotEncoder

def fit(train):
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train[["city"]])
"""
MODEL = """
from sklearn.linear_model import LogisticRegression

def fit(data):
    return LogisticRegression(max_iter=500).fit(data.X, data.y)
"""


def ref(result: StepResult, name: str) -> dict[str, Any]:
    return result.outputs[name].model_dump(mode="json")


def folder(result: StepResult, name: str) -> Path:
    return Path(result.outputs[name].uri.removeprefix("file://"))


@pytest.fixture
def data(run_step: Any, pipeline_folder: Path) -> StepResult:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({
        "age": random.integers(20, 80, 300), "chol": random.normal(230, 40, 300).round(1),
        "city": random.choice(["bern", "graz", "linz"], 300), "dose": random.normal(1, 0.2, 300).round(3),
    })  # fmt: skip
    frame["y"] = ((frame.age > 50) ^ (frame.city == "graz")).astype(int)
    frame.to_csv(pipeline_folder / "data.csv", index=False)
    for name, text in (("scaling.py", NUMBERS), ("words.py", WORDS), ("model.py", MODEL)):
        (pipeline_folder / name).write_text(text)
    split = {"test": 0.3, "seed": 1, "stratify": True}
    result: StepResult = run_step("ingest", {"source": "data.csv", "label": "y", "split": split})
    return result


@pytest.fixture
def transformed(run_step: Any, data: StepResult) -> StepResult:
    scaled = run_step("transform", {"data": ref(data, "dataset"), "fit": "scaling.py:fit"}, task="scaled")
    encoded: StepResult = run_step("transform", {"data": ref(scaled, "dataset"), "fit": "words.py:fit"}, task="encoded")
    return encoded


def test_the_model_takes_the_original_columns(run_step: Any, data: StepResult, transformed: StepResult) -> None:
    model = run_step("train", {"data": ref(transformed, "dataset"), "entry": "model.py:fit"})
    document = read_document(folder(model, "model"))
    assert document.feature_names == ["age", "chol", "city", "dose"]
    frame = pd.read_parquet(folder(data, "dataset") / "test.parquet")
    after = pd.read_parquet(folder(transformed, "dataset") / "test.parquet")
    assert "city_graz" in after.columns
    loaded = load_model(folder(model, "model"))
    inner = loaded.estimator.steps[-1][1]  # type: ignore[attr-defined]
    np.testing.assert_allclose(loaded.scores(frame), inner.predict_proba(after.drop(columns="y").to_numpy()))


def test_evaluation_export_and_the_shipped_file_apply_it_again(
    run_step: Any, data: StepResult, transformed: StepResult
) -> None:
    both = {"data": ref(transformed, "dataset")}
    model = run_step("train", {**both, "entry": "model.py:fit"})
    quality = run_step("evaluate", {**both, "model": ref(model, "model"), "slices": ["city"]})
    assert quality.metrics["accuracy"] > 0.6
    shipped = run_step("quantize", {**both, "model": ref(model, "model"), "target": "onnx"})
    assert shipped.metrics["export_max_difference"] < 1e-4
    assert shipped.metrics["accuracy"] == pytest.approx(quality.metrics["accuracy"], abs=0.02)
    session = onnxruntime.InferenceSession(folder(shipped, "model") / "model.onnx")
    assert [value.name for value in session.get_inputs()] == ["age", "chol", "city", "dose"]
    row = {"age": 61.0, "chol": 250.0, "dose": 1.0}
    feed = {name: np.array([[value]], dtype=np.float32) for name, value in row.items()}
    scores = {}
    for city in ("bern", "graz"):
        _, probabilities = session.run(["label", "probabilities"], {**feed, "city": np.array([[city]], dtype=object)})
        scores[city] = float(probabilities[0, 1])
    assert scores["bern"] != scores["graz"]


def test_transformers_one_after_the_other(run_step: Any, pipeline_folder: Path, data: StepResult) -> None:
    (pipeline_folder / "squash.py").write_text(
        "from sklearn.decomposition import PCA\n\ndef fit(train):\n    return PCA(2).fit(train[['age', 'chol']])\n"
    )
    scaled = run_step("transform", {"data": ref(data, "dataset"), "fit": "scaling.py:fit"}, task="scaled")
    squashed = run_step("transform", {"data": ref(scaled, "dataset"), "fit": "squash.py:fit"}, task="squashed")
    encoded = run_step("transform", {"data": ref(squashed, "dataset"), "fit": "words.py:fit"}, task="encoded")
    both = {"data": ref(encoded, "dataset")}
    model = run_step("train", {**both, "entry": "model.py:fit"})
    assert read_document(folder(model, "model")).feature_names == ["age", "chol", "city", "dose"]
    shipped = run_step("quantize", {**both, "model": ref(model, "model"), "target": "onnx"})
    assert shipped.metrics["export_max_difference"] < 1e-4


def test_numbers_only_keep_one_input(run_step: Any, pipeline_folder: Path, data: StepResult) -> None:
    config = {"source": "data.csv", "label": "y", "columns": ["age", "chol", "dose", "y"], "split": {"test": 0.3}}
    numbers = run_step("ingest", config, task="numbers")
    scaled = run_step("transform", {"data": ref(numbers, "dataset"), "fit": "scaling.py:fit"}, task="s2")
    model = run_step("train", {"data": ref(scaled, "dataset"), "entry": "model.py:fit"}, task="m2")
    shipped = run_step(
        "quantize", {"data": ref(scaled, "dataset"), "model": ref(model, "model"), "target": "onnx"}, task="q2"
    )
    session = onnxruntime.InferenceSession(folder(shipped, "model") / "model.onnx")
    assert [value.name for value in session.get_inputs()] == ["X"]
    assert read_document(folder(shipped, "model")).feature_names == ["age", "chol", "dose"]


def test_a_plain_functions_columns_stay_the_models_own(run_step: Any, pipeline_folder: Path, data: StepResult) -> None:
    (pipeline_folder / "plain.py").write_text(
        "def entry(frame):\n    return frame.assign(old=(frame.age > 50).astype(int)).drop(columns=['age', 'city'])\n"
    )
    made = run_step("transform", {"data": ref(data, "dataset"), "entry": "plain.py:entry"}, task="plain")
    model = run_step("train", {"data": ref(made, "dataset"), "entry": "model.py:fit"})
    assert read_document(folder(model, "model")).feature_names == ["chol", "dose", "old"]
    shipped = run_step("quantize", {"data": ref(made, "dataset"), "model": ref(model, "model"), "target": "onnx"})
    assert any("must send those" in note for note in shipped.notes)
