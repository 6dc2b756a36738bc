"""A real broker that wants to know who asks, over TLS: what a connection says is passed on, what is wrong is said."""

from __future__ import annotations

import datetime
import ipaddress
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support.servers import demand

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.errors import ConfigError
from edgewright.spec.triggers import KafkaTrigger
from edgewright.steps.connections import kafka_settings
from edgewright.streams.addresses import kafka_address
from edgewright.streams.batches import BatchLog
from edgewright.streams.kafka import KafkaSource, client_settings, open_source
from edgewright.streams.kafka_pull import KafkaPull

HOST = "127.0.0.1"
_JAAS = "org.apache.kafka.common.security"


def certificate(folder: Path) -> Path:
    """Write a key with its own certificate for this machine as PEM, and the certificate alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "broker.pem").write_bytes(secret + pem)
    (folder / "ca.pem").write_bytes(pem)
    return folder / "ca.pem"


class SecuredKafka(KafkaServer):
    """A broker with a listener for logins (SASL) and one for logins over TLS, beside the one that its tests use."""

    other_ports = ("controller", "login", "tls")

    def command(self) -> list[str]:
        self.ca = certificate(self.folder)
        clients = {
            "LOGIN": f"{HOST}:{self.ports['login']}", "TLS": f"{HOST}:{self.ports['tls']}", "PLAINTEXT": self.bootstrap
        }  # fmt: skip
        listeners = {**clients, "CONTROLLER": f"{HOST}:{self.ports['controller']}"}
        user = f'{_JAAS}.plain.PlainLoginModule required user_nurse="right-word";'
        self._properties = {
            "listener.security.protocol.map":
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT,TLS:SASL_SSL",
            "listeners": ",".join(f"{name}://{place}" for name, place in listeners.items()),
            "advertised.listeners": ",".join(f"{name}://{place}" for name, place in clients.items()),
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "listener.name.login.plain.sasl.jaas.config": user,
            "listener.name.login.scram-sha-256.sasl.jaas.config": f"{_JAAS}.scram.ScramLoginModule required;",
            "listener.name.tls.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.tls.plain.sasl.jaas.config": user,
            "listener.name.tls.ssl.keystore.type": "PEM",
            "listener.name.tls.ssl.keystore.location": str(self.folder / "broker.pem"),
        }  # fmt: skip
        return super().command()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    demand(KafkaServer)
    with SecuredKafka(tmp_path_factory.mktemp("secured")) as server:
        from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        for one in admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion("doctor", kind, b"word-of-doctor")]
        ).values():
            one.result(20)
        yield server


def plain(server: SecuredKafka, **more: Any) -> dict[str, Any]:
    return {
        "bootstrap.servers": f"{HOST}:{server.ports['login']}", "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "PLAIN", "sasl.username": "nurse", "sasl.password": "right-word", **more,
    }  # fmt: skip


def scram(server: SecuredKafka) -> dict[str, Any]:
    return plain(server) | {
        "sasl.mechanisms": "SCRAM-SHA-256", "sasl.username": "doctor", "sasl.password": "word-of-doctor",
    }  # fmt: skip


def tls(server: SecuredKafka, **more: Any) -> dict[str, Any]:
    return plain(server) | {
        "bootstrap.servers": f"{HOST}:{server.ports['tls']}", "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(server.ca), **more,
    }  # fmt: skip


def source(settings: dict[str, Any], topic: str, folder: Path, **config: Any) -> KafkaSource:
    trigger = {"topic": topic, "start": "earliest", "connection": "ward", "batch": {"max_messages": 2, "max_wait": 1}}
    log = BatchLog(ArtifactStore(folder / "store"), "pipe", "kafka-secured")
    return open_source(KafkaTrigger.model_validate({**trigger, **config}), settings, log)


def send(server: SecuredKafka, *payloads: bytes) -> str:
    topic = f"secured-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(20)
    producer = Producer({"bootstrap.servers": server.bootstrap})
    for payload in payloads:
        producer.produce(topic, payload)
    assert producer.flush(20) == 0
    return topic


@pytest.mark.parametrize("kind", [plain, scram, tls])
def test_a_login_is_passed_on(secured: SecuredKafka, tmp_path: Path, kind: Any) -> None:
    topic = send(secured, b'{"n": 1}', b"{")
    # the dead letter goes the same way
    one = source(kind(secured), topic, tmp_path, dead_letters=f"{topic}-dead")
    deadline = time.monotonic() + 90
    while (batch := one.poll(0.3)) is None:
        assert time.monotonic() < deadline, one.problem
    one.close()
    assert (batch.messages, batch.rejected) == (1, 1)
    assert one.problem is None


REFUSED = "refuse the login of the connection ward: .*Auth"
WRONG = {
    "password": (lambda s: plain(s) | {"sasl.password": "wrong-word"}, REFUSED),
    "scram": (lambda s: scram(s) | {"sasl.password": "wrong-word"}, REFUSED),
    "certificate": (lambda s: tls(s, **{"ssl.ca.location": "/etc/ssl/certs/ca-certificates.crt"}),
                    "no TLS with the brokers of the connection ward .*certificate"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said_without_the_secret(
    secured: SecuredKafka, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    import re

    settings, words = WRONG[kind]
    if kind == "certificate" and not Path(settings(secured)["ssl.ca.location"]).exists():
        pytest.skip("this machine has no list of certificates")
    topic = send(secured, b'{"n": 1}')
    one = source(settings(secured), topic, tmp_path)
    deadline = time.monotonic() + 90
    while one.problem is None or not re.search(words, one.problem):
        assert one.poll(0.3) is None
        assert time.monotonic() < deadline, one.problem
    one.close()
    assert re.search(words, caplog.text)
    assert "wrong-word" not in caplog.text


def test_a_run_that_pulls_with_a_wrong_login_fails_for_good(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright.streams.kafka_pull._ANSWER", 5.0)
    log = BatchLog(ArtifactStore(tmp_path / "store"), "pipe", "pull-t")
    wrong = plain(secured, **{"sasl.password": "wrong-word"})
    with pytest.raises(ConfigError, match="refuse the login of the connection ward") as failure:
        list(KafkaPull("t", "earliest", wrong, log, "ward").new_batches(5))
    assert "wrong-word" not in str(failure.value)
    topic = send(secured, b'{"n": 1}')
    (batch,) = KafkaPull(topic, "earliest", tls(secured), log).new_batches(5)
    assert batch.messages == 1


def test_a_setting_that_librdkafka_does_not_know_is_named(tmp_path: Path) -> None:
    log = BatchLog(ArtifactStore(tmp_path / "store"), "pipe", "pull-t")
    settings = {"bootstrap.servers": "127.0.0.1:9", "sasl.pasword": "hush"}
    with pytest.raises(ConfigError, match=r"ward: the connection cannot be used: .*sasl\.pasword") as failure:
        list(KafkaPull("t", "earliest", settings, log, "ward").new_batches(5))
    assert "hush" not in str(failure.value)


def test_everything_of_a_connection_that_is_librdkafkas_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "bootstrap.servers": "127.0.0.1:9", "sasl.username": "a", "socket.keepalive.enable": True, "retries": 3,
        "client.rack": None, "error_cb": "my.function", "schema.registry.url": "http://r", "group.id": "mine",
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_WARD", json.dumps({"conn_type": "kafka", "extra": extra}))
    passed = {
        "bootstrap.servers": "127.0.0.1:9", "sasl.username": "a", "socket.keepalive.enable": True, "retries": 3
    }  # fmt: skip
    assert client_settings(kafka_settings("ward")) == passed
    assert client_settings(kafka_settings("ward"), consumer=True) == {**passed, "group.id": "mine"}
    assert kafka_address("kafka://ward/t").settings == {**passed, "group.id": "mine"}
    Producer(client_settings(kafka_settings("ward")))
    # as Airflow's worker hands it over
    from airflow.models.connection import Connection

    kept = {name: value for name, value in extra.items() if value is not None}
    for some in (kept, {"bootstrap.servers": "127.0.0.1:9", "sasl.password": "a&b=c %"}):
        uri = Connection(conn_id="ward", conn_type="kafka", extra=json.dumps(some)).get_uri()
        monkeypatch.setenv("AIRFLOW_CONN_WARD", uri)
        assert kafka_settings("ward") == some
