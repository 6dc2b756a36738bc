"""Messages that runs pull by schedule: each is in exactly one run that ended well, whatever fails in between.

What a run pulls are batches of a :class:`~edgewright.streams.batches.BatchLog` whose name begins with ``pull-``. Each
belongs to the run that joined it. A run that ends well makes its batches ``done``; one that fails, is killed or has too
little gives them back (``waiting``), and the next run takes them first, then what is new. So two runs at the same time
have different messages, and a run that is tried again sees the same ones. The store decides; Kafka's committed offsets
only show others how far the runs are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.locks import is_gone, this_process
from edgewright.errors import Skipped
from edgewright.streams.batches import PULLED, ROOT, Batch, BatchLog, file_name, sources
from edgewright.streams.takes import join

log = logging.getLogger("edgewright.streams")
#: Brings at most so many new messages as batches of a log.
Fetch = Callable[[BatchLog, int], Iterable[Batch]]
#: How a run ended: ``success`` or ``failed``; anything else: it has not, or nobody knows.
StateOf = Callable[[str], str | None]


def pull_source(topic: str) -> str:
    """Return the name under which what is pulled from a topic is kept."""
    return f"{PULLED}{topic}"


def _logs(store: ArtifactStore, dag_id: str) -> list[BatchLog]:
    return [BatchLog(store, dag_id, source) for source in sources(store, dag_id) if source.startswith(PULLED)]


def _taken_key(batches: BatchLog, run_id: str) -> str:
    return f"{batches.prefix}/pulled/{file_name(run_id)}.json"


# -- a run takes ---------------------------------------------------------------------------------------------------


def take_new(store: ArtifactStore, dag_id: str, run_id: str, topic: str, most: int, fetch: Fetch) -> list[Batch]:
    """Return the batches of a run: what other runs gave back, then what is new. The second time they are the same.

    Args:
        store: Where batches are kept.
        dag_id: The pipeline.
        run_id: The run.
        topic: The topic.
        most: Messages that it takes at most; a batch that is there already is taken whole.
        fetch: Brings new ones.

    Raises:
        Skipped: there is nothing.
    """
    batches = BatchLog(store, dag_id, pull_source(topic))
    key = _taken_key(batches, run_id)
    before = (store.read_json(key) or {}).get("numbers", [])
    mine = [_begin(batches, number, run_id) for number in before if join(batches, number, run_id)]
    if not mine:
        mine = list(_take(batches, run_id, most, fetch))
        if not mine:
            raise Skipped(_nothing(batches, topic))
        store.write_json(key, {"run_id": run_id, "numbers": [batch.number for batch in mine]})
    return mine


def _take(batches: BatchLog, run_id: str, most: int, fetch: Fetch) -> Iterator[Batch]:
    room = most
    for number in open_numbers(batches):
        if room <= 0:
            return
        if join(batches, number, run_id):
            batch = _begin(batches, number, run_id)
            room -= batch.messages
            yield batch
    for batch in fetch(batches, room) if room > 0 else ():
        if batch.messages and join(batches, batch.number, run_id):
            yield _begin(batches, batch.number, run_id)


def _begin(batches: BatchLog, number: int, run_id: str) -> Batch:
    """Note that a run has a batch now, and return it."""
    batches.mark("dispatched", number, {"run_id": run_id})
    batches.unmark("waiting", number)
    batch = batches.read(number)
    assert batch is not None, "its number was listed"
    return batch


def _nothing(batches: BatchLog, topic: str) -> str:
    held = {str(by["run_id"]) for n in open_numbers(batches) if (by := batches.marked("joined", n))}
    text = f"there are no new messages in {topic}"
    return f"{text}; {', '.join(sorted(held))} has not ended and has the last ones" if held else text


def open_numbers(batches: BatchLog) -> list[int]:
    """Return the batches that no run which ended well has, and remember where they begin."""
    hint_key = f"{batches.prefix}/settled.json"
    before = int((batches.store.read_json(hint_key) or {}).get("number", 0))
    head = batches.head()
    last = head.number if head else 0
    done = set(batches.numbers("done", before))
    found = [n for n in range(before + 1, last + 1) if n not in done and (b := batches.read(n)) and b.messages]
    through = found[0] - 1 if found else last
    if through > before:
        batches.store.write_json(hint_key, {"number": through})
    return found


# -- a run ends ----------------------------------------------------------------------------------------------------


def settle_pulls(store: ArtifactStore, dag_id: str, run_id: str, *, success: bool, reason: str = "") -> int:
    """Say how a run has ended: its batches are done, or wait for the next run. Twice changes nothing.

    Returns:
        How many batches that are.
    """
    return sum(_settle(batches, run_id, success=success, reason=reason) for batches in _logs(store, dag_id))


def _settle(batches: BatchLog, run_id: str, *, success: bool, reason: str) -> int:
    numbers = [int(n) for n in (batches.store.read_json(_taken_key(batches, run_id)) or {}).get("numbers", [])]
    # who died between joining and writing it down has no list
    numbers = numbers or [n for n in open_numbers(batches) if _holder(batches, n) == run_id]
    settled = 0
    for number in numbers:
        done = batches.marked("done", number)
        if done is not None and done["run_id"] == run_id:
            continue
        if success and (done is not None or not join(batches, number, run_id)):
            # its tasks were cleared after another run had taken what it gave back
            log.warning("%s ended well, but %s has taken batch %d meanwhile; its messages are in both",
                        run_id, (done or {}).get("run_id") or _holder(batches, number), number)  # fmt: skip
        elif success:
            batches.mark("done", number, {"run_id": run_id})
            batches.unmark("waiting", number)
            settled += 1
        elif _holder(batches, number) == run_id:
            batches.mark("waiting", number, {"run_id": run_id, "reason": reason or "its run failed"})
            batches.unmark("joined", number)
            settled += 1
    return settled


def _holder(batches: BatchLog, number: int) -> str | None:
    return (batches.marked("joined", number) or {}).get("run_id")


def settle_ended(store: ArtifactStore, dag_id: str, state_of: StateOf) -> None:
    """Settle the runs that have ended and could not say so themselves: who is killed says nothing.

    Args:
        store: Where batches are kept.
        dag_id: The pipeline.
        state_of: Knows how a run ended.
    """
    for batches in _logs(store, dag_id):
        for run_id in {holder for n in open_numbers(batches) if (holder := _holder(batches, n))}:
            state = process_state(store, dag_id, run_id) or state_of(run_id)
            if state in ("success", "failed"):
                _settle(batches, run_id, success=state == "success", reason="its run failed or was killed")
            elif state is None:
                log.warning("nobody knows what became of run %s, which has messages of %s; to let others take them: "
                            "edgewright events replay %s --force BATCH", run_id, batches.source, dag_id)  # fmt: skip


def show_progress(store: ArtifactStore, dag_id: str, topic: str, settings: Mapping[str, Any]) -> None:
    """Tell Kafka how far the runs that ended well are, for those who watch a group's lag."""
    from edgewright.streams.kafka_pull import commit

    batches = BatchLog(store, dag_id, pull_source(topic))
    still_open = open_numbers(batches)
    head = batches.head()
    commit(batches, settings, still_open[0] - 1 if still_open else (head.number if head else 0))


# -- runs without Airflow ------------------------------------------------------------------------------------------


def _process_key(dag_id: str, run_id: str) -> str:
    return f"{ROOT}/{file_name(dag_id)}/processes/{file_name(run_id)}.json"


def note_process(store: ArtifactStore, dag_id: str, run_id: str) -> None:
    """Note that a run is this process, so that others see when it was killed."""
    store.write_json(_process_key(dag_id, run_id), this_process())


def forget_process(store: ArtifactStore, dag_id: str, run_id: str) -> None:
    """Take that back, after the run was settled."""
    store.delete(_process_key(dag_id, run_id))


def process_state(store: ArtifactStore, dag_id: str, run_id: str) -> str | None:
    """Return ``failed`` for a run whose process was killed, ``running`` for one that goes on or is far away.

    ``None``: it was no process of its own.
    """
    process: Mapping[str, Any] | None = store.read_json(_process_key(dag_id, run_id))
    if process is None:
        return None
    return "failed" if is_gone(process) else "running"
