"""Measures of quality, from scores and true labels.

Choices, where a name alone leaves one:

- ``precision``, ``recall`` and ``f1`` are those of the positive class for two classes, and *macro* averages (every
  class counts the same) for more; what is divided by zero is 0.
- ``roc_auc`` for more than two classes is the macro average of one class against the rest.
- ``brier`` for two classes is the mean squared difference between the positive class's probability and the outcome
  (0 to 1); for more, the sum over the classes (0 to 2), as Brier (1950) defined it.
- ``log_loss`` cuts probabilities off at the smallest step of a 64-bit float.
- A measure that the rows cannot give (``roc_auc`` where only one class occurs, ``r2`` of a single row) is left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgewright.errors import ConfigError, DataError
from edgewright.steps.models import LoadedModel, Problem, plain

if TYPE_CHECKING:
    from edgewright.steps.data import Dataset

#: A numeric column with no more values than this is a code, and is sliced by value.
_FEW = 6

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Truth:
    """True labels and what one model says about the same rows, over the same list of classes.

    Attributes:
        problem: ``classification`` or ``regression``.
        classes: All classes that the model or the rows know; empty for regression.
        y: Index of each row's class, or the true value.
        scores: Probabilities ``[rows, classes]``, or predictions ``[rows, 1]``.
        positive: Index of the positive class (two classes only).
    """

    problem: Problem
    classes: list[Any]
    y: Array
    scores: Array
    positive: int = 1

    def rows(self, mask: Array) -> Truth:
        """Return the same for some of the rows."""
        return Truth(self.problem, self.classes, self.y[mask], self.scores[mask], self.positive)

    @property
    def predicted(self) -> Array:
        """Index of the predicted class, or the predicted value."""
        return self.scores.argmax(axis=1) if self.problem == "classification" else self.scores[:, 0]


def compare(model: LoadedModel, frame: pd.DataFrame, y: pd.Series[Any], positive: Any = None) -> Truth:
    """Ask a model about rows whose labels are known.

    Args:
        model: The model.
        frame: Rows with the model's columns.
        y: Their labels.
        positive: The label's value that counts as positive; default: the last class.

    Raises:
        DataError: labels are missing, or scores are not finite.
        ConfigError: ``positive`` is not a value of the label.
    """
    if len(y) == 0 or y.isna().any():
        raise DataError(f"the label {y.name} is missing in {int(y.isna().sum())} of {len(y)} rows")
    scores = model.scores(frame)
    if not np.isfinite(scores).all():
        raise DataError("the model gives scores that are no finite numbers", hint="see how it treats missing values")
    problem = model.document.problem
    if problem == "regression":
        return Truth(problem, [], y.to_numpy(dtype=np.float64), scores)
    classes = list(model.document.classes)
    unseen = [plain(value) for value in sorted(y.unique()) if plain(value) not in classes]
    if unseen:
        # a class that the model has never seen gets the probability 0, so that its rows count as wrong
        scores = np.hstack([scores, np.zeros((len(scores), len(unseen)))])
        classes += unseen
    places = {value: index for index, value in enumerate(classes)}
    indices = np.array([places[plain(value)] for value in y], dtype=np.int64)
    return Truth(problem, classes, indices, scores, _positive(classes, positive))


def held_out(dataset: Dataset) -> tuple[str, pd.DataFrame, pd.Series[Any]]:
    """Return the part on which models are measured: its name, its rows, and their labels.

    Raises:
        DataError: the dataset has no such part, or no label.
    """
    part = dataset.evaluation_part()
    if dataset.label is None:
        raise DataError("the dataset has no label", hint="say label: in the ingest task's with:")
    frame = dataset.frame(part)
    return part, frame, frame[dataset.label]


def _positive(classes: list[Any], positive: Any) -> int:
    if positive is None:
        return len(classes) - 1
    if positive not in classes:
        raise ConfigError(
            f"positive: the label has no value {positive!r}", hint=f"it has: {', '.join(map(repr, classes))}"
        )
    if len(classes) > 2:
        raise ConfigError("positive: the label has more than two values", hint="leave it out: averages are macro")
    return classes.index(positive)


def measure(truth: Truth) -> dict[str, float]:
    """Return every measure that the rows can give, by name."""
    found = _classification(truth) if truth.problem == "classification" else _regression(truth)
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def _classification(truth: Truth) -> dict[str, float | None]:
    from sklearn import metrics

    y, predicted, binary = truth.y, truth.predicted, len(truth.classes) == 2
    present = sorted(set(y.tolist()))
    labels = list(range(len(truth.classes)))
    average: dict[str, Any] = {"average": "macro", "labels": sorted(set(y.tolist()) | set(predicted.tolist()))}
    if binary:
        average = {"average": "binary", "pos_label": truth.positive}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(y, predicted, zero_division=0, **average)
    return {
        "accuracy": float(np.mean(y == predicted)),
        "balanced_accuracy": float(np.mean([np.mean(predicted[y == label] == label) for label in present])),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": _roc_auc(truth, present),
        "log_loss": metrics.log_loss(y, _normal(truth.scores), labels=labels),
        "brier": _brier(truth),
    }


def _normal(scores: Array) -> Array:
    """Return scores that add up to one in 64 bits (32-bit probabilities are off by 1e-7, which scikit-learn notes)."""
    clipped = np.clip(scores, np.finfo(np.float64).eps, None)
    normal: Array = clipped / clipped.sum(axis=1, keepdims=True)
    return normal


def _roc_auc(truth: Truth, present: Sequence[int]) -> float | None:
    from sklearn.metrics import roc_auc_score

    if len(present) < 2:
        return None
    if len(truth.classes) == 2:
        return float(roc_auc_score(truth.y == truth.positive, truth.scores[:, truth.positive]))
    return float(np.mean([roc_auc_score(truth.y == label, truth.scores[:, label]) for label in present]))


def _brier(truth: Truth) -> float:
    outcome = np.eye(len(truth.classes))[truth.y]
    squares = ((truth.scores - outcome) ** 2).sum(axis=1)
    return float(squares.mean() / 2 if len(truth.classes) == 2 else squares.mean())


def _regression(truth: Truth) -> dict[str, float | None]:
    error = truth.scores[:, 0] - truth.y
    spread = float(((truth.y - truth.y.mean()) ** 2).sum())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": None if spread == 0 else 1 - float((error**2).sum()) / spread,
    }


def confusion(truth: Truth) -> list[list[int]]:
    """Return counts ``[true class][predicted class]``."""
    size = len(truth.classes)
    counts = np.bincount(truth.y * size + truth.predicted, minlength=size * size).reshape(size, size)
    return [[int(value) for value in row] for row in counts]


def slices(truth: Truth, frame: pd.DataFrame, columns: Sequence[str], *, most: int = 20) -> list[dict[str, Any]]:
    """Measure groups of rows: each value of a column, or its quartiles where it is a number with many values.

    Args:
        truth: All rows.
        frame: The same rows with the columns.
        columns: Which columns.
        most: Most groups of one column; the rarest of a text column beyond that are put together.

    Returns:
        One entry a group: ``column``, ``group``, ``rows``, ``metrics``; in order.

    Raises:
        ConfigError: a column does not exist.
    """
    unknown = [name for name in columns if name not in frame.columns]
    if unknown:
        raise ConfigError(
            f"slices: the data have no {', '.join(unknown)}", hint=f"they have: {', '.join(map(str, frame.columns))}"
        )
    found: list[dict[str, Any]] = []
    for name in columns:
        for group, mask in _groups(frame[name], most):
            found.append(
                {"column": name, "group": group, "rows": int(mask.sum()), "metrics": measure(truth.rows(mask))}
            )
    return found


def _groups(column: pd.Series[Any], most: int) -> list[tuple[str, Array]]:
    missing = column.isna().to_numpy()
    groups = _quartiles(column) if _is_wide_number(column) else _values(column, most)
    if missing.any():
        groups.append(("missing", missing))
    return [(name, mask) for name, mask in groups if mask.any()]


def _is_wide_number(column: pd.Series[Any]) -> bool:
    is_number = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    return bool(is_number and column.nunique() > _FEW)


def _quartiles(column: pd.Series[Any]) -> list[tuple[str, Array]]:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    low, *cuts, high = (float(np.nanquantile(values, share)) for share in (0, 0.25, 0.5, 0.75, 1))
    edges = sorted({low, *cuts, high})
    groups: list[tuple[str, Array]] = []
    for start, end in itertools.pairwise(edges):
        last = end == high
        mask = (values >= start) & ((values <= end) if last else (values < end))
        groups.append((f"{start:g} to {end:g}" if last else f"{start:g} to below {end:g}", mask))
    return groups


def _values(column: pd.Series[Any], most: int) -> list[tuple[str, Array]]:
    counts = column.value_counts()
    frequent = list(counts.index[: most - 1]) if len(counts) > most else list(counts.index)
    groups = [(f"{plain(value)}", (column == value).fillna(False).to_numpy(dtype=bool)) for value in sorted(frequent)]
    rest = ~column.isin(frequent).to_numpy() & ~column.isna().to_numpy()
    return [*groups, ("all others", rest)]
