"""``nodes: N``: the Job and the headless Service of a training on several nodes, as plain documents for the API.

An Indexed Job has one pod a node. Pod 0 answers the request as ever; the others run the same code beside it
(edgewright/steps/nodes.py). The names of the pods follow from the Job's, so each finds all others. One that fails ends
the Job, so that either all train or none does.
"""

from __future__ import annotations

from typing import Any

from edgewright.places.pods import CONTAINER, build_pod, pod_name
from edgewright.spec.arguments import duration
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import StepRequest

Json = dict[str, Any]
#: Where the first node listens for the others, as torchrun does by default.
PORT = 29500
INDEX = "batch.kubernetes.io/job-completion-index"
JOB = "batch.kubernetes.io/job-name"
_QUEUE = "kueue.x-k8s.io/queue-name"
#: Seconds after which Kubernetes itself removes a Job that nobody has removed.
_LEFT = 24 * 3600


def refusal(profile: Profile, request: StepRequest) -> str | None:
    """Return why a request cannot be answered by several nodes."""
    if profile.nodes > 1 and request.step != "train":
        return f"nodes: {profile.nodes} is for a train step; {request.step} runs on one"
    return None


def hosts(profile: Profile, request: StepRequest) -> list[str]:
    """Return the names by which the nodes find each other, the first one first."""
    name = pod_name(request)
    return [f"{name}-{number}.{name}" for number in range(profile.nodes)]


def build_job(profile: Profile, request: StepRequest, by: str) -> Json:
    """Return the Job that answers a request."""
    pod = build_pod(profile, request, by)
    metadata, spec = pod["metadata"], pod["spec"]
    name = metadata.pop("name")
    labels = dict(metadata["labels"])
    # Kueue admits the Job as a whole, never single pods of it
    metadata["labels"] = {key: value for key, value in labels.items() if key != _QUEUE}
    container = next(one for one in spec["containers"] if one["name"] == CONTAINER)
    container["command"] = ["python", "-m", "edgewright.steps.nodes", "/edgewright/request/request.json"]
    container["env"] = [*container["env"], *_rendezvous(profile, request)]
    spec["subdomain"] = name
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
        "spec": {
            "completions": profile.nodes, "parallelism": profile.nodes, "completionMode": "Indexed",
            "backoffLimit": 0, "ttlSecondsAfterFinished": _LEFT, "template": {"metadata": metadata, "spec": spec},
        },
    }  # fmt: skip


def build_service(job: Json) -> Json:
    """Return the headless Service that gives the pods of a Job their names; it goes with the Job.

    Args:
        job: As the API has it, with its ``uid``.
    """
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": metadata["name"], "labels": metadata.get("labels", {}), "ownerReferences": [owner]},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {JOB: metadata["name"]},
                 "ports": [{"name": "rendezvous", "port": PORT}]},
    }  # fmt: skip


def _rendezvous(profile: Profile, request: StepRequest) -> list[Json]:
    """Return what PyTorch (``env://``), torchrun (``PET_``) and others look for in the environment."""
    names = hosts(profile, request)
    values = {
        "EDGEWRIGHT_NODES": str(profile.nodes),
        "EDGEWRIGHT_HOSTS": ",".join(names),
        "EDGEWRIGHT_START_TIMEOUT": str(duration(profile.start_timeout).total_seconds()),
        "WORLD_SIZE": str(profile.nodes), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": names[0], "MASTER_PORT": str(PORT),
        "PET_NNODES": str(profile.nodes), "PET_MASTER_ADDR": names[0], "PET_MASTER_PORT": str(PORT),
    }  # fmt: skip
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    ranks = ("EDGEWRIGHT_NODE", "RANK", "NODE_RANK", "PET_NODE_RANK")
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *({"name": name, "valueFrom": index} for name in ranks),
    ]
