"""The trigger behind a step in a pod: Airflow's own, which listens to its pod instead of asking for it every second.

One watch stays open for each pod, so that its end is heard of at once, and the API server of a cluster with hundreds of
pods at work is asked little. Where a watch is not allowed, or breaks off, the pod is asked for as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import ContainerState, KubernetesPodTrigger
from airflow.triggers.base import TriggerEvent
from kubernetes_asyncio.client import CoreV1Api
from kubernetes_asyncio.watch import Watch

from edgewright.triggers.waits import LEAST

#: Seconds for which one watch is open.
_WATCHED = 240
#: Seconds until the pod is asked for, though nothing was heard of it.
_ASKED = 30.0


class StepPodTrigger(KubernetesPodTrigger):
    """Waits for the pod of a step; takes what :class:`KubernetesPodTrigger` takes."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._listening: asyncio.Task[bool] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the database keeps them."""
        _, arguments = super().serialize()
        return f"{__name__}.{type(self).__name__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event when the pod has ended, not before Airflow knows that the worker has."""
        began = time.monotonic()
        try:
            async for event in super().run():
                await asyncio.sleep(max(0.0, began + LEAST - time.monotonic()))
                yield event
        finally:
            if self._listening is not None:
                self._listening.cancel()

    async def _get_pod(self) -> Any:  # type: ignore[override]
        """Return the pod: at once the first time and while it does not run, later when it has changed."""
        if self._listening is not None:
            await asyncio.wait({self._listening}, timeout=self.logging_interval or _ASKED)
        pod = await super()._get_pod()
        runs = self.define_pod_container_state(pod) == ContainerState.RUNNING
        if self._listening is None and runs:
            self._listening = asyncio.create_task(self._hear())
        elif runs and self._listening.done() and not self._listening.result():  # type: ignore[union-attr]
            await asyncio.sleep(1)  # it broke off: somebody may not want to be asked just now
            self._listening = asyncio.create_task(self._hear())
        return pod

    async def _hear(self) -> bool:
        """Watch the pod; return whether its container has ended, or it is gone."""
        watch = Watch()
        with contextlib.suppress(Exception):  # what waits for this asks for the pod instead
            async with self.hook.get_conn() as connection:
                # a client of its own would hold all of this machine's certificates once more, for each pod
                own, watch._api_client = watch._api_client, connection
                await own.close()
                events = watch.stream(
                    CoreV1Api(connection).list_namespaced_pod, namespace=self.pod_namespace,
                    field_selector=f"metadata.name={self.pod_name}", timeout_seconds=_WATCHED,
                )  # fmt: skip
                async for event in events:
                    state = self.define_pod_container_state(event["object"])
                    if event["type"] == "DELETED" or state in (ContainerState.TERMINATED, ContainerState.FAILED):
                        return True
        return False
