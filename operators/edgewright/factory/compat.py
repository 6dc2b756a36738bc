"""What the factory takes from Airflow's core: one place to look at when Airflow changes.

3.4 renames nothing here, and brings its own importers for YAML (:mod:`edgewright.factory.importer`).
"""

from __future__ import annotations

from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion, get_bundle_tracking_file
from airflow.sdk import get_parsing_context

__all__ = ["BaseDagBundle", "BundleVersion", "parsed_dag_id", "was_used"]


def was_used(bundle: str, version: str) -> bool:
    """Whether a task of this machine ran on a version; Airflow itself removes such versions when they are old."""
    return get_bundle_tracking_file(bundle, version).exists()


def parsed_dag_id() -> str | None:
    """Return which Dag a worker is about to run; ``None`` in the Dag processor, which wants all of them."""
    return get_parsing_context().dag_id
