"""A run by hand that pulls messages of a topic: what Airflow's last task of a run does, done here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError
from edgewright.spec.pipeline import Pipeline

log = logging.getLogger("edgewright.cli")


@contextlib.contextmanager
def pulling(pipeline: Pipeline, store: ArtifactStore, run_id: str, ended_well: Callable[[], bool]) -> Iterator[None]:
    """Settle runs that were killed before this one, and this one however it ends.

    Args:
        pipeline: What runs; one that pulls nothing costs nothing here.
        store: Where batches are kept.
        run_id: The run.
        ended_well: Whether all tasks were run and none failed, asked at the end.
    """
    if not pipeline.pulls:
        yield
        return
    from edgewright.streams.pulls import forget_process, note_process, settle_ended, settle_pulls

    settle_ended(store, pipeline.dag_id, lambda other: None)
    note_process(store, pipeline.dag_id, run_id)
    success, reason = False, "its run was interrupted"
    try:
        yield
        success, reason = ended_well(), "its run did not do all of its tasks"
    finally:
        count = settle_pulls(store, pipeline.dag_id, run_id, success=success, reason=reason)
        forget_process(store, pipeline.dag_id, run_id)
    if success and count:
        _show(pipeline, store)


def _show(pipeline: Pipeline, store: ArtifactStore) -> None:
    """Let Kafka know how far the runs are; nothing depends on it."""
    from edgewright.steps.connections import kafka_settings
    from edgewright.streams.pulls import show_progress

    for topic, connection in pipeline.pulls.items():
        try:
            if topic:
                show_progress(store, pipeline.dag_id, topic, kafka_settings(connection))
        except EdgewrightError as error:
            log.info("offsets of %s were not committed: %s", topic, error)
