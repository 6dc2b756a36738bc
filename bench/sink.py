"""Rows a second into Cassandra: ``edgewright sink cassandra`` beside the loop that one writes first.

    python bench/sink.py [--rows 20000]

Both read the same topic of a real broker and write the same columns into a real node, one after the other, in this
order: ours, the loop, ours, the loop. The loop is ``session.execute`` of a prepared statement for each message, with a
commit after every 500 messages, as examples of both drivers have it. Printed are rows a second and their ratio.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer

from edgewright.cli.dev.cassandra import CassandraServer
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.streams.addresses import cassandra_address
from edgewright.streams.cassandra import Connection, Layout, Table, Writer
from edgewright.streams.sink import FEATURE_LOG_COLUMNS, Sink

FEATURES = [
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
]  # fmt: skip

#: Cassandra's default. With "group" each insert of the loop waits for the disk, and the ratio is 34.
PERIODIC = {"commitlog_sync": "periodic", "commitlog_sync_period": "10000ms", "commitlog_sync_group_window": None}


def produce(bootstrap: str, topic: str, number: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
    for index in range(number):
        document = {
            "request_id": uuid.uuid4().hex, "row": 0, "time": 1_767_268_800 + index / 500, "model": "bracelet",
            "model_version": "3", "model_variant": "onnx-int8", "prediction": index % 2, "probabilities": [0.25, 0.75],
            "features": dict.fromkeys(FEATURES, 40 + index % 30),
        }  # fmt: skip
        producer.produce(topic, json.dumps(document).encode(), document["request_id"])
        producer.poll(0)
    assert producer.flush(120) == 0


def ours(session: Any, bootstrap: str, topic: str, number: int) -> float:
    address = cassandra_address(f"cassandra://127.0.0.1/bench.ours_{uuid.uuid4().hex[:8]}")
    table = Table(session, address, Layout(), FEATURE_LOG_COLUMNS)
    sink = Sink({"bootstrap.servers": bootstrap}, [topic], uuid.uuid4().hex, Writer(table))
    moments: list[float] = []
    sink.run(once=True, report=lambda progress: moments.append(time.perf_counter()))
    assert sink.progress.rows == number
    # from the end of the first round (joining the group is no writing) to the end of the last
    return (number - 2000) / (moments[-1] - moments[0])


def loop(session: Any, bootstrap: str, topic: str, number: int) -> float:
    table = f"bench.loop_{uuid.uuid4().hex[:8]}"
    columns = ["day", "time", "request_id", "model", "model_version", "model_variant", "prediction", "probabilities"]
    kinds = ["text", "timestamp", "text", "text", "text", "text", "double", "frozen<list<double>>"]
    defined = ", ".join(f"{name} {kind}" for name, kind in zip(columns, kinds, strict=True))
    defined += "".join(f", {name} double" for name in FEATURES)
    session.execute(f"CREATE TABLE {table} ({defined}, PRIMARY KEY (day, time, request_id))")
    marks = ", ".join("?" * (len(columns) + len(FEATURES)))
    insert = session.prepare(f"INSERT INTO {table} ({', '.join([*columns, *FEATURES])}) VALUES ({marks})")
    settings = {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.subscribe([topic])
    done, began = 0, 0.0
    while done < number:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        began = began or time.perf_counter()
        document = json.loads(message.value())
        when = datetime.datetime.fromtimestamp(document["time"], datetime.UTC)
        first = [when.date().isoformat(), when, *(document[name] for name in columns[2:])]
        session.execute(insert, [*first, *(document["features"][name] for name in FEATURES)])
        done += 1
        if done % 500 == 0:
            consumer.commit(asynchronous=False)
    rate = number / (time.perf_counter() - began)
    consumer.close()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    number = parser.parse_args().rows
    with (
        tempfile.TemporaryDirectory() as folder,
        KafkaServer(Path(folder) / "k") as kafka,
        CassandraServer(Path(folder) / "c", settings=PERIODIC) as node,
    ):
        produce(kafka.bootstrap, "requests", number)
        with Connection(cassandra_address(f"cassandra://{node.host}:{node.port}/bench")) as session:
            ours(session, kafka.bootstrap, "requests", number)  # warms up the node, and makes the keyspace
            for _ in range(2):
                fast = ours(session, kafka.bootstrap, "requests", number)
                slow = loop(session, kafka.bootstrap, "requests", number)
                print(f"sink {fast:,.0f} rows/s, insert loop {slow:,.0f} rows/s: {fast / slow:.1f} times")


if __name__ == "__main__":
    main()
