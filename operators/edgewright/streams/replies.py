"""What is said on a reply topic when a run of a batch has ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.errors import Unavailable
from edgewright.streams.batches import BatchLog, file_name, now

_TIMEOUT = 30.0


def reply_of(store: ArtifactStore, dag_id: str, run_id: str, source: str, *, success: bool) -> dict[str, Any]:
    """Return the message about a run: how it ended, its batches, what it measured and published."""
    metrics: dict[str, dict[str, float]] = {}
    tags: dict[str, str] = {}
    errors: list[str] = []
    state = "success" if success else "failed"
    for key in store.list_keys(f"runs/{file_name(dag_id)}/{file_name(run_id)}"):
        if not key.endswith("/result.json"):
            continue
        result = store.read_json(key) or {}
        if result.get("metrics"):
            metrics[key.split("/")[-2]] = result["metrics"]
        tags |= result.get("tags") or {}
        if result.get("error"):
            errors.append(result["error"]["message"])
            state = "skipped" if success and result["state"] == "skipped" else state
    log = BatchLog(store, dag_id, source)
    found = [log.read(number) for number in log.claimed_numbers(run_id)]
    return {
        "version": 1, "dag_id": dag_id, "run_id": run_id, "state": state, "time": now(),
        "batches": [batch.name for batch in found if batch is not None],
        "messages": sum(batch.messages for batch in found if batch is not None),
        "metrics": metrics, "tags": tags, "errors": errors,
    }  # fmt: skip


def send_reply(settings: Mapping[str, Any], topic: str, message: Mapping[str, Any]) -> None:
    """Send a reply and wait until the broker has it.

    Raises:
        Unavailable: it did not take it in time.
    """
    from edgewright.streams.kafka import producer

    failed: list[str] = []
    client = producer(settings)
    client.produce(
        topic, json.dumps(message, ensure_ascii=False).encode(), key=str(message["run_id"]),
        on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
    )  # fmt: skip
    if client.flush(_TIMEOUT) or failed:
        raise Unavailable(f"the reply was not taken: {failed[0] if failed else 'no answer'}", where=topic)
