"""Credentials of sources from Airflow connections, without Airflow: ``AIRFLOW_CONN_<ID>`` of the environment.

The variable holds a connection as Airflow writes it, as a URI (``aws://KEY:SECRET@/?endpoint_url=...``) or as JSON. In
an Airflow worker the operator puts a connection that Airflow keeps elsewhere there for the task's own process; nothing
of it reaches XCom, a log or the store.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgewright.errors import ConfigError


def variable_of(connection: str) -> str:
    """Return the environment variable of a connection's id."""
    return f"AIRFLOW_CONN_{connection.upper()}"


def object_store_options(connection: str | None) -> dict[str, Any]:
    """Return fsspec's options for an S3 store from a connection; none where none is named.

    Raises:
        ConfigError: the connection is not there, or cannot be read.
    """
    if connection is None:
        return {}
    text = os.environ.get(variable_of(connection))
    if not text:
        raise ConfigError(
            f"no connection {connection!r}",
            where="connection",
            hint=f"define it in Airflow, or set {variable_of(connection)} (aws://KEY:SECRET@/?endpoint_url=...)",
        )
    try:
        login, password, extra = _read_json(text) if text.lstrip().startswith("{") else _read_uri(text)
    except (ValueError, TypeError) as error:
        # never the text itself: it holds the secret
        raise ConfigError(f"the connection {connection!r} cannot be read", where=variable_of(connection)) from error
    client = {name: extra[name] for name in ("endpoint_url", "region_name") if extra.get(name)}
    options = {"key": login, "secret": password, "token": extra.get("aws_session_token"), "client_kwargs": client}
    return {name: value for name, value in options.items() if value}


def _read_json(text: str) -> tuple[str, str, dict[str, Any]]:
    document = json.loads(text)
    extra = document.get("extra") or {}
    return (
        document.get("login") or "",
        document.get("password") or "",
        json.loads(extra) if isinstance(extra, str) else extra,
    )


def _read_uri(text: str) -> tuple[str, str, dict[str, Any]]:
    parts = urlsplit(text)
    extra: dict[str, Any] = dict(parse_qsl(parts.query))
    if "__extra__" in extra:
        extra = {**extra, **json.loads(extra["__extra__"])}
    return unquote(parts.username or ""), unquote(parts.password or ""), extra
