"""A team's day on one Airflow with PostgreSQL, two schedulers and a triggerer, in minutes instead of hours.

Ten pipelines retrain without a pause (ingest, train, evaluate; MLflow on a server), while eight people start runs at
random, whose data come a little later: until then the triggerer waits. Reported: runs and tasks by their end, how long
a task that may run waits until it runs, and the memory of each part with all that it started. A task that failed is a
fault. ``--kill`` ends the triggerer and one scheduler in the middle, with all that they started, and starts them again
ten seconds later: the tasks that they had at work are lost to that, and must be made up for by retries.

    python bench/day.py [--minutes 10] [--kill] [--seed 1]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.mlflow_server import MlflowServer
from support.storm import Storm

from edgewright.cli.dev.postgres import PostgresServer
from edgewright.errors import EdgewrightError

RETRAINED, PEOPLE = 10, 8
#: Seconds after which parts that were killed are started again.
_DEAD = 10
#: A dead part is found within two minutes (Airflow's defaults: five), and a busy one is not taken for dead.
PATIENT = {
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "90",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "600",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "90",
}
MODEL = """
from sklearn.linear_model import LogisticRegression

def fit(data):
    return LogisticRegression(max_iter=200).fit(data.X, data.y)
"""
ROWS = "a,b,y\n" + "".join(f"{row % 13},{row % 7},{row % 13 > 6:d}\n" for row in range(2000))
_TASKS = [
    {"id": "model", "uses": "train", "cache": "off", "with": {"data": {"$x": "data"}, "entry": "model.py:fit"}},
    {"id": "quality", "uses": "evaluate", "cache": "off",
     "with": {"model": {"$x": "model"}, "data": {"$x": "data"}, "gates": {"accuracy": ">= 0.5"}}},
]  # fmt: skip
_RETRIES = {"retries": 3, "retry_delay": "2s"}
_SPLIT = {"label": "y", "split": {"test": 0.25}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=10, help="from the first retraining to the last start of a run"
    )
    parser.add_argument("--kill", action="store_true", help="kill the triggerer and a scheduler in the middle")
    parser.add_argument("--seed", type=int, default=1, help="of what people do")
    options = parser.parse_args()
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    # pytest's and root's folders are closed to others, and PostgreSQL runs as another user
    with tempfile.TemporaryDirectory(prefix="edgewright-day-") as place, contextlib.ExitStack() as parts:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "postgres").mkdir()
        server = parts.enter_context(PostgresServer(folder / "postgres"))
        with psycopg.connect(server.url, autocommit=True) as link:
            link.execute("CREATE DATABASE day")
        database = f"{server.url.rpartition('/')[0]}/day"
        mlflow = MlflowServer(folder / "mlflow")
        mlflow.start()
        parts.callback(mlflow.stop)
        storm = Storm(folder, database.replace("postgresql:", "postgresql+psycopg:"), twice=["scheduler"])
        parts.enter_context(storm.running(EDGEWRIGHT_TRACKING_URI=mlflow.uri, **PATIENT))
        faults = Day(storm, database, options).live()
    raise SystemExit(1 if faults else 0)


class Day:
    """What happens in it.

    Args:
        storm: The Airflow.
        database: Address of its database.
        options: Of the command line.
    """

    def __init__(self, storm: Storm, database: str, options: argparse.Namespace) -> None:
        self.storm, self.options = storm, options
        self._link = psycopg.connect(database, autocommit=True)
        self._inbox = storm.home.parent / "inbox"
        self._memory: dict[str, list[float]] = collections.defaultdict(list)
        self._over = threading.Event()
        self._killed_at = 0.0

    def live(self) -> list[str]:
        """Live the day, print what it was like, and return what must not have been."""
        self._write_pipelines()
        self._wait(lambda: self._count("dag_run", "state = 'success'") >= RETRAINED, 600, "the first retrainings")
        start = self._now()
        with ThreadPoolExecutor(PEOPLE) as people:
            work = [people.submit(self._person, number) for number in range(PEOPLE)]
            self._watch(start)
            self._over.set()
            _raise(work)
        end = self._now()
        unfinished = f"start_date <= '{end}' AND state NOT IN ('success', 'failed')"
        self._wait(lambda: self._count("dag_run", unfinished) == 0, 600, "runs that had begun")
        return self._report(start, end)

    def _write_pipelines(self) -> None:
        for number in range(RETRAINED):
            data = {"id": "data", "uses": "ingest", "cache": "off", "with": {"source": "data.csv", **_SPLIT}}
            self._write(f"retrain_{number}", [data, *_TASKS], schedule="@continuous")
        for number in range(PEOPLE):
            (self._inbox / str(number)).mkdir(parents=True)
            what = {"objects": {"uri": f"file://{self._inbox}/{number}/*.csv", "every": "2s"}, "timeout": "30m"}
            data = {"id": "data", "uses": "ingest", "cache": "off", "with": {"source": {"$x": "labels"}, **_SPLIT}}
            self._write(f"person_{number}", [{"id": "labels", "uses": "wait", "with": what}, data, *_TASKS])

    def _write(self, name: str, tasks: list[dict[str, Any]], **more: Any) -> None:
        folder = self.storm.dags / name
        folder.mkdir()
        (folder / "data.csv").write_text(ROWS)
        (folder / "model.py").write_text(MODEL)
        document = {"dag_id": name, "start_date": "2026-01-01", "task_defaults": _RETRIES, "tasks": tasks, **more}
        (folder / "pipeline.yaml").write_text(json.dumps(document))

    # -- people ------------------------------------------------------------------------------------------------

    def _person(self, number: int) -> None:
        """Start a run, bring its data, wait for its end, think, and so on."""
        chance, api = random.Random(f"{self.options.seed} {number}"), self.storm.api
        turn = 0
        while not self._over.wait(chance.expovariate(1 / 20)):
            turn += 1
            run = _patiently(lambda: api.start_run(f"person_{number}", {}))
            time.sleep(chance.uniform(1, 15))
            part = self._inbox / f"{number}-{turn}.part"
            part.write_text(ROWS + f"{turn},{number},1\n")
            part.rename(self._inbox / str(number) / f"{turn}.csv")
            ended = lambda run=run: _patiently(lambda: api.run(f"person_{number}", run))["state"]  # noqa: E731
            while ended() not in ("success", "failed"):
                time.sleep(2)

    # -- looking on --------------------------------------------------------------------------------------------

    def _watch(self, start: Any) -> None:
        began, seconds = time.monotonic(), self.options.minutes * 60
        while (passed := time.monotonic() - began) < seconds:
            if self.options.kill and not self._killed_at and passed > seconds / 2:
                self._kill()
            self._sample()
            time.sleep(5)

    def _kill(self) -> None:
        self._killed_at = time.time()
        self.storm.kill("triggerer")
        self.storm.kill("scheduler")
        time.sleep(_DEAD)
        self.storm.start("triggerer")
        self.storm.start("scheduler")

    def _sample(self) -> None:
        for name, process in self._processes():
            with contextlib.suppress(psutil.Error):
                everything = [process, *process.children(recursive=True)]
                self._memory[name].append(sum(_pss(one) for one in everything) / (1 << 20))

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        numbers: collections.Counter[str] = collections.Counter()
        for part in self.storm.state.parts:
            numbers[part.name] += 1
            if (process := part.process()) is not None:
                yield f"{part.name} {numbers[part.name]}", process

    # -- the database ------------------------------------------------------------------------------------------

    def _ask(self, query: str) -> list[Any]:
        return self._link.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]

    def _now(self) -> Any:
        return self._ask("SELECT now()")[0][0]

    def _count(self, table: str, where: str) -> int:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return int(self._ask(f"SELECT count(*) FROM {table} WHERE {where}")[0][0])
        return 0

    def _wait(self, condition: Any, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} did not end within {seconds:.0f} s: {self._open()}")
            time.sleep(1)

    def _open(self) -> list[Any]:
        return self._ask("SELECT dag_id, task_id, state, try_number FROM task_instance WHERE state IS NULL OR state"
                         " NOT IN ('success', 'removed') LIMIT 20")  # fmt: skip

    # -- what it was like --------------------------------------------------------------------------------------

    def _report(self, start: Any, end: Any) -> list[str]:
        during = f"start_date BETWEEN '{start}' AND '{end}'"
        minutes = (end - start).total_seconds() / 60
        kind = "CASE WHEN dag_id LIKE 'retrain%' THEN 'retrainings' ELSE 'runs of people' END"
        faults = []
        print(f"{minutes:.1f} minutes, {os.cpu_count()} CPUs, load {os.getloadavg()[1]:.1f}", flush=True)
        for name, state, number in self._ask(
            f"SELECT {kind}, state, count(*) FROM dag_run WHERE {during} GROUP BY 1, 2 ORDER BY 1, 2"
        ):
            print(f"  {number:5d} {name} {state}")
            if state == "failed":
                faults.append(f"{number} {name} failed")
        query = f"SELECT dag_id, task_id, queued_dttm, end_date FROM task_instance_history WHERE {during}"
        lost = self._ask(f"{query} OR start_date IS NULL AND end_date BETWEEN '{start}' AND '{end}'")
        own = [one for one in lost if self._was_killed(one[2])]
        print(f"  {len(lost)} tries of tasks failed, {len(own)} of them because they were there at the kill")
        if len(lost) > len(own):
            faults.append(f"{len(lost) - len(own)} tries failed that nobody killed")
        self._report_delays(during)
        for name, values in sorted(self._memory.items()):
            print(f"  {name:<16} {values[0]:5.0f} MiB at first, median {statistics.median(values):5.0f},"
                  f" most {max(values):5.0f}, last {values[-1]:5.0f}")  # fmt: skip
        for fault in faults:
            print(f"  FAULT: {fault}")
        return faults

    def _was_killed(self, queued: Any) -> bool:
        """Whether a try was waiting for its executor or at work while parts were dead."""
        return bool(self._killed_at and queued and queued.timestamp() < self._killed_at + _DEAD + 5)

    def _report_delays(self, during: str) -> None:
        # a task that was deferred is scheduled anew when it resumes, long after it began
        query = (
            "SELECT extract(epoch FROM start_date - scheduled_dttm), extract(epoch FROM start_date - queued_dttm)"
            f" FROM task_instance WHERE {during} AND state = 'success' AND task_id <> 'labels' AND try_number = 1"
        )
        delays = [(float(first), float(second)) for first, second in self._ask(query)]
        for number, name in enumerate(("scheduled", "queued")):
            values = sorted(one[number] for one in delays)
            p95 = values[int(0.95 * (len(values) - 1))]
            print(f"  {len(values)} tasks: from {name} to running: median {statistics.median(values):.2f} s,"
                  f" p95 {p95:.2f} s, most {values[-1]:.2f} s")  # fmt: skip


def _pss(process: psutil.Process) -> int:
    """Return the memory of a process; what it shares with others is divided among them."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0  # it has ended


def _patiently(call: Any) -> Any:
    """Ask Airflow until it answers; it is busy."""
    for _ in range(30):
        try:
            return call()
        except EdgewrightError:
            time.sleep(2)
    return call()


def _raise(work: list[Future[None]]) -> None:
    for one in work:
        one.result()


if __name__ == "__main__":
    main()
