"""The companion Dag of a pipeline with ``triggers:``, which starts a run of it for each batch of events.

Airflow 3.3 folds asset events that wait into one run and may strand others, so an event is only a nudge: the companion
runs (one at a time) when a watcher nudges it and every few minutes, and reads in the artifact store what is to start.
The pipeline's own Dag keeps its ordinary schedule.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, Asset, AssetAny, AssetOrTimeSchedule, AssetWatcher, CronTriggerTimetable

from edgewright.errors import ConfigError
from edgewright.operators.events import SETTLE, SettleOperator, StartRunsOperator, companion_id
from edgewright.spec.pipeline import Pipeline
from edgewright.spec.triggers import TRIGGERS, KafkaTrigger, seconds, source_id
from edgewright.triggers.events import BatchTrigger

#: When a companion looks although nothing nudged it.
SWEEP = "*/5 * * * *"
TAG = "edgewright-events"
_START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_RETRIES: dict[str, Any] = {"retries": 5, "retry_delay": datetime.timedelta(seconds=10)}


def companion_of(pipeline: Pipeline) -> DAG | None:
    """Return the companion Dag of a pipeline, or ``None`` where it has no event source."""
    if not pipeline.triggers:
        return None
    entries = [next(iter(entry.items())) for entry in pipeline.triggers]
    assets = [_asset(pipeline, kind, config) for kind, config in entries]
    schedule = AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(SWEEP, timezone="UTC"),
        assets=AssetAny(*assets) if len(assets) > 1 else assets,
    )
    with DAG(
        companion_id(pipeline.dag_id),
        schedule=schedule,
        start_date=_START,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        tags=[TAG],
        description=f"Starts runs of {pipeline.dag_id} by events",
        doc_md=f"Starts a run of `{pipeline.dag_id}` for each batch of events. Pause that Dag, not this one: while it "
        "is paused, batches wait.",
    ) as dag:
        StartRunsOperator(
            task_id="start", pipeline=pipeline.dag_id, sources=_sources(pipeline), folder=pipeline.folder, **_RETRIES
        )
    dag.fileloc = str(pipeline.file)
    return dag


def add_settling(pipeline: Pipeline, dag: DAG) -> None:
    """Add the task that ends each run of a pipeline that takes events; it does not decide how the run ends.

    Raises:
        ConfigError: a task of the document has its id.
    """
    if not pipeline.takes_events:
        return
    if SETTLE in dag.task_dict:
        raise ConfigError(f"the task id {SETTLE} is ours in a pipeline that takes events", where=str(pipeline.file))
    leaves = list(dag.leaves)
    pulls = [{"topic": topic, "connection": connection} for topic, connection in pipeline.pulls.items()]
    task = SettleOperator(task_id=SETTLE, sources=_sources(pipeline), pulls=pulls, dag=dag, **_RETRIES)
    task.set_upstream([leaf for leaf in leaves if not leaf.is_teardown] or leaves)
    task.as_teardown()


def _asset(pipeline: Pipeline, kind: str, config: Mapping[str, Any]) -> Asset:
    source = source_id(kind, config)
    trigger = BatchTrigger(dag_id=pipeline.dag_id, source=source, kind=kind, config=dict(config))
    name = f"{pipeline.dag_id}/{source}"
    return Asset(name=name, uri=f"edgewright-events://{name}", watchers=[AssetWatcher(name=source, trigger=trigger)])


def _sources(pipeline: Pipeline) -> list[dict[str, Any]]:
    found = []
    for entry in pipeline.triggers:
        kind, config = next(iter(entry.items()))
        model = TRIGGERS[kind].model_validate(config)
        is_kafka = isinstance(model, KafkaTrigger)
        found.append(
            {
                "source": source_id(kind, config),
                "cooldown": seconds(model.cooldown),
                "strict": is_kafka and model.order == "strict",  # type: ignore[attr-defined]
                "together": model.batch.max_messages if is_kafka else 100_000,  # type: ignore[attr-defined]
                "reply": model.reply,
                "connection": model.connection if is_kafka else "kafka_default",
                "schema": model.schema_ if is_kafka else None,  # type: ignore[attr-defined]
                "dead_letters": model.dead_letters if is_kafka else None,  # type: ignore[attr-defined]
            }
        )
    return found
