"""Times as they stand in reports."""

from __future__ import annotations

import time

from edgewright.streams.spool import timestamp


def now() -> str:
    """Return this node's time: ISO 8601, UTC."""
    return timestamp(time.time())
