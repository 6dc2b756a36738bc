"""One watch a namespace for all pods of steps that a triggerer waits for.

A watch a pod is heard of at once as well, but each holds a connection of its own: hundreds of waiting pods took more of
the triggerer's memory than asking for them every few seconds does. Here each asks once for the whole watch, and again
for a pod only when something happened to it. See ``bench/waiting.py``.

The watch shows pods that have not ended: one that ends leaves it, which is heard as its deletion. What happens while
the watch is not open is not heard, so everybody is woken whenever it opens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from kubernetes_asyncio.client import CoreV1Api
from kubernetes_asyncio.watch import Watch

from edgewright.places.pods import SELECTOR

_AT_WORK = "status.phase!=Succeeded,status.phase!=Failed"
#: Seconds for which one watch is open; longer than a proxy in between may bear is no harm.
_OPEN = 600
#: Seconds before it is opened again; doubled each time up to the second.
_AGAIN = (1.0, 60.0)


class PodWatch:
    """Hears of the pods of one namespace of one cluster, while somebody waits for one of them.

    Args:
        hook: Leads to the cluster.
        namespace: Of the pods.
    """

    _all: dict[tuple[Any, ...], PodWatch] = {}

    def __init__(self, hook: AsyncKubernetesHook, namespace: str) -> None:
        self._hook, self._namespace = hook, namespace
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        #: Whether it is open: who waits may then rely on it.
        self.is_open = False

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, trigger: KubernetesPodTrigger) -> AsyncIterator[tuple[PodWatch, asyncio.Event]]:
        """Yield the watch of a trigger's namespace, and an event that is set when its pod is to be asked for."""
        key = (id(asyncio.get_running_loop()), *_cluster(trigger), trigger.pod_namespace)
        watch = cls._all.get(key)
        if watch is None:
            watch = cls._all[key] = cls(trigger.hook, trigger.pod_namespace)
        event = asyncio.Event()
        event.set()  # whatever happened until now was not heard
        waiting = watch._waiting.setdefault(trigger.pod_name, set())
        waiting.add(event)
        if watch._task is None:
            watch._task = asyncio.create_task(watch._run())
        try:
            yield watch, event
        finally:
            waiting.discard(event)
            if not waiting and watch._waiting.get(trigger.pod_name) is waiting:
                del watch._waiting[trigger.pod_name]
            if not watch._waiting:
                watch._task.cancel()
                if cls._all.get(key) is watch:
                    del cls._all[key]

    async def _run(self) -> None:
        pause = _AGAIN[0]
        while True:
            with contextlib.suppress(Exception):  # who waits asks for the pod instead, and is told what is wrong
                await self._listen()
                pause = _AGAIN[0]
            self.is_open = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _AGAIN[1])

    async def _listen(self) -> None:
        watch = Watch()
        async with self._hook.get_conn() as connection:
            # a client of its own would hold all of this machine's certificates once more
            own, watch._api_client = watch._api_client, connection
            await own.close()
            events = watch.stream(
                CoreV1Api(connection).list_namespaced_pod, namespace=self._namespace,
                label_selector=SELECTOR, field_selector=_AT_WORK, timeout_seconds=_OPEN,
            )  # fmt: skip
            async for event in events:
                if not self.is_open:
                    self.is_open = True
                    self._wake(*self._waiting)
                if event["type"] == "DELETED" or _has_ended(event["object"]):
                    self._wake(event["object"].metadata.name)

    def _wake(self, *pods: str) -> None:
        for pod in pods:
            for event in self._waiting.get(pod, ()):
                event.set()


def _has_ended(pod: Any) -> bool:
    """Tell whether a step's own container is over, though another may keep its pod at work."""
    statuses = pod.status.container_statuses or []
    return any(status.state and status.state.terminated for status in statuses)


def _cluster(trigger: KubernetesPodTrigger) -> tuple[Any, ...]:
    """Return what tells clusters apart, and who we are there."""
    given = json.dumps([trigger.config_dict, trigger.connection_extras], sort_keys=True, default=str)
    return trigger.kubernetes_conn_id, trigger.cluster_context, trigger.in_cluster, given
