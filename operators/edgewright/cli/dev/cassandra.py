"""Apache Cassandra: one node, as the project ships it, with a small heap and small files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import yaml

from edgewright.cli.dev.base import Server, round_trip
from edgewright.cli.dev.maven import jars
from edgewright.cli.stack.ports import HOST
from edgewright.errors import Unavailable
from edgewright.steps.java import find_java

#: What conf/jvm17-server.options of Cassandra 5.0 opens to it.
_EXPORTS = (
    "java.base/jdk.internal.misc", "java.base/jdk.internal.ref", "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi", "java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server",
    "java.sql/java.sql", "jdk.unsupported/sun.misc", "jdk.compiler/com.sun.tools.javac.file",
    "jdk.attach/sun.tools.attach",
)  # fmt: skip
_OPENS = (
    "java.base/java.lang.module", "java.base/jdk.internal.loader", "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect", "java.base/jdk.internal.math", "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar", "java.base/sun.nio.ch", "java.base/java.io", "java.base/java.lang.reflect",
    "java.base/java.lang", "java.base/java.util", "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic", "java.base/java.nio",
    "jdk.management/com.sun.management.internal", "jdk.compiler/com.sun.tools.javac",
)  # fmt: skip
#: CQL's native protocol 4: an OPTIONS request, and the opcode of its answer (SUPPORTED) in the fifth byte.
_OPTIONS = bytes([0x04, 0, 0, 0, 0x05, 0, 0, 0, 0])
_SUPPORTED = 0x06
_LOGBACK = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"""


class CassandraServer(Server):
    """A node. What it confirmed is in its commit log, so SIGKILL loses nothing of it.

    Args:
        folder: Its data.
        port: Port of loopback; default: the one that this folder had before, or a free one.
        settings: Lines of ``cassandra.yaml`` that replace ours; ``None`` leaves one out.
    """

    name = "Cassandra"
    other_ports = ("storage",)
    patience = 180.0
    #: Java options; 1 GB of memory in all is enough for tests and a look around.
    java_options: ClassVar[tuple[str, ...]] = ("-Xms256m", "-Xmx768m", "-XX:+UseSerialGC")

    def __init__(self, folder: Path, port: int | None = None, *, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(folder, port)
        self._changed = dict(settings or {})

    @property
    def host(self) -> str:
        """Its address."""
        return HOST

    @classmethod
    def check(cls) -> None:
        """Check for a JDK 17 and get the jars."""
        cls._java()
        jars("cassandra")

    @staticmethod
    def _java() -> str:
        return find_java(lowest=17, highest=17, modules=("jdk.compiler", "jdk.attach", "jdk.unsupported"))

    def command(self) -> list[str]:
        """Write ``cassandra.yaml`` and return the node's command."""
        configuration, logback = self.folder / "cassandra.yaml", self.folder / "logback.xml"
        configuration.write_text(yaml.safe_dump(self._settings()))
        logback.write_text(_LOGBACK)
        libraries = jars("cassandra")
        (agent,) = libraries.glob("jamm-*.jar")
        system = {
            "jdk.attach.allowAttachSelf": "true",
            "io.netty.tryReflectionSetAccessible": "true",
            "logback.configurationFile": str(logback),
            "cassandra.config": configuration.as_uri(),
            "cassandra.storagedir": str(self.folder / "data"),
            "cassandra-foreground": "yes",
            # it has no neighbours to wait for
            "cassandra.ring_delay_ms": "0",
            "cassandra.skip_wait_for_gossip_to_settle": "0",
        }
        opened = [part for name in _EXPORTS for part in ("--add-exports", f"{name}=ALL-UNNAMED")]
        opened += [part for name in _OPENS for part in ("--add-opens", f"{name}=ALL-UNNAMED")]
        options = [f"-D{name}={value}" for name, value in system.items()]
        main = ["-cp", f"{libraries}/*", "org.apache.cassandra.service.CassandraDaemon"]
        return [self._java(), *self.java_options, *opened, f"-javaagent:{agent}", *options, *main]

    def _settings(self) -> dict[str, object]:
        """Return ``cassandra.yaml``."""
        changed = {**self._ours(), **self._changed}
        return {name: value for name, value in changed.items() if value is not None}

    def _ours(self) -> dict[str, object]:
        seeds = {"seeds": f"{HOST}:{self.ports['storage']}"}
        return {
            "cluster_name": "edgewright",
            "num_tokens": 1,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [seeds]},
            ],
            "listen_address": HOST,
            "storage_port": self.ports["storage"],
            "rpc_address": HOST,
            "start_native_transport": True,
            "native_transport_port": self.port,
            # "periodic", the default, confirms what SIGKILL still takes away: with one node nobody else has it
            "commitlog_sync": "group",
            "commitlog_sync_group_window": "5ms",
            "commitlog_segment_size": "16MiB",
            "memtable_heap_space": "128MiB",
            "memtable_offheap_space": "64MiB",
            "disk_access_mode": "standard",
            "auto_snapshot": False,
        }

    def ping(self) -> None:
        """Ask which options of CQL it supports."""
        answer = round_trip(self.port, _OPTIONS, 9)
        if len(answer) < 5 or answer[4] != _SUPPORTED:
            raise Unavailable(f"it answered {answer!r}")

    def describe(self) -> dict[str, object]:
        """Return the address for clients."""
        return {"host": self.host, "port": self.port}
