"""Which batches a run takes: its own, those that earlier runs left because there was too little, and the grown data.

A run's take is written down once, so a task that is tried again sees the same data. A batch that waits is joined by one
run only. Once a run has ended, :func:`settle` says what became of its batches: ``done`` ones belong to the growing
dataset from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, Skipped
from edgewright.streams.batches import PULLED, REMOVED, ROOT, WAITED, Batch, BatchLog, file_name, sources


@dataclass(frozen=True)
class Take:
    """What a run takes, as ``(source, number)``.

    Attributes:
        run_id: The run.
        own: The batches that it was started with, and those that waited for it.
        grown: Batches of earlier runs that ended well, for a dataset that grows.
        removed: How many more there were, whose payloads are gone: they were removed before the dataset grew.
    """

    run_id: str
    own: list[tuple[str, int]] = field(default_factory=list)
    grown: list[tuple[str, int]] = field(default_factory=list)
    removed: int = 0


def _key(dag_id: str, run_id: str) -> str:
    return f"{ROOT}/{file_name(dag_id)}/takes/{file_name(run_id)}.json"


def _logs(store: ArtifactStore, dag_id: str) -> dict[str, BatchLog]:
    """Return the logs of the sources that start runs; others are their runs' own (:mod:`.pulls`, :mod:`.waits`)."""
    found = (source for source in sources(store, dag_id) if not source.startswith((PULLED, WAITED)))
    return {source: BatchLog(store, dag_id, source) for source in found}


def _grown_key(dag_id: str, run_id: str) -> str:
    return f"{ROOT}/{file_name(dag_id)}/grown/{file_name(run_id)}.json"


def _growing_key(dag_id: str) -> str:
    return f"{ROOT}/{file_name(dag_id)}/growing.json"


def grows(store: ArtifactStore, dag_id: str) -> bool:
    """Whether a run of a pipeline ever took the batches of earlier ones: then they are all needed."""
    return store.read_json(_growing_key(dag_id)) is not None


def take(store: ArtifactStore, dag_id: str, run_id: str, claim: str | None, *, growing: bool) -> Take:
    """Return what a run takes, and write it down the first time.

    Args:
        store: Where batches are kept.
        dag_id: The pipeline.
        run_id: The run.
        claim: Key of the document that says which batches started it; ``None`` for a run by schedule or by hand.
        growing: Whether the batches of earlier runs belong to it.

    Raises:
        Skipped: another run has taken the batches meanwhile.
        ConfigError: the claim is not there.
    """
    key = _key(dag_id, run_id)
    document = store.read_json(key)
    if document is None:
        made: dict[str, Any] = {"run_id": run_id, "own": _own(store, _logs(store, dag_id), run_id, claim)}
        document = made if store.create_json(key, made) else store.read_json(key) or made
    own = _entries(document["own"])
    if not growing:
        return Take(run_id, own)
    grown = _grown(store, dag_id, run_id, own)
    return Take(run_id, own, _entries(grown["grown"]), int(grown["removed"]))


def _grown(store: ArtifactStore, dag_id: str, run_id: str, own: list[tuple[str, int]]) -> dict[str, Any]:
    key = _grown_key(dag_id, run_id)
    document: dict[str, Any] | None = store.read_json(key)
    if document is None:
        if not grows(store, dag_id):  # said before anything is looked at: edgewright gc leaves the batches from now on
            store.create_json(_growing_key(dag_id), {"since": run_id})
        logs = _logs(store, dag_id)
        removed = set(_marked(logs, REMOVED))
        found = [entry for entry in _marked(logs, "done") if entry not in own]
        there = [entry for entry in found if entry not in removed]
        made = {"run_id": run_id, "grown": there, "removed": len(found) - len(there)}
        document = made if store.create_json(key, made) else store.read_json(key) or made
    return document


def _entries(value: list[Any]) -> list[tuple[str, int]]:
    return [(str(source), int(number)) for source, number in value]


def _own(store: ArtifactStore, logs: Mapping[str, BatchLog], run_id: str, claim: str | None) -> list[tuple[str, int]]:
    if claim is None:
        return []
    document = store.read_json(claim)
    if document is None:
        raise ConfigError("the batch that started this run is not in the artifact store", where=claim)
    source = str(document["source"])
    log = logs.get(source) or BatchLog(store, str(document["dag_id"]), source)
    given = [(source, int(number)) for number in document["numbers"]]
    mine = [entry for entry in given if join(log, entry[1], run_id)]
    if given and not mine:
        raise Skipped("another run has taken this batch meanwhile, together with its own")
    waiting = [entry for entry in _marked(logs, "waiting") if entry not in mine]
    return sorted([*mine, *(entry for entry in waiting if _waits(logs[entry[0]], *entry, run_id))])


def _waits(log: BatchLog, source: str, number: int, run_id: str) -> bool:
    return log.marked("done", number) is None and join(log, number, run_id)


def join(log: BatchLog, number: int, run_id: str) -> bool:
    """Take a batch for a run, unless another run has it."""
    key = log.key("joined", number)
    if log.store.create_json(key, {"run_id": run_id}):
        return True
    return bool((log.store.read_json(key) or {}).get("run_id") == run_id)


def _marked(logs: Mapping[str, BatchLog], mark: str) -> Iterator[tuple[str, int]]:
    for source, log in logs.items():
        yield from ((source, number) for number in log.numbers(mark))


def batches_of(store: ArtifactStore, dag_id: str, entries: list[tuple[str, int]]) -> list[Batch]:
    """Return the manifests of some batches, in order; those without a message are left out."""
    logs = {source: BatchLog(store, dag_id, source) for source in {source for source, _ in entries}}
    found = [logs[source].read(number) for source, number in entries]
    return [batch for batch in found if batch is not None and batch.messages]


def put_back(store: ArtifactStore, dag_id: str, run_id: str, reason: str) -> int:
    """Let the batches of a run wait for the next one, and return how many they are."""
    document = store.read_json(_key(dag_id, run_id))
    if document is None:
        return 0
    logs = _logs(store, dag_id)
    for source, number in document["own"]:
        logs[source].mark("waiting", number, {"run_id": run_id, "reason": reason})
    store.delete(_grown_key(dag_id, run_id))
    store.delete(_key(dag_id, run_id))
    for source, number in document["own"]:
        logs[source].unmark("joined", number)
    return len(document["own"])


def settle(
    store: ArtifactStore, dag_id: str, run_id: str, claim: str | None, *, success: bool, outcome: Mapping[str, Any]
) -> list[tuple[str, int]]:
    """Say what became of a run's batches: they are ``done``, or ``failed`` until the run is tried again or released.

    Doing it twice changes nothing; a run that failed and was tried again moves its batches from ``failed`` to ``done``.

    Args:
        store: Where batches are kept.
        dag_id: The pipeline.
        run_id: The run.
        claim: What started it, for a run that ended before (or without) taking its batches.
        success: How it ended.
        outcome: What else to remember.

    Returns:
        The batches that are settled now, as ``(source, number)``.
    """
    document = store.read_json(_key(dag_id, run_id))
    logs = _logs(store, dag_id)
    if document is not None:
        settled = [(str(source), int(number)) for source, number in document["own"]]
    else:
        settled = _not_taken(store, logs, run_id, claim)
    for source, number in settled:
        log = logs[source]
        log.mark("done" if success else "failed", number, {**outcome, "run_id": run_id})
        for mark in ("waiting", "failed") if success else ():
            log.unmark(mark, number)
    return settled


def _not_taken(
    store: ArtifactStore, logs: Mapping[str, BatchLog], run_id: str, claim: str | None
) -> list[tuple[str, int]]:
    """Return the batches that started a run and that no step took: they do not wait, and no other run has them."""
    document = store.read_json(claim) if claim else None
    if document is None or document["source"] not in logs:
        return []
    log = logs[document["source"]]
    joined = {number: log.marked("joined", number) or {"run_id": run_id} for number in document["numbers"]}
    return [
        (log.source, int(number))
        for number, by in joined.items()
        if by["run_id"] == run_id and log.marked("waiting", number) is None
    ]
