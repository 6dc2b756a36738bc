"""Reports of a node: a bounded queue on disk, and what carries them from there, over MQTT or to Kafka.

Reports wait on disk while the broker is away; where the queue is full, new ones are dropped and counted. Delivery is at
least once: what a broker has not confirmed is sent again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError, StoreError
from edgewright.streams.addresses import KafkaAddress
from edgewright.streams.spool import Spool

log = logging.getLogger(__name__)

PATIENCE = 10.0


class Reports:
    """The queue on disk.

    Args:
        folder: Where it is kept.
        limit: Bytes that may wait.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.spool = Spool(folder, limit=limit, window=5.0, segment=max(4096, limit // 4))
        self.dropped = 0

    def add(self, report: dict[str, Any]) -> None:
        """Append a report, or count it as dropped where there is no room."""
        try:
            self.spool.append([json.dumps({**report, "dropped": self.dropped}).encode()])
        except StoreError as error:
            self.dropped += 1
            log.warning("a report was dropped: %s", error)


class Sender:
    """Sends what waits in the queue, one report after the other, in a thread of its own.

    Args:
        reports: The queue.
        deliver: Sends one report and returns whether the broker has it.
    """

    def __init__(self, reports: Reports, deliver: Callable[[bytes], bool]) -> None:
        self._reports, self._deliver = reports, deliver
        self._stopping = threading.Event()
        self.connected = threading.Event()
        self._thread = threading.Thread(target=self._send, name="reports", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; what was not sent waits for the next start."""
        self._stopping.set()
        self.connected.set()
        self._thread.join(PATIENCE * 2)
        self._reports.spool.close()

    def _send(self) -> None:
        spool = self._reports.spool
        while not self._stopping.is_set():
            self.connected.wait()
            if not spool.wait(spool.sent, 0.5):
                continue
            for place, record in spool.read(spool.sent):
                if self._stopping.is_set():
                    break
                if record and not self._deliver(record):
                    self._stopping.wait(1.0)
                    break
                spool.mark_sent(place)
            spool.save()


class KafkaReports:
    """A topic of Kafka; the node's name is the key, so that a node's reports keep their order.

    Args:
        address: Brokers and topic.
        name: The node.

    Raises:
        ConfigError: Kafka's client is not installed.
    """

    def __init__(self, address: KafkaAddress, name: str) -> None:
        try:
            from confluent_kafka import Producer
        except ModuleNotFoundError as error:
            raise ConfigError("reports to Kafka need confluent-kafka", hint="pip install confluent-kafka") from error
        self._address, self._name = address, name
        wait = {"delivery.timeout.ms": int(PATIENCE * 1000), "reconnect.backoff.max.ms": 10_000, "log_level": 2}
        self._client = Producer({**wait, **address.settings, "error_cb": self._on_error})
        self._away = False

    def deliver(self, record: bytes) -> bool:
        """Send one report; one that the brokers will never take counts as sent, or all others would wait behind it."""
        from confluent_kafka import KafkaError, KafkaException

        failed: list[Any] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        try:
            self._client.produce(self._address.topic, record, key=self._name, on_delivery=delivered)
            waits = bool(self._client.flush(PATIENCE * 2))
        except KafkaException as error:
            failed, waits = [error.args[0]], False
        if any(error.code() == KafkaError.MSG_SIZE_TOO_LARGE for error in failed):
            log.error("a report of %s bytes was dropped: %s", len(record), failed[0].str())
            return True
        if waits or failed:
            return False
        if self._away:
            self._away = False
            log.info("%s takes reports again", self._address.shown)
        return True

    def _on_error(self, error: Any) -> None:
        if not self._away:  # an outage is said once
            self._away = True
            log.warning("%s: %s; reports wait", self._address.shown, error.str())
