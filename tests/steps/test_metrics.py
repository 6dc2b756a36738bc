"""Metrics: held against scikit-learn's own, and what rows cannot give is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from edgewright.errors import ConfigError, DataError
from edgewright.steps import metrics
from edgewright.steps.models import Feature, ModelDocument


class Fixed:
    """A model that says what it is told, to measure the measures."""

    def __init__(self, scores: np.ndarray[Any, Any], classes: list[Any]) -> None:
        problem = "classification" if classes else "regression"
        self._scores = scores
        self.document = ModelDocument(
            format="onnx", target="onnx", file="-", problem=problem, label="y", classes=classes,
            features=[Feature(name="x", type="number")],
        )  # fmt: skip

    def scores(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        return self._scores


def truth(scores: Any, y: list[Any], classes: list[Any], positive: Any = None) -> metrics.Truth:
    frame = pd.DataFrame({"x": np.zeros(len(y))})
    return metrics.compare(Fixed(np.asarray(scores, float), classes), frame, pd.Series(y, name="y"), positive)


def random_case(classes: list[Any], rows: int = 200) -> tuple[np.ndarray[Any, Any], list[Any]]:
    random = np.random.default_rng(3)
    scores = random.dirichlet(np.ones(len(classes)), rows)
    return scores, [classes[i] for i in random.integers(len(classes), size=rows)]


def test_binary_metrics_agree_with_scikit_learn() -> None:
    scores, y = random_case([0, 1])
    found = metrics.measure(truth(scores, y, [0, 1]))
    said = scores.argmax(axis=1)
    assert found == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, said),
            "balanced_accuracy": reference.balanced_accuracy_score(y, said),
            "precision": reference.precision_score(y, said),
            "recall": reference.recall_score(y, said),
            "f1": reference.f1_score(y, said),
            "roc_auc": reference.roc_auc_score(y, scores[:, 1]),
            "log_loss": reference.log_loss(y, scores),
            "brier": reference.brier_score_loss(y, scores[:, 1]),
        }
    )


def test_metrics_of_several_classes_are_macro_and_one_against_the_rest() -> None:
    classes = ["a", "b", "c"]
    scores, y = random_case(classes)
    found = metrics.measure(truth(scores, y, classes))
    said = [classes[i] for i in scores.argmax(axis=1)]
    assert found == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, said),
            "balanced_accuracy": reference.balanced_accuracy_score(y, said),
            "precision": reference.precision_score(y, said, average="macro"),
            "recall": reference.recall_score(y, said, average="macro"),
            "f1": reference.f1_score(y, said, average="macro"),
            "roc_auc": reference.roc_auc_score(y, scores, multi_class="ovr"),
            "log_loss": reference.log_loss(y, scores),
            "brier": reference.brier_score_loss(y, scores, labels=classes),
        }
    )


def test_regression_metrics_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(3)
    y = random.normal(size=50)
    said = y + random.normal(scale=0.3, size=50)
    found = metrics.measure(truth(said.reshape(-1, 1), list(y), []))
    assert found == pytest.approx(
        {
            "mae": reference.mean_absolute_error(y, said),
            "rmse": reference.root_mean_squared_error(y, said),
            "r2": reference.r2_score(y, said),
        }
    )


def test_the_positive_class_can_be_chosen() -> None:
    scores, y = random_case(["no", "yes"])
    default = metrics.measure(truth(scores, y, ["no", "yes"]))
    other = metrics.measure(truth(scores, y, ["no", "yes"], positive="no"))
    said = np.array(["no", "yes"])[scores.argmax(axis=1)]
    assert default["recall"] == pytest.approx(reference.recall_score(y, said, pos_label="yes"))
    assert other["recall"] == pytest.approx(reference.recall_score(y, said, pos_label="no"))
    assert other["roc_auc"] == pytest.approx(default["roc_auc"])


def test_a_positive_value_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="no value 'maybe'") as caught:
        truth([[0.4, 0.6]], ["yes"], ["no", "yes"], positive="maybe")
    assert "'no', 'yes'" in str(caught.value)


def test_rows_of_one_class_leave_roc_auc_out() -> None:
    found = metrics.measure(truth([[0.2, 0.8], [0.6, 0.4]], [1, 1], [0, 1]))
    assert "roc_auc" not in found
    assert found["accuracy"] == 0.5


def test_a_class_that_the_model_never_saw_counts_as_wrong() -> None:
    found = truth([[0.9, 0.1], [0.2, 0.8]], [0, 2], [0, 1])
    assert found.classes == [0, 1, 2]
    assert metrics.measure(found)["accuracy"] == 0.5
    assert metrics.confusion(found) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_missing_labels_and_scores_that_are_no_numbers_are_faults() -> None:
    with pytest.raises(DataError, match="missing in 1 of 2 rows"):
        truth([[0.9, 0.1], [0.2, 0.8]], [0, None], [0, 1])
    with pytest.raises(DataError, match="no finite numbers"):
        truth([[np.nan, 0.1]], [0], [0, 1])


def test_slices_cover_every_row_once() -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": [*random.integers(20, 80, 99).astype(float), np.nan],
            "sex": ["f", "m"] * 50,
            "smoker": [True, False] * 50,
            "city": [f"city {i % 40}" for i in range(100)],
        }
    )
    scores, y = random_case([0, 1], 100)
    measured = metrics.compare(Fixed(scores, [0, 1]), frame, pd.Series(y, name="y"))
    found = metrics.slices(measured, frame, ["age", "sex", "smoker", "city"])
    by_column = {name: [s for s in found if s["column"] == name] for name in frame.columns}
    assert {name: sum(s["rows"] for s in groups) for name, groups in by_column.items()} == dict.fromkeys(frame, 100)
    assert len(by_column["age"]) == 5
    assert by_column["age"][-1]["group"] == "missing"
    assert [s["group"] for s in by_column["sex"]] == ["f", "m"]
    assert [s["group"] for s in by_column["smoker"]] == ["False", "True"]
    assert len(by_column["city"]) == 20
    assert by_column["city"][-1]["group"] == "all others"


def test_a_slice_by_a_column_that_does_not_exist_names_those_that_do() -> None:
    measured = truth([[0.4, 0.6]], [1], [0, 1])
    with pytest.raises(ConfigError, match="no sxe") as caught:
        metrics.slices(measured, pd.DataFrame({"sex": [1]}), ["sxe"])
    assert "sex" in str(caught.value)
