"""Why a pod did not do what it should, in one line that says what to mend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgewright.errors import EdgewrightError, SystemFault, UserFault
from edgewright.places.pods import CONTAINER

Json = Mapping[str, Any]
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_SETUP = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def was_evicted(pod: Json | None) -> bool:
    """Whether a pod ended by no fault of the step: evicted, preempted, drained, deleted, or its node was lost."""
    if pod is None or pod.get("metadata", {}).get("deletionTimestamp"):
        return True
    status = pod.get("status", {})
    if status.get("reason") in ("Evicted", "Preempting", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"):
        return bool(status.get("phase") == "Failed")
    conditions = status.get("conditions") or ()
    disrupted = any(one["type"] == "DisruptionTarget" and one["status"] == "True" for one in conditions)
    return disrupted and bool(status.get("phase") == "Failed")


def was_disrupted(pod: Json) -> bool:
    """Whether a pod was evicted, preempted or drained, as its own conditions say; a deleted one does not say."""
    conditions = pod.get("status", {}).get("conditions") or ()
    disrupted = any(one["type"] == "DisruptionTarget" and one["status"] == "True" for one in conditions)
    return disrupted or pod.get("status", {}).get("reason") in ("Evicted", "Preempting", "NodeLost", "NodeShutdown")


def unstarted(pod: Json, nodes: Iterable[Json] | None = None) -> EdgewrightError | None:
    """Return why a pod does not start, or ``None`` where nothing speaks against it yet.

    Args:
        pod: As the API shows it.
        nodes: The cluster's nodes, where they may be read: they say what there is instead.
    """
    status = pod.get("status", {})
    for state in _statuses(status):
        waiting = (state.get("state") or {}).get("waiting") or {}
        reason, words = waiting.get("reason"), waiting.get("message") or ""
        if reason in _IMAGE:
            return UserFault(f"{reason}: the image {state.get('image')} cannot be pulled: {_first(words)}",
                             hint="check its name, and pull_secrets of the profile")  # fmt: skip
        if reason in _SETUP:
            return UserFault(f"{reason}: {_first(words)}", hint="check secrets, mounts and env of the profile")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return SystemFault(f"Unschedulable: {_first(condition.get('message') or '')}{_there(pod, nodes)}",
                               hint="check resources, node_selector and tolerations of the profile")  # fmt: skip
    return None


def exit_code(pod: Json) -> int | None:
    """Return the exit code of a pod's step, if it has ended."""
    ends = [(one.get("state") or {}).get("terminated") for one in _statuses(pod.get("status", {}))
            if one["name"] == CONTAINER]  # fmt: skip
    return ends[0]["exitCode"] if ends and ends[0] else None


def ended(pod: Json) -> tuple[EdgewrightError | None, str]:
    """Return why a pod failed by more than the step's own verdict, and how it ended, in words."""
    status = pod.get("status", {})
    ends = {state["name"]: (state.get("state") or {}).get("terminated") or {} for state in _statuses(status)}
    for name, end in ends.items():  # before all else: other containers fail for it
        if end.get("reason") == "OOMKilled":
            limit = _limit(pod, name, "memory")
            words = "OOMKilled: " + (f"the step needed more than {limit}" if limit else "the node ran out of memory")
            return UserFault(words, hint="raise resources.memory of the profile, or use less data at once"), words
    for name, end in ends.items():
        if end.get("exitCode") and name != CONTAINER:
            words = f"the container {name} ended with {end['exitCode']} {_first(end.get('message') or '')}"
            return SystemFault(words), words
        if end and name == CONTAINER:
            words = f"{end.get('reason') or ''} {_first(end.get('message') or '')}".strip()
            return None, f"the container ended with {end.get('exitCode')} {words}".strip()
    why = f"{status.get('reason') or ''} {_first(status.get('message') or '')}".strip()
    return None, f"the pod is {status.get('phase', 'gone')}: {why}".strip(": ")


def shortfall(resources: Mapping[str, Any], nodes: Iterable[Json]) -> str | None:
    """Return what no node offers, such as ``no node offers nvidia.com/gpu: 1; nodes have ...``."""
    from edgewright.places.containers import amount

    offers = [node["status"].get("allocatable") or {} for node in nodes]
    for name, wanted in resources.items():
        if not any(amount(offer.get(name, 0)) >= amount(wanted) for offer in offers):
            best = max((str(offer[name]) for offer in offers if name in offer), key=amount, default=None)
            have = f"at most {name}: {best}" if best else _devices(offers)
            return f"no node offers {name}: {wanted}; nodes have {have}"
    return None


def _devices(offers: list[Json]) -> str:
    names = sorted({f"{name}: {value}" for offer in offers for name, value in offer.items() if "/" in name})
    return ", ".join(names) or "no devices at all"


def _there(pod: Json, nodes: Iterable[Json] | None) -> str:
    if nodes is None:
        return ""
    asked: Json = next((one for one in pod["spec"]["containers"] if one["name"] == CONTAINER), {})
    found = shortfall((asked.get("resources") or {}).get("requests") or {}, list(nodes))
    return f" ({found})" if found else ""


def _statuses(status: Json) -> list[Any]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _limit(pod: Json, container: str, name: str) -> str | None:
    for one in pod["spec"]["containers"]:
        if one["name"] == container:
            found: str | None = ((one.get("resources") or {}).get("limits") or {}).get(name)
            return found
    return None


def _first(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else ""
