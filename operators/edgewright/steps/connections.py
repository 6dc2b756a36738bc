"""Credentials of sources from Airflow connections, without Airflow: ``AIRFLOW_CONN_<ID>`` of the environment.

The variable holds a connection as Airflow writes it, as a URI (``aws://KEY:SECRET@/?endpoint_url=...``) or as JSON. In
an Airflow worker the operator puts a connection that Airflow keeps elsewhere there for the task's own process; nothing
of it reaches XCom, a log or the store.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgewright.errors import ConfigError


def variable_of(connection: str) -> str:
    """Return the environment variable of a connection's id."""
    return f"AIRFLOW_CONN_{connection.upper()}"


@dataclass(frozen=True)
class Credentials:
    """A connection.

    Attributes:
        host: Where the server is; may be empty.
        port: Its port.
        schema: The database, keyspace or the like.
        login: The user.
        password: The secret; never shown.
        extra: Further settings.
    """

    host: str = ""
    port: int | None = None
    schema: str = ""
    login: str = ""
    password: str = field(default="", repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, connection: str, example: str) -> Credentials:
        """Read a connection.

        Args:
            connection: Its id.
            example: How such a connection is written, for messages.

        Raises:
            ConfigError: the connection is not there, or cannot be read.
        """
        text = os.environ.get(variable_of(connection))
        if not text:
            raise ConfigError(
                f"no connection {connection!r}",
                where="connection",
                hint=f"define it in Airflow, or set {variable_of(connection)} ({example})",
            )
        try:
            return _read_json(text) if text.lstrip().startswith("{") else _read_uri(text)
        except (ValueError, TypeError) as error:
            # never the text itself: it holds the secret
            raise ConfigError(f"the connection {connection!r} cannot be read", where=variable_of(connection)) from error


def connection_of(config: Mapping[str, Any]) -> str | None:
    """Return the connection that a step needs: its own, that of the place where it offers bundles, or the usual one."""
    bundle = config.get("bundle")
    named = config.get("connection") or (bundle.get("connection") if isinstance(bundle, Mapping) else None)
    if named is None and str(config.get("source")).startswith("kafka://"):
        return "kafka_default"
    return named if isinstance(named, str) else None


def connections_of(config: Mapping[str, Any]) -> list[str]:
    """Return all connections that a step needs.

    ``publish`` may announce by one, ``score`` write, ``deploy`` reach a cluster, Spark read.
    """
    announce, to = config.get("announce"), config.get("to")
    edge = to.get("edge") if isinstance(to, Mapping) else None
    cluster = edge.get("connection", "kubernetes_default") if isinstance(edge, Mapping) else None
    told = announce.get("connection", "kafka_default") if isinstance(announce, Mapping) else None
    spark = config.get("spark")
    named = spark.get("connections") or () if isinstance(spark, Mapping) else ()
    found = (connection_of(config), config.get("to_connection"), told, cluster, *named)
    return [name for name in dict.fromkeys(found) if isinstance(name, str)]


def object_store_options(connection: str | None) -> dict[str, Any]:
    """Return fsspec's options for an S3 store from a connection; none where none is named.

    Raises:
        ConfigError: the connection is not there, or cannot be read.
    """
    if connection is None:
        return {}
    found = Credentials.of(connection, "aws://KEY:SECRET@/?endpoint_url=...")
    extra = found.extra
    client = {name: extra[name] for name in ("endpoint_url", "region_name") if extra.get(name)}
    options = {
        "key": found.login, "secret": found.password, "token": extra.get("aws_session_token"), "client_kwargs": client,
    }  # fmt: skip
    return {name: value for name, value in options.items() if value}


def kafka_settings(connection: str) -> dict[str, Any]:
    """Return librdkafka's settings from a connection: its extra, as Airflow's Kafka provider has them.

    Raises:
        ConfigError: the connection is not there, cannot be read, or names no brokers.
    """
    extra = Credentials.of(connection, '{"conn_type": "kafka", "extra": {"bootstrap.servers": "HOST:PORT"}}').extra
    if not extra.get("bootstrap.servers"):
        raise ConfigError("the connection's extra has no bootstrap.servers", where=connection)
    return extra


def _read_json(text: str) -> Credentials:
    document = json.loads(text)
    extra = document.get("extra") or {}
    return Credentials(
        host=document.get("host") or "",
        port=int(document["port"]) if document.get("port") else None,
        schema=document.get("schema") or "",
        login=document.get("login") or "",
        password=document.get("password") or "",
        extra=json.loads(extra) if isinstance(extra, str) else extra,
    )


def _read_uri(text: str) -> Credentials:
    parts = urlsplit(text)
    extra: dict[str, Any] = dict(parse_qsl(parts.query))
    extra |= json.loads(extra.pop("__extra__", "{}"))  # so Airflow writes what a query cannot say
    place = parts.netloc.rpartition("@")[2]
    host = place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place
    return Credentials(
        host=unquote(host),
        port=parts.port,
        schema=unquote(parts.path.removeprefix("/")),
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        extra=extra,
    )
