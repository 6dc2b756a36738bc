"""Content-addressed store for datasets, models, reports and bundles, on any fsspec file system."""

from __future__ import annotations

from edgewright.artifacts.digest import canonical_json, digest_json, sha256_bytes, sha256_file
from edgewright.artifacts.refs import ArtifactRef, Kind
from edgewright.artifacts.store import ArtifactStore

__all__ = ["ArtifactRef", "ArtifactStore", "Kind", "canonical_json", "digest_json", "sha256_bytes", "sha256_file"]
