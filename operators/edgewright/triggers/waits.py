"""The trigger behind ``wait`` and the sensors: the triggerer waits for a batch, and no worker is held.

Delivery is that of :mod:`edgewright.streams.waits`: the batch is in the artifact store and claimed for the task before
the event is sent, so an event that is lost, or sent by two triggerers, changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow.sdk import BaseHook
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError, UserFault
from edgewright.installation import Installation
from edgewright.spec.steps.wait import WaitConfig
from edgewright.streams.batches import BatchLog
from edgewright.streams.waits import Line, Wait, settings_of, wait_source

log = logging.getLogger("edgewright.triggers")
#: Seconds that the trigger lives at least: Airflow 3.3 fails a task whose trigger fires at once, because the worker's
#: end is not noted yet.
LEAST = 2.0
#: Seconds before a source that failed is tried again.
PAUSE = 5.0


class WaitTrigger(BaseTrigger):
    """Waits for the batch of one task.

    Args:
        dag_id: The task's Dag.
        run_id: Its run.
        task_id: The task.
        map_index: Which instance of a mapped task; -1 for one that is not mapped.
        config: The step's configuration.
        deadline: When it ends, in seconds since 1970; a triggerer that takes over goes on with the same.
    """

    def __init__(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, config: dict[str, Any], deadline: float
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dag_id = dag_id
        self.run_id = run_id
        self.waiting_task = task_id
        self.map_index = map_index
        self.config = config
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again."""
        kwargs = {
            "dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.waiting_task, "map_index": self.map_index,
            "config": self.config, "deadline": self.deadline,
        }  # fmt: skip
        return f"{type(self).__module__}.{type(self).__name__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: ``found``, ``late`` or ``failed``, the last two with the reason."""
        earliest = time.monotonic() + LEAST
        event = await self._event()
        await asyncio.sleep(max(0.0, earliest - time.monotonic()))
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _event(self) -> dict[str, Any]:
        config = WaitConfig.model_validate(self.config)
        loop = asyncio.get_running_loop()
        # a thread of its own: Airflow's shared one makes idle consumers wait for each other
        with ThreadPoolExecutor(1, thread_name_prefix=f"edgewright-{self.waiting_task}") as thread:
            problem = ""
            wait: Wait | None = None
            try:
                while True:
                    try:
                        wait = wait or await self._begin(config)
                        batch = await loop.run_in_executor(thread, wait.poll, 1.0)
                        problem = ""
                        if batch is not None:
                            log.info("%s: batch %s, %d messages", self.waiting_task, batch.name, batch.messages)
                            return {"state": "found", "batch": batch.name}
                    except UserFault as error:
                        return {"state": "failed", "reason": str(error)}
                    except (EdgewrightError, OSError) as error:
                        if str(error) != problem:
                            log.warning("%s waits: %s", self.waiting_task, error)
                        problem = str(error)
                        await asyncio.sleep(PAUSE)
                    if time.time() >= self.deadline:
                        reason = wait.late() if wait is not None else f"nothing came within {config.timeout}"
                        return {"state": "late", "reason": f"{reason}; {problem}" if problem else reason}
            finally:
                if wait is not None:
                    with contextlib.suppress(RuntimeError):
                        thread.submit(wait.close)

    async def _begin(self, config: WaitConfig) -> Wait:
        from airflow.sdk.exceptions import AirflowNotFoundException

        from edgewright.errors import ConfigError

        settings: dict[str, Any] = {}
        if config.connection is not None:
            try:
                found = await sync_to_async(BaseHook.get_connection)(config.connection)
            except AirflowNotFoundException:
                raise ConfigError(f"no connection {config.connection!r}", hint="define it in Airflow") from None
            settings = settings_of(config.kind, found.login, found.password, found.extra_dejson)
        store = ArtifactStore((await sync_to_async(Installation.load)()).store)
        batches = BatchLog(store, self.dag_id, wait_source(self.waiting_task, config))

        def open_source() -> Any:
            from edgewright.streams.sources import open_source

            return open_source(config.kind, config.trigger(), batches, settings)

        return Wait(config, Line(batches, self.run_id, self.map_index), open_source, self.deadline)
