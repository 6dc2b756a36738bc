"""A store in a bucket."""

from __future__ import annotations

from support.buckets import s3_endpoint, s3_store

__all__ = ["s3_endpoint", "s3_store"]
