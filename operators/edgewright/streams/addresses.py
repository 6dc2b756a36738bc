"""Addresses of brokers and databases, in one line: ``kafka://...`` and ``cassandra://...``.

``kafka://HOST:PORT[,HOST:PORT]/TOPIC``    these brokers, without credentials
``kafka://CONNECTION/TOPIC``               an Airflow connection by its id (a word without a port)
``cassandra://HOST[,HOST][:PORT]/KEYSPACE[.TABLE]``
``cassandra://CONNECTION/KEYSPACE[.TABLE]``

A connection comes from ``AIRFLOW_CONN_<ID>`` as JSON. For Kafka its ``extra`` holds librdkafka's settings, as Airflow's
Kafka provider has them; for Cassandra it has ``host``, ``port``, ``login`` and ``password``. Secrets have no place in
an address: it ends up in process lists and logs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from edgewright.errors import ConfigError

#: What the settings of a schema registry begin with, as everywhere with Confluent's clients.
REGISTRY = "schema.registry."
_OBJECTS = ("logger", "on_commit", "on_delivery")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")


@dataclass(frozen=True)
class KafkaAddress:
    """Brokers and a topic.

    Attributes:
        settings: librdkafka's settings; never shown, they may hold secrets.
        topic: The topic; empty where none was named.
        shown: The address for people.
    """

    settings: dict[str, Any] = field(repr=False)
    topic: str
    shown: str


@dataclass(frozen=True)
class CassandraAddress:
    """Nodes, a keyspace and a table.

    Attributes:
        hosts: Nodes to begin with.
        port: Their port for CQL.
        keyspace: The keyspace.
        table: The table; empty where none was named.
        login: User, or empty.
        password: Password; never shown.
    """

    hosts: tuple[str, ...]
    port: int
    keyspace: str
    table: str = ""
    login: str = ""
    password: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The address for people."""
        return f"cassandra://{','.join(self.hosts)}:{self.port}/{self.keyspace}{f'.{self.table}' if self.table else ''}"


def kafka_address(text: str, *, topic: bool = True) -> KafkaAddress:
    """Read an address of Kafka; ``kafka:...`` without slashes will do.

    Args:
        text: The address.
        topic: Whether it must name a topic.

    Raises:
        ConfigError: it cannot be read, or its connection is not there.
    """
    place, name = split_address(text, "kafka", "kafka://HOST:PORT/TOPIC, or kafka://CONNECTION/TOPIC")
    if name and not _TOPIC.fullmatch(name):
        raise ConfigError(f"{name!r} is no topic's name", where=text, hint="letters, digits, dots, dashes, underscores")
    if topic and not name:
        raise ConfigError("no topic is named", where=text, hint="kafka://HOST:PORT/TOPIC")
    if re.search(r":\d+$", place):
        settings: dict[str, Any] = {"bootstrap.servers": place}
    else:
        document = connection(place, "its extra holds librdkafka's settings, at least bootstrap.servers")
        extra = document.get("extra") or {}
        settings = json.loads(extra) if isinstance(extra, str) else dict(extra)
        if not settings.get("bootstrap.servers"):
            raise ConfigError("the connection's extra has no bootstrap.servers", where=place)
    return KafkaAddress(librdkafka_settings(settings), name, f"kafka://{place}/{name}")


def librdkafka_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what librdkafka takes of a Kafka connection's extra: everything but what others are to read there.

    Functions (Airflow's own hook imports them by their names) are ours, and a schema registry is not librdkafka's.
    """
    return {
        name: value
        for name, value in settings.items()
        if value is not None and not name.startswith(REGISTRY) and not name.endswith("_cb") and name not in _OBJECTS
    }


def cassandra_address(text: str) -> CassandraAddress:
    """Read an address of Cassandra.

    Raises:
        ConfigError: it cannot be read, or its connection is not there.
    """
    usage = "cassandra://HOST[:PORT]/KEYSPACE[.TABLE], or cassandra://CONNECTION/KEYSPACE[.TABLE]"
    place, name = split_address(text, "cassandra", usage)
    keyspace, _, table = name.lower().partition(".")
    for what, word in (("keyspace", keyspace), ("table", table)):
        if (word or what == "keyspace") and not _WORD.fullmatch(word):
            raise ConfigError(
                f"{word!r} is no {what}'s name",
                where=text,
                hint=f"a letter, then letters, digits, underscores: {usage}",
            )
    if _variable(place) in os.environ:
        document = connection(place, "")
        hosts = tuple(str(document.get("host") or "127.0.0.1").split(","))
        login, password = str(document.get("login") or ""), str(document.get("password") or "")
        return CassandraAddress(hosts, int(document.get("port") or 9042), keyspace, table, login, password)
    hosts_text, _, port = place.partition(":")
    if port and not port.isdigit():
        raise ConfigError(f"{port!r} is no port", where=text, hint=usage)
    return CassandraAddress(tuple(hosts_text.split(",")), int(port or 9042), keyspace, table)


def connection(name: str, hint: str) -> dict[str, Any]:
    """Return an Airflow connection of the environment as its JSON document.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    variable = _variable(name)
    text = os.environ.get(variable)
    if not text:
        raise ConfigError(
            f"no connection {name!r}", hint=f"set {variable} to a connection as JSON: {hint}".rstrip(": ")
        )
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        # never the text itself: it holds the secret
        raise ConfigError(f"the connection {name!r} is not written as a JSON object", where=variable)
    return document


def _variable(name: str) -> str:
    return f"AIRFLOW_CONN_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"


def split_address(text: str, scheme: str, usage: str) -> tuple[str, str]:
    """Return place and name of ``scheme://PLACE/NAME``.

    Raises:
        ConfigError: it is none, or holds credentials.
    """
    body = text.removeprefix(f"{scheme}:").removeprefix("//") if text.startswith(f"{scheme}:") else ""
    place, _, name = body.partition("/")
    if not place or "/" in name or "?" in body:
        raise ConfigError(f"{text!r} is no address of {scheme}", hint=usage)
    if "@" in place:
        raise ConfigError("an address holds no credentials", where=urlsplit(text).scheme, hint=usage)
    return place, name
