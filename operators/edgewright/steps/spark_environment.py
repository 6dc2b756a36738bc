"""The environment of ``transform`` on Spark: what it is, and what of it decides a result."""

from __future__ import annotations

from typing import Any

from edgewright.spec.steps.transform import TransformConfig
from edgewright.steps.context import StepContext
from edgewright.targets.environments import Tool, lock_digest, prepared_python

#: Its environment: ``requirements/targets/spark.txt``.
SPARK = Tool("spark", "spark")


def state(config: TransformConfig, context: StepContext) -> dict[str, Any] | None:
    """Return what decides a result beside the inputs: Spark's environment.

    ``None`` (not cached) where the function reads from elsewhere, which packages and connections are for.
    """
    if config.spark is None:
        return {}
    if config.spark.packages or config.spark.connections:
        return None
    prepared = prepared_python(SPARK)
    return {"environment": lock_digest(SPARK), "python": str(prepared) if prepared else None}
