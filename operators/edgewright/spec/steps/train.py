"""``train``: call a function of yours on the part ``train`` and keep what it returns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edgewright.spec.steps.base import Dataset, EntryPoint, StepConfig


class TrainConfig(StepConfig):
    """Calls ``entry(data, **args)``, which returns a fitted estimator or an ONNX model."""

    data: Dataset
    entry: EntryPoint
    args: Annotated[dict[str, Any], Field(description="Keyword arguments of the function.")] = {}
    problem: Annotated[
        Literal["auto", "classification", "regression"], Field(description="auto: by the label's type.")
    ] = "auto"
    seed: Annotated[int, Field(ge=0, description="Seeds random and numpy before the function is called.")] = 0
    experiment: Annotated[str | None, Field(description="MLflow experiment. Default: the dag_id.")] = None
