"""The real servers: they start, answer their own clients, survive being killed, and stop; faults are said clearly."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.servers import demand

from edgewright.cli.dev import maven
from edgewright.cli.dev.base import Server
from edgewright.cli.dev.cassandra import CassandraServer
from edgewright.cli.dev.command import FETCHED
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.mosquitto import MosquittoServer
from edgewright.cli.dev.postgres import PostgresServer
from edgewright.cli.dev.s3 import S3Server
from edgewright.cli.dev.schema_registry import SchemaRegistryServer
from edgewright.errors import Busy, ConfigError, DamagedArtifact, Unavailable
from edgewright.steps.java import find_java


def read_all(bootstrap: str, topic: str, number: int, group: str) -> list[bytes]:
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(found) < number and time.monotonic() < deadline:
        found += [message.value() for message in consumer.consume(100, 0.5) if not message.error()]
    consumer.commit(asynchronous=False)
    consumer.close()
    return found


@pytest.mark.slow
def test_kafka_keeps_its_messages_when_it_is_killed_and_started_again(tmp_path: Path) -> None:
    from confluent_kafka import Producer

    demand(KafkaServer)
    server = KafkaServer(tmp_path / "kafka", properties={"num.partitions": "1"})
    with server:
        producer = Producer({"bootstrap.servers": server.bootstrap, "acks": "all"})
        for number in range(50):
            producer.produce("kept", str(number).encode())
        assert producer.flush(30) == 0
        port, process = server.port, psutil.Process(server.pid)
        server.kill()
        assert not process.is_running()
        server.start()
        assert server.port == port
        found = read_all(server.bootstrap, "kept", 50, "readers")
        assert found == [str(number).encode() for number in range(50)]
    assert not server.running


def test_cassandra_answers_its_driver(cassandra: CassandraServer) -> None:
    from cassandra.cluster import Cluster

    patient = {"connect_timeout": 60, "control_connection_timeout": 60}
    with Cluster([cassandra.host], port=cassandra.port, **patient) as cluster:
        row = cluster.connect().execute("SELECT release_version FROM system.local", timeout=60).one()
        assert row.release_version.startswith("5.0")


def test_s3_takes_and_gives_objects(s3_server: S3Server) -> None:
    import fsspec

    options = {"key": s3_server.key, "secret": s3_server.secret, "client_kwargs": {"endpoint_url": s3_server.endpoint}}
    files = fsspec.filesystem("s3", **options)
    files.mkdir("dev-servers")
    files.pipe_file("dev-servers/a.txt", b"hello")
    assert files.cat_file("dev-servers/a.txt") == b"hello"


def test_postgres_and_mosquitto_start_again_on_their_port(postgres: PostgresServer, mosquitto: MosquittoServer) -> None:
    for server in (postgres, mosquitto):
        before = server.port
        server.kill()
        server.start()
        server.ping()
        assert server.port == before


@pytest.mark.slow
def test_the_schema_registry_keeps_its_schemas(tmp_path: Path) -> None:
    demand(SchemaRegistryServer)
    schema = json.dumps({"type": "record", "name": "Beat", "fields": [{"name": "rate", "type": "int"}]})

    def call(url: str, document: Any = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, {"content-type": "application/json"})) as answer:
            return json.load(answer)

    with SchemaRegistryServer(tmp_path / "registry") as server:
        number = call(f"{server.url}/subjects/beats-value/versions", {"schema": schema})["id"]
        server.stop()
        server.start()
        assert json.loads(call(f"{server.url}/schemas/ids/{number}")["schema"])["name"] == "Beat"


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Busy, match=f"port {port} is taken"):
            S3Server(tmp_path, port).start()


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    class Broken(Server):
        name = "Broken"

        def command(self) -> list[str]:
            return [sys.executable, "-c", "import sys; sys.exit('no such setting: colour')"]

        def ping(self) -> None:
            raise OSError

    with pytest.raises(Unavailable, match="(?s)Broken ended at once.*no such setting: colour"):
        Broken(tmp_path).start()


def fake(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_missing_or_unfit_java_and_maven_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no Java"):
        find_java(lowest=17)
    with pytest.raises(ConfigError, match="there is no Maven"):
        maven.find_maven()
    fake(tmp_path, "java", "echo 'openjdk version \"21.0.4\" 2024-07-16' >&2")
    assert find_java(lowest=17).endswith("java")
    with pytest.raises(ConfigError, match="Java 17 to 17 is needed, and this is Java 21"):
        find_java(lowest=17, highest=17)
    with pytest.raises(ConfigError, match="lacks jdk.compiler: a whole JDK"):
        find_java(lowest=17, modules=("jdk.compiler",))


def test_jars_are_checked_and_appear_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = tmp_path / "locks"
    locks.mkdir()
    good = hashlib.sha256(b"jar").hexdigest()
    (locks / "small.txt").write_text(f"# roots: a.b:c:1\na.b:c:1 {good}\n")
    monkeypatch.setattr(maven, "LOCKS", locks)
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    # a Maven that writes what it was told to: the real one is used by the other tests here
    script = 'for o in "$@"; do case $o in -DoutputDirectory=*) d=${o#*=}; mkdir -p $d; printf %s "$BYTES" > $d/c-1.jar'
    fake(tmp_path / "bin", "mvn", f"{script};; esac; done")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("BYTES", "other")
    with pytest.raises(DamagedArtifact, match="a.b:c:1: its sha256 is not what the lock says"):
        maven.jars("small")
    assert not maven.folder_of("small").exists()
    monkeypatch.setenv("BYTES", "jar")
    assert [file.name for file in maven.jars("small").iterdir()] == ["c-1.jar"]
    fake(tmp_path / "bin", "mvn", "exit 1")
    assert maven.jars("small") == maven.folder_of("small"), "what is there is not downloaded again"


def test_dev_runs_in_the_foreground_until_it_is_told_to_stop(tmp_path: Path) -> None:
    demand(S3Server)
    command = [sys.executable, "-m", "edgewright.cli.main", "dev", "s3", "--json", "--data", str(tmp_path / "s3")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        described = json.loads(text)
        with urllib.request.urlopen(described["endpoint"], timeout=5) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "S3: stopping" in said
    assert not psutil.pid_exists(described["pid"])


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    demand(S3Server)
    command = [sys.executable, "-m", "edgewright.cli.main", "dev", "s3", "--json", "--data", str(tmp_path / "s3")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        text += process.stdout.readline()
    server = psutil.Process(json.loads(text)["pid"])
    process.kill()
    process.communicate()
    if sys.platform == "linux":
        psutil.wait_procs([server], timeout=20)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    else:
        server.kill()


def test_every_lock_names_its_roots_and_digests() -> None:
    for name in FETCHED:
        first = (maven.LOCKS / f"{name}.txt").read_text().splitlines()[0]
        wanted = maven.read_lock(name)
        assert all(len(jar.sha256) == 64 for jar in wanted)
        assert set(first.removeprefix("# roots: ").split()) <= {str(jar) for jar in wanted}
