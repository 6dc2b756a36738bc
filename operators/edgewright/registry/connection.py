"""A connection to MLflow that answers within seconds or says why not.

MLflow's own client tries for minutes. Its limits are environment variables that it reads at each call, so they are set
while one of our calls is under way and put back after it: other users of MLflow in this process keep theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from edgewright.errors import ConfigError, EdgewrightError, NotFound, Unavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

ANSWER_SECONDS = 8.0
_HEALTHY_SECONDS = 5.0
_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_START_HINT = (
    "start it with `edgewright up`, or `mlflow server --host 127.0.0.1 --port {port}`; then try again "
    "(after a stack that broke, `edgewright down` goes back to the local registry)"
)
_USER_CODES = ("INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "BAD_REQUEST", "UNAUTHENTICATED")


class _Limits:
    """The environment variables, set while at least one call is under way in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = {name: os.environ.get(name) for name in _LIMITS}
                os.environ.update(_LIMITS)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for name, value in self._before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


_limits = _Limits()


class Connection:
    """One tracking address, and a client of it that is opened at the first call.

    Args:
        tracking_uri: ``http(s)://...`` or ``sqlite:///...``.

    Raises:
        ConfigError: the address is of another kind.
    """

    def __init__(self, tracking_uri: str) -> None:
        scheme = tracking_uri.split("://", 1)[0].split("+", 1)[0]
        if scheme not in ("http", "https", "sqlite", "postgresql", "mysql"):
            raise ConfigError(
                f"not an address of MLflow: {shown(tracking_uri) or '(empty)'}",
                where="tracking_uri",
                hint="http(s)://host:port or sqlite:////folder/mlflow.db; MLflow no longer takes plain folders",
            )
        self.uri = tracking_uri.rstrip("/") if scheme.startswith("http") else tracking_uri
        self._client: MlflowClient | None = None
        self._healthy_at = -_HEALTHY_SECONDS

    def __repr__(self) -> str:
        return f"Connection({shown(self.uri)!r})"

    @property
    def is_server(self) -> bool:
        """Whether this is a server, not a database of our own."""
        return self.uri.startswith("http")

    @property
    def is_open(self) -> bool:
        """Whether MLflow's client is imported and connected already."""
        return self._client is not None

    @property
    def database(self) -> Path | None:
        """The SQLite file, if it is one."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def is_new(self) -> bool:
        """Whether nothing can be registered yet, because the database does not exist."""
        return self.database is not None and not self.database.exists()

    @contextlib.contextmanager
    def calls(self, action: str) -> Iterator[MlflowClient]:
        """Open a client for a few calls, with bounded waits and our errors.

        Args:
            action: What the calls are for, for the message.

        Raises:
            Unavailable: MLflow does not answer, or failed.
            NotFound: it says that something does not exist.
            ConfigError: it refuses what was asked.
        """
        with _limits, self._errors(action):
            self._ask_health()
            if self._client is None:
                self._client = self._open()
            yield self._client
            self._healthy_at = time.monotonic()

    def _open(self) -> MlflowClient:
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # it announces a wait of 300 seconds that it never makes for us
        logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        with self._tables():
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            if not self.is_server:
                client.search_experiments(max_results=1)
        return client

    @contextlib.contextmanager
    def _tables(self) -> Iterator[None]:
        """Let one process alone create the tables of a new database; two at once break each other's."""
        file = self.database
        if file is None or _has_tables(file):
            yield
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with (file.parent / f".{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go when the process dies
            if not file.exists() or file.stat().st_size == 0:  # what is there already is never replaced
                _make_database(file)
            yield

    def _ask_health(self) -> None:
        if not self.is_server or time.monotonic() - self._healthy_at < _HEALTHY_SECONDS:
            return
        parts = urlsplit(self.uri)
        base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        try:
            with urlopen(Request(f"{base}/health"), timeout=ANSWER_SECONDS) as answer:  # noqa: S310 (http(s) only)
                answer.read(1)
        except HTTPError as error:
            if error.code >= 500:
                raise self._down(f"it answers {error.code}") from error
            # it answers; what it thinks of the request shows in the next call
        except (OSError, ValueError) as error:
            raise self._down(str(getattr(error, "reason", error))) from error
        self._healthy_at = time.monotonic()

    def _down(self, reason: str) -> Unavailable:
        self._healthy_at = -_HEALTHY_SECONDS
        port = urlsplit(self.uri).port or 5000 if self.is_server else 5000
        return Unavailable(
            f"MLflow does not answer: {reason}", where=shown(self.uri), hint=_START_HINT.format(port=port)
        )

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except EdgewrightError:
            raise
        except OSError as error:
            raise self._down(f"cannot {action}: {error}") from error
        except Exception as error:  # MLflow's class is heavy to import; anything else is a fault of ours
            if type(error).__module__.startswith("sqlalchemy."):
                raise self._down(f"cannot {action}: {_first_line(error)}") from error
            code = getattr(error, "error_code", None)
            if code is None:
                raise
            raise self._translated(error, str(code), action) from error

    def _translated(self, error: Exception, code: str, action: str) -> EdgewrightError:
        message, where = _first_line(error), shown(self.uri)
        if code == "RESOURCE_DOES_NOT_EXIST":
            return NotFound(f"cannot {action}: {message}", where=where)
        if code in _USER_CODES:
            return ConfigError(f"MLflow refuses to {action}: {message}", where=where)
        self._healthy_at = -_HEALTHY_SECONDS
        if self.is_server:
            with contextlib.suppress(Exception):
                self._ask_health()
                return Unavailable(f"MLflow failed to {action}: {message}", where=where, hint="see the server's log")
        return self._down(f"cannot {action}: {message}")


def _has_tables(file: Path) -> bool:
    """Whether MLflow has finished setting up a SQLite database (its revision is written last)."""
    if not file.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as database:
            return bool(database.execute("select count(*) from alembic_version").fetchone()[0])
    except sqlite3.Error:
        return False


def _make_database(file: Path) -> None:
    """Let MLflow set up a SQLite database under another name, and move it to its place when it is whole.

    MLflow writes its revision after each of its many migrations, so a process that is killed among them leaves a
    database which nobody could open again. The caller holds the lock, so leftovers are of processes that have died.
    """
    from mlflow.tracking import MlflowClient

    for leftover in file.parent.glob(f".{file.name}.new-*"):
        leftover.unlink(missing_ok=True)
    temporary = file.with_name(f".{file.name}.new-{os.getpid()}")
    uri = f"sqlite:///{temporary}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
    temporary.replace(file)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def shown(uri: str) -> str:
    """Return an address without a password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def error_code(error: BaseException) -> str | None:
    """Return the code of an error of MLflow's, ``None`` for any other."""
    code = getattr(error, "error_code", None)
    return None if code is None else str(code)
