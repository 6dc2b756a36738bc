"""The feature log: what a prediction service was asked and what it answered, sent to Kafka from a spool on disk.

Appending costs one ``write``; a thread sends in the order of appending, waits for the brokers as long as it takes, and
goes on where it was after a restart. Delivery is at least once: readers tell repetitions by request id and row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgewright.errors import StoreError
from edgewright.streams.addresses import KafkaAddress
from edgewright.streams.pseudonyms import PersonalFeatures
from edgewright.streams.spool import Place, Spool, SpoolFull

log = logging.getLogger(__name__)

#: Messages that librdkafka holds at a time; the rest waits on disk.
_AHEAD = 5000
_SAVE_EVERY = 0.5
_PAUSE = 2.0


class Entry(msgspec.Struct):
    """One row of one request, as it is sent (JSON).

    Attributes:
        request_id: The request's id, as the caller has it in ``x-request-id``.
        row: Place of the row in the request, from 0.
        time: When the request came: ISO 8601 in UTC, with milliseconds.
        model: Name of the model.
        model_version: Its version.
        model_variant: Its variant.
        features: What the model was given, by the feature's name; null where it was missing.
        prediction: The label's value or the number.
        probabilities: One for each class; null for a regression.
    """

    request_id: str
    row: int
    time: str
    model: str
    model_version: str
    model_variant: str
    features: dict[str, Any]
    prediction: Any
    probabilities: list[float] | None


@dataclass
class Counts:
    """What became of the entries since the start."""

    logged: int = 0
    sent: int = 0
    dropped_full: int = 0
    dropped_disk: int = 0
    dropped_size: int = 0


class FeatureLog:
    """The spool and the thread that empties it.

    Args:
        address: Brokers and topic.
        folder: Folder of the spool.
        durable: Whether an answer waits until its entries are on the disk; what cannot be logged is then an error.
        limit: Bytes that may wait on disk.
        window: Seconds of entries that a machine that fails may lose; with ``durable`` none.
        personal: Treats features that identify people, before anything is written.
    """

    def __init__(
        self,
        address: KafkaAddress,
        folder: Path,
        *,
        durable: bool = False,
        limit: int = 256 << 20,
        window: float = 0.5,
        personal: PersonalFeatures | None = None,
    ) -> None:
        self.address, self.durable = address, durable
        self._personal = personal
        self.counts = Counts()
        self.problem = ""
        self._encode = msgspec.json.Encoder().encode
        self._spool = Spool(folder, limit=limit, window=window)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._again = threading.Event()
        self._under_way: deque[_Message] = deque()
        self._thread = threading.Thread(target=self._run, name="feature-log", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def append(self, entries: Sequence[Entry]) -> Future[None] | None:
        """Log the rows of one request.

        Returns:
            With ``durable``, what is done once they are on the disk.

        Raises:
            StoreError: with ``durable``: they could not be logged. Without, they are dropped and counted.
        """
        if self._personal is not None:
            for entry in entries:
                entry.features = self._personal.treated(entry.features)
        try:
            self._spool.append([self._encode(entry) for entry in entries])
        except StoreError as error:
            with self._lock:
                if isinstance(error, SpoolFull):
                    self.counts.dropped_full += len(entries)
                else:
                    self.counts.dropped_disk += len(entries)
            if self.durable:
                raise
            return None
        with self._lock:
            self.counts.logged += len(entries)
        return self._spool.synced() if self.durable else None

    def describe(self) -> dict[str, Any]:
        """Return what people want to know."""
        return {
            "to": self.address.shown,
            "durable": self.durable,
            "waiting_bytes": self._spool.waiting_bytes,
            "sent": self.counts.sent,
            "dropped": self.counts.dropped_full + self.counts.dropped_disk + self.counts.dropped_size,
            "problem": self.problem,
        }

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait on disk."""
        return self._spool.waiting_bytes

    def close(self, grace: float = 5.0) -> None:
        """Send what can be sent within some seconds; the rest stays on disk for the next start."""
        deadline = time.monotonic() + grace
        while (
            self._spool.waiting_bytes and time.monotonic() < deadline and self._thread.is_alive() and not self.problem
        ):
            time.sleep(0.02)
        self._stopping.set()
        self._thread.join(grace)
        self._spool.close()

    # -- the sender --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._send_from(self._spool.sent)
            except Exception:
                log.exception("the feature log begins again at the last message that was sent")
            self._stopping.wait(_PAUSE)

    def _send_from(self, place: Place) -> None:
        """Send until told to stop, or until something could not be delivered: then all after it is sent again."""
        from confluent_kafka import Producer

        self._again.clear()
        self._under_way.clear()
        producer = Producer(
            {
                "linger.ms": 20,
                "reconnect.backoff.max.ms": 2000,
                **self.address.settings,
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # as long as it takes
                "queue.buffering.max.messages": 2 * _AHEAD,
                "error_cb": self._on_error,
                "log_level": 2,
            }
        )
        saved = time.monotonic()
        try:
            while not self._stopping.is_set() and not self._again.is_set():
                if self._spool.wait(place, 0.2):
                    place = self._produce(producer, place)
                producer.poll(0.05 if self._under_way else 0)
                self._advance()
                if time.monotonic() - saved > _SAVE_EVERY:
                    self._spool.save()
                    saved = time.monotonic()
            producer.flush(1 if self._stopping.is_set() else 0)
            self._advance()
        finally:
            producer.purge()
            producer.flush(1)

    def _produce(self, producer: Any, place: Place) -> Place:
        """Hand over records as far as there is room; return the place behind the last of them."""
        from confluent_kafka import KafkaException

        for behind, record in self._spool.read(place):
            if len(self._under_way) >= _AHEAD or self._stopping.is_set() or self._again.is_set():
                break
            message = _Message(behind, done=not record)
            self._under_way.append(message)
            place = behind
            if message.done:
                continue
            try:
                producer.produce(self.address.topic, record, _key(record), on_delivery=self._on_delivery(message))
            except KafkaException as error:  # larger than message.max.bytes: it will never be taken
                log.error("an entry of the feature log was left out: %s", error.args[0].str())
                self.counts.dropped_size += 1
                message.done = True
        return place

    def _on_delivery(self, message: _Message) -> Any:
        def delivered(error: Any, _: Any) -> None:
            from confluent_kafka import KafkaError

            if error is None:
                self.counts.sent += 1
                self.problem = ""
            elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                log.error("an entry of the feature log was left out: %s", error.str())
                self.counts.dropped_size += 1
            else:
                if error.code() != KafkaError._PURGE_QUEUE:
                    self._on_error(error)
                self._again.set()
                return
            message.done = True

        return delivered

    def _on_error(self, error: Any) -> None:
        if error.str() != self.problem:
            self.problem = error.str()
            log.warning("the feature log waits for Kafka: %s", self.problem)

    def _advance(self) -> None:
        """Move on over everything that was delivered without a gap."""
        while self._under_way and self._under_way[0].done:
            self._spool.mark_sent(self._under_way.popleft().behind)


@dataclass
class _Message:
    """A message that is on its way, and the place behind it in the spool."""

    behind: Place
    done: bool = False


def _key(record: bytes) -> bytes:
    """Return the request id, which is the first field of a record: one request's rows go to one partition."""
    return record[15 : record.index(b'"', 15)]
