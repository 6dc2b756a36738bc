"""MQTT: requests come on one topic and are answered on another, and reports go out.

::

    edgewright/<node>/predict        requests, as the body of POST /invocations
    edgewright/<node>/predictions    answers, or {"error": ..., "status": ...}
    edgewright/<node>/reports        reports, at least once
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from edgewright.edge.node import Node
from edgewright.edge.reports import PATIENCE, Reports, Sender
from edgewright.edge.server import error_document
from edgewright.errors import EdgewrightError
from edgewright.streams.mqtt import MqttAddress

log = logging.getLogger(__name__)

_KEEP_ALIVE = 30


class Line:
    """The connection to the broker.

    Args:
        address: The broker.
        node: Who answers.
        reports: What is sent; ``None``: something else sends the reports.
    """

    def __init__(self, address: MqttAddress, node: Node, reports: Reports | None) -> None:
        self._address, self._node = address, node
        self._base = f"edgewright/{node.name}"
        self._sender = None if reports is None else Sender(reports, self.deliver)
        self._client = self._open()

    def start(self) -> None:
        """Connect, as soon as the broker is there."""
        self._client.loop_start()
        if self._sender is not None:
            self._sender.start()

    def close(self) -> None:
        """Disconnect; what was not sent waits for the next start."""
        if self._sender is not None:
            self._sender.close()
        self._client.disconnect()
        self._client.loop_stop()

    def _open(self) -> Any:
        import paho.mqtt.client as mqtt

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"edgewright-{self._node.name}")
        if self._address.login:
            client.username_pw_set(self._address.login, self._address.password)
        if self._address.tls:
            client.tls_set(ca_certs=self._address.authority or None)
        client.reconnect_delay_set(1, 30)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.connect_async(self._address.host, self._address.port, _KEEP_ALIVE)
        return client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.error("%s refuses us: %s", self._address.shown, reason)
            return
        client.subscribe(f"{self._base}/predict", 1)
        if self._sender is not None:
            self._sender.connected.set()

    def _on_disconnect(self, *_: Any) -> None:
        if self._sender is not None:
            self._sender.connected.clear()

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        try:
            body = msgspec.json.encode(self._node.predict(message.payload, "application/json").body)
        except EdgewrightError as error:
            body = error_document(error)
        client.publish(f"{self._base}/predictions", body, qos=1)

    def deliver(self, record: bytes) -> bool:
        """Send one report; return whether the broker has it."""
        sent = self._client.publish(f"{self._base}/reports", record, qos=1)
        try:
            sent.wait_for_publish(PATIENCE)
        except (RuntimeError, ValueError):
            return False
        return bool(sent.is_published())
