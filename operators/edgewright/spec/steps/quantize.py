"""``quantize``: compile a model for where it will run, and prove on held-out rows that it still works."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgewright.spec.steps.base import Dataset, Gates, Model, StepConfig

#: What a gate of ``quantize`` may name; ``*_drop`` is the source's figure minus the variant's.
GATE_METRICS = (
    "accuracy_drop",
    "roc_auc_drop",
    "r2_drop",
    "rmse_ratio",
    "agreement",
    "max_difference",
    "size_bytes",
    "size_ratio",
    "latency_us",
    "latency_ratio",
)


class Calibration(StepConfig):
    """Rows of the part ``train`` from which static quantization learns the ranges."""

    rows: Annotated[int, Field(ge=1)] = 256
    method: Literal["minmax", "entropy", "percentile"] = "minmax"


class QuantizeConfig(StepConfig):
    """Exports the model to ONNX, checks the export against the source model, then makes the target's variant."""

    model: Model
    data: Dataset
    target: Annotated[
        str, Field(description="onnx, onnx-int8, or the name of another installed target.", examples=["onnx-int8"])
    ] = "onnx-int8"
    method: Annotated[
        Literal["static", "dynamic"],
        Field(description="static measures ranges on calibration rows; dynamic at run time."),
    ] = "static"
    per_channel: bool = True
    calibration: Calibration = Calibration()
    tolerance: Annotated[
        float,
        Field(
            gt=0, description="Largest allowed difference between the source model's and the exported model's scores."
        ),
    ] = 1e-4
    gates: Gates
