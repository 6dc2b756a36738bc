"""Edgewright: machine-learning pipelines in one YAML file, run by Apache Airflow, ending on the edge."""

from __future__ import annotations

__version__ = "0.1.0"
