"""Content-addressed store for datasets, models, reports and bundles, on any fsspec file system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.artifacts.digest import canonical_json, digest_json, sha256_bytes, sha256_file

if TYPE_CHECKING:
    from edgewright.artifacts.refs import ArtifactRef, Kind
    from edgewright.artifacts.store import ArtifactStore

__all__ = ["ArtifactRef", "ArtifactStore", "Kind", "canonical_json", "digest_json", "sha256_bytes", "sha256_file"]

#: Imported at the first use: a node on the edge has digests, but no pydantic.
_LATER = {"ArtifactRef": "refs", "Kind": "refs", "ArtifactStore": "store"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
