"""An object store that tells of its objects: batches as :mod:`edgewright.streams.objects` cuts them, without looking.

Each version of an object is in exactly one batch, whether it was told once, twice, by a notification or by a look. A
notification is let go only when what it tells of is in the artifact store. The store is looked at all the same at the
start and every ``sweep``, so that a notification that was never sent, or lost with its queue, is healed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from edgewright.errors import Unavailable
from edgewright.spec.triggers import Notifications, ObjectsTrigger, seconds
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.notices import Channel, KafkaNotices, Notice, SqsQueue
from edgewright.streams.objects import Object, ObjectSource

log = logging.getLogger("edgewright.streams")


class NotifiedSource(ObjectSource):
    """Hears of objects and cuts batches.

    Args:
        config: The trigger, with ``notifications:``.
        settings: Of the object store's connection, and under ``notifications`` those of the topic's.
        batches: Where batches go.
    """

    def __init__(self, config: ObjectsTrigger, settings: Mapping[str, Any], batches: BatchLog) -> None:
        super().__init__(config, settings, batches)
        assert config.notifications is not None
        self._notifications: Notifications = config.notifications
        self._settings = settings
        self._store = self._lister
        self._lister = self._told = _Told()
        self._channel: Channel | None = None
        self._waiting: dict[str, Notice] = {}
        self._sweep_at = 0.0

    def poll(self, timeout: float = 1.0) -> Batch | None:
        """Wait for notifications at most so many seconds; return a batch when one is complete and stored."""
        try:
            self._sweep()
            self._hear(timeout)
        except (OSError, Unavailable) as error:
            if str(error) != self.problem:
                self.problem = str(error)
                log.warning("%s waits for the object store's notifications: %s", self.batches.source, error)
            time.sleep(min(timeout, 1.0))
            return None
        if self.problem is not None:
            log.warning("%s: notifications come again", self.batches.source)
            self.problem = None
        found = self._look()
        batch = self._cut(found) if self._is_enough(found) else None
        if batch is not None:
            self._catch_up()
        self._settle()
        return batch

    def close(self) -> None:
        """Let go of the queue; what is not in a batch yet will come again."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            channel.close()

    # -- hearing -----------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Look for what nobody told of."""
        if time.monotonic() < self._sweep_at:
            return
        self._catch_up()
        self._remember(self._store.objects())
        self._sweep_at = time.monotonic() + seconds(self._notifications.sweep)

    def _hear(self, timeout: float) -> None:
        if self._channel is None:
            self._channel = self._open()
        for notice in self._channel.receive(timeout):
            self._waiting[notice.name] = notice  # one that comes again has a new handle
            self._remember(notice.objects)

    def _remember(self, objects: Iterable[Object]) -> None:
        for one in objects:
            name = one.uri.rpartition("/")[2]
            known = self._told.by_uri.get(one.uri)
            if known is not None and known.modified > one.modified:
                continue  # notifications come in any order
            if name == self._marker or (self._is_wanted(one, name) and one.identity not in self._seen):
                self._told.by_uri[one.uri] = one

    def _settle(self) -> None:
        """Forget what is in a batch, and be done with the notices that told of nothing else."""
        told = self._told.by_uri
        for uri in [uri for uri, one in told.items() if one.identity in self._seen]:
            del told[uri]
        done = [notice for notice in self._waiting.values() if not self._is_open(notice)]
        for notice in done:
            del self._waiting[notice.name]
        if self._channel is None or not done:
            return
        try:
            self._channel.settle(done, list(self._waiting.values()))
        except Unavailable as error:
            log.info("%s: notifications come again: %s", self.batches.source, error)

    def _is_open(self, notice: Notice) -> bool:
        """Whether a notice tells of an object that waits for its batch; a marker does not."""
        waiting = (self._told.by_uri.get(one.uri) for one in notice.objects)
        return any(
            known is not None and known.identity == one.identity and known.uri.rpartition("/")[2] != self._marker
            for known, one in zip(waiting, notice.objects, strict=True)
        )

    def _open(self) -> Channel:
        if self._notifications.sqs is not None:
            return SqsQueue(self._notifications.sqs, self._settings)
        group = f"edgewright.{self.batches.dag_id}.{self.batches.source}"
        return KafkaNotices(str(self._notifications.kafka), self._settings.get("notifications") or {}, group)


class _Told:
    """The objects that were told of and are in no batch, as a listing."""

    needs_two_looks = False

    def __init__(self) -> None:
        self.by_uri: dict[str, Object] = {}

    def objects(self) -> list[Object]:
        """Return them."""
        return list(self.by_uri.values())
