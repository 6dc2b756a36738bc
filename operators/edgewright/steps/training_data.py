"""What a training function gets as its first argument."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgewright.errors import DataError
from edgewright.steps.models import Problem, plain

if TYPE_CHECKING:
    import pandas as pd

    from edgewright.steps.data import Dataset


class MetricSink(Protocol):
    """Where live metrics go."""

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Take one value."""
        ...


class TrainingData:
    """The part ``train`` of a dataset, and a place for live metrics.

    Attributes:
        frame: All columns of the part, the label among them.
        X: The features, a DataFrame ``[rows, features]``.
        y: The label, a Series ``[rows]``.
        label: Name of the label.
        features: Names of the features, in order.
        feature_types: Type of each feature (``integer``, ``number``, ``boolean``, ``string``, ...).
        problem: ``classification`` or ``regression``.
        classes: The label's values in the part, and those that the model knows from which training goes on, sorted;
            empty for regression.
        seed: The task's seed; ``random`` and ``numpy.random`` are seeded with it already.
        source_folder: The pipeline's folder, or ``None``.
        checkpoint: Folder that is kept while training and filled again when the task is tried again; ``None`` without
            ``checkpoint:``.
    """

    def __init__(
        self,
        dataset: Dataset,
        problem: Problem,
        *,
        seed: int,
        sink: MetricSink,
        source_folder: Path | None,
        known_classes: Sequence[Any] = (),
        checkpoint: Path | None = None,
    ) -> None:
        self.frame: pd.DataFrame = dataset.frame("train")
        self.label: str = _label(dataset)
        self.problem: Problem = problem
        self.features: list[str] = list(dataset.features)
        self.feature_types: dict[str, str] = dict(dataset.feature_types)
        self.X: pd.DataFrame = self.frame[self.features]
        self.y: pd.Series[Any] = self.frame[self.label]
        self.seed = seed
        self.source_folder = source_folder
        self.checkpoint = checkpoint
        self._sink = sink
        _check_label(self.y, problem)
        self.classes: list[Any] = []
        if problem == "classification":
            self.classes = [plain(value) for value in sorted({*self.y.unique(), *known_classes})]
            if len(self.classes) < 2:
                raise DataError(
                    f"the label {self.label} has only the value {self.classes[0]!r} in the part train",
                    hint="a classifier needs at least two; split with stratify: true, or bring more rows",
                )

    def over(self, dataset: Dataset) -> TrainingData:
        """Return the same rows in another dataset's columns."""
        return TrainingData(
            dataset, self.problem, seed=self.seed, sink=self._sink, source_folder=self.source_folder,
            known_classes=self.classes, checkpoint=self.checkpoint,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.frame)

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Log a live metric, such as the loss of an epoch; it shows in the task's log and in MLflow.

        Args:
            name: Such as ``loss``.
            value: A number.
            step: Epoch or iteration; counted from 0 where it is left out.
        """
        self._sink.log_metric(name, float(value), step)


def _label(dataset: Dataset) -> str:
    if not dataset.label:
        raise DataError("the dataset has no label", hint="say label: in the ingest task's with:")
    return dataset.label


def _check_label(y: pd.Series[Any], problem: Problem) -> None:
    if len(y) == 0:
        raise DataError("the part train has no rows")
    missing = int(y.isna().sum())
    if missing:
        raise DataError(
            f"the label {y.name} is missing in {missing} rows of the part train",
            hint="leave such rows out in a validate or transform step",
        )
    if problem == "regression" and y.dtype.kind not in "iufb":
        raise DataError(f"the label {y.name} is not a number ({y.dtype}), so problem: regression cannot be")
