"""Avro messages whose schemas are in a registry of Confluent's interface (Confluent, Apicurio, Karapace).

A message that cannot be read, or whose schema the registry does not know, is a dead letter. A registry that does not
answer, or that refuses the login, is waited for: nothing is wrong with the message.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from edgewright.errors import ConfigError, Unavailable
from edgewright.streams.addresses import REGISTRY

_HEAD = 5
_TIMEOUT = 10


class NotAvro(Exception):
    """A message holds something else than its schema says, or has no schema that is known."""


class AvroReader:
    """Reads messages by the schemas of a registry.

    Args:
        settings: Of the connection: ``schema.registry.url``, ``schema.registry.basic.auth.user.info`` and the like.

    Raises:
        ConfigError: the connection names no registry, or the client for it is not installed.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given = {name.removeprefix(REGISTRY): value for name, value in settings.items() if name.startswith(REGISTRY)}
        if not given.get("url"):
            raise ConfigError("format: avro needs schema.registry.url in the extra of the Kafka connection")
        try:
            registry = importlib.import_module("confluent_kafka.schema_registry")
            avro = importlib.import_module("confluent_kafka.schema_registry.avro")
        except ImportError as error:
            hint = "pip install 'edgewright[avro]'"
            raise ConfigError(f"format: avro needs {error.name or 'its libraries'}", hint=hint) from error
        self._url = given["url"]
        self._refused = registry.SchemaRegistryError
        try:
            # what is asked again is asked by whoever waits, so that others see why nothing comes
            self._client = registry.SchemaRegistryClient({"timeout": _TIMEOUT, "max.retries": 0, **given})
        except ValueError as error:
            raise ConfigError(f"the schema registry cannot be asked: {error}") from error
        self._read = avro.AvroDeserializer(self._client)

    def __call__(self, payload: bytes) -> Any:
        """Return what a message holds.

        Raises:
            NotAvro: it cannot be read, or the registry does not know its schema.
            Unavailable: the registry does not answer, or refuses the login.
        """
        if len(payload) <= _HEAD or payload[0] != 0:
            raise NotAvro("it names no schema: it was not written with a schema registry")
        self._demand(int.from_bytes(payload[1:_HEAD], "big"))
        try:
            return self._read(payload)
        except Exception as error:  # whatever a damaged message leads to
            raise NotAvro(f"it is not what its schema says: {type(error).__name__}: {error}") from error

    def _demand(self, number: int) -> None:
        """Have the client know a schema; it keeps those that it has asked for."""
        try:
            self._client.get_schema(number)
        except self._refused as error:
            if error.http_status_code == 404:
                raise NotAvro(f"the schema registry does not know its schema {number}") from error
            said = "refuses the login" if error.http_status_code in (401, 403) else "cannot answer"
            raise Unavailable(
                f"the schema registry {said}: {error.error_message} (HTTP {error.http_status_code})", where=self._url
            ) from error
        except Exception as error:
            raise Unavailable(f"the schema registry does not answer: {error}", where=self._url) from error
