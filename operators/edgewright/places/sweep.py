"""Pods that nobody waits for any more: their task's run was removed, or their task has ended without them.

A worker or triggerer that dies leaves its pods at work, on purpose: the next one finds them again by name. What stays
behind for good is a pod whose run somebody deleted, or whose Airflow is gone. Whether a task still wants its pod, its
Airflow says; a pod that was started by hand has none, and only its age speaks against it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgewright.places.cluster import Cluster
from edgewright.places.pods import BY, BY_HAND, REQUEST, SELECTOR
from edgewright.steps.contract import Identity

#: Where a pod is only for a moment anyway: it was made just now, or is about to go.
GRACE = datetime.timedelta(minutes=2)
#: States of a task instance in which it needs its pod, or will look for it.
_WANTED = frozenset({None, "scheduled", "queued", "running", "deferred", "restarting", "up_for_retry",
                     "up_for_reschedule"})  # fmt: skip
_BEGUN = frozenset({"running", "deferred"})


@dataclass(frozen=True)
class StepPod:
    """One pod of a step.

    Attributes:
        name: Of the pod.
        namespace: Where it is.
        uid: What it is; a later one of the same name has another.
        identity: Which task of which run and try it answers.
        store: The artifact store of the installation that started it.
        by_hand: Whether ``edgewright run`` started it, and no Airflow knows of it.
        phase: As Kubernetes calls it.
        age: Since it was made.
        leaving: Whether it is being deleted.
    """

    name: str
    namespace: str
    uid: str
    identity: Identity
    store: str
    by_hand: bool
    phase: str
    age: datetime.timedelta
    leaving: bool


@dataclass(frozen=True)
class Task:
    """What Airflow says about a task.

    Attributes:
        state: Of the task instance.
        try_number: Which try it is at.
    """

    state: str | None
    try_number: int


def step_pods(cluster: Cluster, namespace: str | None) -> list[StepPod]:
    """Return the pods of steps.

    Args:
        cluster: Which cluster.
        namespace: ``None``: all of them.

    Raises:
        Unavailable: they cannot be listed.
    """
    found = [_read(document) for document in cluster.pods(SELECTOR, namespace)]
    return sorted((pod for pod in found if pod), key=lambda pod: (pod.namespace, pod.name))


def _read(document: dict[str, Any]) -> StepPod | None:
    metadata = document["metadata"]
    try:
        request = json.loads(metadata["annotations"][REQUEST])
        identity = Identity.model_validate(request["identity"])
    except (KeyError, ValueError):
        return None  # labelled like ours, and not ours
    made = datetime.datetime.fromisoformat(metadata["creationTimestamp"])
    return StepPod(
        name=metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"], identity=identity,
        store=str(request.get("store")), by_hand=metadata.get("labels", {}).get(BY) == BY_HAND,
        phase=document.get("status", {}).get("phase", "Unknown"), age=datetime.datetime.now(datetime.UTC) - made,
        leaving=bool(metadata.get("deletionTimestamp")),
    )  # fmt: skip


def orphans(
    pods: list[StepPod], store: str, ask: Callable[[Identity], Task | None], by_hand: datetime.timedelta
) -> Iterator[tuple[StepPod, str]]:
    """Yield the pods that nobody waits for, and why.

    Args:
        pods: What there is.
        store: This installation's artifact store; pods of another installation are left alone.
        ask: What Airflow says about a task; ``None`` where it does not know it.
        by_hand: How old a pod that was started by hand may get.
    """
    for pod in pods:
        if pod.store != store or pod.leaving or pod.age < GRACE:
            continue
        if pod.by_hand:
            if pod.age > by_hand:
                yield pod, f"started by hand {_words(pod.age)} ago"
            continue
        reason = _unwanted(pod, ask(pod.identity))
        if reason:
            yield pod, reason


def _unwanted(pod: StepPod, task: Task | None) -> str | None:
    identity = pod.identity
    if task is None:
        return f"Airflow has no task {identity.task_id} in a run {identity.run_id} of {identity.dag_id}"
    if task.state not in _WANTED:
        return f"its task has ended: {task.state}"
    # a try that is about to begin takes over what an earlier one left at work, and says so on the pod
    if task.try_number > identity.try_number and task.state in _BEGUN:
        return f"its task is at try {task.try_number}, and the pod is of try {identity.try_number}"
    return None


def _words(age: datetime.timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
