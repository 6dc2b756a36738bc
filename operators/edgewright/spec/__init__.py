"""From YAML text to a validated pipeline with source positions. No Airflow, no machine-learning library."""

from __future__ import annotations

from edgewright.spec.faults import render_faults
from edgewright.spec.load import check_tree, load_pipeline, parse_pipeline, pipeline_files
from edgewright.spec.pipeline import Pipeline, Task

__all__ = ["Pipeline", "Task", "check_tree", "load_pipeline", "parse_pipeline", "pipeline_files", "render_faults"]
