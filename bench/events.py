"""Events from a real broker: how fast they are taken, how much memory that needs, and how soon a real Airflow starts.

    python bench/events.py [rate] [memory] [latency] [--messages 40] [--quick]

rate      JSON messages a second from a waiting backlog into batches of the artifact store, on one core, beside the
          Kafka provider's ConsumeFromTopicOperator that writes the same values into files of as many lines.
memory    peak memory of the same over growing backlogs.
latency   from producing a message until a run is queued for it and until its first task runs, in a real Airflow of its
          own for each way: ours, and an AssetWatcher with the provider's usual trigger and with its shared stream.
          One message at a time, and a burst: how many of its messages come to a run within the patience.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).resolve().parent
#: A message of about 100 bytes.
READING = {"age": 63, "sex": 1, "cp": 3, "trestbps": 145, "chol": 233, "thalach": 150, "exang": 0, "num": 1}
WAYS = {"ours": "ours.yaml", "AssetWatcher, usual trigger": "classic.py", "AssetWatcher, shared stream": "shared.py"}
#: Seconds for which a message may have no run.
PATIENCE = 60.0


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        print(json.dumps(_CHILDREN[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["rate", "memory", "latency", []], help="default: all")
    parser.add_argument("--messages", type=int, default=40, help="of latency: one at a time, and in the burst")
    parser.add_argument("--quick", action="store_true", help="few messages: shows that it runs, not how fast")
    options = parser.parse_args()
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    for part in options.parts or ["rate", "memory", "latency"]:
        if part == "latency":
            latency(3 if options.quick else options.messages)
        else:
            {"rate": rate, "memory": memory}[part](quick=options.quick)


# -- a broker ----------------------------------------------------------------------------------------------------------


@contextmanager
def _broker() -> Iterator[tuple[str, Path]]:
    from edgewright.cli.dev.kafka import KafkaServer

    with tempfile.TemporaryDirectory(prefix="edgewright-events-") as folder, KafkaServer(Path(folder) / "k") as server:
        yield server.bootstrap, Path(folder)


def _topic(bootstrap: str, name: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(name, partitions)])[name].result(30)


def _fill(bootstrap: str, topic: str, number: int) -> None:
    _topic(bootstrap, topic, 3)
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "log_level": 0, "queue.buffering.max.messages": 1_000_000}
    )
    for index in range(number):
        producer.produce(topic, json.dumps({"id": index, **READING}).encode())
        if index % 1000 == 0:
            producer.poll(0)
    assert producer.flush(300) == 0


# -- rate and memory: in processes of their own, on one core -----------------------------------------------------------


def rate(*, quick: bool) -> None:
    number, rounds = (20_000, 1) if quick else (300_000, 3)
    with _broker() as (bootstrap, folder):
        _fill(bootstrap, "backlog", number)
        for size in (500, 5000):
            found: dict[str, list[float]] = {"ours": [], "peer": []}
            for turn in range(rounds):
                for way, rates in found.items():
                    done = _child(way, bootstrap, str(folder / f"{way}-{size}-{turn}"), str(number), str(size))
                    rates.append(done["rate"])
            ours, peer = (statistics.median(rates) for rates in found.values())
            print(
                f"batches of {size}: {ours:,.0f} messages/s on one core, ConsumeFromTopicOperator {peer:,.0f}: "
                f"{ours / peer:.2f} times",
                flush=True,
            )


def memory(*, quick: bool) -> None:
    backlogs = (5_000, 25_000, 50_000) if quick else (20_000, 250_000, 1_000_000)
    peaks = []
    for number in backlogs:
        with _broker() as (bootstrap, folder):
            _fill(bootstrap, "backlog", number)
            peaks.append(_child("ours", bootstrap, str(folder / "store"), str(number), "500")["peak"])
            print(f"backlog of {number:>9,} messages: peak memory {peaks[-1]:.0f} MiB", flush=True)
    for first, last in ((0, 2), (1, 2)):
        times = backlogs[last] / backlogs[first]
        print(f"{times:.0f} times the backlog: {peaks[last] / peaks[first]:.2f} times the memory", flush=True)


def _child(way: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--child", way, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    document: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return document


def _one_core() -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _ours(bootstrap: str, store: str, number: str, size: str) -> dict[str, float]:
    from edgewright.artifacts import ArtifactStore
    from edgewright.streams.batches import BatchLog
    from edgewright.streams.sources import open_source

    _one_core()
    config = {"topic": "backlog", "start": "earliest", "batch": {"max_messages": int(size), "max_wait": "2s"}}
    settings = {"bootstrap.servers": bootstrap, "group.id": store}
    source = open_source("kafka", config, BatchLog(ArtifactStore(store), "bench", "kafka-backlog"), settings)
    while (batch := source.poll(1.0)) is None:
        pass
    # joining the group is over; the last batch may wait for max_wait, so it is not measured either
    done, end, began = 0, int(number) - batch.messages - int(size), time.perf_counter()
    while done < end:
        if (batch := source.poll(1.0)) is not None:
            done += batch.messages
    seconds = time.perf_counter() - began
    source.close()
    return {"rate": done / seconds, "peak": _peak()}


def _peer(bootstrap: str, folder: str, number: str, size: str) -> dict[str, float]:
    extra = {"bootstrap.servers": bootstrap, "group.id": folder, "auto.offset.reset": "earliest",
             "enable.auto.commit": False}  # fmt: skip
    os.environ["AIRFLOW_CONN_KAFKA_PEER"] = json.dumps({"conn_type": "kafka", "extra": extra})
    from airflow.providers.apache.kafka.operators.consume import ConsumeFromTopicOperator

    _one_core()
    target = Path(folder)
    target.mkdir(parents=True)
    moments: list[tuple[float, int]] = []

    def store(messages: list[Any]) -> None:
        values = [json.loads(message.value()) for message in messages]
        (target / f"{len(moments)}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
        moments.append((time.perf_counter(), len(messages)))

    operator = ConsumeFromTopicOperator(
        task_id="peer", topics=["backlog"], kafka_config_id="kafka_peer", apply_function_batch=store,
        commit_cadence="end_of_batch", max_batch_size=int(size), max_messages=int(number) - int(size), poll_timeout=5,
    )  # fmt: skip
    operator.execute({})
    done = sum(count for _, count in moments[1:])
    return {"rate": done / (moments[-1][0] - moments[0][0]), "peak": _peak()}


_CHILDREN: dict[str, Callable[..., dict[str, float]]] = {"ours": _ours, "peer": _peer}


# -- latency: a real Airflow for each way ------------------------------------------------------------------------------


def latency(number: int) -> None:
    found: dict[str, dict[str, list[float]]] = {}
    for way, file in WAYS.items():
        with _broker() as (bootstrap, folder), _airflow(folder, HERE / "event_dags" / file, bootstrap) as api:
            seen, sender = Seen(api, by_run=file == "ours.yaml"), _Sender(bootstrap)
            _warm(sender, seen)
            found[way] = _one_at_a_time(sender, seen, number)
            text = "   ".join(_shown(name, found[way][name], found["ours"][name]) for name in ("queued", "running"))
            print(f"{way:<28} {text}   without a run {number - len(found[way]['queued'])} of {number}", flush=True)
            lost, runs, seconds = _burst(sender, seen, number)
            print(
                f"{'':<28} burst of {number}: {number - lost} in {runs} runs, the last after {seconds:.1f} s",
                flush=True,
            )


def _shown(name: str, values: list[float], ours: list[float]) -> str:
    if not values:
        return f"{name} never"
    p50, p99 = statistics.median(values), _p99(values)
    ratios = f"ours is {statistics.median(ours) / p50:.2f} and {_p99(ours) / p99:.2f} of it"
    return f"{name} p50 {p50:5.2f} s  p99 {p99:5.2f} s ({ratios})"


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.99 * len(values)))]


@contextmanager
def _airflow(folder: Path, dag: Path, bootstrap: str) -> Iterator[Any]:
    from edgewright.cli.airflow_api import AirflowApi
    from edgewright.cli.stack.local import LocalStack

    _topic(bootstrap, "bench", 1)
    dags = folder / "dags"
    (dags / "bench").mkdir(parents=True)
    shutil.copy(dag, dags / "bench" / ("pipeline.yaml" if dag.suffix == ".yaml" else dag.name))
    settings = {"bootstrap.servers": bootstrap, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    for name, extra in {"default": settings, "peer": {**settings, "group.id": "peer"}}.items():
        os.environ[f"AIRFLOW_CONN_KAFKA_{name.upper()}"] = json.dumps({"conn_type": "kafka", "extra": extra})
    stack = LocalStack(folder / "home", lambda line: None)
    try:
        stack.up(dags)
        yield AirflowApi.local(folder / "home")
    finally:
        stack.down()


class Seen:
    """What Airflow did with each message: the moment at which its run was queued, and its first task began to run."""

    def __init__(self, api: Any, *, by_run: bool) -> None:
        self.api = api
        self._by_run = by_run

    def runs(self) -> dict[int, dict[str, Any]]:
        """Return the run by the number of the message."""
        runs = self._newest("/dags/bench/dagRuns", "dag_runs", "-run_after")
        if self._by_run:  # one partition, so the offset is the number; the run's id ends with it
            return {int(run["dag_run_id"].rpartition("-")[2]): run for run in runs if "event__" in run["dag_run_id"]}
        by_id = {run["dag_run_id"]: run for run in runs}
        events = self._newest("/assets/events", "asset_events", "-timestamp")
        return {
            json.loads(event["extra"]["payload"])["n"]: by_id[run["run_id"]]
            for event in events
            for run in event["created_dagruns"]
            if run["run_id"] in by_id
        }

    def began(self, run: dict[str, Any]) -> float | None:
        """Return when the first task of a run began."""
        tasks = self.api.call("GET", f"/dags/bench/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
        starts = [task["start_date"] for task in tasks if task["task_id"] == "first" and task["start_date"]]
        return _seconds(starts[0]) if starts else None

    def _newest(self, path: str, key: str, order: str) -> list[dict[str, Any]]:
        from edgewright.errors import NotFound, Unavailable

        try:
            found: list[dict[str, Any]] = self.api.call("GET", path, params={"limit": 100, "order_by": order})[key]
        except (NotFound, Unavailable):
            return []  # not parsed yet, or SQLite was busy: it is asked again
        return found


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


class _Sender:
    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 0})
        self.next = 0

    def send(self) -> tuple[int, float]:
        number, self.next = self.next, self.next + 1
        moment = time.time()
        self._producer.produce("bench", json.dumps({"n": number, **READING}).encode())
        self._producer.flush(10)
        return number, moment


def _wait_for_run(seen: Seen, number: int, patience: float) -> dict[str, Any] | None:
    deadline = time.time() + patience
    while time.time() < deadline:
        run = seen.runs().get(number)
        if run is not None and seen.began(run) is not None:
            return run
        time.sleep(0.2)
    return None


def _warm(sender: _Sender, seen: Seen) -> None:
    """The first messages wait for the Dag to be parsed and for every process to have imported what it needs."""
    for patience in (180.0, PATIENCE):
        number, _ = sender.send()
        _wait_for_run(seen, number, patience)
        time.sleep(5)


def _one_at_a_time(sender: _Sender, seen: Seen, number: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"queued": [], "running": []}
    for _ in range(number):
        index, moment = sender.send()
        run = _wait_for_run(seen, index, PATIENCE)
        if run is not None:
            found["queued"].append(_seconds(run["queued_at"]) - moment)
            found["running"].append((seen.began(run) or 0.0) - moment)
        time.sleep(1.7)  # so that it is no multiple of anybody's rhythm
    return found


def _burst(sender: _Sender, seen: Seen, number: int) -> tuple[int, int, float]:
    """Return how many messages of a burst have no run in time, the number of runs, the seconds to the last of them."""
    sent = dict(sender.send() for _ in range(number))
    deadline = time.time() + 2 * PATIENCE
    while len(missing := sent.keys() - (runs := seen.runs()).keys()) and time.time() < deadline:
        time.sleep(1)
    last = max((_seconds(runs[index]["queued_at"]) - sent[index] for index in sent if index in runs), default=0.0)
    return len(missing), len({runs[index]["dag_run_id"] for index in sent if index in runs}), last


if __name__ == "__main__":
    main()
