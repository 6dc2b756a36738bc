"""``on: kubernetes``: a step in a pod, by Airflow's own KubernetesPodOperator.

What differs from the plain operator: the pod's name follows from the task of the run, so a worker that died is found
again by name, and nobody starts a second pod; the result is read from the artifact store, never by an XCom sidecar; a
pod that was evicted, preempted or deleted starts again without using up a retry of the task; and what went wrong is
said in one line, from the pod's last state, before the pod is removed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers.cncf.kubernetes.utils.container import container_is_running, container_is_succeeded
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager, PodPhase, detect_pod_terminate_early_issues
from airflow.sdk.exceptions import AirflowException
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, EdgewrightError, SystemFault, Unavailable, UserFault
from edgewright.places.containers import read_lines
from edgewright.places.explain import ended, unstarted, was_evicted
from edgewright.places.foreign import COLLECT
from edgewright.places.lines import relay
from edgewright.places.outcome import collect, find, forget
from edgewright.places.pods import BY_AIRFLOW, CONTAINER, REQUEST, TRY, asks_the_same, build_pod, pod_name
from edgewright.spec.arguments import duration
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import StepRequest, StepResult
from edgewright.steps.snapshot import take
from edgewright.triggers.pods import StepPodTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

#: How often one try of a task starts a pod without getting further: without a newer checkpoint than the one before.
MOST_STARTS = 6
#: How often it starts a pod at all; nodes that may vanish vanish often in a training of days.
MOST_STARTS_EVER = 60
_STARTS = "edgewright_starts"
#: Seconds for which a pod is watched whose step has ended; a sidecar may keep it.
_WATCHED = 30
#: Seconds for which a pod is watched that is to start.
_START_WATCHED = 10
#: Seconds for which a container is watched whose log has ended; without an end by then, only the log was cut off.
_AFTER_LOG = 5


@dataclass
class _Starts:
    """How often a pod was started, and how far the last one got."""

    ever: int = 1
    idle: int = 1
    checkpoint: int = 0


class _Listener(PodManager):
    """Hears of a pod's start and of its end when they are there: who asks every few seconds sees them late."""

    async def await_pod_start(
        self, pod: Any, schedule_timeout: int = 120, startup_timeout: int = 120, check_interval: int = 1
    ) -> None:
        """Wait until a pod has started; after the first seconds another one does not matter any more."""
        waits = lambda now: now.status.phase == "Pending" and not detect_pod_terminate_early_issues(now)  # noqa: E731
        self._heard(pod, min(_START_WATCHED, schedule_timeout, startup_timeout), lambda now: not waits(now))  # type: ignore[no-untyped-call]
        await PodManager.await_pod_start(self, pod, schedule_timeout, startup_timeout, check_interval)

    def container_is_running(self, pod: Any, container_name: str) -> bool:
        """Say whether a container is at work whose log has just ended; its end is known a moment after its log's."""
        heard = self._heard(pod, _AFTER_LOG, lambda now: not container_is_running(now, container_name))
        return heard is None and super().container_is_running(pod, container_name)

    def await_pod_completion(
        self, pod: Any, istio_enabled: bool = False, container_name: str = CONTAINER, do_xcom_push: bool = False
    ) -> Any:
        """Return the pod as it ended.

        A step that ended well has left all that is wanted of its pod, which may take another second, or has sidecars
        that never end. One that failed is waited for: why it was taken away is known only when all of it has ended.
        """
        heard = self._heard(
            pod,
            _WATCHED,
            lambda now: now.status.phase in PodPhase.terminal_states or container_is_succeeded(now, container_name),
        )
        return heard or super().await_pod_completion(pod, istio_enabled, container_name, do_xcom_push)

    def _heard(self, pod: Any, seconds: int, ended: Callable[[Any], bool]) -> Any:
        """Watch a pod for so long at most, and return it as it ended; ``None`` without an end, or without a pod."""
        metadata, watch = pod.metadata, Watch()
        events = watch.stream(
            self._client.list_namespaced_pod, metadata.namespace, field_selector=f"metadata.name={metadata.name}",
            timeout_seconds=seconds, _request_timeout=seconds + 15,
        )  # fmt: skip
        with contextlib.suppress(ApiException, HTTPError):  # what follows asks once more
            for event in events:
                if event["type"] == "DELETED":
                    return None
                if ended(event["object"]):
                    return event["object"]
        return None


class StepPod(KubernetesPodOperator):
    """One pod that answers one request. Made when a task runs, never part of a Dag.

    Args:
        profile: One ``on: kubernetes``.
        request: What to answer.
        deferrable: Whether the triggerer waits, so that no worker is held.
        by: Who waits for the pod; what nobody waits for is swept away.
    """

    def __init__(
        self, *, profile: Profile, request: StepRequest, deferrable: bool, by: str = BY_AIRFLOW, **kwargs: Any
    ) -> None:
        seconds = int(duration(profile.start_timeout).total_seconds())
        super().__init__(
            task_id=request.identity.task_id.replace(".", "__"),
            kubernetes_conn_id=profile.connection,
            name=pod_name(request),
            random_name_suffix=False,
            namespace=profile.namespace,
            base_container_name=CONTAINER,
            startup_timeout_seconds=seconds,
            schedule_timeout_seconds=seconds,
            startup_check_interval_seconds=1,
            poll_interval=1,
            logging_interval=5,
            log_events_on_startup=False,
            log_events_on_failure=False,
            container_name_log_prefix_enabled=False,
            do_xcom_push=False,
            deferrable=deferrable,
            **kwargs,
        )
        self._profile = profile
        self._request = request
        self._by = by
        self._store = ArtifactStore(request.store)
        self._last: dict[str, Any] | None = None
        self._fault: EdgewrightError | None = None

    #: Whether another pod was taken away that this one cannot do without.
    _disrupted = False

    # -- one pod, by name --------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the pod's document; the user's code is in the store after that, and so is the request that needs it.

        Raises:
            ConfigError: the document is not one that Kubernetes takes.
        """
        source = self._request.source
        if source is not None and source.code is None:
            code = take(Path(source.folder), self._store)
            source = source.model_copy(update={"code": code, "folder": "/tmp/code"})  # noqa: S108 (named, never used)
            self._request = self._request.model_copy(update={"source": source})
            # a pod may wait for days in a queue before it says so itself: nobody may collect its code until then
            self._store.write_json(f"{self._request.identity.key}/request.json", self._request.model_dump(mode="json"))
        document = build_pod(self._profile, self._request, self._by)
        try:
            self.pod_request_obj = PodGenerator.deserialize_model_dict(document)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"this is no pod: {error}", where="profile.pod") from error
        metadata = self.pod_request_obj.metadata
        metadata.namespace = self.namespace or metadata.namespace or self.hook.get_namespace() or "default"

    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> Any:
        """Return the pod of this task of this run, if there is one."""
        try:
            return self.client.read_namespaced_pod(pod_name(self._request), namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def get_or_create_pod(self, pod_request_obj: Any, context: Context) -> Any:
        """Return a pod that another worker left at work, or one that is new."""
        namespace = pod_request_obj.metadata.namespace
        found = self.find_pod(namespace, context)
        if found is not None and self._is_ours(found):
            self.log.info("found the pod %s of this task again", found.metadata.name)
            return self._take_over(found)
        if found is not None:
            self._remove(found)
        forget(self._store, self._request)
        try:
            return self.client.create_namespaced_pod(namespace, pod_request_obj)
        except ApiException as error:
            if error.status == 409 and (found := self.find_pod(namespace, context)) is not None:
                return found  # of another worker, a moment ago
            raise refused(error, self._profile) from None

    def _is_ours(self, pod: Any) -> bool:
        """Whether a pod is worth waiting for: of this try, or left at the same work by a try whose worker died."""
        if was_evicted(document_of(pod)):
            return False
        if self._is_of_this_try(pod):
            return True
        annotations = pod.metadata.annotations or {}
        return pod.status.phase != "Failed" and asks_the_same(annotations.get(REQUEST), self._request)

    def _is_of_this_try(self, thing: Any) -> bool:
        labels = thing.metadata.labels or {}
        return bool(labels.get(TRY) == str(self._request.identity.try_number))

    def _take_over(self, pod: Any) -> Any:
        """Make a pod this try's own: what looks for pods that nobody waits for leaves it alone then."""
        if self._is_of_this_try(pod):
            return pod
        name, namespace = pod.metadata.name, pod.metadata.namespace
        metadata = {"labels": {TRY: str(self._request.identity.try_number)},
                    "annotations": {REQUEST: self._request.model_dump_json(exclude_defaults=True)}}  # fmt: skip
        return self.client.patch_namespaced_pod(name, namespace, {"metadata": metadata})

    def _remove(self, pod: Any) -> None:
        """Remove a pod and wait until its name is free."""
        name, namespace = pod.metadata.name, pod.metadata.namespace
        with contextlib.suppress(ApiException):
            self.client.delete_namespaced_pod(name, namespace, grace_period_seconds=5)
        for _ in range(120):
            try:
                self.client.read_namespaced_pod(name, namespace)
            except ApiException as error:
                if error.status == 404:
                    return
                raise
            time.sleep(0.5)
        raise Unavailable(f"the old pod {name} does not go away")

    @cached_property
    def pod_manager(self) -> PodManager:
        """What follows a pod: Airflow's own, which hears of its end instead of asking for it."""
        return _Listener(kube_client=self.client, callbacks=self.callbacks)

    def convert_config_file_to_dict(self) -> None:
        """Hand the triggerer what KUBECONFIG names, unless the connection says it: the trigger refuses both."""
        super().convert_config_file_to_dict()  # type: ignore[no-untyped-call]
        extras = KubernetesHook(conn_id=self.kubernetes_conn_id).conn_extras
        if any(extras.get(name) for name in ("in_cluster", "kube_config", "kube_config_path")):
            self._config_dict = None

    def defer(self, *, trigger: BaseTrigger, **arguments: Any) -> NoReturn:
        """Let the triggerer wait, by a trigger that listens."""
        _, given = trigger.serialize()
        super().defer(trigger=StepPodTrigger(**given), **arguments)

    # -- its end -----------------------------------------------------------------------------------------------

    def cleanup(
        self, pod: Any, remote_pod: Any, xcom_result: dict[str, Any] | None = None, context: Context | None = None
    ) -> None:
        """Keep the pod's last state, then remove it: what it made is in the store."""
        namespace, name = pod.metadata.namespace, pod.metadata.name
        try:
            if self._profile.foreign and not self._killed:
                self._await_collector(name, namespace)
            last = self.client.read_namespaced_pod(name, namespace)
        except ApiException as error:
            if error.status != 404:
                raise
            return
        self._last = document_of(last)
        if self._last.get("status", {}).get("phase") == "Pending":
            self._fault = unstarted(self._last, self._nodes())
        if not self._killed:
            with contextlib.suppress(ApiException):
                self.delete(name, namespace)

    def delete(self, name: str, namespace: str) -> None:
        """Delete a pod."""
        self.client.delete_namespaced_pod(name, namespace, grace_period_seconds=5)

    def _await_collector(self, name: str, namespace: str) -> None:
        """Wait until the container that collects has ended (the vendor's own is what Airflow waits for)."""
        while True:
            status = self.client.read_namespaced_pod(name, namespace).status
            states = {one.name: one.state for one in status.container_statuses or ()}
            vendor, ours = states.get(CONTAINER), states.get(COLLECT)
            if status.phase in ("Succeeded", "Failed") or vendor is None or not (vendor.running or vendor.terminated):
                return
            if ours is not None and ours.terminated:
                return
            time.sleep(1)

    def _nodes(self) -> list[dict[str, Any]] | None:
        try:
            return [document_of(node) for node in self.client.list_node(_request_timeout=10).items]
        except ApiException:
            return None  # a worker need not be allowed to read them

    def _write_logs(  # type: ignore[override]
        self, pod: Any, follow: bool = False, since_time: Any = None
    ) -> None:
        since = None
        if since_time is not None:
            moment = datetime.datetime.fromisoformat(str(since_time).replace("Z", "+00:00"))
            since = max(1, int(time.time() - moment.timestamp()) + 1)
        stream = self.client.read_namespaced_pod_log(
            pod.metadata.name, pod.metadata.namespace, container=CONTAINER, follow=follow, since_seconds=since,
            _preload_content=False,
        )  # fmt: skip
        for line in read_lines(stream.stream()):
            relay(line)

    # -- for the step's operator -------------------------------------------------------------------------------

    def answer(self, context: Context) -> StepResult:
        """Run the pod and return the step's result; waits here, or defers.

        Raises:
            TaskDeferred: the triggerer waits.
            EdgewrightError: as the step raised it, or what kept the pod from running.
        """
        return self._attend(context, lambda: self._start(context), _Starts(checkpoint=self._saved()))

    def resume(self, context: Context, event: dict[str, Any]) -> StepResult:
        """Return the result after the triggerer has waited.

        Raises:
            TaskDeferred: the pod was taken away, and another one was started.
            EdgewrightError: as the step raised it, or what kept the pod from running.
        """
        starts = _Starts(**event[_STARTS]) if _STARTS in event else _Starts()
        return self._attend(context, lambda: self.trigger_reentry(context, event), starts)

    def _start(self, context: Context) -> Any:
        self.prepare()
        return self.execute_async(context) if self.deferrable else self.execute_sync(context)

    def _saved(self) -> int:
        """Return the number of the task's last checkpoint; 0 without one."""
        if not self._request.config.get("checkpoint"):
            return 0
        from edgewright.steps.checkpoints import last

        return int((last(self._store, self._request.identity) or {"number": 0})["number"])

    def _count(self, starts: _Starts, words: str) -> None:
        """Count one more start.

        Raises:
            SystemFault: it is taken away again and again.
        """
        saved = self._saved()
        starts.idle = 1 if saved > starts.checkpoint else starts.idle + 1
        starts.ever, starts.checkpoint = starts.ever + 1, saved
        if starts.idle > MOST_STARTS or starts.ever > MOST_STARTS_EVER:
            got = f", {MOST_STARTS} times in a row without a new checkpoint" if starts.ever > MOST_STARTS + 1 else ""
            raise SystemFault(f"the pod was taken away {starts.ever - 1} times{got}: {words or 'deleted'}")
        begins = f"from checkpoint {saved}" if saved else "from the beginning"
        self.log.warning("the pod was evicted or deleted: starting again %s (start %d)", begins, starts.ever)
        self.trigger_kwargs = {_STARTS: asdict(starts)}

    def _attend(self, context: Context, wait: Callable[[], Any], starts: _Starts) -> StepResult:
        self.trigger_kwargs = {_STARTS: asdict(starts)}
        while True:
            words = self._waited(wait)
            result = find(self._store, self._request)
            # a node that broke off because another one was evicted has nothing to say about the step
            done = result is not None and not (result.state == "failed" and self._disrupted)
            if done or (self._fault is not None and not self._disrupted) or not self._was_taken():
                break
            self._count(starts, words)
            self.pod, self._last, self._fault = None, None, None
            wait = lambda: self._start(context)  # noqa: E731
        if result is None and self._fault is not None:
            raise self._fault
        fault, how = ended(self._last) if self._last else (None, words or "the pod is gone")
        # a vendor's command that ran out of memory left a result of ours that only knows its exit code
        starved = self._profile.foreign and isinstance(fault, UserFault) and result is not None
        if fault is not None and (result is None or (starved and result.state == "failed")):
            raise fault
        return collect(self._store, self._request, words if result is None and not self._last else how)

    def _waited(self, wait: Callable[[], Any]) -> str:
        """Wait for the end of the pod; return what Airflow's operator says about it."""
        try:
            wait()
        except EdgewrightError:
            raise
        except ApiException as error:
            if error.status == 404:
                return "the pod is gone"
            raise Unavailable(f"Kubernetes: {error.status} {error.reason}") from None
        except AirflowException as error:
            # the pod's own state says it better
            return str(error).splitlines()[0] if str(error) else ""
        return ""

    def _was_taken(self) -> bool:
        return was_evicted(self._last)


def document_of(thing: Any) -> dict[str, Any]:
    """Return an object of the API as a plain document."""
    if isinstance(thing, dict):
        return thing
    found: dict[str, Any] = ApiClient().sanitize_for_serialization(thing)
    return found


def refused(error: ApiException, profile: Profile) -> EdgewrightError:
    """Return why the API refuses a pod: a quota, a policy, a field that it does not know, no permission."""
    try:
        words = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        words = error.reason
    if error.status in (400, 403, 404, 422):
        kind = Unavailable if error.status == 403 and "exceeded quota" in str(words) else ConfigError
        return kind(f"Kubernetes refuses the pod: {words}", where="profile")
    return Unavailable(f"Kubernetes: {error.status} {words}")
