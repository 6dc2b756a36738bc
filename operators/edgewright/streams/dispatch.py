"""From batches that wait to runs of the pipeline: each batch is started once, and every run that ended is settled.

Works on an interface of three functions, so that it knows nothing of Airflow. Delivery: a batch is claimed for a run
before the run is started, and marked as dispatched after it was; who dies in between starts the same run again, which
Airflow refuses as a double.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgewright.artifacts import ArtifactStore
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.takes import settle

log = logging.getLogger("edgewright.streams")
#: Batches that one pass starts at most; the rest is left to the next one.
MOST = 5000


class Runs(Protocol):
    """What starts runs."""

    def start(self, run_id: str, conf: Mapping[str, Any]) -> bool:
        """Start a run; return ``False`` where there is one of that id."""

    def state(self, run_id: str) -> str | None:
        """Return the state of a run, or ``None`` where there is none."""


@dataclass(frozen=True)
class Rules:
    """How the batches of a source start runs.

    Attributes:
        source: The event source.
        cooldown: Seconds between two starts at least.
        strict: A batch starts when the one before it ended well.
        together: Messages that batches which waited for the cooldown may have together.
    """

    source: str
    cooldown: float = 0.0
    strict: bool = False
    together: int = 500


class Dispatcher:
    """Looks at one source's batches once.

    Args:
        store: Where they are kept.
        dag_id: The pipeline.
        rules: How they start runs.
        runs: What starts them.
        ended: Called for each run that was found to have ended: run id, whether it ended well, its batches.
        prepare: Looks at a batch before a run gets it; one that has no message any more starts none.
    """

    def __init__(
        self,
        store: ArtifactStore,
        dag_id: str,
        rules: Rules,
        runs: Runs,
        ended: Callable[[str, bool], None] = lambda run_id, success: None,
        prepare: Callable[[BatchLog, Batch], Batch] = lambda log, batch: batch,
    ) -> None:
        self.log = BatchLog(store, dag_id, rules.source)
        self.rules = rules
        self._prepare = prepare
        self._runs = runs
        self._ended = ended

    def settle(self) -> int:
        """Settle the runs that ended and did not say so themselves; return how many."""
        ended = 0
        hint_key = f"{self.log.prefix}/settled.json"
        before = int((self.log.store.read_json(hint_key) or {}).get("number", 0))
        first_open: int | None = None
        last = before
        for number in self.log.numbers("dispatched", before):
            last = number
            if self.log.state(number) != "dispatched":
                continue
            run_id = (self.log.marked("dispatched", number) or {}).get("run_id")
            state = self._runs.state(run_id) if run_id else "none"
            if state in ("success", "failed"):
                claim = self.log.claim_key(str(run_id))
                settle(self.log.store, self.log.dag_id, str(run_id), claim, success=state == "success", outcome={})
                self._ended(str(run_id), state == "success")
                ended += 1
            elif run_id:
                first_open = first_open or number
        self.log.store.write_json(hint_key, {"number": (first_open - 1) if first_open else last})
        return ended

    def start(self) -> list[str]:
        """Start a run for everything that waits and may start; return the runs' ids."""
        if self._cools_down():
            return []
        started = []
        for run_id, batches in self._groups():
            if self.rules.strict and not self._before_is_done(batches[0].number):
                break
            self._start(run_id, batches)
            started.append(run_id)
            if self.rules.strict or len(started) >= MOST:
                break
        if started and self.rules.cooldown:
            self.log.store.write_json(f"{self.log.prefix}/last_start.json", {"at": _now().isoformat()})
        return started

    def _start(self, run_id: str, batches: list[Batch]) -> None:
        claim = self.log.write_claim(run_id, [batch.number for batch in batches])
        conf: dict[str, Any] = {"edgewright": {"batch": claim}}
        event = batches[0].details.get("event")
        if event is not None:
            conf["edgewright"]["event"] = event
        if not self._runs.start(run_id, conf):
            log.info("run %s is there already", run_id)
        for batch in batches:
            self.log.mark("dispatched", batch.number, {"run_id": run_id})

    def _groups(self) -> Iterator[tuple[str, list[Batch]]]:
        """Yield runs with their batches: one each, or after a cooldown as many as fit together."""
        group: list[Batch] = []
        begun: set[int] = set()
        for batch in self.log.pending():
            if batch.number in begun:
                continue
            run_id = self.log.claimed_by(batch)
            if run_id is not None:
                # a pass before this one died between claim and mark: the same run, with the same batches
                mine = self._claimed_for(run_id) or [batch]
                begun.update(found.number for found in mine)
                yield run_id, mine
                continue
            prepared = self._prepare(self.log, batch)
            if not prepared.messages:
                continue
            if group and not self._fits(group, prepared):
                yield from self._claimed(group)
                group = []
            group.append(prepared)
        if group:
            yield from self._claimed(group)

    def _claimed_for(self, run_id: str) -> list[Batch]:
        """Return the batches of a run; of those that it was meant for, another pass may have been first with some."""
        found = (self.log.read(number) for number in self.log.claimed_numbers(run_id))
        return [batch for batch in found if batch is not None and self.log.claimed_by(batch) == run_id]

    def _fits(self, group: list[Batch], batch: Batch) -> bool:
        return bool(self.rules.cooldown) and sum(b.messages for b in [*group, batch]) <= self.rules.together

    def _claimed(self, group: list[Batch]) -> Iterator[tuple[str, list[Batch]]]:
        run_id = self.log.run_id(group)
        self.log.write_claim(run_id, [batch.number for batch in group])
        claims = self.log.claim(group, run_id)
        mine = [batch for batch, claim in zip(group, claims, strict=True) if claim == run_id]
        if mine:
            yield run_id, mine

    def _cools_down(self) -> bool:
        if not self.rules.cooldown:
            return False
        last = self.log.store.read_json(f"{self.log.prefix}/last_start.json")
        if last is None:
            return False
        passed = (_now() - datetime.datetime.fromisoformat(last["at"])).total_seconds()
        return passed < self.rules.cooldown

    def _before_is_done(self, number: int) -> bool:
        state = self.log.state(number - 1) if number > 1 else "done"
        before = self.log.read(number - 1) if number > 1 else None
        return state in ("done", "waiting") or (before is not None and not before.messages)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
