"""Airflow's part of the local stack: its environment, its four processes, its database.

``airflow standalone`` is not used: its log servers bind to all addresses and cannot be told otherwise. Task logs stay
readable over REST, because all processes share one file system.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from edgewright.cli.stack.ports import HOST
from edgewright.cli.stack.processes import tail
from edgewright.cli.stack.secrets import USERS, Secrets, write_private
from edgewright.cli.stack.state import MARK
from edgewright.errors import SystemFault
from edgewright.factory import preload

COMPONENTS: dict[str, list[str]] = {
    "api-server": ["api-server", "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


def executable() -> str:
    """Return the airflow command of this environment."""
    return str(Path(sys.executable).parent / "airflow")


def environment(
    home: Path, dags: Path, port: int, secrets: Secrets, *, parallelism: int = 4, schedules: bool = True
) -> dict[str, str]:
    """Return the environment of all Airflow processes of a stack.

    Args:
        home: Home folder of the installation.
        dags: Folder of the pipelines.
        port: Port of the API server.
        secrets: Keys and passwords.
        parallelism: Tasks that run at the same time.
        schedules: Whether runs start by their schedules. (Airflow makes up for the last missed one at once.)
    """
    airflow = home / "airflow"
    base = f"http://{HOST}:{port}"
    bundles = [
        {
            "name": "pipelines",
            "classpath": "edgewright.factory.bundle.PipelineBundle",
            "kwargs": {"src": str(dags), "refresh_interval": 2},
        }
    ]
    settings = {
        ("CORE", "LOAD_EXAMPLES"): "False",
        ("CORE", "DAGS_FOLDER"): str(airflow / "dags"),
        ("CORE", "PLUGINS_FOLDER"): str(airflow / "plugins"),
        # an import error is our list of faults, not our frames; the processor's log has the traceback of a Python Dag
        ("CORE", "DAGBAG_IMPORT_ERROR_TRACEBACKS"): "False",
        ("CORE", "DAGS_ARE_PAUSED_AT_CREATION"): "False",
        ("CORE", "EXECUTOR"): "LocalExecutor",
        ("CORE", "PARALLELISM"): str(parallelism),
        ("CORE", "FERNET_KEY"): secrets.fernet,
        ("CORE", "MIN_SERIALIZED_DAG_UPDATE_INTERVAL"): "0",
        ("CORE", "EXECUTION_API_SERVER_URL"): f"{base}/execution/",
        ("CORE", "SIMPLE_AUTH_MANAGER_USERS"): ",".join(f"{user}:{role}" for user, role in USERS.items()),
        ("CORE", "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"): str(login_file(home)),
        ("DATABASE", "SQL_ALCHEMY_CONN"): f"sqlite:///{airflow / 'airflow.db'}",
        ("LOGGING", "BASE_LOG_FOLDER"): str(airflow / "logs"),
        ("API", "HOST"): HOST,
        ("API", "PORT"): str(port),
        ("API", "BASE_URL"): base,
        ("API", "WORKERS"): "1",
        ("API", "EXPOSE_CONFIG"): "False",
        ("API", "SECRET_KEY"): secrets.jwt,
        ("API_AUTH", "JWT_SECRET"): secrets.jwt,
        ("DAG_PROCESSOR", "PARSING_PROCESSES"): "1",
        ("DAG_PROCESSOR", "REFRESH_INTERVAL"): "2",
        ("DAG_PROCESSOR", "BUNDLE_REFRESH_CHECK_INTERVAL"): "1",
        ("DAG_PROCESSOR", "MIN_FILE_PROCESS_INTERVAL"): "30",
        ("DAG_PROCESSOR", "DAG_BUNDLE_STORAGE_PATH"): str(airflow / "bundles"),
        ("DAG_PROCESSOR", "DAG_BUNDLE_CONFIG_LIST"): json.dumps(bundles),
        ("SCHEDULER", "USE_JOB_SCHEDULE"): str(schedules),
        ("SCHEDULER", "SCHEDULER_IDLE_SLEEP_TIME"): "0.2",
        ("SCHEDULER", "ENABLE_HEALTH_CHECK"): "False",
        ("USAGE_DATA_COLLECTION", "ENABLED"): "False",
    }
    variables = {f"AIRFLOW__{section}__{key}": value for (section, key), value in settings.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    return {
        **kept,
        **variables,
        "AIRFLOW_HOME": str(airflow),
        "EDGEWRIGHT_HOME": str(home),
        "EDGEWRIGHT_PRELOAD": "1",
        MARK: str(home),
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        # one thread each: tasks run beside each other, and digests must not depend on a thread count
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # what listens on loopback is never reached by way of a proxy
        **{name: _no_proxy(name) for name in ("NO_PROXY", "no_proxy")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def _no_proxy(name: str) -> str:
    given = [host for host in os.environ.get(name, "").split(",") if host]
    return ",".join(dict.fromkeys([*given, HOST, "localhost"]))


def login_file(home: Path) -> Path:
    """Return the file with Airflow's user names and passwords."""
    return home / "airflow" / "passwords.json"


def prepare(home: Path, secrets: Secrets) -> None:
    """Write what Airflow reads at its start."""
    airflow = home / "airflow"
    for folder in ("dags", "plugins", "config", "logs"):
        (airflow / folder).mkdir(parents=True, exist_ok=True)
    preload.install(airflow / "config")
    write_private(login_file(home), json.dumps(secrets.passwords))


def migrate(home: Path, variables: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Bring the database to this Airflow's version; nothing is done where it is there already.

    A new one is made under another name and then renamed, so that one that is half made is never taken for whole.

    Raises:
        SystemFault: the migration failed; shows the end of its log.
    """
    from importlib.metadata import version

    airflow = home / "airflow"
    database, fresh = airflow / "airflow.db", airflow / "new.db"
    done = airflow / f".migrated-{version('apache-airflow-core')}"
    if done.exists() and database.exists():
        return
    say("preparing Airflow's database")
    is_new = not database.exists()
    target = fresh if is_new else database
    for rest in airflow.glob("new.db*"):
        rest.unlink()
    log = home / "logs" / "migrate.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = {**variables, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{target}"}
    with log.open("ab") as output:
        code = subprocess.run(
            [executable(), "db", "migrate"], env=settings, stdout=output, stderr=output, check=False
        ).returncode
    if code:
        raise SystemFault(f"Airflow's database could not be made:\n{tail(log)}", where=str(log))
    if is_new:
        _join_journal(fresh)
        fresh.replace(database)
    done.touch()


def _join_journal(database: Path) -> None:
    """Bring what SQLite keeps beside a database into it, so that the one file is all of it."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        connection.execute("pragma journal_mode=delete")
