"""Who has an alias, asked without MLflow's client, whose import takes three seconds.

A server is asked over its REST API, a SQLite database with the one query that the client would make. Whatever is not
exactly as expected (another database schema, a login, an unknown answer) is left to the client.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from edgewright.registry.versions import DIGEST, RegisteredVersion

#: Revision of MLflow 3.17's tables, the only ones that are read here.
_REVISION = "dc11669786a5"
_WORKSPACE = "default"
_SECONDS = 5.0
_LOGIN = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_AUTH", "MLFLOW_WORKSPACE")


class AskTheClient(Exception):
    """The question must go to MLflow's own client."""


def by_alias(tracking_uri: str, name: str, alias: str) -> RegisteredVersion | None:
    """Return the version that an alias points to, ``None`` where there is no such model or alias.

    Raises:
        AskTheClient: it cannot be told here.
    """
    if any(os.environ.get(variable) for variable in _LOGIN) or "@" in tracking_uri:
        raise AskTheClient
    if tracking_uri.startswith("sqlite:///"):
        return _from_database(Path(tracking_uri.removeprefix("sqlite:///")), name, alias)
    if tracking_uri.startswith(("http://", "https://")):
        return _from_server(tracking_uri.rstrip("/"), name, alias)
    raise AskTheClient


def _from_database(file: Path, name: str, alias: str) -> RegisteredVersion | None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as database:
            if database.execute("select version_num from alembic_version").fetchone() != (_REVISION,):
                raise AskTheClient
            where = (_WORKSPACE, name)
            aliases = database.execute(
                "select alias, version from registered_model_aliases where workspace = ? and name = ?", where
            ).fetchall()
            number = dict(aliases).get(alias)
            if number is None:
                return None
            of_version = (*where, number)
            row = database.execute(
                "select source, run_id, creation_time from model_versions "
                "where workspace = ? and name = ? and version = ?",
                of_version,
            ).fetchone()
            tags = database.execute(
                "select key, value from model_version_tags where workspace = ? and name = ? and version = ?", of_version
            ).fetchall()
    except sqlite3.Error as error:
        raise AskTheClient from error
    if row is None:
        return None
    held = [other for other, version in aliases if version == number]
    return _version(name, number, dict(tags), held, source=row[0], run_id=row[1], created=row[2])


def _from_server(address: str, name: str, alias: str) -> RegisteredVersion | None:
    query = urlencode({"name": name, "alias": alias})
    request = Request(f"{address}/api/2.0/mlflow/registered-models/alias?{query}")  # noqa: S310
    try:
        with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 (http and https only)
            found = json.load(answer)["model_version"]
            return _version(
                name,
                found["version"],
                {tag["key"]: tag["value"] for tag in found.get("tags", ())},
                found.get("aliases", ()),
                source=found.get("source"),
                run_id=found.get("run_id"),
                created=int(found.get("creation_timestamp") or 0),
            )
    except HTTPError as error:
        if error.code in (400, 404) and _says_absent(error):
            return None
        raise AskTheClient from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AskTheClient from error


def _says_absent(error: HTTPError) -> bool:
    try:
        document = json.load(error)
    except ValueError:
        return False
    code, message = document.get("error_code"), str(document.get("message", "")).lower()
    return code == "RESOURCE_DOES_NOT_EXIST" or (code == "INVALID_PARAMETER_VALUE" and "alias" in message)


def _version(
    name: str, number: Any, tags: dict[str, str], aliases: Any, *, source: Any, run_id: Any, created: int | None
) -> RegisteredVersion:
    moment = datetime.datetime.fromtimestamp((created or 0) / 1000, datetime.UTC)
    return RegisteredVersion(
        name=name,
        version=str(number),
        digest=tags.get(DIGEST, ""),
        aliases=tuple(sorted(str(alias) for alias in aliases)),
        tags={str(key): str(value) for key, value in tags.items()},
        run_id=str(run_id or ""),
        created=moment.isoformat(timespec="milliseconds"),
        source=str(source or ""),
    )
