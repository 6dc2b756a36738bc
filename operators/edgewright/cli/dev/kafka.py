"""Apache Kafka: one broker in KRaft mode (it is its own controller), as the project ships it."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from edgewright.cli.dev.base import Server
from edgewright.cli.dev.maven import jars
from edgewright.cli.stack.ports import HOST
from edgewright.errors import Unavailable
from edgewright.steps.java import find_java

_LISTENERS = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
#: One broker holds every copy itself, and nobody waits for members that are not there.
_ALONE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": _LISTENERS,
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "num.partitions": "3",
    "controlled.shutdown.enable": "false",
    # a broker that was killed may come back when its controller has missed it for so long (default: 9 s)
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
}


class KafkaServer(Server):
    """A broker.

    Args:
        folder: Its data; a broker that starts again on it has its topics, messages and committed offsets.
        port: Port of loopback; default: the one that this folder had before, or a free one.
        properties: Lines of ``server.properties`` that replace ours.
    """

    name = "Kafka"
    other_ports = ("controller",)

    #: Java options; the heap is small because a broker keeps its messages in the page cache.
    java_options: ClassVar[tuple[str, ...]] = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC")

    def __init__(self, folder: Path, port: int | None = None, *, properties: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, port)
        self._properties = dict(properties or {})

    @property
    def bootstrap(self) -> str:
        """Address for clients: ``127.0.0.1:PORT``."""
        return f"{HOST}:{self.port}"

    @classmethod
    def check(cls) -> None:
        """Check for Java 17 or newer and get the jars."""
        find_java(lowest=17)
        jars("kafka")

    def command(self) -> list[str]:
        """Write ``server.properties``, format an empty folder, and return the broker's command."""
        controller = f"{HOST}:{self.ports['controller']}"
        lines = {
            **_ALONE,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": str(self.folder / "data"),
            **self._properties,
        }
        file = self.folder / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        java = [find_java(lowest=17), *self.java_options, "-cp", f"{jars('kafka')}/*"]
        if not (self.folder / "data" / "meta.properties").exists():
            # never with a dash in front, which would be an option, as Kafka's own random names
            cluster = "E" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
            step = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(file), "--ignore-formatted"]
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unavailable(f"the folder could not be formatted: {done.stderr.strip()}", where=str(self.folder))
        return [*java, "-Dorg.slf4j.simpleLogger.showDateTime=true", "kafka.Kafka", str(file)]

    def ping(self) -> None:
        """Ask for the brokers: it is ready once it names itself as one."""
        from confluent_kafka.admin import AdminClient

        quiet = {"bootstrap.servers": self.bootstrap, "log_level": 0, "error_cb": lambda error: None}
        client = AdminClient({**quiet, "socket.connection.setup.timeout.ms": 1000})
        brokers = client.list_topics(timeout=2).brokers
        if not brokers:
            raise Unavailable("no broker is registered yet")

    def describe(self) -> dict[str, object]:
        """Return the address for clients."""
        return {"bootstrap": self.bootstrap}
