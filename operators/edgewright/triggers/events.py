"""Airflow's event triggers of our event sources: they run in the triggerer for as long as their pipeline exists.

Delivery: what is received is a batch in the artifact store before an event is sent, so an event that is lost, folded
with others or late (facts of Airflow 3.3) loses nothing: the companion Dag reads the store. Several triggerers may run
the same trigger; each message is in one batch all the same. While a source is away this waits, and says so: once in an
event of the asset, which Airflow's web page shows, and in the triggerer's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from airflow.sdk import BaseHook
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError
from edgewright.installation import Installation
from edgewright.spec.triggers import TRIGGERS, ObjectsTrigger, seconds
from edgewright.streams.batches import Batch, BatchLog

log = logging.getLogger("edgewright.triggers")
#: Seconds before a source that failed is opened again.
PAUSE = 15.0
#: Seconds for which a source may be away before an event says so.
PATIENCE = 5.0


class Source(Protocol):
    """What brings batches.

    Attributes:
        problem: Why nothing can come at the moment.
    """

    problem: str | None

    def poll(self, timeout: float = 1.0) -> Batch | None:
        """Wait for a batch at most so many seconds."""

    def close(self) -> None:
        """Let go."""


class BatchTrigger(BaseEventTrigger):
    """Runs one event source of one pipeline.

    Args:
        dag_id: The pipeline.
        source: Name of the source.
        kind: ``kafka``, ``objects`` or ``registry``.
        config: The trigger as in the document.
    """

    def __init__(self, dag_id: str, source: str, kind: str, config: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dag_id = dag_id
        self.source = source
        self.kind = kind
        self.config = config
        self._away_since: float | None = None
        self._told = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again."""
        kwargs = {"dag_id": self.dag_id, "source": self.source, "kind": self.kind, "config": self.config}
        return f"{type(self).__module__}.{type(self).__name__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each batch that was stored; never ends by itself."""
        while True:
            problem = "it ended"
            try:
                async for event in self._events():
                    yield event
            except (EdgewrightError, OSError) as error:
                problem = str(error)
                log.error("%s of %s: %s", self.source, self.dag_id, error)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                log.exception("%s of %s failed and is opened again", self.source, self.dag_id)
            if not self._told:
                self._told = True
                yield self._event(problem=problem)
            await asyncio.sleep(PAUSE)

    async def _events(self) -> AsyncIterator[TriggerEvent]:
        settings = await self._settings()
        loop = asyncio.get_running_loop()
        # a thread of its own: Airflow's shared one makes idle consumers wait for each other
        with ThreadPoolExecutor(1, thread_name_prefix=f"edgewright-{self.source}") as thread:
            batches = await loop.run_in_executor(thread, self._batches)
            source: Source = await loop.run_in_executor(thread, self._open, batches, settings)
            cooldown = seconds(self.config.get("cooldown"))
            nudge_at = loop.time() + cooldown
            try:
                while True:
                    batch = await loop.run_in_executor(thread, source.poll, 1.0)
                    if (said := self._what_to_say(source.problem, loop.time())) is not None:
                        yield said
                    if batch is not None:
                        log.info("%s: batch %s, %d messages", self.source, batch.name, batch.messages)
                    late = bool(cooldown) and loop.time() > nudge_at
                    if (batch is not None and batch.messages) or (late and await self._waits(loop, thread, batches)):
                        nudge_at = loop.time() + cooldown
                        yield self._event(batch=batch.name if batch else None)
            finally:
                with contextlib.suppress(Exception):
                    thread.submit(source.close)

    def _event(self, **payload: Any) -> TriggerEvent:
        return TriggerEvent({"source": self.source, **payload})  # type: ignore[no-untyped-call]

    def _what_to_say(self, problem: str | None, now: float) -> TriggerEvent | None:
        """Return an event when the source has been away for long enough, and one when it is back."""
        if problem is None:
            self._away_since = None
            if self._told:
                self._told = False
                return self._event(solved=True)
            return None
        self._away_since = now if self._away_since is None else self._away_since
        if self._told or now - self._away_since < PATIENCE:
            return None
        self._told = True
        return self._event(problem=problem)

    @staticmethod
    async def _waits(loop: asyncio.AbstractEventLoop, thread: ThreadPoolExecutor, batches: BatchLog) -> bool:
        """Whether batches wait for the end of a cooldown."""
        return await loop.run_in_executor(thread, lambda: next(iter(batches.pending()), None)) is not None

    def _batches(self) -> BatchLog:
        return BatchLog(ArtifactStore(Installation.load().store), self.dag_id, self.source)

    async def _settings(self) -> dict[str, Any]:
        """Return what the source's connection says."""
        model = TRIGGERS[self.kind].model_validate(self.config)
        found: dict[str, Any] = {}
        if model.connection is not None:
            connection = await sync_to_async(BaseHook.get_connection)(model.connection)
            extra: dict[str, Any] = connection.extra_dejson
            if self.kind == "kafka":
                return extra
            found = {"login": connection.login, "password": connection.password, "extra": extra}
        if isinstance(model, ObjectsTrigger) and model.notifications and model.notifications.topic_connection:
            topic = await sync_to_async(BaseHook.get_connection)(model.notifications.topic_connection)
            found["notifications"] = topic.extra_dejson
        return found

    def _open(self, batches: BatchLog, settings: dict[str, Any]) -> Source:
        from edgewright.streams.sources import open_source

        opened: Source = open_source(self.kind, self.config, batches, settings)
        return opened
