"""Apicurio Registry: schemas of Avro, JSON and Protobuf, by the interface that Confluent's clients speak."""

from __future__ import annotations

import urllib.request

from edgewright.cli.dev.base import Server
from edgewright.cli.dev.maven import jars
from edgewright.cli.stack.ports import HOST
from edgewright.steps.java import find_java


class SchemaRegistryServer(Server):
    """A registry with a database of its own (H2); it needs no Kafka."""

    name = "Schema registry"

    @property
    def url(self) -> str:
        """Address for clients: their ``schema.registry.url``."""
        return f"http://{HOST}:{self.port}/apis/ccompat/v7"

    @classmethod
    def check(cls) -> None:
        """Check for Java 17 or newer and get the registry."""
        find_java(lowest=17)
        jars("schema-registry")

    def command(self) -> list[str]:
        """Return the registry's command."""
        (program,) = jars("schema-registry").glob("*-runner.jar")
        settings = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": self.port,
            "apicurio.datasource.url": f"jdbc:h2:file:{self.folder / 'registry'}",
        }
        options = [f"-D{name}={value}" for name, value in settings.items()]
        small = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return [find_java(lowest=17), *small, *options, "-jar", str(program)]

    def ping(self) -> None:
        """Ask for the subjects."""
        with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as answer:  # noqa: S310 - always http
            assert answer.read().startswith(b"[")

    def describe(self) -> dict[str, object]:
        """Return the address for clients."""
        return {"url": self.url}
