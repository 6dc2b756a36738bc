"""Messages of a real broker through Airflow's own scheduler and triggerer, while this and that goes wrong.

In the end each message is in the dataset of exactly one run that ended well. The counts are printed (``pytest -s``).
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from support.servers import demand
from support.storm import LIGHT, Storm, make_topic, send, wait_for

from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.airflow, pytest.mark.timeout(1200)]
EACH = "per_message: true"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker that a test may kill, if it starts it again."""
    demand(KafkaServer)
    with KafkaServer(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgres, two schedulers, two triggerers"])
def storm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, broker: KafkaServer
) -> Iterator[Storm]:
    extra = {"bootstrap.servers": broker.bootstrap, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500,
             "topic.metadata.refresh.interval.ms": 1000}  # fmt: skip
    connection = json.dumps({"conn_type": "kafka", "extra": extra})
    folder = tmp_path_factory.mktemp("storm")
    if request.param == "sqlite":
        storm = Storm(folder)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        database = f"storm_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(server.url, autocommit=True) as link:
            link.execute(f"CREATE DATABASE {database}")  # type: ignore[call-overload]
        url = f"{server.url.rpartition('/')[0]}/{database}".replace("postgresql:", "postgresql+psycopg:")
        storm = Storm(folder, url, twice=["scheduler", "triggerer"])
    with storm.running(AIRFLOW_CONN_KAFKA_DEFAULT=connection) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of a topic and its pipeline, for one test alone."""
    return f"storm-{uuid.uuid4().hex[:8]}"


def test_a_burst_of_batches_starts_a_run_each(storm: Storm, broker: KafkaServer, name: str) -> None:
    make_topic(broker, name, 3)
    with storm.pipeline(name, EACH, LIGHT) as pipe:
        send(broker, name, range(200))
        pipe.wait_until_done(200, 900)
        pipe.check_runs(200, "burst")


def test_batches_arrive_while_the_scheduler_is_down(storm: Storm, broker: KafkaServer, name: str) -> None:
    make_topic(broker, name)
    with storm.pipeline(name, EACH, LIGHT) as pipe:
        send(broker, name, range(1))
        pipe.wait_until_done(1, 240)
        stopped = storm.kill_all("scheduler")
        send(broker, name, range(1, 51))
        wait_for(lambda: pipe.batches() == 51, 120, lambda: f"{pipe.batches()} batches")
        assert len(pipe.runs()) == 1
        for _ in range(stopped):
            storm.start("scheduler")
        pipe.wait_until_done(51, 600)
        pipe.check_runs(51, "scheduler down")


def test_batches_wait_while_the_pipeline_is_paused(storm: Storm, broker: KafkaServer, name: str) -> None:
    make_topic(broker, name)
    with storm.pipeline(name, EACH, LIGHT) as pipe:
        wait_for(pipe.is_there, 90, lambda: "there is no companion Dag")
        storm.api.call("PATCH", f"/dags/{name}", json={"is_paused": True})
        send(broker, name, range(20))
        wait_for(lambda: pipe.batches() == 20, 120, lambda: f"{pipe.batches()} batches")
        time.sleep(5)
        assert pipe.runs() == {}
        storm.api.call("PATCH", f"/dags/{name}", json={"is_paused": False})
        pipe.wait_until_done(20, 600)  # the companion's sweep comes every five minutes
        pipe.check_runs(20, "paused")


def test_the_same_offsets_twice_are_taken_once(storm: Storm, broker: KafkaServer, name: str) -> None:
    make_topic(broker, name)
    with storm.pipeline(name, "batch: {max_messages: 10, max_wait: 2s}") as pipe:
        send(broker, name, range(30))
        pipe.wait_until_done(30, 240)
        stopped = storm.kill_all("triggerer")
        group = f"edgewright.{name}.{pipe.log.source}"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        back = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 0)])

        def is_set_back() -> bool:
            # a group takes no offsets from others until it has missed its last member
            return admin.alter_consumer_group_offsets([back])[group].exception(20) is None

        wait_for(is_set_back, 60, lambda: "the group's offsets cannot be set back")
        pipe.log.unmark("dispatched", 1)  # as if the companion had died after starting the run
        pipe.log.store.delete(f"{pipe.log.prefix}/through.json")
        for _ in range(stopped):
            storm.start("triggerer")
        send(broker, name, range(30, 40))
        pipe.wait_until_done(40, 300)
        pipe.check(range(40), "the same offsets twice")
        assert len(pipe.runs()) == pipe.batches()


def test_kills_at_random_moments(storm: Storm, broker: KafkaServer, name: str) -> None:
    total, chance = 10_000, random.Random(11)
    make_topic(broker, name, 3)
    with storm.pipeline(name, "batch: {max_messages: 250, max_wait: 3s}") as pipe:
        wait_for(pipe.is_there, 90, lambda: "there is no companion Dag")
        producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
        killed: list[str] = []
        for number in range(total):
            producer.produce(name, json.dumps({"n": number, "y": number % 2}).encode())
            if number % 1000 == 999:
                producer.flush(0.2)
                time.sleep(chance.uniform(2, 12))
                victim = ["triggerer", "scheduler", "broker"][len(killed) % 3]
                killed.append(victim)
                if victim == "broker":
                    broker.kill()
                    time.sleep(chance.uniform(0, 3))
                    broker.start()
                else:
                    storm.kill(victim)
                    time.sleep(chance.uniform(0, 3))
                    storm.start(victim)
        assert producer.flush(120) == 0
        deadline = time.monotonic() + 600
        while pipe.done() < total and time.monotonic() < deadline:
            if pipe.states()["failed"]:  # a task whose tries all fell into kills
                for number in pipe.log.numbers("failed"):
                    if pipe.log.state(number) == "failed":
                        pipe.log.release(number)
            time.sleep(3)
        pipe.wait_until_done(total, 60)
        pipe.check(range(total), f"killed {', '.join(killed)}")


def test_another_triggerer_takes_over(storm: Storm, broker: KafkaServer, name: str) -> None:
    if len(storm.parts("triggerer")) < 2:
        pytest.skip("there is one triggerer only")
    make_topic(broker, name)
    with storm.pipeline(name, "batch: {max_messages: 10, max_wait: 2s}") as pipe:
        send(broker, name, range(20))
        pipe.wait_until_done(20, 240)
        for turn in (1, 2):  # one of both is the one that reads
            storm.kill("triggerer", 0)
            send(broker, name, range(20 * turn, 20 * turn + 20))
            pipe.wait_until_done(20 * turn + 20, 300)
            storm.start("triggerer")
        pipe.check(range(60), "one triggerer of two, killed twice")


def test_a_broker_that_is_down_at_the_start_is_waited_for_and_airflow_says_so(
    storm: Storm, broker: KafkaServer, name: str
) -> None:
    broker.stop()
    try:
        with storm.pipeline(name, EACH) as pipe:
            wait_for(
                lambda: [event for event in storm.asset_events(name) if event.get("problem")],
                180,
                lambda: f"Airflow shows {storm.asset_events('nobroker')}",
            )
            broker.start()
            make_topic(broker, name)
            send(broker, name, range(3))
            pipe.wait_until_done(3, 240)
            pipe.check(range(3), "broker down at start")
            assert any(event.get("solved") for event in storm.asset_events(name))
    finally:
        broker.start()


def test_a_topic_that_is_deleted_and_made_anew(storm: Storm, broker: KafkaServer, name: str) -> None:
    make_topic(broker, name)
    with storm.pipeline(name, "batch: {max_messages: 10, max_wait: 2s}") as pipe:
        send(broker, name, range(20))
        pipe.wait_until_done(20, 240)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.delete_topics([name])[name].result(30)
        time.sleep(3)
        make_topic(broker, name)
        send(broker, name, range(20, 35))
        pipe.wait_until_done(35, 300)
        pipe.check(range(35), "topic made anew")


def test_offsets_that_are_out_of_range(storm: Storm, broker: KafkaServer, name: str) -> None:
    make_topic(broker, name)
    with storm.pipeline(name, "batch: {max_messages: 10, max_wait: 2s}") as pipe:
        send(broker, name, range(10))
        pipe.wait_until_done(10, 240)
        stopped = storm.kill_all("triggerer")
        send(broker, name, range(10, 30))
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        place = TopicPartition(name, 0, 25)
        admin.delete_records([place])[place].result(30)
        for _ in range(stopped):
            storm.start("triggerer")
        pipe.wait_until_done(15, 300)
        pipe.check([*range(10), *range(25, 30)], "offsets out of range")
        gaps = [batch.details.get("gaps") for n in range(1, pipe.batches() + 1) if (batch := pipe.log.read(n))]
        assert [gap for gap in gaps if gap] == [[f"{name}/0: offsets 10 to 24 were removed before they were read"]]


def test_a_message_of_five_megabytes(storm: Storm, broker: KafkaServer, name: str) -> None:
    make_topic(broker, name, **{"max.message.bytes": "10000000"})
    with storm.pipeline(name, "batch: {max_messages: 10, max_wait: 2s}") as pipe:
        send(broker, name, range(2), note="x" * 5_000_000)
        pipe.wait_until_done(2, 240)
        pipe.check(range(2), "5 MB")
