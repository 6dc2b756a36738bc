"""``on: kubernetes``: the pod that answers a request, as the plain document that the API takes. Starts nothing.

The request travels as an annotation, which the pod sees as a projected file: nothing but the pod is made, so nothing
but the pod can be left behind. Its name follows from the task of the run, so a second worker cannot start a second one.
"""

from __future__ import annotations

import copy
import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

from edgewright.errors import ConfigError
from edgewright.places.containers import local_path
from edgewright.places.foreign import surround
from edgewright.spec.profiles import Mount, Profile
from edgewright.steps.contract import StepRequest
from edgewright.steps.labels import label

Json = dict[str, Any]
#: The container that runs the step.
CONTAINER = "step"
REQUEST = "edgewright.dev/request"
#: Label that says who waits for a pod.
BY = "edgewright.dev/by"
#: Label that says which try of its task waits for a pod.
TRY = "edgewright.dev/try"
#: Labels that all pods of steps have.
SELECTOR = "app.kubernetes.io/managed-by=edgewright,app.kubernetes.io/component=step"
BY_AIRFLOW, BY_HAND = "airflow", "hand"
#: Most bytes of a request: an annotation's limit (256 KiB for all of them), with room for others.
REQUEST_LIMIT = 200 << 10
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_USER = 10001


def refusal(profile: Profile, request: StepRequest) -> str | None:
    """Return what a pod of this profile could not do for a request, as far as can be said without the cluster."""
    store = local_path(request.store)
    if store is not None and profile.volume_claim is None and not _covered(profile, str(store)):
        return (f"the artifact store is a folder of this machine ({request.store}), which a pod does not see: name its "
                "volume_claim, or use an object store")  # fmt: skip
    database = local_path(request.tracking_uri)
    if database is not None and not _covered(profile, str(database.parent)):
        shared = store is not None and database.is_relative_to(store)
        if not (shared and profile.volume_claim) and request.step in ("train", "evaluate", "publish"):
            return f"MLflow is a file of this machine ({request.tracking_uri}), which a pod does not see: use a server"
    for name, address in (("the artifact store", request.store), ("MLflow", request.tracking_uri)):
        if urlsplit(address).hostname in _LOOPBACK and not _host_network(profile):
            return f"{name} at {address} is this machine's own address, which a pod cannot reach"
    return None


def _host_network(profile: Profile) -> bool:
    return bool((_given(profile).get("spec") or {}).get("hostNetwork"))


def _given(profile: Profile) -> Json:
    """Return the profile's own pod (a file was read by then)."""
    return profile.pod if isinstance(profile.pod, dict) else {}


def _covered(profile: Profile, path: str) -> bool:
    return any(path == mount.path or path.startswith(mount.path.rstrip("/") + "/") for mount in profile.mounts)


def pod_name(request: StepRequest) -> str:
    """Return the name of the one pod that answers a task of a run."""
    identity = request.identity
    digest = hashlib.sha256(f"{request.store}/{identity.key}".encode()).hexdigest()[:12]
    words = re.sub(r"[^a-z0-9]+", "-", f"{identity.dag_id}-{identity.task_id}".lower()).strip("-")[:38].strip("-")
    return f"ew-{words or 'step'}-{digest}"


def asks_the_same(text: str | None, request: StepRequest) -> bool:
    """Tell whether a pod was made for a request, by whichever try of its task.

    Args:
        text: The pod's annotation :data:`REQUEST`.
        request: The request of this try.
    """
    try:
        found = StepRequest.model_validate_json(text or "")
    except ValueError:  # of another release
        return False
    identity = found.identity.model_copy(update={"try_number": request.identity.try_number})
    return found.model_copy(update={"identity": identity}) == request


def build_pod(profile: Profile, request: StepRequest, by: str = BY_AIRFLOW) -> Json:
    """Return the pod that answers a request.

    Args:
        profile: One ``on: kubernetes``.
        request: What is asked.
        by: Who waits for it.

    Raises:
        ConfigError: the request is too large for a pod's annotations.
    """
    text = request.model_dump_json(exclude_defaults=True)
    if len(text.encode()) > REQUEST_LIMIT:
        raise ConfigError(f"the request has {len(text) >> 10} KiB, and a pod takes {REQUEST_LIMIT >> 10}",
                          where=request.identity.task_id, hint="put large values into a file")  # fmt: skip
    pod = copy.deepcopy(_given(profile))
    metadata, spec = pod.setdefault("metadata", {}), pod.setdefault("spec", {})
    identity = request.identity
    metadata["name"] = pod_name(request)
    metadata["annotations"] = {**metadata.get("annotations", {}), REQUEST: text}
    metadata["labels"] = {
        **metadata.get("labels", {}),
        **dict(one.split("=") for one in SELECTOR.split(",")),
        "edgewright.dev/pipeline": label(identity.dag_id),
        "edgewright.dev/task": label(identity.task_id),
        "edgewright.dev/run": label(identity.run_id),
        TRY: str(identity.try_number),
        BY: by,
        **({"kueue.x-k8s.io/queue-name": profile.queue} if profile.queue else {}),
    }
    _fill_spec(spec, profile)
    volumes, mounts = _volumes(profile, request)
    spec["volumes"] = [*spec.get("volumes", []), *volumes]
    containers = spec.setdefault("containers", [])
    given = next((one for one in containers if one.get("name") == CONTAINER), None)
    if given is None:
        containers.insert(0, given := {"name": CONTAINER})
    _fill_container(given, profile, mounts)
    if profile.foreign:
        surround(spec, given, profile, request)
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def _fill_spec(spec: Json, profile: Profile) -> None:
    spec["restartPolicy"] = "Never"
    spec.setdefault("automountServiceAccountToken", profile.service_account is not None)
    spec.setdefault("enableServiceLinks", False)
    given = spec.get("securityContext", {})
    spec["securityContext"] = {
        "runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"}, **given,
    }  # fmt: skip
    for key, value in (
        ("serviceAccountName", profile.service_account),
        ("priorityClassName", profile.priority),
        ("runtimeClassName", profile.runtime_class),
    ):
        if value is not None:
            spec[key] = value
    if profile.node_selector:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **profile.node_selector}
    if profile.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in profile.pull_secrets]
    tolerations = [one.model_dump(exclude_none=True) for one in profile.tolerations]
    if profile.spot:
        tolerations += [{"key": key, "operator": "Exists"} for key in (
            "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority", "edgewright.dev/spot")]  # fmt: skip
    if tolerations:
        spec["tolerations"] = [*spec.get("tolerations", []), *tolerations]


def _fill_container(container: Json, profile: Profile, mounts: list[Json]) -> None:
    container["image"] = profile.image
    container["imagePullPolicy"] = {"always": "Always", "missing": "IfNotPresent", "never": "Never"}[profile.pull]
    container["command"] = ["python", "-m", "edgewright.steps", "/edgewright/request/request.json"]
    container["securityContext"] = {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        **container.get("securityContext", {}),
    }  # fmt: skip
    env = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", **profile.env}  # noqa: S108 (a volume of the pod's own)
    variables: list[Json] = [{"name": name, "value": value} for name, value in env.items()]
    for name, secret in profile.secrets.items():
        source = {"name": secret.secret, "key": secret.key or name}
        variables.append({"name": name, "valueFrom": {"secretKeyRef": source}})
    container["env"] = [*container.get("env", []), *variables]
    container["volumeMounts"] = [*container.get("volumeMounts", []), *mounts]
    if profile.resources:
        amounts = {name: str(value) for name, value in profile.resources.items()}
        container["resources"] = {"requests": amounts, "limits": {k: v for k, v in amounts.items() if k != "cpu"}}


def _volumes(profile: Profile, request: StepRequest) -> tuple[list[Json], list[Json]]:
    field = {"fieldPath": f"metadata.annotations['{REQUEST}']"}
    item = {"path": "request.json", "fieldRef": field}
    volumes: list[Json] = [
        {"name": "request", "projected": {"sources": [{"downwardAPI": {"items": [item]}}]}},
        {"name": "scratch", "emptyDir": _scratch(profile)},
    ]
    mounts: list[Json] = [
        {"name": "request", "mountPath": "/edgewright/request", "readOnly": True},
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 (a volume of the pod's own)
    ]
    if profile.shm is not None:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(profile.shm)}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    wanted = list(profile.mounts)
    store = local_path(request.store)
    if store is not None and profile.volume_claim is not None:
        wanted.append(Mount(path=str(store), claim=profile.volume_claim, read_only=False))
    for number, mount in enumerate(wanted):
        volumes.append({"name": f"mount-{number}", **_source(mount)})
        mounts.append({"name": f"mount-{number}", "mountPath": mount.path, "readOnly": mount.read_only})
    return volumes, mounts


def _scratch(profile: Profile) -> Json:
    size = profile.resources.get("ephemeral-storage")
    return {} if size is None else {"sizeLimit": str(size)}


def _source(mount: Mount) -> Json:
    if mount.claim is not None:
        return {"persistentVolumeClaim": {"claimName": mount.claim}}
    if mount.secret is not None:
        return {"secret": {"secretName": mount.secret}}
    if mount.config_map is not None:
        return {"configMap": {"name": mount.config_map}}
    return {"hostPath": {"path": mount.folder}}
