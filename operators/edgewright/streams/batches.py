"""What event sources brought, kept in the artifact store as a log of batches until runs have taken them.

The log is the truth about what was received; an event of Airflow's is only a nudge to look at it. One log is one event
source of one pipeline::

    events/<dag_id>/<source>/data/<name>.jsonl        payloads, keys, headers, offsets: one message a line
    events/<dag_id>/<source>/dead/<name>.jsonl        messages that could not be read, each with the reason
    events/<dag_id>/<source>/batches/<...>/<n>.json   manifest of batch n: written last, and once; a schema may part
                                                      the messages that it refuses before a run has the batch
    events/<dag_id>/<source>/<mark>/<...>/<n>.json    what happened to it: claimed, dispatched, done, failed, waiting;
                                                      removed: its payloads are gone (edgewright gc)
    events/<dag_id>/<source>/runs/<run_id>.json       which batches a run was started with

Delivery: a manifest is created with a condition (of two who write batch ``n``, one does it) and holds the position in
the source after it. Whoever was second reads that position, drops what the batch has already, and tries ``n + 1``. So
any number of consumers, also one that is believed dead, put every message into exactly one batch; what Kafka knows as
committed is only where to look first. Names follow from offsets, so a replay is recognised.

Numbers are kept in folders of a thousand, so that looking for what is new lists what is new.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any
from urllib.parse import quote, unquote

from edgewright.artifacts import ArtifactStore
from edgewright.errors import NotFound, StoreError

ROOT = "events"
#: What the names of sources begin with that runs pull from, instead of being started by them.
PULLED = "pull-"
#: What the names of sources begin with that a task waits for in the middle of a run.
WAITED = "wait-"
_FOLDER = 1000
#: Marks in the order in which they win: the last one that is there is the batch's state.
STATES = ("pending", "claimed", "dispatched", "waiting", "failed", "done")
#: The mark of a batch whose payloads are gone, beside ``done``.
REMOVED = "removed"
#: Position in a source: ``{"topic/partition": [epoch, next offset]}``; an epoch ends when a topic is made anew.
Positions = dict[str, list[int]]


def file_name(text: str) -> str:
    """Return a text as a file's name."""
    return quote(text, safe="+:=@,") if text.strip(".") else text.replace(".", "%2E")


def now() -> str:
    """Return the time as it stands in documents."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Batch:
    """One batch, as its manifest describes it.

    Attributes:
        number: Its place in the log, from 1.
        name: Follows from what is in it; the run's id follows from the name.
        kind: ``kafka``, ``objects``, ``registry`` or ``file``.
        data: Key of its payloads in the store.
        messages: How many there are.
        rejected: How many could not be read; they are below ``dead/``.
        size: Bytes of the payloads' file.
        sha256: Its digest.
        ranges: First and last offset by ``topic/partition``.
        positions: Where the source stands after it, over all partitions.
        timestamps: Of the first and the last message, in milliseconds since 1970.
        created: ISO time.
        details: What else a source says.
    """

    number: int
    name: str
    kind: str
    data: str
    messages: int
    rejected: int = 0
    size: int = 0
    sha256: str = ""
    ranges: dict[str, list[int]] = field(default_factory=dict)
    positions: Positions = field(default_factory=dict)
    timestamps: list[int] = field(default_factory=list)
    created: str = ""
    details: dict[str, Any] = field(default_factory=dict)


class BatchLog:
    """The batches of one event source of one pipeline.

    Args:
        store: Where they are kept.
        dag_id: The pipeline.
        source: The event source, as :func:`edgewright.spec.triggers.source_id` names it.
    """

    def __init__(self, store: ArtifactStore, dag_id: str, source: str) -> None:
        self.store = store
        self.dag_id = dag_id
        self.source = source
        self.prefix = f"{ROOT}/{file_name(dag_id)}/{file_name(source)}"
        self._head: Batch | None = None

    @classmethod
    def at(cls, store: ArtifactStore, prefix: str) -> BatchLog:
        """Return the log that is kept below a prefix."""
        _, dag_id, source = prefix.split("/")
        return cls(store, unquote(dag_id), unquote(source))

    # -- keys --------------------------------------------------------------------------------------------------

    def key(self, mark: str, number: int) -> str:
        """Return the key of a batch's document."""
        return f"{self.prefix}/{mark}/{number // _FOLDER:09d}/{number:012d}.json"

    def _numbers(self, mark: str, folder: int) -> set[int]:
        keys = self.store.scan(f"{self.prefix}/{mark}/{folder:09d}")
        names = (key.rpartition("/")[2].removesuffix(".json") for key in keys)
        return {int(name) for name in names if name.isdigit()}

    def numbers(self, mark: str, after: int = 0) -> Iterator[int]:
        """Yield the numbers of the batches that have a mark, in order; memory is that of a thousand."""
        head = self.head()
        for folder in range((after + 1) // _FOLDER, (head.number if head else 0) // _FOLDER + 1):
            yield from (number for number in sorted(self._numbers(mark, folder)) if number > after)

    # -- the log -----------------------------------------------------------------------------------------------

    def read(self, number: int) -> Batch | None:
        """Return a batch by number, or ``None`` where there is none."""
        document = self.store.read_json(self.key("batches", number))
        return None if document is None else Batch(**document)

    def head(self) -> Batch | None:
        """Return the newest batch; looks forward from the newest one that was seen."""
        if self._head is None:
            hint = self.store.read_json(f"{self.prefix}/head.json") or {}
            self._head = self.read(int(hint.get("number", 0)))
        number = self._head.number if self._head else 0
        while (found := self.read(number + 1)) is not None:
            self._head, number = found, number + 1
        return self._head

    def positions(self) -> Positions:
        """Return where the source stands."""
        head = self.head()
        return dict(head.positions) if head else {}

    def write_data(self, name: str, data: bytes, dead: Sequence[Mapping[str, Any]] = ()) -> tuple[str, str]:
        """Store payloads (and what could not be read) before their batch exists; return key and sha256."""
        if dead:
            lines = b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in dead)
            self.store.write_bytes(f"{self.prefix}/dead/{file_name(name)}.jsonl", lines)
        key = f"{self.prefix}/data/{file_name(name)}.jsonl"
        self.store.write_bytes(key, data)
        return key, hashlib.sha256(data).hexdigest()

    def dead_key(self, batch: Batch) -> str:
        """Return the key of the messages of a batch that could not be read."""
        return f"{self.prefix}/dead/{file_name(batch.name)}.jsonl"

    def append(self, batch: Batch) -> Batch | None:
        """Add a batch as the next one after what this log has seen.

        Returns:
            The batch with its number; ``None`` where somebody else was first: look at :meth:`positions` again.
        """
        number = (self._head.number if self._head else 0) + 1
        made = Batch(**{**asdict(batch), "number": number, "created": now()})
        if not self.store.create_json(self.key("batches", number), asdict(made)):
            return None
        self._head = made
        self.store.write_json(f"{self.prefix}/head.json", {"number": number})
        if not made.messages:
            self.mark("dispatched", number, {"run_id": None, "reason": "no message could be read"})
        return made

    def replace(self, batch: Batch) -> Batch:
        """Write a batch anew whose messages were looked at: fewer of them, the same number, name and positions."""
        self.store.write_json(self.key("batches", batch.number), asdict(batch))
        if not batch.messages:
            self.mark("dispatched", batch.number, {"run_id": None, "reason": "no message is valid"})
        return batch

    # -- what happens to batches -------------------------------------------------------------------------------

    def mark(self, mark: str, number: int, document: Mapping[str, Any]) -> None:
        """Note that something happened to a batch; doing it twice changes nothing."""
        self.store.write_json(self.key(mark, number), {**document, "at": now()})

    def unmark(self, mark: str, number: int) -> None:
        """Take a mark back."""
        self.store.delete(self.key(mark, number))

    def marked(self, mark: str, number: int) -> dict[str, Any] | None:
        """Return what a mark says, or ``None``."""
        return self.store.read_json(self.key(mark, number))

    def state(self, number: int) -> str:
        """Return the state of a batch, one of :data:`STATES`."""
        found = (state for state in reversed(STATES[1:]) if self.marked(state, number) is not None)
        return next(found, "pending")

    def pending(self) -> Iterator[Batch]:
        """Yield the batches that no run was started for yet, in order, and remember where they begin."""
        hint = self.store.read_json(f"{self.prefix}/through.json") or {}
        through = int(hint.get("number", 0))
        head = self.head()
        last = head.number if head else 0
        first_open: int | None = None
        for folder in range((through + 1) // _FOLDER, last // _FOLDER + 1):
            gone = self._numbers("dispatched", folder)
            for number in range(max(through + 1, folder * _FOLDER), min(last, folder * _FOLDER + _FOLDER - 1) + 1):
                if number in gone:
                    continue
                first_open = first_open or number
                batch = self.read(number)
                if batch is None:
                    raise StoreError(f"batch {number} of {self.source} is gone", where=self.store.root)
                yield batch
        done = (first_open - 1) if first_open else last
        if done > through:
            self.store.write_json(f"{self.prefix}/through.json", {"number": done})

    def claim(self, batches: Sequence[Batch], run_id: str) -> list[str]:
        """Say for each batch which run takes it; one that was claimed before keeps its run.

        Returns:
            The run of each batch, in order.
        """
        found = []
        for batch in batches:
            key = self.key("claimed", batch.number)
            if self.store.create_json(key, {"run_id": run_id, "at": now()}):
                found.append(run_id)
            else:
                found.append(str((self.store.read_json(key) or {})["run_id"]))
        return found

    def is_removed(self, number: int) -> bool:
        """Whether the payloads of a batch were removed, long after its run ended well."""
        return self.marked(REMOVED, number) is not None

    def claimed_by(self, batch: Batch) -> str | None:
        """Return the run that a batch was claimed for."""
        document = self.marked("claimed", batch.number)
        return None if document is None else str(document["run_id"])

    def run_id(self, batches: Sequence[Batch]) -> str:
        """Return the id of the run of some batches; a batch that was released gets another one."""
        attempt = max(int((self.marked("released", batch.number) or {}).get("attempt", 1)) for batch in batches)
        name = batches[0].name if len(batches) == 1 else f"{batches[0].name}..{batches[-1].number - batches[0].number}"
        return f"event__{name}" + (f"__{attempt}" if attempt > 1 else "")

    def write_claim(self, run_id: str, numbers: Sequence[int]) -> str:
        """Write down which batches a run is started with, and return the key: that is what the run's conf carries."""
        key = self.claim_key(run_id)
        document = {"version": 1, "dag_id": self.dag_id, "source": self.source, "run_id": run_id, "numbers": [*numbers]}
        self.store.write_json(key, document)
        return key

    def claim_key(self, run_id: str) -> str:
        """Return the key of the document that says which batches a run is started with."""
        return f"{self.prefix}/runs/{file_name(run_id)}.json"

    def claimed_numbers(self, run_id: str) -> list[int]:
        """Return the batches that a run was claimed for."""
        return [int(number) for number in (self.store.read_json(self.claim_key(run_id)) or {}).get("numbers", [])]

    def release(self, number: int, *, force: bool = False) -> None:
        """Let a batch start a run anew.

        Args:
            number: The batch.
            force: Also one that is in a run that ended well, or under way.

        Raises:
            NotFound: there is no such batch, or it needs no release.
        """
        if self.read(number) is None:
            raise NotFound(f"there is no batch {number} of {self.source}")
        self._demand_data(number)
        state = self.state(number)
        if state != "failed" and not force:
            raise NotFound(f"batch {number} is {state}, not failed", hint="--force starts it again all the same")
        done = self.marked("done", number)
        self.unmark("done", number)
        try:
            self._demand_data(number)  # edgewright gc may remove what is done: it marks it first, then looks once more
        except NotFound:
            self.store.write_json(self.key("done", number), done)
            raise
        attempt = int((self.marked("released", number) or {}).get("attempt", 1)) + 1
        self.mark("released", number, {"attempt": attempt})
        settled = self.store.read_json(f"{self.prefix}/settled.json") or {}
        if int(settled.get("number", 0)) >= number:
            self.store.write_json(f"{self.prefix}/settled.json", {"number": number - 1})
        for mark in ("waiting", "failed", "joined", "claimed", "dispatched"):
            self.unmark(mark, number)
        hint = self.store.read_json(f"{self.prefix}/through.json") or {}
        if int(hint.get("number", 0)) >= number:
            self.store.write_json(f"{self.prefix}/through.json", {"number": number - 1})

    def _demand_data(self, number: int) -> None:
        if self.is_removed(number):
            text = f"the messages of batch {number} of {self.source} are gone: its run ended well"
            raise NotFound(f"{text}, and long after that edgewright gc removed them")


def current(store: ArtifactStore, batch: Batch) -> Batch:
    """Return a batch as its log has it now: a person may have been erased from it since it was noted elsewhere."""
    found = BatchLog.at(store, batch.data.rpartition("/data/")[0]).read(batch.number)
    return found if found is not None and found.name == batch.name and found.details.get("erased") else batch


def open_data(store: ArtifactStore, batch: Batch) -> IO[bytes]:
    """Open the payloads of a batch.

    Raises:
        NotFound: they were removed, long after their run ended well.
        StoreError: they are not there.
    """
    try:
        return store.open(batch.data)
    except StoreError as error:
        log = BatchLog.at(store, batch.data.rpartition("/data/")[0])
        if log.is_removed(batch.number):
            text = "its messages are gone: edgewright gc removed them, long after their run ended well"
            raise NotFound(text, where=batch.name) from error
        raise


def sources(store: ArtifactStore, dag_id: str) -> list[str]:
    """Return the event sources of a pipeline that have brought something."""
    base = f"{ROOT}/{file_name(dag_id)}"
    return sorted(name for name in store.list_folders(base) if store.read_json(f"{base}/{name}/head.json"))
