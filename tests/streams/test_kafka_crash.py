"""Consumers and the broker are killed at random while 10,000 messages arrive: each message is in exactly one batch."""

from __future__ import annotations

import collections
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support.servers import demand

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.streams.batches import BatchLog

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MESSAGES = 10_000
CONSUMER = """
import sys
from edgewright.artifacts import ArtifactStore
from edgewright.streams.batches import BatchLog
from edgewright.streams.sources import open_source
config = {"topic": "storm", "start": "earliest", "batch": {"max_messages": 50, "max_wait": 1}}
settings = {"bootstrap.servers": sys.argv[1], "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
source = open_source("kafka", config, BatchLog(ArtifactStore(sys.argv[2]), "pipe", "kafka-storm"), settings)
while True:
    source.poll(0.5)
"""


def stored(log: BatchLog) -> collections.Counter[int]:
    counts: collections.Counter[int] = collections.Counter()
    head = log.head()
    for number in range(1, (head.number if head else 0) + 1):
        batch = log.read(number)
        assert batch is not None
        with log.store.open(batch.data) as file:
            counts.update(json.loads(line)["value"]["n"] for line in file)
    return counts


def test_kills_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    demand(KafkaServer)
    chance = random.Random(7)
    log = BatchLog(ArtifactStore(tmp_path / "store"), "pipe", "kafka-storm")
    server = KafkaServer(tmp_path / "broker").start()
    consumers: list[subprocess.Popen[bytes]] = []

    def consumer() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CONSUMER, server.bootstrap, str(tmp_path / "store")]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    try:
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        admin.create_topics([NewTopic("storm", 4)])["storm"].result(20)
        producer = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True})
        consumers = [consumer(), consumer()]
        kills = 0
        for number in range(MESSAGES):
            producer.produce("storm", json.dumps({"n": number}).encode())
            if number % 500 == 499:
                producer.flush(0.1)
                time.sleep(chance.uniform(1.0, 8.0))
                victim = chance.randrange(2)
                consumers[victim].kill()
                consumers[victim].wait()
                consumers[victim] = consumer()
                kills += 1
            if number in (3999, 7499):
                server.kill()
                time.sleep(1)
                server.start()
        during = head.number if (head := log.head()) else 0
        assert during > 20  # the kills did not all come before the first message was read
        assert producer.flush(120) == 0
        deadline = time.monotonic() + 300
        while len(found := stored(log)) < MESSAGES and time.monotonic() < deadline:
            time.sleep(2)
        total = head.number if (head := log.head()) else 0
        print(f"{len(found)} messages in {total} batches, {during} of them between {kills} kills; broker killed twice")
        assert sorted(found) == list(range(MESSAGES))
        assert set(found.values()) == {1}
    finally:
        for process in consumers:
            process.kill()
            process.wait()
        server.stop()
