"""What Airflow learns about the package from its ``apache_airflow_provider`` entry point."""

from __future__ import annotations

from typing import Any

from edgewright import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, as Airflow's ``provider_info.schema.json`` has it."""
    return {
        "package-name": "edgewright",
        "name": "Edgewright",
        "description": "Machine-learning pipelines in one YAML file, from data to the edge.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Edgewright",
                "external-doc-url": "https://edgewright.dev/",
                "tags": ["software"],
            }
        ],
        "operators": [
            {
                "integration-name": "Edgewright",
                "python-modules": ["edgewright.operators.base", "edgewright.operators.steps"],
            }
        ],
        "sensors": [{"integration-name": "Edgewright", "python-modules": ["edgewright.operators.sensors"]}],
        "extra-links": [f"edgewright.operators.links.{name}" for name in ("MlflowLink", "ReportLink", "ArtifactsLink")],
        "bundles": [{"integration-name": "Edgewright", "python-modules": ["edgewright.factory.bundle"]}],
    }
