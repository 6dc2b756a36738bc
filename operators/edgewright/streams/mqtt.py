"""From MQTT to Kafka, at least once: a message is acknowledged to the MQTT broker only when Kafka has it.

The bridge has a session of its own that the MQTT broker keeps (``clean_session=False``): what comes while the bridge is
away waits there, and what was not acknowledged comes again. How much may be under way is the broker's own window
(Mosquitto: ``max_inflight_messages``), so memory is bounded by it. Acknowledgements go out in the order of arrival, as
MQTT 3.1.1 asks for (section 4.6).

Devices must publish with quality of service 1 or 2: what is sent with 0 nobody acknowledges, and it may be lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgewright.errors import ConfigError
from edgewright.streams.addresses import KafkaAddress, connection, split_address

_PAUSE = 2.0
_GRACE = 5.0
_KEEP_ALIVE = 30


@dataclass(frozen=True)
class MqttAddress:
    """A broker.

    Attributes:
        host: Its name.
        port: Its port.
        tls: Whether the line is encrypted.
        login: User, or empty.
        password: Password; never shown.
        authority: File with the certificates that are trusted; the system's where it is empty.
    """

    host: str
    port: int
    tls: bool = False
    login: str = ""
    password: str = field(default="", repr=False)
    authority: str = ""

    @property
    def shown(self) -> str:
        """The address for people."""
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"


def mqtt_address(text: str) -> MqttAddress:
    """Read ``mqtt://HOST:PORT``, ``mqtts://HOST:PORT`` (TLS), or ``mqtt://CONNECTION`` (an Airflow connection).

    Raises:
        ConfigError: it cannot be read, or its connection is not there.
    """
    usage = "mqtt://HOST:PORT, mqtts://HOST:PORT, or mqtt://CONNECTION"
    tls = text.startswith("mqtts:")
    place, rest = split_address(text, "mqtts" if tls else "mqtt", usage)
    if rest:
        raise ConfigError(f"{text!r} is no address of a broker", hint=f"{usage}; topics are given by --topic")
    host, _, port = place.rpartition(":")
    if host:
        if not port.isdigit():
            raise ConfigError(f"{port!r} is no port", where=text, hint=usage)
        return MqttAddress(host, int(port), tls)
    document = connection(place, "host, port, login, password; extra: tls, ca_certs")
    extra = document.get("extra") if isinstance(document.get("extra"), dict) else {}
    assert isinstance(extra, dict)
    tls = tls or bool(extra.get("tls"))
    return MqttAddress(
        str(document.get("host") or "127.0.0.1"),
        int(document.get("port") or (8883 if tls else 1883)),
        tls,
        str(document.get("login") or ""),
        str(document.get("password") or ""),
        str(extra.get("ca_certs") or ""),
    )


@dataclass
class BridgeCounts:
    """What a bridge has done.

    Attributes:
        received: Messages that came, repetitions counted.
        delivered: Messages that Kafka has.
        left_out: Messages that Kafka will never take (too large); said in the log, and acknowledged.
    """

    received: int = 0
    delivered: int = 0
    left_out: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return it as a document."""
        return asdict(self)


@dataclass
class _Arrived:
    """A message on its way from MQTT to Kafka."""

    identifier: int
    quality: int
    session: int
    done: bool = False


class Bridge:
    """Carries messages of MQTT topics to one topic of Kafka.

    The MQTT topic is the key, so a device's messages keep their order; the payload is the value as it is.

    Args:
        source: The MQTT broker.
        topics: Topic filters, such as ``bracelet/+/heart``.
        target: Kafka's brokers and topic.
        client_id: Name of the session; the same one after every start, and no two bridges may share it.
        quality: Quality of service to ask for: 1 or 2.
        say: Told what is unusual.
    """

    def __init__(
        self,
        source: MqttAddress,
        topics: Sequence[str],
        target: KafkaAddress,
        client_id: str,
        *,
        quality: int = 1,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._source, self._topics, self._target = source, list(topics), target
        self._client_id, self._quality, self._say = client_id, quality, say
        self._arrived: deque[_Arrived] = deque()
        self._lock = threading.Lock()
        self._session = 0
        self._stopping, self._again = threading.Event(), threading.Event()
        self._failure: ConfigError | None = None
        self.counts = BridgeCounts()

    def stop(self) -> None:
        """End soon; safe to call from a signal handler or another thread."""
        self._stopping.set()

    def run(self) -> BridgeCounts:
        """Carry messages until it is stopped, whatever goes away meanwhile.

        Raises:
            ConfigError: the MQTT broker refuses us: wrong credentials, or a topic that we may not read.
        """
        while not self._stopping.is_set():
            self._again.clear()
            self._carry()
            if self._failure is not None:
                raise self._failure
            self._stopping.wait(_PAUSE if self._again.is_set() else 0)
        return self.counts

    def _carry(self) -> None:
        producer = self._open_producer()
        client = self._open_client(producer)
        client.loop_start()
        try:
            while not (self._stopping.is_set() or self._again.is_set() or self._failure):
                producer.poll(0.1)
                self._acknowledge(client)
            deadline = time.monotonic() + _GRACE
            while self._arrived and not self._again.is_set() and time.monotonic() < deadline:
                producer.poll(0.05)
                self._acknowledge(client)
        finally:
            with self._lock:
                self._session += 1  # what comes from here on is not ours to acknowledge
                self._arrived.clear()
            client.disconnect()
            client.loop_stop()
            producer.purge()
            producer.flush(1)

    # -- Kafka -------------------------------------------------------------------------------------------------

    def _open_producer(self) -> Any:
        from confluent_kafka import Producer

        return Producer(
            {
                "linger.ms": 10,
                "reconnect.backoff.max.ms": 2000,
                **self._target.settings,
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # as long as it takes
                "error_cb": lambda error: self._say(f"Kafka: {error.str()}"),
                "log_level": 2,
            }
        )

    def _on_delivery(self, arrived: _Arrived) -> Any:
        def delivered(error: Any, message: Any) -> None:
            from confluent_kafka import KafkaError

            if error is None:
                self.counts.delivered += 1
            elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                self._leave_out(message.key(), error)
            else:
                if error.code() != KafkaError._PURGE_QUEUE:
                    self._say(f"Kafka: {error.str()}; beginning again with what was not acknowledged")
                self._again.set()
                return
            arrived.done = True

        return delivered

    def _leave_out(self, topic: bytes, error: Any) -> None:
        self.counts.left_out += 1
        self._say(f"a message of {topic.decode(errors='replace')} was left out: {error.str()}")

    # -- MQTT --------------------------------------------------------------------------------------------------

    def _open_client(self, producer: Any) -> Any:
        import paho.mqtt.client as mqtt

        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=self._client_id, clean_session=False, manual_ack=True
        )
        if self._source.login:
            client.username_pw_set(self._source.login, self._source.password)
        if self._source.tls:
            client.tls_set(ca_certs=self._source.authority or None)
        client.reconnect_delay_set(1, 5)
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._say(f"{self._source.shown} does not answer; trying again")
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = lambda _, __, message: self._on_message(producer, message)
        client.connect_async(self._source.host, self._source.port, _KEEP_ALIVE)
        return client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refuse(f"the broker refuses us: {reason}")
            return
        client.subscribe([(topic, self._quality) for topic in self._topics])

    def _on_subscribe(self, client: Any, data: Any, number: int, reasons: Any, properties: Any) -> None:
        refused = [topic for topic, reason in zip(self._topics, reasons, strict=False) if reason.is_failure]
        if refused:
            self._refuse(f"the broker refuses the topic {refused[0]}")

    def _refuse(self, text: str) -> None:
        self._failure = ConfigError(text, where=self._source.shown, hint="check the user and what it may read")

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._lock:
            # what was not acknowledged comes again, under the same number or another one
            self._session += 1
            self._arrived.clear()
        if reason.is_failure and not self._stopping.is_set():
            self._say(f"{self._source.shown}: the line is broken ({reason}); trying again")

    def _on_message(self, producer: Any, message: Any) -> None:
        from confluent_kafka import KafkaException

        with self._lock:
            arrived = _Arrived(message.mid, message.qos, self._session)
            self._arrived.append(arrived)
        self.counts.received += 1
        topic = message.topic.encode()
        headers = [("mqtt-topic", topic), ("mqtt-retained", b"1" if message.retain else b"0")]
        try:
            producer.produce(
                self._target.topic, message.payload, topic, headers=headers, on_delivery=self._on_delivery(arrived)
            )
        except KafkaException as error:  # larger than message.max.bytes
            self._leave_out(topic, error.args[0])
            arrived.done = True
        except BufferError:
            # only quality of service 0 comes without a limit; acknowledged messages come again
            self._say("Kafka does not take messages as fast as they come; beginning again")
            self._again.set()

    def _acknowledge(self, client: Any) -> None:
        """Acknowledge what Kafka has, in the order of arrival."""
        while True:
            with self._lock:
                if not self._arrived or not self._arrived[0].done:
                    return
                arrived = self._arrived.popleft()
                current = arrived.session == self._session
            if current and arrived.quality:
                client.ack(arrived.identifier, arrived.quality)


def demand_paho() -> None:
    """Check that the MQTT client is installed.

    Raises:
        ConfigError: it is not.
    """
    import importlib.util

    if importlib.util.find_spec("paho") is None:
        raise ConfigError("there is no MQTT client in this environment", hint="pip install 'edgewright[mqtt]'")
