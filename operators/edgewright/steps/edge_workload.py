"""The DaemonSet (or Deployment) that makes nodes answer with one version, as the plain document for the API.

One pod a node runs ``edgewright edge run`` for exactly this version. Readiness is the node's own word that this version
answers: fetched, signature and sums compared, golden rows answered. So Kubernetes itself goes on to the next node only
where the last one is proven, and the version before can be put back as it was.

The site's values and the public key travel as annotations, which the pod sees as files: they change and go back with
the template, and nothing beside the workload is made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgewright.artifacts import digest_json
from edgewright.spec.arguments import duration
from edgewright.spec.steps.edge_place import EdgePlace
from edgewright.steps.labels import label, object_name

Json = dict[str, Any]
#: The container that runs the node.
CONTAINER = "node"
#: Label by which a workload finds its pods.
WORKLOAD = "edgewright.dev/workload"
VERSION, VARIANT, MODEL = "edgewright.dev/version", "edgewright.dev/variant", "edgewright.dev/model"
#: Annotations: what was rendered, who did, whether nodes proved it, and what they proved before.
DIGEST, OWNER, STATE, BEFORE = (f"edgewright.dev/{name}" for name in ("digest", "owner", "state", "before"))
VALUES, KEY = "edgewright.dev/values", "edgewright.dev/key"
ROLLING, PROVEN = "rolling", "proven"
#: The taint of KubeEdge's nodes.
EDGE_TAINT = {"key": "node-role.kubernetes.io/edge", "operator": "Exists", "effect": "NoSchedule"}
_FILES, _HOME = "/edgewright/site", "/var/lib/edgewright"
_USER = 10001
_PULL = {"always": "Always", "missing": "IfNotPresent", "never": "Never"}


@dataclass(frozen=True)
class Release:
    """What the nodes are to run.

    Attributes:
        name: Registered name of the model.
        version: Registered version.
        variant: Which variant.
    """

    name: str
    version: str
    variant: str


def workload_name(place: EdgePlace, release: Release) -> str:
    """Return the name of the workload: the same for every version of a model."""
    return place.name or object_name(f"edge-{release.name}-{release.variant}")


def build_workload(place: EdgePlace, release: Release, owner: str) -> Json:
    """Return the DaemonSet or Deployment.

    Args:
        place: Where to.
        release: What.
        owner: Pipeline and task.
    """
    name = workload_name(place, release)
    labels = {
        "app.kubernetes.io/managed-by": "edgewright", "app.kubernetes.io/component": "node", WORKLOAD: label(name),
        MODEL: label(release.name), VERSION: label(release.version), VARIANT: label(release.variant),
    }  # fmt: skip
    seconds = max(1, round(duration(place.settle).total_seconds()))
    rolling: Json = {"maxUnavailable": place.max_unavailable, "maxSurge": 0}
    spec: Json = {
        "selector": {"matchLabels": {WORKLOAD: label(name)}},
        "minReadySeconds": seconds,
        "template": {"metadata": {"labels": dict(labels), "annotations": _annotations(place)},
                     "spec": _pod(place, release, name)},
    }  # fmt: skip
    if place.replicas is None:
        spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    else:
        spec |= {"replicas": place.replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}
    document: Json = {
        "apiVersion": "apps/v1", "kind": "DaemonSet" if place.replicas is None else "Deployment",
        "metadata": {"name": name, "labels": labels, "annotations": {OWNER: owner}}, "spec": spec,
    }  # fmt: skip
    if place.namespace:
        document["metadata"]["namespace"] = place.namespace
    document["metadata"]["annotations"][DIGEST] = digest_json(spec)
    return document


def _annotations(place: EdgePlace) -> dict[str, str]:
    found = {VALUES: json.dumps(place.values, sort_keys=True)}
    return found | ({KEY: place.key} if place.key else {})


def _pod(place: EdgePlace, release: Release, name: str) -> Json:
    volumes, mounts = _volumes(place, name)
    tolerations = [EDGE_TAINT, *(one.model_dump(exclude_none=True) for one in place.tolerations)]
    if place.replicas is not None:  # a DaemonSet's pods stay on a node that is away; these would be moved
        tolerations += [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute"}
                        for key in ("unreachable", "not-ready")]  # fmt: skip
    spec: Json = {
        "nodeSelector": place.selector, "tolerations": tolerations, "containers": [_container(place, release, mounts)],
        "volumes": volumes, "automountServiceAccountToken": False, "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER,
                            "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    if place.token is None:
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if place.pull_secrets:
        spec["imagePullSecrets"] = [{"name": one} for one in place.pull_secrets]
    if place.home is not None:
        spec["initContainers"] = [_owner_of_home(place)]
    return spec


def _container(place: EdgePlace, release: Release, mounts: list[Json]) -> Json:
    env: list[Json] = [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    plain = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", **place.env}  # noqa: S108 (a volume of the pod's own)
    if place.login:
        plain["DOCKER_CONFIG"] = "/edgewright/login"
    env += [{"name": key, "value": value} for key, value in plain.items()]
    env += [{"name": key, "valueFrom": {"secretKeyRef": {"name": one.secret, "key": one.key or key}}}
            for key, one in place.secrets.items()]  # fmt: skip
    ping: Json = {"path": f"/ping?version={release.version}&target={release.variant}", "port": place.port}
    if place.token is None:
        ping["host"] = "127.0.0.1"
    container: Json = {
        "name": CONTAINER, "image": place.runtime, "imagePullPolicy": _PULL[place.pull],
        "command": _command(place, release), "env": env, "volumeMounts": mounts,
        "ports": [{"name": "http", "containerPort": place.port}],
        "readinessProbe": {"httpGet": ping, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 3},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    if place.resources:
        amounts = {name: str(value) for name, value in place.resources.items()}
        container["resources"] = {"requests": amounts, "limits": {k: v for k, v in amounts.items() if k != "cpu"}}
    return container


def _command(place: EdgePlace, release: Release) -> list[str]:
    command = [
        "edgewright", "edge", "run", "--source", place.source, "--target", release.variant, "--model", release.name,
        "--version", release.version, "--home", f"{_HOME}/node", "--name", "$(NODE_NAME)",
        "--port", str(place.port), "--poll", str(place.poll), "--values", f"{_FILES}/values.json",
    ]  # fmt: skip
    if place.key:
        command += ["--key", f"{_FILES}/key.pub"]
    if place.token:
        command += ["--host", "0.0.0.0", "--token-file", "/edgewright/token/token"]  # noqa: S104 (callers need the token)
    if place.reports:
        command += ["--kafka" if place.reports.startswith("kafka") else "--mqtt", place.reports]
    return command


def _volumes(place: EdgePlace, name: str) -> tuple[list[Json], list[Json]]:
    files = [{"path": "values.json", "fieldRef": {"fieldPath": f"metadata.annotations['{VALUES}']"}}]
    if place.key:
        files.append({"path": "key.pub", "fieldRef": {"fieldPath": f"metadata.annotations['{KEY}']"}})
    home: Json = {"emptyDir": {}}
    if place.home is not None:
        home = {"hostPath": {"path": f"{place.home.rstrip('/')}/{name}", "type": "DirectoryOrCreate"}}
    volumes: list[Json] = [
        {"name": "site", "projected": {"sources": [{"downwardAPI": {"items": files}}]}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "home", **home},
    ]
    mounts: list[Json] = [
        {"name": "site", "mountPath": _FILES, "readOnly": True},
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 (a volume of the pod's own)
        {"name": "home", "mountPath": _HOME},
    ]
    if place.token:
        volumes.append({"name": "token", "secret": {"secretName": place.token}})
        mounts.append({"name": "token", "mountPath": "/edgewright/token", "readOnly": True})
    if place.login:
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        volumes.append({"name": "login", "secret": {"secretName": place.login, "items": items}})
        mounts.append({"name": "login", "mountPath": "/edgewright/login", "readOnly": True})
    return volumes, mounts


def _owner_of_home(place: EdgePlace) -> Json:
    """Return the container that gives the node's folder to the user of the other one: kubelet makes it root's."""
    return {
        "name": "home", "image": place.runtime, "imagePullPolicy": _PULL[place.pull],
        "command": ["python", "-c", f"import os; os.chown('{_HOME}', {_USER}, {_USER})"],
        "volumeMounts": [{"name": "home", "mountPath": _HOME}],
        "securityContext": {"runAsNonRoot": False, "runAsUser": 0, "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}},
    }  # fmt: skip
