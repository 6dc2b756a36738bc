"""From YAML text to a validated pipeline with source positions. No Airflow, no machine-learning library."""

from __future__ import annotations

from typing import Any

from edgewright.spec.faults import render_faults
from edgewright.spec.load import load_pipeline, load_pipelines, parse_pipeline, parse_pipelines
from edgewright.spec.pipeline import Pipeline, Task
from edgewright.spec.tree import check_tree, pipeline_files


def pipeline_schema() -> dict[str, Any]:
    """Return the JSON Schema of a whole document (see :mod:`edgewright.spec.schema`)."""
    from edgewright.spec.schema import build

    return build()


__all__ = [
    "Pipeline",
    "Task",
    "check_tree",
    "load_pipeline",
    "load_pipelines",
    "parse_pipeline",
    "parse_pipelines",
    "pipeline_files",
    "pipeline_schema",
    "render_faults",
]
