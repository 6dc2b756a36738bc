"""The two operators behind ``triggers:``: one starts runs for batches, one says at a run's end what became of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError
from edgewright.installation import Installation
from edgewright.operators.base import batch_of
from edgewright.operators.compat import start_run
from edgewright.steps.contract import StepRequest
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.pulls import show_progress

log = logging.getLogger("edgewright.operators")
#: Id of the task that ends each run of a pipeline with event sources.
SETTLE = "edgewright_events"


def companion_id(dag_id: str) -> str:
    """Return the id of the Dag that starts runs of a pipeline by events."""
    return f"{dag_id}__events"


class AirflowRuns:
    """Runs of a pipeline, as a task sees them."""

    def __init__(self, dag_id: str, instance: Any) -> None:
        self._dag_id = dag_id
        self._instance = instance

    def start(self, run_id: str, conf: Mapping[str, Any]) -> bool:
        """Start a run."""
        return start_run(self._dag_id, run_id, dict(conf))

    def state(self, run_id: str) -> str | None:
        """Return its state."""
        try:
            state = self._instance.get_dagrun_state(self._dag_id, run_id)
            return str(getattr(state, "value", state))  # in dag.test() it is an enum
        except AirflowRuntimeError as error:
            log.warning("no state of run %s: %s", run_id, error)
            return None


class StartRunsOperator(BaseOperator):
    """Starts a run of a pipeline for each batch that waits. The artifact store says what waits, not the event.

    Delivery: each batch starts one run, however often this is tried or runs at the same time. While the pipeline is
    paused batches wait.

    Args:
        pipeline: Its ``dag_id``.
        sources: For each event source ``{source, cooldown, strict, together, reply, connection, schema,
            dead_letters}``.
        folder: The pipeline's folder, where schemas are.
    """

    ui_color = "#fdf3d7"

    def __init__(
        self, *, pipeline: str, sources: list[dict[str, Any]], folder: Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.sources = sources
        self._folder = folder

    @classmethod
    def get_serialized_fields(cls) -> frozenset[str]:
        """Return the names of what a serialized Dag holds of this operator."""
        base: frozenset[str] = super().get_serialized_fields()  # type: ignore[no-untyped-call]
        return frozenset(base | {"pipeline", "sources"})

    def execute(self, context: Any) -> dict[str, int]:
        """Settle what ended, start what waits; return how many of each."""
        from edgewright.streams.dispatch import Dispatcher, Rules

        store = ArtifactStore(Installation.load().store)
        paused = bool(context["ti"].get_dag(self.pipeline).is_paused)
        started = settled = 0
        faults: list[EdgewrightError] = []
        for source in self.sources:
            rules = Rules(source["source"], source["cooldown"], source["strict"], source["together"])

            def ended(run_id: str, success: bool, source: dict[str, Any] = source) -> None:
                _reply(store, self.pipeline, run_id, source, success=success)

            runs_of = AirflowRuns(self.pipeline, context["ti"])
            dispatcher = Dispatcher(store, self.pipeline, rules, runs_of, ended, self._checks(source))
            settled += dispatcher.settle()
            if paused:
                log.info("%s is paused: its batches wait", self.pipeline)
                continue
            try:
                runs = dispatcher.start()
            except EdgewrightError as error:  # a schema that is broken must not keep other sources from starting
                faults.append(error)
                continue
            started += len(runs)
            for run_id in runs:
                log.info("started %s", run_id)
        if faults:
            raise AirflowException("; ".join(f"{type(error).__name__}: {error}" for error in faults))
        return {"started": started, "settled": settled}

    def _checks(self, source: Mapping[str, Any]) -> Callable[[BatchLog, Batch], Batch]:
        """Return what looks at a source's batches before a run gets them."""
        if not source.get("schema") or self._folder is None:
            return lambda log, batch: batch
        from edgewright.steps.message_schema import MessageSchema

        def send(entries: Sequence[Mapping[str, Any]]) -> None:
            if source.get("dead_letters"):
                from edgewright.streams.dead_letters import send_dead
                from edgewright.streams.kafka import producer

                settings = BaseHook.get_connection(source["connection"]).extra_dejson
                send_dead(producer(settings), source["dead_letters"], entries)

        return MessageSchema(source["schema"], self._folder, send)


class SettleOperator(BaseOperator):
    """Says at the end of a run what became of its batches, and replies. A run without any needs nothing.

    Delivery: should this task be lost, the companion Dag does the same at its next look. A reply is sent at least once.

    Args:
        sources: As :class:`StartRunsOperator` has them.
        pulls: For each topic that the run's own tasks pull from ``{topic, connection}``.
    """

    ui_color = "#fdf3d7"

    def __init__(
        self, *, sources: list[dict[str, Any]], pulls: list[dict[str, str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sources = sources
        self.pulls = pulls or []

    @classmethod
    def get_serialized_fields(cls) -> frozenset[str]:
        """Return the names of what a serialized Dag holds of this operator."""
        base: frozenset[str] = super().get_serialized_fields()  # type: ignore[no-untyped-call]
        return frozenset(base | {"sources", "pulls"})

    def execute(self, context: Any) -> dict[str, Any] | None:
        """Settle this run."""
        from edgewright.streams.takes import settle
        from edgewright.streams.waits import settle_run

        run = context["dag_run"]
        claim = batch_of(run.conf)
        store = ArtifactStore(Installation.load().store)
        failed = self._failed(context)
        other = self._settle_pulls(store, context, failed) if self.pulls else 0
        other += settle_run(store, run.dag_id, run.run_id, success=not failed)
        if claim is None:
            return {"batches": other, "success": not failed} if other or self.pulls else None
        outcome = {"failed": failed} if failed else {}
        taken = settle(store, run.dag_id, run.run_id, claim, success=not failed, outcome=outcome)
        source = next((entry for entry in self.sources if f"/{entry['source']}/" in claim), None)
        if source is not None:
            _reply(store, run.dag_id, run.run_id, source, success=not failed)
            if source["strict"]:
                start_run(companion_id(run.dag_id), f"after__{run.run_id}__{context['ti'].try_number}", {})
        log.info("%d batches are %s", len(taken), "failed" if failed else "done")
        return {"batches": len(taken), "success": not failed}

    def _settle_pulls(self, store: ArtifactStore, context: Any, failed: list[str]) -> int:
        """Settle what this run has pulled, and show in Kafka how far that is."""
        from edgewright.streams.pulls import settle_pulls

        run = context["dag_run"]
        reason = f"its run failed in {', '.join(failed)}" if failed else ""
        count = settle_pulls(store, run.dag_id, run.run_id, success=not failed, reason=reason)
        if count:
            log.info("%d pulled batches %s", count, "wait for the next run" if failed else "are done")
        if count and not failed:
            for pull in self.pulls:
                if pull["topic"]:
                    settings = BaseHook.get_connection(pull["connection"]).extra_dejson
                    show_progress(store, run.dag_id, pull["topic"], settings)
        return count

    def _failed(self, context: Any) -> list[str]:
        """Return the tasks of this run that failed for good."""
        run = context["dag_run"]
        states = context["ti"].get_task_states(run.dag_id, run_ids=[run.run_id]).get(run.run_id, {})
        return sorted(name for name, state in states.items() if str(state) in ("failed", "upstream_failed"))


def settle_before(request: StepRequest, context: Any) -> None:
    """Settle the runs that pulled before and have ended without saying so: their scheduler or worker was killed."""
    from edgewright.streams.pulls import settle_ended

    identity = request.identity
    runs = AirflowRuns(identity.dag_id, context["ti"])
    settle_ended(
        ArtifactStore(request.store),
        identity.dag_id,
        lambda run_id: "running" if run_id == identity.run_id else runs.state(run_id),
    )


def _reply(store: ArtifactStore, dag_id: str, run_id: str, source: Mapping[str, Any], *, success: bool) -> None:
    """Send how a run ended to the reply topic of its source."""
    if not source.get("reply"):
        return
    from edgewright.streams.replies import reply_of, send_reply

    connection = BaseHook.get_connection(source["connection"])
    message = reply_of(store, dag_id, run_id, source["source"], success=success)
    send_reply(connection.extra_dejson, source["reply"], message)
    log.info("replied to %s: %s", source["reply"], json.dumps(message)[:500])
