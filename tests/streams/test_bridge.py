"""From a real MQTT broker to a real Kafka, whichever side goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.servers import demand

from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.mosquitto import MosquittoServer
from edgewright.errors import ConfigError
from edgewright.streams.addresses import kafka_address
from edgewright.streams.mqtt import Bridge, mqtt_address


def publish(port: int, topic: str, numbers: range) -> None:
    """Publish numbers as a device would, and wait until the broker has them."""
    import paho.mqtt.client as mqtt

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number in numbers:
        client.publish(topic, json.dumps({"beat": number}), qos=1).wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


def read(bootstrap: str, topic: str, number: int) -> list[Any]:
    """Return the messages of a topic once there are so many different ones."""
    from confluent_kafka import Consumer

    settings = {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "log_level": 0, "reconnect.backoff.max.ms": 1000})
    consumer.subscribe([topic])
    found: list[Any] = []
    deadline = time.monotonic() + 60
    while len({message.value() for message in found}) < number and time.monotonic() < deadline:
        found += [message for message in consumer.consume(500, 0.5) if not message.error()]
    consumer.close()
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command(port: int, bootstrap: str, topic: str, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "edgewright.cli.main", "bridge", "mqtt", "--from", f"mqtt://127.0.0.1:{port}",
        "--topic", "ward/+/heart", "--to", f"kafka://{bootstrap}/{topic}", *more,
    ]  # fmt: skip


def test_messages_are_carried_with_their_topic_as_key(kafka: KafkaServer, mosquitto: MosquittoServer) -> None:
    topic = f"beats-{uuid.uuid4().hex[:8]}"
    bridge = Bridge(
        mqtt_address(f"mqtt://127.0.0.1:{mosquitto.port}"), ["ward/+/heart"],
        kafka_address(f"kafka://{kafka.bootstrap}/{topic}"), topic,
    )  # fmt: skip
    thread = threading.Thread(target=bridge.run)
    thread.start()
    try:
        publish(mosquitto.port, "ward/7/heart", range(1))
        # the session is there once the bridge has connected; what was sent before is nobody's
        wait_for(lambda: bool(publish(mosquitto.port, "ward/7/heart", range(1)) or bridge.counts.received))
        publish(mosquitto.port, "ward/7/heart", range(1, 200))
        publish(mosquitto.port, "ward/7/other", range(1))
        found = read(kafka.bootstrap, topic, 200)
        wait_for(lambda: bridge.counts.delivered >= 200)
    finally:
        bridge.stop()
        thread.join(30)
    assert {message.key() for message in found} == {b"ward/7/heart"}
    assert dict(found[0].headers()) == {"mqtt-topic": b"ward/7/heart", "mqtt-retained": b"0"}
    beats = list(dict.fromkeys(json.loads(message.value())["beat"] for message in found))
    assert beats == list(range(200)), "one device's messages keep their order"


@pytest.mark.slow
def test_nothing_is_lost_while_kafka_the_bridge_and_mqtt_go_away(tmp_path: Path) -> None:
    demand(KafkaServer)
    demand(MosquittoServer)
    pytest.importorskip("paho.mqtt")
    broker, devices = KafkaServer(tmp_path / "kafka"), MosquittoServer(tmp_path / "mqtt")
    with broker, devices:
        line = command(devices.port, broker.bootstrap, "beats", "--json")
        log = (tmp_path / "bridge.log").open("ab")
        process = subprocess.Popen(line, stdout=log, stderr=log, env=dict(os.environ))
        try:
            text = devices.log.read_text
            wait_for(lambda: " as edgewright-" in text())  # the broker knows the session from here on
            time.sleep(0.5)
            publish(devices.port, "ward/1/heart", range(100))
            broker.kill()
            publish(devices.port, "ward/1/heart", range(100, 200))  # devices notice nothing
            process.kill()
            process.wait()
            publish(devices.port, "ward/1/heart", range(200, 250))
            devices.stop()
            devices.start()
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ))
            broker.start()
            publish(devices.port, "ward/1/heart", range(250, 300))
            found = read(broker.bootstrap, "beats", 300)
            devices.stop()
            devices.start()
            publish(devices.port, "ward/1/heart", range(300, 310))
            assert len({message.value() for message in read(broker.bootstrap, "beats", 310)}) == 310
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            log.close()
    assert process.returncode == 0
    assert json.loads(said)["left_out"] == 0
    beats = list(dict.fromkeys(json.loads(message.value())["beat"] for message in found))
    assert sorted(beats) == list(range(300))


def test_what_is_wrong_is_said(mosquitto: MosquittoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="topics are given by --topic"):
        mqtt_address("mqtt://host:1883/topic")
    with pytest.raises(ConfigError, match="no connection 'somewhere'"):
        mqtt_address("mqtt://somewhere")
    document = {"host": "h", "login": "me", "password": "hidden", "extra": {"tls": True}}
    monkeypatch.setenv("AIRFLOW_CONN_DEVICES", json.dumps(document))
    found = mqtt_address("mqtt://devices")
    assert (found.shown, found.login, found.password) == ("mqtts://h:8883", "me", "hidden")
    assert "hidden" not in repr(found)
    locked = tmp_path / "locked"

    class Locked(MosquittoServer):
        def command(self) -> list[str]:
            line = super().command()
            file = self.folder / "mosquitto.conf"
            file.write_text(file.read_text().replace("allow_anonymous true", "allow_anonymous false"))
            return line

        def ping(self) -> None:
            import socket

            socket.create_connection(("127.0.0.1", self.port), 2).close()

    with Locked(locked) as server:
        done = subprocess.run(command(server.port, "127.0.0.1:1", "a"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the broker refuses us: Not authorized" in done.stderr
