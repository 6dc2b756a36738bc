"""Opening an event source by its kind; its module is imported only then."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from edgewright.spec.triggers import TRIGGERS
from edgewright.streams.batches import BatchLog

_MODULES = {
    "kafka": "edgewright.streams.kafka",
    "objects": "edgewright.streams.objects",
    "registry": "edgewright.streams.registry_events",
}


def open_source(kind: str, config: Mapping[str, Any], batches: BatchLog, settings: Mapping[str, Any]) -> Any:
    """Return an open event source; it has ``poll(timeout)`` and ``close()``.

    Args:
        kind: ``kafka``, ``objects`` or ``registry``.
        config: The trigger as in the document.
        batches: Where its batches go.
        settings: What its connection says.

    Raises:
        ConfigError: it cannot be opened like this.
    """
    return importlib.import_module(_MODULES[kind]).open_source(TRIGGERS[kind].model_validate(config), settings, batches)
