"""``evaluate``: measure a model on rows that it has not seen, and hold it against limits and the champion."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgewright.spec.steps.base import Dataset, Gates, Model, StepConfig

CLASSIFICATION_METRICS = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier")
REGRESSION_METRICS = ("mae", "rmse", "r2")
METRICS = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
#: What a gate may name: a metric, or the difference to the champion's on the same rows.
GATE_METRICS = (*METRICS, *(f"{name}_vs_champion" for name in METRICS))


class EvaluateConfig(StepConfig):
    """Measures on ``holdout`` where the dataset has one, else on ``test``."""

    model: Model
    data: Dataset
    gates: Gates
    slices: Annotated[
        list[str],
        Field(description="Columns; every metric is also measured for each of their values (numbers by quartile)."),
    ] = []
    positive: Annotated[
        str | int | float | bool | None,
        Field(description="The label's value that counts as positive. Default: the larger one."),
    ] = None
    champion: Annotated[
        str | None,
        Field(description="Registered model to compare with. Default: the name that this pipeline publishes."),
    ] = None
