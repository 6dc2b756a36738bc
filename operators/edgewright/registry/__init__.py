"""The MLflow model registry: publish, aliases, roll back, lineage; idempotence and locking are ours."""

from __future__ import annotations

from edgewright.registry.client import Registry, previous_of
from edgewright.registry.versions import RegisteredModel, RegisteredVersion

__all__ = ["RegisteredModel", "RegisteredVersion", "Registry", "previous_of"]
