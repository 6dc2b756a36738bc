"""Opening an event source by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewright.installation import Installation
from edgewright.spec.triggers import TRIGGERS, KafkaTrigger, ObjectsTrigger
from edgewright.streams.batches import BatchLog


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
    model: Any = TRIGGERS[kind].model_validate(config)
    if isinstance(model, KafkaTrigger):
        from edgewright.streams.kafka import KafkaSource
        from edgewright.streams.messages import Decoder

        return KafkaSource(model, settings, batches, Decoder(model.format, model.key))
    if isinstance(model, ObjectsTrigger):
        from edgewright.streams.objects import ObjectSource

        return ObjectSource(model, settings, batches)
    from edgewright.streams.registry_events import RegistrySource

    return RegistrySource(model, Installation.load().tracking_uri, batches)
