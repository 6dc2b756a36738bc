"""Which payloads of events nothing needs any more: those of batches whose runs ended well, a while ago, and are gone.

Never those of a batch that no run has taken, that waits, is under way or failed, never those of a run that stays, and
never what could not be read (dead letters). A dataset that grows needs the batches of all earlier runs, so a pipeline
of which a run ever took them (``on_event: append``) keeps them. What goes are payloads, and the copies of objects that
were made for a run; the log itself (manifests, offsets, which versions of objects were seen) is small and stays,
because it says that nothing is taken twice.

Between planning and removing somebody may want a batch after all. So a batch is marked as removed first, then looked at
once more, and only then its payload goes; who wants it (``events replay``, a first run that grows) says so first, and
then looks for that mark. Of the two, one sees the other.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.gc import Files, Removal, Report
from edgewright.streams.batches import PULLED, REMOVED, ROOT, STATES, WAITED, Batch, BatchLog, file_name
from edgewright.streams.takes import grows

#: A batch with one of these marks beside ``done`` is left alone.
_OTHER = tuple(state for state in STATES if state not in ("pending", "claimed", "dispatched", "done"))


@dataclass
class _Source:
    """The batches of one source that are long done, and what the others need."""

    log: BatchLog
    grows: bool
    finished: list[tuple[Batch, float]] = field(default_factory=list)
    kept: int = 0
    needed: set[str] = field(default_factory=set)


class EventRetention:
    """Plans what of events can go, and looks again right before it goes.

    Args:
        store: The artifact store.
        older_than: Batches whose runs ended later than so long ago stay.
        runs: Runs that stay, as ``runs/<dag_id>/<run_id>``; their batches stay with them.
    """

    def __init__(self, store: ArtifactStore, older_than: timedelta, runs: Collection[str] = ()) -> None:
        self._store = store
        self._age = older_than.total_seconds()
        self._runs = runs
        self._files: Files = {}
        self._now = time.time()
        self._batches: dict[str, tuple[BatchLog, int]] = {}

    def plan(self) -> Report:
        """Say which payloads could be removed and why; nothing is touched.

        Raises:
            StoreError: the store cannot be read, so nobody knows what is needed.
            DamagedArtifact: a document cannot be read, so nobody knows what it needs.
        """
        report = Report(kept={"batch of events": 0})
        self._files = self._store.scan(ROOT)
        found = {tuple(key.split("/")[1:3]) for key in self._files if key.count("/") > 3 and "/batches/" in key}
        for pipeline, name in sorted(found):
            source = self._source(f"{ROOT}/{pipeline}/{name}")
            self._plan(source, report)
            report.kept["batch of events"] += source.kept
        return report

    def confirm(self, removal: Removal) -> bool:
        """Return whether something may still go; a batch is marked as removed from now on."""
        if removal.key not in self._batches:
            return True
        log, number = self._batches[removal.key]
        log.mark(REMOVED, number, {})
        if self._grows(log) or log.marked("done", number) is None or any(log.marked(mark, number) for mark in _OTHER):
            log.unmark(REMOVED, number)
            return False
        return True

    # -- planning ----------------------------------------------------------------------------------------------

    def _source(self, prefix: str) -> _Source:
        log = BatchLog.at(self._store, prefix)
        source = _Source(log, self._grows(log))
        for key in self._keys(f"{prefix}/batches/"):
            batch = Batch(**(self._store.read_json(key) or {}))
            ended = None if source.grows else self._ended(log, batch)
            if ended is None:
                source.kept += 1
                source.needed |= {batch.data, _first_key(source.log, batch)}
            else:
                source.finished.append((batch, ended))
        return source

    def _ended(self, log: BatchLog, batch: Batch) -> float | None:
        """Return when the run of a batch ended well, if that is long ago and nothing needs the batch."""
        done = self._files.get(log.key("done", batch.number))
        if done is None or self._now - done[1] < self._age:
            return None
        if any(log.key(mark, batch.number) in self._files for mark in _OTHER):
            return None
        run_id = str((log.marked("done", batch.number) or {}).get("run_id"))
        if f"runs/{file_name(log.dag_id)}/{file_name(run_id)}" in self._runs:
            return None
        return done[1]

    def _grows(self, log: BatchLog) -> bool:
        """Whether a dataset that grows is made of a source's batches: it is not of those that runs pull or wait for."""
        return not log.source.startswith((WAITED, PULLED)) and grows(self._store, log.dag_id)

    def _plan(self, source: _Source, report: Report) -> None:
        for batch, ended in source.finished:
            if batch.kind == "objects":
                continue  # its data say which versions were seen
            why = f"its run ended well {round((self._now - ended) / 86400)} days ago"
            for key in sorted({batch.data, _first_key(source.log, batch)} - source.needed):
                if key in self._files:
                    report.removals.append(Removal("batch of events", key, *self._files[key], why))
                    self._batches[key] = source.log, batch.number
        if source.finished and not source.kept:
            # copies do not say whose they are
            for key in self._keys(f"{source.log.prefix}/objects/"):
                removal = Removal("copy of an object", key, *self._files[key], "every run that took it ended well")
                report.removals.append(removal)

    def _keys(self, prefix: str) -> Iterator[str]:
        return (key for key in self._files if key.startswith(prefix) and "/.tmp-" not in key)


def _first_key(log: BatchLog, batch: Batch) -> str:
    """Return where the messages of a batch were before a schema parted some of them."""
    return f"{log.prefix}/data/{file_name(batch.name)}.jsonl"
