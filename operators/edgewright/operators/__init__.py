"""Airflow operators: one a step over one shared base.

Names are imported when they are first used, because every Airflow process reads :mod:`edgewright.operators.provider`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright.operators.base import StepOperator
    from edgewright.operators.sensors import KafkaBatchSensor, ModelVersionSensor, ObjectSensor, WaitOperator
    from edgewright.operators.sinks import CassandraSinkOperator
    from edgewright.operators.steps import (
        DeployOperator,
        EvaluateOperator,
        FetchOperator,
        IngestOperator,
        PublishOperator,
        QuantizeOperator,
        ScoreOperator,
        TrainOperator,
        TransformOperator,
        ValidateOperator,
    )

__all__ = [
    "CassandraSinkOperator",
    "DeployOperator",
    "EvaluateOperator",
    "FetchOperator",
    "IngestOperator",
    "KafkaBatchSensor",
    "ModelVersionSensor",
    "ObjectSensor",
    "PublishOperator",
    "QuantizeOperator",
    "ScoreOperator",
    "StepOperator",
    "TrainOperator",
    "TransformOperator",
    "ValidateOperator",
    "WaitOperator",
]
_SENSORS = ("KafkaBatchSensor", "ModelVersionSensor", "ObjectSensor", "WaitOperator")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "StepOperator":
        from edgewright.operators import base as module
    elif name in _SENSORS:
        from edgewright.operators import sensors as module  # type: ignore[no-redef]
    elif name == "CassandraSinkOperator":
        from edgewright.operators import sinks as module  # type: ignore[no-redef]
    else:
        from edgewright.operators import steps as module  # type: ignore[no-redef]
    return getattr(module, name)
