"""``nodes: N``: a training on several pods, by an Indexed Job; its first pod is attended as any step's pod is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kubernetes.client import BatchV1Api
from kubernetes.client.exceptions import ApiException

from edgewright.errors import EdgewrightError, SystemFault, Unavailable
from edgewright.operators.pods import StepPod, document_of, refused
from edgewright.places.explain import ended, exit_code, unstarted, was_disrupted
from edgewright.places.nodes import INDEX, JOB, build_job, build_service
from edgewright.places.outcome import forget
from edgewright.places.pods import REQUEST, TRY, asks_the_same, pod_name
from edgewright.steps.contract import ALONE

if TYPE_CHECKING:
    from airflow.sdk import Context


class StepJob(StepPod):
    """The pods of one Job that answer one request together. Made when a task runs, never part of a Dag."""

    @property
    def _jobs(self) -> BatchV1Api:
        return BatchV1Api(self.client.api_client)

    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> Any:
        """Return the first node's pod, if there is one that is not about to go."""
        found = [pod for pod in self._pods(namespace) if (pod.metadata.annotations or {}).get(INDEX) == "0"]
        return next((pod for pod in found if not pod.metadata.deletion_timestamp), None)

    def _pods(self, namespace: str) -> list[Any]:
        selector = f"{JOB}={pod_name(self._request)}"
        return list(self.client.list_namespaced_pod(namespace, label_selector=selector).items)

    def get_or_create_pod(self, pod_request_obj: Any, context: Context) -> Any:
        """Return the first pod of a Job that another worker left at work, or of one that is new."""
        namespace = pod_request_obj.metadata.namespace
        name = pod_name(self._request)
        found = self._job(name, namespace)
        if found is not None and not self._is_at_work(found):
            self._remove_job(name, namespace)
            found = None
        if found is None:
            forget(self._store, self._request)
            try:
                found = self._jobs.create_namespaced_job(namespace, build_job(self._profile, self._request, self._by))
            except ApiException as error:
                raise refused(error, self._profile) from None
        else:
            self.log.info("found the Job %s of this task again", name)
            self._take_over_all(found, namespace)
        self._serve(found, namespace)
        return self._first(namespace, context)

    def _serve(self, job: Any, namespace: str) -> None:
        try:
            self.client.create_namespaced_service(namespace, build_service(document_of(job)))
        except ApiException as error:
            if error.status != 409:
                raise refused(error, self._profile) from None

    def _first(self, namespace: str, context: Context) -> Any:
        deadline = time.monotonic() + self.startup_timeout_seconds
        while (pod := self.find_pod(namespace, context)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(f"the Job {pod_name(self._request)} has no pod", hint="kubectl describe job")
            time.sleep(0.5)
        return pod

    def _job(self, name: str, namespace: str) -> Any:
        try:
            return self._jobs.read_namespaced_job(name, namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def _is_at_work(self, job: Any) -> bool:
        failed = any(one.type in ("Failed", "FailureTarget") for one in job.status.conditions or ())
        if failed or job.metadata.deletion_timestamp:
            return False
        annotations = job.spec.template.metadata.annotations or {}
        return self._is_of_this_try(job) or asks_the_same(annotations.get(REQUEST), self._request)

    def _take_over_all(self, job: Any, namespace: str) -> None:
        """Make a Job and its pods this try's own."""
        if self._is_of_this_try(job):
            return
        for pod in self._pods(namespace):
            self._take_over(pod)
        labels = {"metadata": {"labels": {TRY: str(self._request.identity.try_number)}}}
        self._jobs.patch_namespaced_job(job.metadata.name, namespace, labels)

    def _remove_job(self, name: str, namespace: str) -> None:
        """Remove a Job with all that belongs to it, and wait until its name is free."""
        self.delete(name, namespace)
        for _ in range(240):
            if self._job(name, namespace) is None and not self._pods(namespace):
                return
            time.sleep(0.5)
        raise Unavailable(f"the old Job {name} does not go away")

    def delete(self, name: str, namespace: str) -> None:
        """Delete the whole Job, whichever of its pods is meant."""
        try:
            self._jobs.delete_namespaced_job(pod_name(self._request), namespace, propagation_policy="Background")
        except ApiException as error:
            if error.status != 404:
                raise

    def cleanup(
        self, pod: Any, remote_pod: Any, xcom_result: dict[str, Any] | None = None, context: Context | None = None
    ) -> None:
        """Look why any of the nodes ended, then remove them all."""
        namespace = pod.metadata.namespace
        others = [
            one for one in map(document_of, self._pods(namespace)) if one["metadata"]["name"] != pod.metadata.name
        ]
        self._disrupted = any(map(was_disrupted, others))
        for one in others:
            status = one.get("status", {})
            fault = unstarted(one, self._nodes()) if status.get("phase") == "Pending" else ended(one)[0]
            self._fault = self._fault or fault
        super().cleanup(pod, remote_pod, xcom_result, context)
        if self._fault is None and self._last is not None and exit_code(self._last) == ALONE:
            self._fault = self._why_alone(self._last)
        self.delete(pod.metadata.name, namespace)

    def _why_alone(self, first: dict[str, Any]) -> EdgewrightError:
        """Return why others did not come: they may be removed by now, but their events stay for a while."""
        name, namespace = f"{pod_name(self._request)}-", first["metadata"]["namespace"]
        try:
            events = self.client.list_namespaced_event(namespace, field_selector="reason=FailedScheduling").items
        except ApiException:
            events = []  # a worker need not be allowed to read them
        for event in events:
            if event.involved_object.name.startswith(name):
                said = {"type": "PodScheduled", "status": "False", "message": event.message}
                fault = unstarted({**first, "status": {"conditions": [said]}}, self._nodes())
                if fault is not None:
                    return fault
        return SystemFault(f"not all of the {self._profile.nodes} nodes came within {self.startup_timeout_seconds} s",
                           hint="check resources and quotas; start_timeout of the profile says how long")  # fmt: skip

    def on_kill(self) -> None:
        """Remove the Job when the task is cancelled."""
        self._killed = True
        if self.pod:
            self.delete(self.pod.metadata.name, self.pod.metadata.namespace)

    def _was_taken(self) -> bool:
        return self._disrupted or super()._was_taken()
