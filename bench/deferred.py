"""What a scheduler and a triggerer need for tasks that are deferred: ours beside Airflow's own deferrable sensor.

For each way a fresh Airflow with PostgreSQL; one pipeline with so many mapped tasks, each waiting for a file of its own
that never comes (`uses: wait`; `FileSensor(deferrable=True)`), both asking every five seconds. Reported: memory of each
part with all that it started (what processes share is divided among them), before and while all of them wait, and
processor time while they do. Pods that are waited for: ``bench/waiting.py``.

    python bench/deferred.py [--tasks 200] [--seconds 60]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.storm import Storm

from edgewright.cli.dev.postgres import PostgresServer

PLAIN = """
import datetime
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import DAG

with DAG("plain", schedule=None, start_date=datetime.datetime(2026, 1, 1), max_active_tasks=32):
    FileSensor.partial(task_id="wait", deferrable=True, poke_interval=5, fs_conn_id="fs").expand(filepath={files})
"""
WAYS = ("ours", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60, help="for which processor time is measured")
    options = parser.parse_args()
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    os.environ["AIRFLOW_CONN_FS"] = json.dumps({"conn_type": "fs", "extra": {"path": "/"}})
    for way in WAYS:
        # pytest's and root's folders are closed to others, and PostgreSQL runs as another user
        with tempfile.TemporaryDirectory(prefix="edgewright-deferred-") as place, contextlib.ExitStack() as parts:
            folder = Path(place)
            folder.chmod(0o755)
            (folder / "postgres").mkdir()
            server = parts.enter_context(PostgresServer(folder / "postgres"))
            with psycopg.connect(server.url, autocommit=True) as link:
                link.execute("CREATE DATABASE deferred")
            database = f"{server.url.rpartition('/')[0]}/deferred"
            storm = Storm(folder, database.replace("postgresql:", "postgresql+psycopg:"))
            write(way, storm.dags, folder / "inbox", options.tasks)
            connection = {"AIRFLOW_CONN_FS": os.environ["AIRFLOW_CONN_FS"]}
            parts.enter_context(storm.running(**connection, AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG="32"))
            measure(way, storm, database, options)


def write(way: str, dags: Path, inbox: Path, tasks: int) -> None:
    """Write the pipeline of one way."""
    inbox.mkdir()
    files = [f"{inbox}/{number}.csv" for number in range(tasks)]
    if way == "plain":
        (dags / "plain.py").write_text(PLAIN.format(files=files))
        return
    (dags / "ours").mkdir()
    what = {"objects": {"uri": {"$t": "file://{{ item.file }}"}, "every": "5s"}, "timeout": "2h"}
    task = {"id": "wait", "uses": "wait", "for_each": {"file": files}, "with": what}
    document = {"dag_id": "ours", "start_date": "2026-01-01", "max_active_tasks": 32, "tasks": [task]}
    (dags / "ours" / "pipeline.yaml").write_text(json.dumps(document))


def measure(way: str, storm: Storm, database: str, options: argparse.Namespace) -> None:
    """Let all tasks wait, and print what that takes."""
    link = psycopg.connect(database, autocommit=True)
    wait(lambda: count(link, "SELECT count(*) FROM dag") >= 1, 300, "the Dag")
    time.sleep(20)
    before = memory(storm)
    storm.api.start_run(way, {})
    began = time.monotonic()
    deferred = "SELECT count(*) FROM task_instance WHERE state = 'deferred'"
    wait(lambda: count(link, deferred) >= options.tasks, 3600, "tasks to be deferred")
    took = time.monotonic() - began
    time.sleep(20)
    busy, start = processor(storm), time.monotonic()
    time.sleep(options.seconds)
    busy, after = {name: used - busy[name] for name, used in processor(storm).items()}, memory(storm)
    seconds = time.monotonic() - start
    print(f"{way}: {options.tasks} tasks, all deferred after {took:.0f} s", flush=True)
    for name in ("scheduler", "triggerer"):
        share = 100 * busy[name] / seconds
        print(
            f"  {name:<10} {before[name]:5.0f} MiB, then {after[name]:5.0f} MiB, {share:3.0f} % of a core", flush=True
        )
    assert count(link, deferred) == options.tasks


def count(link: psycopg.Connection[tuple[int]], query: str) -> int:
    """Return the number that a query answers."""
    found = link.execute(query).fetchone()  # type: ignore[call-overload]
    return int(found[0])


def wait(condition: object, seconds: float, what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(1)


def processes(storm: Storm) -> dict[str, list[psutil.Process]]:
    """Return each part's process and all that it started."""
    found = {}
    for part in storm.state.parts:
        process = part.process()
        assert process is not None, f"{part.name} has ended"
        found[part.name] = [process, *process.children(recursive=True)]
    return found


def memory(storm: Storm) -> dict[str, float]:
    """Return MiB by part."""
    return {name: sum(one.memory_full_info().pss for one in group) / (1 << 20)
            for name, group in processes(storm).items()}  # fmt: skip


def processor(storm: Storm) -> dict[str, float]:
    """Return seconds of processor time by part."""
    return {name: sum(sum(one.cpu_times()[:4]) for one in group) for name, group in processes(storm).items()}


if __name__ == "__main__":
    main()
