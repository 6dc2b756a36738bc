"""Waiting for a batch in the middle of a run: one log of batches for each task that waits, one batch for each wait.

Delivery: as of ``triggers:`` (see :mod:`edgewright.streams.batches`). What comes is a batch in the artifact store
before anybody takes it; a batch is claimed by one wait only, and a wait that is tried again, or goes on in another
process, finds the batch that it has. What came while nobody waited is there for the next wait. A batch whose run failed
stays that run's, for its next try, until ``edgewright events replay`` releases it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.errors import Skipped, TimedOut
from edgewright.spec.steps.wait import WaitConfig
from edgewright.streams.batches import WAITED, Batch, BatchLog, file_name, sources

#: Seconds between two looks at what others may have brought.
_LOOK = 5.0


def wait_source(task_id: str, config: WaitConfig) -> str:
    """Return the name of the event source of a task that waits: it follows from the task and from what it waits for."""
    from edgewright.spec.triggers import source_id

    return f"{WAITED}{task_id}-{source_id(config.kind, config.trigger())}"


class Line:
    """The place of one wait in the line for a source's batches.

    Args:
        batches: The source's.
        run_id: The run.
        map_index: Which instance of a mapped task waits; -1 for a task that is not mapped.
    """

    def __init__(self, batches: BatchLog, run_id: str, map_index: int = -1) -> None:
        self.batches = batches
        self._run_id = run_id
        self._holder = run_id if map_index < 0 else f"{run_id}@{map_index}"

    def take(self) -> Batch | None:
        """Return the batch that this wait has, else the first one that nobody has, from now on its own.

        Which batch it asks for is written down first, and each time under a number of its own, so that two processes
        that do the same wait (a triggerer that is believed dead, and its successor) take the same batch.
        """
        turn = 1
        while (asked := self._asked(turn)) is not None:
            if (batch := self._claim(asked)) is not None:
                return batch
            turn += 1
        for batch in self.batches.pending():
            if self.batches.claimed_by(batch) not in (None, self._holder):
                continue
            if not self.batches.store.create_json(self._key(turn), {"number": batch.number}):
                return self.take()
            if (mine := self._claim(batch.number)) is not None:
                return mine
            turn += 1
        return None

    def _key(self, turn: int) -> str:
        return f"{self.batches.prefix}/waits/{file_name(self._holder)}/{turn}.json"

    def _asked(self, turn: int) -> int | None:
        document = self.batches.store.read_json(self._key(turn))
        return None if document is None else int(document["number"])

    def _claim(self, number: int) -> Batch | None:
        batch = self.batches.read(number)
        if batch is None or self.batches.claim([batch], self._holder) != [self._holder]:
            return None
        if self.batches.marked("dispatched", number) is None:
            self.batches.mark("dispatched", number, {"run_id": self._run_id})
        return batch


class Wait:
    """One wait, from its beginning to a batch.

    Args:
        config: What is waited for.
        line: Its place in the line.
        open_source: Opens the event source; called at the first poll that finds nothing.
        deadline: When it ends, in seconds since 1970.
    """

    def __init__(self, config: WaitConfig, line: Line, open_source: Callable[[], Any], deadline: float) -> None:
        self.config = config
        self.deadline = deadline
        self._line = line
        self._open_source = open_source
        self._source: Any = None
        self._look_at = 0.0
        self._most = 0

    @property
    def is_over(self) -> bool:
        """Whether its time is over."""
        return time.time() >= self.deadline

    def poll(self, timeout: float = 1.0) -> Batch | None:
        """Wait at most ``timeout`` seconds; return the batch once this wait has one.

        Raises:
            ConfigError: the source cannot be opened like this.
        """
        made = None
        if self._source is not None:
            made = self._source.poll(timeout)
            self._most = self._source.gathered
        if made is None and time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + _LOOK
        found = self._line.take()
        if found is None and self._source is None:
            self._source = self._open_source()
        return found

    @property
    def so_far(self) -> str:
        """How far it is, in words."""
        count, what = self.config.wanted
        problem = getattr(self._source, "problem", None)
        text = f"{self._most} of {count} {what}"
        return f"{text}; the last look failed: {problem}" if problem else text

    def late(self) -> str:
        """Return why it ends without a batch."""
        return f"{self.so_far} came within {self.config.timeout}{_unit(self.config.timeout)}"

    def close(self) -> None:
        """Let go of the source; what it has gathered will come again."""
        if self._source is not None:
            self._source.close()


def _unit(timeout: object) -> str:
    return "" if isinstance(timeout, str) else " s"


def timed_out(config: WaitConfig, reason: str) -> Skipped | TimedOut:
    """Return the error of a wait that found nothing."""
    if config.soft_fail:
        return Skipped(reason)
    return TimedOut(reason, hint="a longer timeout:, or soft_fail: true to go on without")


def settings_of(kind: str, login: str | None, password: str | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a source takes of a connection."""
    return dict(extra) if kind == "kafka" else {"login": login, "password": password, "extra": dict(extra)}


def settle_run(store: ArtifactStore, dag_id: str, run_id: str, *, success: bool) -> int:
    """Say what became of the batches that the waits of a run took; return how many there are. Twice changes nothing."""
    return sum(
        _settle(log, number, run_id, success=success) for log, number, run in _open(store, dag_id) if run == run_id
    )


def settle_ended(log: BatchLog, state: Callable[[str], str | None]) -> int:
    """Settle the batches of one source whose runs have ended meanwhile; return how many.

    Args:
        log: The source's batches.
        state: Returns the state of a run.
    """
    hint_key = f"{log.prefix}/settled.json"
    through = int((log.store.read_json(hint_key) or {}).get("number", 0))
    first_open: int | None = None
    settled = 0
    last = through
    done = set(log.numbers("done", through))
    for number in log.numbers("dispatched", through):
        last = number
        run_id = None if number in done else (log.marked("dispatched", number) or {}).get("run_id")
        if run_id is None:
            continue
        ended = state(str(run_id))
        if ended in ("success", "failed"):
            settled += _settle(log, number, str(run_id), success=ended == "success")
        if ended != "success":  # a failed run may be tried again
            first_open = first_open or number
    log.store.write_json(hint_key, {"number": first_open - 1 if first_open else last})
    return settled


def _open(store: ArtifactStore, dag_id: str) -> Iterator[tuple[BatchLog, int, str]]:
    for source in sources(store, dag_id):
        if not source.startswith(WAITED):
            continue
        log = BatchLog(store, dag_id, source)
        through = int((store.read_json(f"{log.prefix}/settled.json") or {}).get("number", 0))
        done = set(log.numbers("done", through))
        for number in log.numbers("dispatched", through):
            run_id = None if number in done else (log.marked("dispatched", number) or {}).get("run_id")
            if run_id is not None:
                yield log, number, str(run_id)


def _settle(log: BatchLog, number: int, run_id: str, *, success: bool) -> bool:
    mark = "done" if success else "failed"
    if log.marked(mark, number) is not None:
        return False
    log.mark(mark, number, {"run_id": run_id})
    if success:
        log.unmark("failed", number)
    return True
