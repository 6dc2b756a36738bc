"""MQTT: requests come on one topic and are answered on another, and reports go out from a bounded queue on disk.

::

    edgewright/<node>/predict        requests, as the body of POST /invocations
    edgewright/<node>/predictions    answers, or {"error": ..., "status": ...}
    edgewright/<node>/reports        reports, at least once

Reports wait on disk while the broker is away; where the queue is full, new ones are dropped and counted.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import msgspec

from edgewright.edge.node import Node
from edgewright.edge.server import error_document
from edgewright.errors import EdgewrightError, StoreError
from edgewright.streams.mqtt import MqttAddress
from edgewright.streams.spool import Spool

log = logging.getLogger(__name__)

_KEEP_ALIVE = 30
_PATIENCE = 10.0


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


class Line:
    """The connection to the broker.

    Args:
        address: The broker.
        node: Who answers.
        reports: What is sent.
    """

    def __init__(self, address: MqttAddress, node: Node, reports: Reports) -> None:
        self._address, self._node, self._reports = address, node, reports
        self._stopping, self._connected = threading.Event(), threading.Event()
        self._base = f"edgewright/{node.name}"
        self._client = self._open()
        self._sender = threading.Thread(target=self._send, name="reports", daemon=True)

    def start(self) -> None:
        """Connect, as soon as the broker is there."""
        self._client.loop_start()
        self._sender.start()

    def close(self) -> None:
        """Disconnect; what was not sent waits for the next start."""
        self._stopping.set()
        self._connected.set()
        self._sender.join(_PATIENCE * 2)
        self._client.disconnect()
        self._client.loop_stop()
        self._reports.spool.close()

    def _open(self) -> Any:
        import paho.mqtt.client as mqtt

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"edgewright-{self._node.name}")
        if self._address.login:
            client.username_pw_set(self._address.login, self._address.password)
        if self._address.tls:
            client.tls_set(ca_certs=self._address.authority or None)
        client.reconnect_delay_set(1, 30)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self._connected.clear()
        client.on_message = self._on_message
        client.connect_async(self._address.host, self._address.port, _KEEP_ALIVE)
        return client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.error("%s refuses us: %s", self._address.shown, reason)
            return
        client.subscribe(f"{self._base}/predict", 1)
        self._connected.set()

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        try:
            body = msgspec.json.encode(self._node.predict(message.payload, "application/json").body)
        except EdgewrightError as error:
            body = error_document(error)
        client.publish(f"{self._base}/predictions", body, qos=1)

    def _send(self) -> None:
        spool = self._reports.spool
        while not self._stopping.is_set():
            self._connected.wait()
            if not spool.wait(spool.sent, 0.5):
                continue
            for place, record in spool.read(spool.sent):
                if self._stopping.is_set() or (record and not self._deliver(record)):
                    break
                spool.mark_sent(place)
            spool.save()
            if not self._connected.is_set():
                self._stopping.wait(1.0)

    def _deliver(self, record: bytes) -> bool:
        """Send one report; return whether the broker has it."""
        sent = self._client.publish(f"{self._base}/reports", record, qos=1)
        try:
            sent.wait_for_publish(_PATIENCE)
        except (RuntimeError, ValueError):
            return False
        return bool(sent.is_published())
