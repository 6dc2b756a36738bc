"""The trigger behind a step in a pod: Airflow's own, which hears of its pod instead of asking for it every second.

All triggers of a namespace share one watch (:mod:`edgewright.triggers.pod_watch`), so that a pod's end is heard of at
once, and the API server of a cluster with hundreds of pods at work is asked little. Where a watch is not allowed, or
breaks off, the pod is asked for as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import ContainerState, KubernetesPodTrigger
from airflow.triggers.base import TriggerEvent

from edgewright.triggers.pod_watch import PodWatch
from edgewright.triggers.waits import LEAST

#: Seconds until the pod is asked for, though nothing was heard of it; and while nothing can be heard.
_ASKED = 120.0
_ASKED_ALONE = 5.0


class StepPodTrigger(KubernetesPodTrigger):
    """Waits for the pod of a step; takes what :class:`KubernetesPodTrigger` takes."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._heard: tuple[PodWatch, asyncio.Event] | None = None
        self._pod: Any = None
        self._asked = 0.0
        self._exits = contextlib.AsyncExitStack()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the database keeps them."""
        _, arguments = super().serialize()
        return f"{__name__}.{type(self).__name__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event when the pod has ended, not before Airflow knows that the worker has."""
        began = time.monotonic()
        async with self._exits:
            async for event in super().run():
                await asyncio.sleep(max(0.0, began + LEAST - time.monotonic()))
                yield event

    async def _get_pod(self) -> Any:  # type: ignore[override]
        """Return the pod: asked for while it does not run, when something happened to it, or after long enough."""
        if self._heard is not None:
            watch, happened = self._heard
            patience = _ASKED if watch.is_open else _ASKED_ALONE
            # lines of its log are fetched in between, for which it is not asked for
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(happened.wait(), self.logging_interval or patience)
            if not happened.is_set() and time.monotonic() < self._asked + patience:
                return self._pod
            happened.clear()
        self._pod, self._asked = await super()._get_pod(), time.monotonic()
        if self._heard is None and self.define_pod_container_state(self._pod) == ContainerState.RUNNING:
            self._heard = await self._exits.enter_async_context(PodWatch.of(self))
        return self._pod
