"""``quantize``: compile a model for where it will run, and prove on held-out rows that it still works."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from edgewright.spec.steps.base import Dataset, Gates, Model, StepConfig
from edgewright.spec.steps.target_options import OPTIONS

#: What a gate of ``quantize`` may name; ``*_drop`` is the source's figure minus the variant's.
GATE_METRICS = (
    "accuracy_drop",
    "roc_auc_drop",
    "r2_drop",
    "rmse_ratio",
    "agreement",
    "sqnr_db",
    "max_difference",
    "max_logit_difference",
    "size_bytes",
    "size_ratio",
    "latency_us",
    "latency_p99_us",
    "latency_256_us",
    "latency_256_p99_us",
    "latency_ratio",
    "latency_256_ratio",
    "integer_nodes",
    "verified",
)


class Calibration(StepConfig):
    """Rows of the part ``train`` from which static quantization learns the ranges."""

    rows: Annotated[int, Field(ge=1)] = 256
    method: Literal["minmax", "entropy", "percentile"] = "minmax"


def _verified(gates: Any) -> Any:
    """Let ``verified: true`` stand for what it means: the variant was run here."""
    if isinstance(gates, dict) and isinstance(gates.get("verified"), bool):
        return {**gates, "verified": f"== {int(gates['verified'])}"}
    return gates


class QuantizeConfig(StepConfig):
    """Exports the model to ONNX, checks the export against the source model, then makes the target's variant."""

    INNER: ClassVar = {"options": ("target", OPTIONS)}

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
    options: Annotated[
        dict[str, Any],
        Field(
            description="What only this target knows, such as {precision: fp16} of openvino.",
            examples=[{"format": "qoperator"}],
            validate_default=True,
        ),
    ] = {}
    tolerance: Annotated[
        float,
        Field(
            gt=0, description="Largest allowed difference between the source model's and the exported model's scores."
        ),
    ] = 1e-4
    gates: Annotated[Gates, BeforeValidator(_verified)]

    @field_validator("options")
    @classmethod
    def _fill_options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Check the options of a target of ours, and write its defaults out: they are part of the cache key."""
        model = OPTIONS.get(str(info.data.get("target")))
        if model is None:
            return options
        try:
            return model.model_validate(options).model_dump(mode="json")
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            raise ValueError("; ".join(lines)) from error
