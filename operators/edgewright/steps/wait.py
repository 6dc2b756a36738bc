"""``wait``: hold the run until messages, objects or a model version are there, and hand on exactly those.

In Airflow the operator has the triggerer wait, and this finds the batch that was taken; anywhere else it waits itself.
Delivery is that of :mod:`edgewright.streams.waits`: each message, object or version is in one batch, a batch is taken
by one wait, and a wait that is tried again has the same batch.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from typing import Any

from edgewright.spec.event_fields import seconds
from edgewright.spec.steps.wait import WaitConfig
from edgewright.steps.connections import Credentials
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.event_rows import WAIT_MANIFEST
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.waits import Line, Wait, settings_of, timed_out, wait_source

#: Seconds between two lines about how far it is.
_TELL = 15.0
log = logging.getLogger("edgewright.steps.waiting")


def run(config: WaitConfig, context: StepContext) -> StepOutput:
    """Wait for a batch, and return its manifest as an artifact.

    Raises:
        TimedOut: it did not come in time.
        Skipped: it did not come in time, and ``soft_fail`` says that this is no failure.
        ConfigError: the connection is not there, or says too little.
    """
    identity = context.request.identity
    batches = BatchLog(context.store, identity.dag_id, wait_source(identity.task_id, config))
    line = Line(batches, identity.run_id, identity.map_index)
    batch = line.take() or _wait(Wait(config, line, lambda: _open(config, batches), _deadline(config)))
    return _output(batch, config, context)


def _deadline(config: WaitConfig) -> float:
    return time.time() + seconds(config.timeout)


def _wait(wait: Wait) -> Batch:
    told = time.monotonic()
    log.info("waiting: %s, at most %s", wait.so_far, wait.config.timeout)
    try:
        while True:
            batch = wait.poll()
            if batch is not None:
                return batch
            if wait.is_over:
                raise timed_out(wait.config, wait.late())
            if time.monotonic() - told >= _TELL:
                told = time.monotonic()
                log.info("waiting: %s, %d s are left", wait.so_far, wait.deadline - time.time())
    finally:
        wait.close()


def _open(config: WaitConfig, batches: BatchLog) -> Any:
    from edgewright.streams.sources import open_source

    settings: dict[str, Any] = {}
    if config.connection is not None:
        example = '{"conn_type": "...", "extra": {...}}'
        found = Credentials.of(config.connection, example)
        settings = settings_of(config.kind, found.login, found.password, found.extra)
    return open_source(config.kind, config.trigger(), batches, settings)


def _output(batch: Batch, config: WaitConfig, context: StepContext) -> StepOutput:
    folder = context.folder("batch")
    (folder / WAIT_MANIFEST).write_text(json.dumps(asdict(batch), sort_keys=True, ensure_ascii=False), encoding="utf-8")
    event = batch.details.get("event") or {}
    note = f"batch {batch.name}: {_count(batch, config)}"
    context.note("%s", note)
    meta = {"batch": batch.name, "messages": batch.messages}
    return StepOutput(
        outputs={"batch": context.put(folder, "batch", meta)},
        metrics={"messages": batch.messages, "rejected": batch.rejected},
        tags={"batch": batch.name, **{name: str(value) for name, value in event.items() if value is not None}},
        notes=[note],
    )


def _count(batch: Batch, config: WaitConfig) -> str:
    what = {"kafka": "messages", "objects": "objects", "registry": "new version"}[config.kind]
    rejected = f", {batch.rejected:,} more could not be read" if batch.rejected else ""
    ranges = ", ".join(f"{place}: {first} to {last}" for place, (first, last) in batch.ranges.items())
    return f"{batch.messages:,} {what}{f' ({ranges})' if ranges else ''}{rejected}"
