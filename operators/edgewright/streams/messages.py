"""From a Kafka message to a line of a batch, or to the reason why it cannot be one."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edgewright.streams.avro import AvroReader, NotAvro

_encode = msgspec.json.Encoder().encode
#: Decimal numbers of Avro are numbers, its bytes base64, its times ISO 8601.
_encode_value = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it goes into a batch.

    Attributes:
        place: ``topic/partition``.
        epoch: Which life of the topic.
        offset: Its offset.
        timestamp: Milliseconds since 1970; 0 where it has none.
        line: Its line of the batch; ``None`` if it cannot be read.
        identity: Value of the key field, for de-duplication.
        reason: Why it cannot be read.
        payload: Its bytes, kept only if it cannot be read.
    """

    place: str
    epoch: int
    offset: int
    timestamp: int
    line: bytes | None
    identity: Any = None
    reason: str = ""
    payload: bytes = b""


class Unreadable(Exception):
    """A payload does not hold what the format says."""


class Decoder:
    """Reads messages of one format.

    Args:
        format_: ``json``, ``avro``, ``text`` or ``bytes``.
        key: Name of the field by which messages are the same.
        settings: Of the connection; for Avro they say where the schema registry is.

    Raises:
        ConfigError: there is no schema registry.
    """

    def __init__(self, format_: str, key: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self._key = key
        readers = {"json": self._json, "avro": self._avro, "text": self._text, "bytes": self._bytes}
        self._read = readers[format_]
        self._reader = AvroReader(settings or {}) if format_ == "avro" else None

    def received(self, message: Any, epoch: int) -> Received:
        """Return a message of confluent-kafka as a line, or with the reason why it is none.

        Raises:
            Unavailable: the schema registry does not answer.
        """
        place = f"{message.topic()}/{message.partition()}"
        kind, timestamp = message.timestamp()
        timestamp = timestamp if kind else 0
        payload = message.value()
        try:
            if payload is None:
                raise Unreadable("it is empty (a tombstone)")
            text, identity = self._read(payload)
        except Unreadable as error:
            return Received(place, epoch, message.offset(), timestamp, None, None, str(error), payload or b"")
        head = {
            "topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
            "timestamp": timestamp, "key": _text(message.key()),
            "headers": {name: _text(value) for name, value in message.headers() or ()},
        }  # fmt: skip
        line = _encode(head)[:-1] + b',"value":' + text + b"}\n"
        return Received(place, epoch, message.offset(), timestamp, line, identity)

    def _json(self, payload: bytes) -> tuple[bytes, Any]:
        try:
            value = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreadable(f"it is no JSON: {error}") from None
        if not isinstance(value, dict):
            raise Unreadable("it is JSON, but no object")
        # a batch has one message a line
        return (_encode(value) if b"\n" in payload or b"\r" in payload else payload), self._identity(value)

    def _avro(self, payload: bytes) -> tuple[bytes, Any]:
        assert self._reader is not None, "made with the decoder"
        try:
            value = self._reader(payload)
        except NotAvro as error:
            raise Unreadable(str(error)) from None
        if not isinstance(value, dict):
            raise Unreadable("it is Avro, but no record")
        try:
            return _encode_value(value), self._identity(value)
        except (TypeError, ValueError) as error:
            raise Unreadable(f"it holds what JSON cannot say: {error}") from None

    def _text(self, payload: bytes) -> tuple[bytes, Any]:
        try:
            return _encode({"value": payload.decode()}), None
        except UnicodeDecodeError:
            raise Unreadable("it is no UTF-8 text") from None

    @staticmethod
    def _bytes(payload: bytes) -> tuple[bytes, Any]:
        return _encode({"value": base64.b64encode(payload).decode()}), None

    def _identity(self, value: Any) -> Any:
        if self._key is None:
            return None
        if value.get(self._key) is None:
            raise Unreadable(f"it has no field {self._key}")
        return _encode(value[self._key])


def _text(value: Any) -> str | None:
    """Return a key or a header as text; what is no UTF-8 is written as base64."""
    if value is None or isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def dead_entry(received: Received) -> dict[str, Any]:
    """Return a message that cannot be read, as it is kept."""
    topic, _, partition = received.place.rpartition("/")
    return {
        "topic": topic, "partition": int(partition), "offset": received.offset, "timestamp": received.timestamp,
        "reason": received.reason, "payload": base64.b64encode(received.payload).decode(),
    }  # fmt: skip
