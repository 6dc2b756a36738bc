"""``deploy`` with ``to: {edge: ...}``: labelled nodes answer with a version, or with the one before.

What the nodes proved last stays in the workload's own annotations while the next version rolls out, so that a try after
a crash of the worker still knows where to go back to.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgewright.errors import ConfigError, DeployRejected, EdgewrightError, NotFound, Unavailable
from edgewright.spec.steps.edge_place import EdgePlace
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.edge_workload import (
    BEFORE,
    CONTAINER,
    DIGEST,
    MODEL,
    OWNER,
    PROVEN,
    ROLLING,
    STATE,
    VALUES,
    VARIANT,
    VERSION,
    WORKLOAD,
    Release,
    build_workload,
)
from edgewright.steps.kube import Kubernetes
from edgewright.steps.labels import label

if TYPE_CHECKING:
    from edgewright.steps.deploy import Wanted

log = logging.getLogger("edgewright.steps")
Json = dict[str, Any]
#: Seconds between two looks at the nodes.
LOOK = 1.0
#: What a pod waits for that no waiting mends.
_HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")
_CRASHES = 3
_NAMED = 5


@dataclass
class Progress:
    """How far a rollout is.

    Attributes:
        wanted: Nodes that are up and must answer.
        proven: Nodes that answer with the version.
        away: Labelled nodes that are not up.
        waiting: Why others do not answer yet, by node.
        hopeless: Those of them that waiting does not mend.
        settled: Whether Kubernetes counts as many as available.
    """

    wanted: int = 0
    proven: list[str] = field(default_factory=list)
    away: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    hopeless: list[str] = field(default_factory=list)
    settled: int = 0

    def needed(self, require: float) -> int:
        """Return how many nodes must answer."""
        return max(1, math.ceil(self.wanted * require - 1e-9))

    def done(self, require: float) -> bool:
        """Whether enough answer."""
        return self.wanted > 0 and min(len(self.proven), self.settled) >= self.needed(require)

    def lost(self, require: float) -> bool:
        """Whether so many are hopeless that enough never will."""
        return self.wanted > 0 and len(self.hopeless) > self.wanted - self.needed(require)


def deploy_to_nodes(place: EdgePlace, wanted: Wanted, context: StepContext, timeout: float) -> StepOutput:
    """Roll a version out to nodes, and back where they do not prove it.

    Raises:
        NotFound: no node has the labels.
        ConfigError: the cluster refuses what was asked for.
        DeployRejected: nodes did not answer with the version; those before answer again, and the alias is back.
        Unavailable: the cluster does not answer.
    """
    identity = context.request.identity
    release = Release(wanted.name, wanted.version, wanted.variant)
    document = build_workload(place, release, f"{identity.dag_id}/{identity.task_id}")
    cluster = Kubernetes(place.connection, place.namespace)
    away = _away(cluster, place)
    start = time.perf_counter()
    rollout = Rollout(cluster, document, place, away, mapped=identity.map_index >= 0)
    before = rollout.begin()
    log.info("%s: %s version %s (%s)", rollout.shown, wanted.name, wanted.version, wanted.variant)
    try:
        progress = rollout.wait(timeout, context)
    except DeployRejected as error:
        from edgewright.steps.deploy import rejected

        if rollout.untouched:
            raise Unavailable(f"nothing was changed, and {error.message}", where=error.where) from error
        done = rollout.undo()
        told = DeployRejected(f"{error.message}; {done}", where=error.where, hint=error.hint)
        raise rejected(told, wanted, context.request.tracking_uri) from error
    rollout.prove()
    return _output(rollout, wanted, progress, before, time.perf_counter() - start)


def _away(cluster: Kubernetes, place: EdgePlace) -> list[str]:
    """Return labelled nodes that are not up.

    Raises:
        NotFound: no node has the labels.
    """
    nodes = cluster.nodes(place.selector)
    if nodes is None:
        return []
    if not nodes:
        wanted = ", ".join(f"{key}={value}" for key, value in place.selector.items())
        have = sorted({f"{key}={node['metadata']['labels'][key]}" for node in cluster.nodes({}) or []
                       for key in place.selector if key in (node["metadata"].get("labels") or {})})  # fmt: skip
        raise NotFound(f"no node has the labels {wanted}", where="deploy.with.to.edge.selector",
                       hint=f"nodes have {', '.join(have)}" if have else "kubectl label node NAME "
                       + wanted.replace(", ", " "))  # fmt: skip
    return sorted(node["metadata"]["name"] for node in nodes if not _is_true(node, "Ready"))


def _is_true(one: Json, condition: str) -> bool:
    found = one.get("status", {}).get("conditions") or ()
    return any(each["type"] == condition and each["status"] == "True" for each in found)


class Rollout:
    """One version on its way to nodes.

    Args:
        cluster: Where.
        document: The workload.
        place: What was asked for.
        away: Nodes that are not up.
        mapped: Whether the task runs once for each of several items: each has a workload of its own.
    """

    def __init__(
        self, cluster: Kubernetes, document: Json, place: EdgePlace, away: list[str], *, mapped: bool = False
    ) -> None:
        self._mapped = mapped
        self._cluster, self._document, self._place, self._away = cluster, document, place, away
        self.kind, self.name = str(document["kind"]), str(document["metadata"]["name"])
        self.shown = f"{self.kind} {cluster.namespace}/{self.name}"
        self._before: Json | None = None
        self.changed, self.untouched = True, False
        self.values: str = document["spec"]["template"]["metadata"]["annotations"][VALUES]

    def begin(self) -> Json | None:
        """Give the workload to the cluster; return what nodes proved before, if anything.

        Raises:
            ConfigError: another task made it.
        """
        self._demand_no_twin()
        existing = self._cluster.read(self.kind, self.name)
        metadata = self._document["metadata"]
        if existing is None:
            metadata["annotations"][STATE] = ROLLING
            self._cluster.create(self._document)
            return None
        self._demand_own(existing)
        said = existing["metadata"].get("annotations") or {}
        self._before = _proven(existing)
        self.changed = said.get(DIGEST) != metadata["annotations"][DIGEST]
        self.untouched = not self.changed and said.get(STATE) == PROVEN
        if self.changed:
            metadata["resourceVersion"] = existing["metadata"]["resourceVersion"]
            metadata["annotations"][STATE] = ROLLING
            if self._before is not None:
                metadata["annotations"][BEFORE] = json.dumps(self._before, sort_keys=True)
            self._allow_for_absent()
            self._cluster.replace(self._document)
        return self._before

    def _allow_for_absent(self) -> None:
        """Nodes that are not up count as unavailable: those that are up are to change one after the other still."""
        strategy = self._document["spec"].get("updateStrategy")
        most = self._place.max_unavailable
        if strategy and self._away and isinstance(most, int):
            strategy["rollingUpdate"]["maxUnavailable"] = most + len(self._away)

    def _demand_no_twin(self) -> None:
        other = "Deployment" if self.kind == "DaemonSet" else "DaemonSet"
        if self._cluster.read(other, self.name) is not None:
            raise ConfigError(f"there is a {other} {self.name} for the same nodes", where=self._cluster.namespace,
                              hint=f"kubectl delete {other.lower()} {self.name}, or give another name")  # fmt: skip

    def _demand_own(self, existing: Json) -> None:
        said = existing["metadata"].get("annotations") or {}
        owner, ours = said.get(OWNER), self._document["metadata"]["annotations"][OWNER]
        if owner != ours:
            made = f"made by {owner}" if owner else "not made by Edgewright"
            raise ConfigError(f"the {self.kind} {self.name} is {made}", where=self._cluster.namespace,
                              hint="give this one another name: to.edge.name")  # fmt: skip
        there = existing["spec"]["template"]["spec"].get("nodeSelector")
        if self._mapped and there != self._place.selector:
            raise ConfigError(f"the {self.kind} {self.name} is of another item of for_each, for nodes with {there}",
                              where=self._cluster.namespace,
                              hint='give each a name: to.edge.name, such as {$t: "pumps-{{ item }}"}')  # fmt: skip

    # -- the way there -----------------------------------------------------------------------------------------

    def wait(self, timeout: float, context: StepContext) -> Progress:
        """Wait until enough nodes answer with the version.

        Raises:
            DeployRejected: they do not in time, or never will.
        """
        deadline = time.monotonic() + timeout
        while True:
            progress = self._look()
            if progress.done(self._place.require):
                return progress
            if progress.lost(self._place.require):
                raise self._refused(progress, "cannot run it")
            if is_over(deadline):
                raise self._refused(progress, f"did not answer with it within {timeout:g} s")
            context.progress("nodes", len(progress.proven), progress.wanted or None)
            time.sleep(LOOK)

    def _look(self) -> Progress:
        workload = self._cluster.read(self.kind, self.name)
        if workload is None:
            raise DeployRejected("somebody removed it meanwhile", where=self.shown)
        status = workload.get("status") or {}
        found = Progress(away=self._away)
        if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 1):
            return found
        if self.kind == "DaemonSet":
            found.wanted = max(0, status.get("desiredNumberScheduled", 0) - len(self._away))
            found.settled = min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))
        else:
            found.wanted = workload["spec"]["replicas"]
            found.settled = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
        for pod in self._cluster.pods(f"{WORKLOAD}={label(self.name)}"):
            self._judge(pod, found)
        return found

    def _judge(self, pod: Json, found: Progress) -> None:
        template = self._document["spec"]["template"]["metadata"]
        metadata, node = pod["metadata"], pod["spec"].get("nodeName") or "(no node)"
        same = all((metadata.get("labels") or {}).get(key) == template["labels"][key] for key in (VERSION, VARIANT))
        same = same and (metadata.get("annotations") or {}).get(VALUES) == template["annotations"][VALUES]
        if not same or metadata.get("deletionTimestamp") or node in self._away:
            return
        if _is_true(pod, "Ready"):
            found.proven.append(node)
            return
        why, hopeless = _why(pod)
        found.waiting[node] = why
        if hopeless:
            found.hopeless.append(node)

    def _refused(self, progress: Progress, what: str) -> DeployRejected:
        """Say why, with what the nodes' own logs say."""
        reasons = []
        chosen = progress.hopeless or sorted(progress.waiting)
        for pod in self._cluster.pods(f"{WORKLOAD}={label(self.name)}"):
            node = pod["spec"].get("nodeName") or "(no node)"
            if node in chosen[:_NAMED] and node in progress.waiting:
                said = _complaint(self._cluster.log(pod["metadata"]["name"], CONTAINER))
                reasons.append(f"{node}: {said or progress.waiting[node]}")
        more = len(chosen) - _NAMED
        listed = "; ".join(sorted(set(reasons))) + (f"; and {more} more" if more > 0 else "")
        late = progress.needed(self._place.require) - min(len(progress.proven), progress.settled)
        return DeployRejected(
            f"{late} of {progress.wanted} nodes {what}" + (f": {listed}" if listed else ""), where=self.shown
        )

    # -- the end -----------------------------------------------------------------------------------------------

    def prove(self) -> None:
        """Remember that nodes proved it."""
        self._cluster.annotate(self.kind, self.name, {STATE: PROVEN, BEFORE: None})

    def undo(self) -> str:
        """Put back what nodes proved before, or remove what is new; return what was done, in words."""
        try:
            if self._before is None:
                self._cluster.delete(self.kind, self.name)
                return f"{self.shown} is removed; there was none before"
            existing = self._cluster.read(self.kind, self.name)
            if existing is None:
                return f"{self.shown} is gone"
            metadata = {"name": self.name, "resourceVersion": existing["metadata"]["resourceVersion"],
                        "labels": self._before["labels"], "annotations": self._before["annotations"]}  # fmt: skip
            self._cluster.replace({"apiVersion": "apps/v1", "kind": self.kind, "metadata": metadata,
                                   "spec": self._before["spec"]})  # fmt: skip
        except EdgewrightError as failure:
            log.exception("the nodes could not be put back")
            return f"the nodes could not be put back: {failure.message}"
        return f"the nodes go back to version {self._before['labels'].get(VERSION)}"


def is_over(deadline: float) -> bool:
    """Whether a moment of the monotonic clock is past."""
    return time.monotonic() > deadline


def _proven(existing: Json) -> Json | None:
    """Return what nodes proved last of a workload."""
    annotations = dict(existing["metadata"].get("annotations") or {})
    if annotations.get(STATE) != PROVEN:  # a worker died while it rolled out
        return json.loads(annotations[BEFORE]) if annotations.get(BEFORE) else None
    kept = {key: annotations[key] for key in (DIGEST, OWNER, STATE) if key in annotations}
    return {"labels": existing["metadata"].get("labels") or {}, "annotations": kept, "spec": existing["spec"]}


def _why(pod: Json) -> tuple[str, bool]:
    """Return why a pod does not answer yet, and whether waiting will not mend it."""
    status = pod.get("status", {})
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for state in states:
        waiting = (state.get("state") or {}).get("waiting") or {}
        reason, words = waiting.get("reason") or "", (waiting.get("message") or "").strip()
        if reason in _HOPELESS:
            return f"{reason}: {words}"[:300], True
        if reason == "CrashLoopBackOff":
            return f"the node's program ends again and again: {words}"[:300], state.get("restartCount", 0) >= _CRASHES
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {words}"[:300], False
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"Unschedulable: {condition.get('message') or ''}"[:300], False
    return "it does not answer with this version yet", False


def _complaint(lines: Iterable[str]) -> str:
    """Return the last line of a node's log that says what is wrong."""
    words = ("WARNING ", "ERROR ", "error: ")
    found = [line.partition(word)[2] for line in lines for word in words if word in line]
    return found[-1].strip()[:300] if found else ""


def _output(rollout: Rollout, wanted: Wanted, progress: Progress, before: Json | None, seconds: float) -> StepOutput:
    nodes = sorted(progress.proven)
    tags = {
        "nodes": ",".join(nodes)[:400], "workload": rollout.shown, "model": wanted.name,
        "model_version": wanted.version, "variant": wanted.variant,
    }  # fmt: skip
    notes = [f"{len(nodes)} of {progress.wanted} nodes answer with {wanted.name} version {wanted.version}"]
    labels = (before or {}).get("labels") or {}
    if not rollout.changed:
        notes[0] += ", as before"
    elif before is not None:
        notes += [_kept(rollout, wanted, before)]
        if labels.get(MODEL) and labels.get(VERSION) != label(wanted.version):
            tags["previous_version"] = str(labels[VERSION])
    if progress.away:
        notes.append(f"not up, and to change when they are: {', '.join(progress.away[:_NAMED])}")
    metrics = {"deploy_seconds": round(seconds, 4), "nodes": float(len(nodes)), "nodes_away": float(len(progress.away))}
    return StepOutput(metrics=metrics, tags=tags, notes=notes)


def _kept(rollout: Rollout, wanted: Wanted, before: Json) -> str:
    """Say what an update changed, and what it left as it was."""
    labels, template = before["labels"], before["spec"]["template"]["metadata"]
    if (labels.get(VERSION), labels.get(VARIANT)) != (label(wanted.version), label(wanted.variant)):
        return f"before it was version {labels.get(VERSION)} ({labels.get(VARIANT)})"
    old = json.loads((template.get("annotations") or {}).get(VALUES) or "{}")
    new = json.loads(rollout.values)
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if not changed:
        return f"version {wanted.version} stays; how it runs has changed"
    return f"only values changed ({', '.join(changed)}); version {wanted.version} ({wanted.variant}) is reused as it is"
