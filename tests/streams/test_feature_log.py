"""The feature log: the service's requests on a real Kafka, whatever is killed meanwhile; and its spool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from support import prediction_service as support
from support.servers import demand

from edgewright.cli.dev.kafka import KafkaServer
from edgewright.errors import ConfigError
from edgewright.installation import FeatureLog as FeatureLogOptions
from edgewright.installation import Installation
from edgewright.streams.addresses import KafkaAddress
from edgewright.streams.feature_log import Entry, FeatureLog
from edgewright.streams.pseudonyms import PersonalFeatures, Pseudonyms
from edgewright.streams.spool import Place, Spool, SpoolFull

ROWS = [{"age": 45, "chol": 230, "ca": 1}, {"age": 63, "chol": 300.5, "ca": None}]


def read(bootstrap: str, topic: str, number: int, patience: float = 60.0) -> list[dict[str, Any]]:
    """Return the messages of a topic of one partition, in order, once there are so many different ones."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + patience
    while len({(m["request_id"], m["row"]) for m in found}) < number and time.monotonic() < deadline:
        found += [json.loads(message.value()) for message in consumer.consume(500, 0.5) if not message.error()]
    consumer.close()
    return found


def first_seen(messages: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(message["request_id"] for message in messages))


def one_partition(bootstrap: str, topic: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)


def ask(service: support.ServiceProcess, identifier: str, rows: list[dict[str, Any]] = ROWS[:1]) -> Any:
    body = {"dataframe_records": rows}
    return service.client.post("/invocations", json=body, headers={"x-request-id": identifier})


def test_each_row_is_sent_with_what_was_asked_and_answered(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = f"log-{uuid.uuid4().hex[:8]}"
    one_partition(kafka.bootstrap, topic)
    support.ReleaseMaker(tmp_path / "releases").make(1)
    options = ("--model", "bracelet", "--feature-log", f"kafka://{kafka.bootstrap}/{topic}")
    with support.running(tmp_path / "home", f"file://{tmp_path / 'releases'}", *options) as service:
        assert service.put("bracelet", 1).status_code == 200
        answer = ask(service, "mine", ROWS).json()
        assert ask(service, "wrong", [{"age": "old", "chol": 1, "ca": 1}]).status_code == 400
        found = read(kafka.bootstrap, topic, 2)
        health, metrics = service.client.get("/health").json(), service.client.get("/metrics").text
    assert [message.pop("time")[-1] for message in found] == ["Z", "Z"]
    assert found[1] == {
        "request_id": "mine", "row": 1, "model": "bracelet", "model_version": "1", "model_variant": "onnx",
        "features": {"age": 63, "chol": 300.5, "ca": None}, "prediction": answer["predictions"][1],
        "probabilities": answer["probabilities"][1],
    }  # fmt: skip
    assert health["feature_log"]["to"] == f"kafka://{kafka.bootstrap}/{topic}"
    assert 'edgewright_feature_log_entries_total{outcome="logged"} 2' in metrics
    assert "edgewright_feature_log_waiting_bytes" in metrics


def test_what_identifies_people_leaves_the_service_as_a_pseudonym(
    kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "k" * 40
    monkeypatch.setenv("EDGEWRIGHT_PSEUDONYM_KEY", key)
    topic = f"log-{uuid.uuid4().hex[:8]}"
    one_partition(kafka.bootstrap, topic)
    support.ReleaseMaker(tmp_path / "releases").make(1)
    options = ["--model", "bracelet", "--feature-log", f"kafka://{kafka.bootstrap}/{topic}"]
    options += ["--feature-log-personal", "chol", "--feature-log-personal", "age=drop"]
    with support.running(tmp_path / "home", f"file://{tmp_path / 'releases'}", *options) as service:
        assert service.put("bracelet", 1).status_code == 200
        ask(service, "mine", ROWS)
        found = read(kafka.bootstrap, topic, 2)
        spooled = b"".join(
            file.read_bytes() for file in (tmp_path / "home" / "feature-log").glob("*") if file.is_file()
        )
    of = Pseudonyms(key).of
    assert [m["features"] for m in found] == [{"chol": of("230"), "ca": 1}, {"chol": of("300.5"), "ca": None}]
    assert b"300.5" not in spooled
    assert b"age" not in spooled


def test_a_service_without_the_key_of_pseudonyms_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEWRIGHT_PSEUDONYM_KEY", raising=False)
    monkeypatch.delenv("EDGEWRIGHT_PSEUDONYM_KEY_FILE", raising=False)
    given = {"to": "kafka://127.0.0.1:1/t", "personal": {"chol": "token", "age": "drop"}}
    options = FeatureLogOptions.model_validate(given).options()
    place = ["--home", str(tmp_path), "--tracking-uri", f"file://{tmp_path}", "--model", "bracelet"]
    command = [sys.executable, "-m", "edgewright.serving", *place]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "personal columns need a key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_value_has_the_pseudonym_that_ingest_gives_it() -> None:
    pseudonyms = Pseudonyms("k" * 40)
    personal = PersonalFeatures({"id": "token"}, pseudonyms)
    for value in (12345, 12345.0, "12345"):
        assert personal.treated({"id": value, "age": 4}) == {"id": pseudonyms.of("12345"), "age": 4}
    assert personal.treated({"id": None}) == {"id": None}
    assert personal.treated(personal.treated({"id": "a"})) == personal.treated({"id": "a"})
    with pytest.raises(ConfigError, match="token or drop"):
        PersonalFeatures({"id": "hide"}, pseudonyms)


def test_a_service_that_is_killed_while_kafka_is_away_loses_nothing(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = f"log-{uuid.uuid4().hex[:8]}"
    one_partition(kafka.bootstrap, topic)
    support.ReleaseMaker(tmp_path / "releases").make(1)
    releases, options = f"file://{tmp_path / 'releases'}", ("--model", "bracelet", "--feature-log")
    identifiers = [f"r{number}" for number in range(60)]
    with support.running(tmp_path / "home", releases, *options, f"kafka://127.0.0.1:1/{topic}") as service:
        assert service.put("bracelet", 1).status_code == 200
        for identifier in identifiers[:50]:
            assert ask(service, identifier).status_code == 200
        assert service.client.get("/health").json()["feature_log"]["waiting_bytes"] > 0
        service.stop(signal.SIGKILL)
    with support.running(tmp_path / "home", releases, *options, f"kafka://{kafka.bootstrap}/{topic}") as service:
        for identifier in identifiers[50:]:
            assert ask(service, identifier).status_code == 200
        assert first_seen(read(kafka.bootstrap, topic, 60)) == identifiers, "everything, in order"


@pytest.mark.slow
@pytest.mark.parametrize("durable", [False, True])
def test_nothing_is_lost_while_broker_and_service_are_killed(tmp_path: Path, durable: bool) -> None:
    demand(KafkaServer)
    topic = "requests"
    support.ReleaseMaker(tmp_path / "releases").make(1)
    broker = KafkaServer(tmp_path / "kafka", properties={"num.partitions": "1"})
    options = ["--model", "bracelet", *(["--feature-log-durable"] if durable else [])]
    answered: list[str] = []
    with broker:
        one_partition(broker.bootstrap, topic)
        options += ["--feature-log", f"kafka://{broker.bootstrap}/{topic}"]
        releases = f"file://{tmp_path / 'releases'}"
        with support.running(tmp_path / "home", releases, *options) as service:
            assert service.put("bracelet", 1).status_code == 200

            def ask_some(number: int) -> None:
                for _ in range(number):
                    assert ask(service, f"r{len(answered)}").status_code == 200
                    answered.append(f"r{len(answered)}")

            ask_some(50)
            broker.kill()
            ask_some(50)  # it keeps answering
            assert service.client.get("/health").json()["feature_log"]["waiting_bytes"] > 0
            service.stop(signal.SIGKILL)
        with support.running(tmp_path / "home", releases, *options) as service:
            ask_some(20)
            broker.start()
            ask_some(20)
            found = read(broker.bootstrap, topic, len(answered))
            assert first_seen(found) == answered, "everything that was answered, in order"
            deadline = time.monotonic() + 20
            while service.client.get("/health").json()["feature_log"]["waiting_bytes"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert service.stop() == 0


def test_the_installation_names_the_feature_log(tmp_path: Path) -> None:
    environ = {"EDGEWRIGHT_HOME": str(tmp_path), "EDGEWRIGHT_FEATURE_LOG": "kafka://host:1/a"}
    found = Installation.load(environ).feature_log
    assert found is not None
    assert found.options() == ["--feature-log", "kafka://host:1/a", "--feature-log-spool", "256"]
    (tmp_path / "installation.yaml").write_text("feature_log: {to: 'kafka://host:1/b', durable: true}\n")
    found = Installation.load({"EDGEWRIGHT_HOME": str(tmp_path)}).feature_log
    assert found is not None
    assert found.options()[-1] == "--feature-log-durable"


def entry(number: int) -> Entry:
    return Entry(f"r{number}", 0, "2026-01-01T00:00:00.000Z", "m", "1", "onnx", {"x": 1.0}, 1, None)


def test_a_full_spool_drops_and_counts_or_refuses(tmp_path: Path) -> None:
    nowhere = KafkaAddress({"bootstrap.servers": "127.0.0.1:1"}, "a", "kafka://127.0.0.1:1/a")
    small = FeatureLog(nowhere, tmp_path / "small", limit=1000)
    small.append([entry(0)])
    small.append([entry(number) for number in range(100)])
    assert (small.counts.logged, small.counts.dropped_full) == (1, 100), "all rows of a request or none"
    durable = FeatureLog(nowhere, tmp_path / "durable", limit=1000, durable=True)
    logged = durable.append([entry(0)])
    assert logged is not None
    logged.result(20)
    with pytest.raises(SpoolFull, match="the spool holds its"):
        durable.append([entry(number) for number in range(100)])


def everything(spool: Spool, place: Place | None = None) -> list[bytes]:
    return [record for _, record in spool.read(place or spool.sent)]


def test_a_spool_goes_on_after_it_was_opened_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment=100)
    records = [f"record {number}".encode() for number in range(50)]
    for record in records:
        spool.append([record])
    places = [place for place, _ in spool.read(spool.sent)]
    assert everything(spool) == records
    spool.mark_sent(places[19])
    spool.save()
    assert len(list(tmp_path.glob("*.log"))) < 10, "what was sent is removed"
    spool.close()
    again = Spool(tmp_path, segment=100)
    again.append([b"new"])
    assert everything(again) == [*records[20:], b"new"]
    again.mark_sent([place for place, _ in again.read(again.sent)][-1])
    assert again.waiting_bytes == 0
    assert not again.wait(again.sent, 0)
    again.close()
    assert len(list(tmp_path.glob("*.log"))) == 1
    for _ in range(3):
        Spool(tmp_path).close()
    assert len(list(tmp_path.glob("*.log"))) == 1, "starts without records leave nothing behind"


def test_a_half_written_record_is_left_out_and_those_after_it_are_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"one", b"two"])
    spool.close()
    (segment,) = tmp_path.glob("*.log")
    os.truncate(segment, segment.stat().st_size - 1)
    again = Spool(tmp_path)
    again.append([b"three"])
    assert everything(again) == [b"one", b"", b"three"]
    places = [place for place, _ in again.read(again.sent)]
    assert everything(again, places[1]) == [b"three"]
    again.close()


def test_who_waits_for_the_disk_is_told_together(tmp_path: Path) -> None:
    spool = Spool(tmp_path, window=30)
    waiting = []
    for number in range(20):
        spool.append([str(number).encode()])
        waiting.append(spool.synced())
    for future in waiting:
        assert future.result(20) is None
    assert spool.synced().done(), "nothing is left to sync"
    spool.close()
