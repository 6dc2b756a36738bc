"""``wait`` as an operator, and as one sensor for each thing that can be waited for.

Delivery, of all of them: what comes is stored as a batch before anybody takes it; each message, version of an object
or model version is in one batch, and a batch is taken by one wait. A task that is tried again or cleared has the same
batch as before; what came while no task waited is there for the next one. The batch goes on as an artifact, and
``IngestOperator(source=sensor)`` reads exactly that. No worker is held meanwhile (``deferrable=False`` holds one).
"""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any, ClassVar

from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError
from edgewright.operators.base import UNSET, StepOperator
from edgewright.operators.connections import connection_in_environment
from edgewright.operators.events import AirflowRuns
from edgewright.operators.steps import _given
from edgewright.spec.event_fields import seconds
from edgewright.spec.profiles import LOCAL, Profile
from edgewright.spec.steps.wait import WaitConfig

if TYPE_CHECKING:
    from airflow.sdk import Context

    from edgewright.steps.contract import StepRequest

#: Seconds that Airflow itself waits longer than the trigger, which knows the reason.
_SLACK = 300.0


class WaitOperator(StepOperator):
    """Holds a run until messages, objects or a model version are there, and hands on exactly those.

    Args:
        kafka: Messages: ``{"topic": ..., "messages": 100}``.
        objects: Objects: ``{"uri": "s3://raw/*.csv", "objects": 1}``.
        registry: A model version: ``{"model": ..., "alias": ...}``.
        timeout: How long to wait: seconds, or a text such as ``1h``.
        soft_fail: Skip the task at its timeout, instead of failing.
    """

    step: ClassVar[str] = "wait"

    def __init__(
        self,
        *,
        kafka: Any = UNSET,
        objects: Any = UNSET,
        registry: Any = UNSET,
        timeout: Any = UNSET,
        soft_fail: Any = UNSET,
        config: Any = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(timeout, datetime.timedelta):
            timeout = timeout.total_seconds()
        given = _given(kafka=kafka, objects=objects, registry=registry, timeout=timeout, soft_fail=soft_fail)
        super().__init__(config={**(config or {}), **given}, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the result at once where a batch is there, else have the triggerer wait for one."""
        try:
            request, config = self._request(context)
            if self.deferrable and not self._has_batch(request, config, context):
                self._defer(request, config)
        except EdgewrightError as error:
            self._end(error)
        with connection_in_environment(config.connection):
            return super().execute(context)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after the triggerer has waited.

        Raises:
            AirflowSkipException: what was waited for did not come, and ``soft_fail`` says that this is no failure.
            AirflowFailException: it did not come, or cannot be waited for like this.
        """
        from edgewright.errors import ConfigError
        from edgewright.streams.waits import timed_out

        try:
            if event["state"] != "found":
                _, config = self._request(context)
                reason = str(event["reason"])
                raise timed_out(config, reason) if event["state"] == "late" else ConfigError(reason)
        except EdgewrightError as error:
            self._end(error)
        return super().execute(context)

    def _request(self, context: Context) -> tuple[StepRequest, WaitConfig]:
        from edgewright.steps.execute import step_spec, validate_config

        if self._fault is not None:
            raise self._fault
        request = self.request(context)
        config = validate_config(step_spec(self.step), request.config)
        assert isinstance(config, WaitConfig)
        return request, config

    def _has_batch(self, request: StepRequest, config: WaitConfig, context: Any) -> bool:
        """Whether this task has a batch, or can take one that is there; settles what earlier runs took."""
        from edgewright.streams.batches import BatchLog
        from edgewright.streams.waits import Line, settle_ended, wait_source

        identity = request.identity
        batches = BatchLog(ArtifactStore(request.store), identity.dag_id, wait_source(identity.task_id, config))
        runs = AirflowRuns(identity.dag_id, context["ti"])
        settle_ended(batches, lambda run_id: None if run_id == identity.run_id else runs.state(run_id))
        return Line(batches, identity.run_id, identity.map_index).take() is not None

    def _defer(self, request: StepRequest, config: WaitConfig) -> None:
        from edgewright.triggers.waits import WaitTrigger

        identity, limit = request.identity, seconds(config.timeout)
        trigger = WaitTrigger(
            identity.dag_id, identity.run_id, identity.task_id, identity.map_index,
            config.model_dump(mode="json"), time.time() + limit,
        )  # fmt: skip
        self.log.info("waits for %d %s, at most %s", *config.wanted, config.timeout)
        self.defer(trigger=trigger, method_name="resume", timeout=datetime.timedelta(seconds=limit + _SLACK))

    def _place(self, request: StepRequest) -> Profile:
        return LOCAL  # the triggerer has waited, and there is nothing to do elsewhere


class KafkaBatchSensor(WaitOperator):
    """Waits for messages of a Kafka topic. Each message is in one batch; a task that is tried again has the same one.

    Args:
        topic: Name of the topic, a list of names, or a pattern that begins with ``^``.
        messages: How many to wait for (unreadable ones count; 64 MiB are enough in any case).
        max_wait: Take what there is once the first has waited so long. Default: wait for all, until the timeout.
        connection: Airflow connection of the type kafka.
        format: ``json``, ``text`` or ``bytes``.
        key: Field by which messages of a batch are the same; the last counts.
        start: Where the first wait begins: ``latest``, ``earliest`` or a date.
        dead_letters: Topic for messages that cannot be read.
        kwargs: Those of :class:`WaitOperator` (``timeout``, ``soft_fail``), of a step and of Airflow.
    """

    def __init__(
        self,
        *,
        topic: Any = UNSET,
        messages: Any = UNSET,
        max_wait: Any = UNSET,
        connection: Any = UNSET,
        format: Any = UNSET,  # noqa: A002
        key: Any = UNSET,
        start: Any = UNSET,
        dead_letters: Any = UNSET,
        **kwargs: Any,
    ) -> None:
        given = _given(
            topic=topic, messages=messages, max_wait=max_wait, connection=connection, format=format, key=key,
            start=start, dead_letters=dead_letters,
        )  # fmt: skip
        super().__init__(**_with("kafka", given, kwargs))


class ObjectSensor(WaitOperator):
    """Waits for objects of a bucket or files of a folder. Each version of an object is taken by one wait.

    Args:
        uri: ``s3://`` or ``file://`` address with a pattern.
        objects: How many to wait for.
        max_wait: Take what there is once the first has waited so long. Default: wait for all, until the timeout.
        connection: Airflow connection of the type aws.
        when: ``closed``, or ``{"marker": NAME}``.
        order: ``key`` or ``time``.
        poke_interval: Time between two looks.
        kwargs: Those of :class:`WaitOperator` (``timeout``, ``soft_fail``), of a step and of Airflow.
    """

    def __init__(
        self,
        *,
        uri: Any = UNSET,
        objects: Any = UNSET,
        max_wait: Any = UNSET,
        connection: Any = UNSET,
        when: Any = UNSET,
        order: Any = UNSET,
        poke_interval: Any = UNSET,
        **kwargs: Any,
    ) -> None:
        given = _given(uri=uri, objects=objects, max_wait=max_wait, connection=connection, when=when, order=order,
                       every=_interval(poke_interval))  # fmt: skip
        super().__init__(**_with("objects", given, kwargs))


class ModelVersionSensor(WaitOperator):
    """Waits for a version of a registered model, or for an alias that moves. Each is taken by one wait.

    Args:
        model: Name of the model; ``*`` stands for any letters.
        alias: Alias that must point to the version.
        tag: Tags that the version must have.
        start: ``existing``: the newest version that is there at the first look counts; ``latest``: what comes.
        poke_interval: Time between two looks.
        kwargs: Those of :class:`WaitOperator` (``timeout``, ``soft_fail``), of a step and of Airflow.
    """

    def __init__(
        self,
        *,
        model: Any = UNSET,
        alias: Any = UNSET,
        tag: Any = UNSET,
        start: Any = UNSET,
        poke_interval: Any = UNSET,
        **kwargs: Any,
    ) -> None:
        given = _given(model=model, alias=alias, tag=tag, start=start, every=_interval(poke_interval))
        super().__init__(**_with("registry", given, kwargs))


def _interval(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, datetime.timedelta) else value


def _with(kind: str, given: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a wait; Airflow makes an operator of a mapped one again with the whole configuration."""
    return {**arguments, kind: given} if given or "config" not in arguments else arguments
