"""Bundles: one variant of a release as one signed file for a node, and how a foreign one is opened without trust."""

from __future__ import annotations

from edgewright.bundles.limits import Limits
from edgewright.bundles.pack import FORMAT, build_bundle, write_archive
from edgewright.bundles.unpack import Bundle, open_bundle

__all__ = ["FORMAT", "Bundle", "Limits", "build_bundle", "open_bundle", "write_archive"]
