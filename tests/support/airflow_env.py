"""Airflow for tests in this process: a home of its own, SQLite, initialised once a session.

``prepare`` must run before anything imports Airflow; ``tests/operators/conftest.py`` and ``tests/factory/conftest.py``
call it while they are imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any


def prepare() -> Path:
    """Point the process at an empty Airflow home, once, and return that."""
    if "EDGEWRIGHT_TEST_AIRFLOW" in os.environ:
        return Path(os.environ["EDGEWRIGHT_TEST_AIRFLOW"])
    home = Path(tempfile.mkdtemp(prefix="edgewright-airflow-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in ("dags", "plugins", "bundles"):
        (home / name).mkdir()
    os.environ.update(
        {
            "EDGEWRIGHT_TEST_AIRFLOW": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
            "AIRFLOW__CORE__FERNET_KEY": "",
        }
    )
    return home


_initialised = False


def database() -> None:
    """Make the metadata database, once a session."""
    global _initialised
    if _initialised:
        return
    from airflow.utils import db

    db.initdb()
    _initialised = True


def sync(dag: Any) -> None:
    """Make a Dag known to the database; ``dag.test()`` asks for that."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    database()
    DagBundlesManager().sync_bundles_to_db()
    empty = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = DagBag(dag_folder=empty, collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


def run(dag: Any, **options: Any) -> Any:
    """Run a Dag in this process and return its run."""
    sync(dag)
    return dag.test(**options)


def child_environment() -> dict[str, str]:
    """Return the environment for a Python process of its own that imports Airflow."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def xcom(run: Any, task_id: str, key: str = "return_value") -> Any:
    """Return what a task of a run left in XCom."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = XComModel.get_many(run_id=run.run_id, key=key, dag_ids=run.dag_id, task_ids=task_id)
        found = session.execute(query).first()
        return None if found is None else XComModel.deserialize_value(found[0])


def states(run: Any) -> dict[str, Any]:
    """Return the state of every task of a run."""
    return {instance.task_id: instance.state and str(instance.state) for instance in run.get_task_instances()}
