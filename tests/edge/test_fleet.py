"""The fleet: reports of nodes come through Kafka, and the last state of each is shown."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from support.edge import Bundles, Process, eventually

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.fleet import command
from edgewright.edge.reports import KafkaReports
from edgewright.errors import NotFound
from edgewright.streams.addresses import kafka_address
from edgewright.streams.fleet import FORMAT, Fleet, FleetCounts, FleetSink, read_report


def report(sequence: int = 1, version: str = "1", boot: str = "a", node: str = "n1") -> dict[str, Any]:
    model = {"name": "pump", "version": version, "target": "onnx", "since": f"2026-01-0{version}T00:00:00+00:00"}
    said = {"format": FORMAT, "node": node, "boot": boot, "sequence": sequence, "model": model, "time": "1999"}
    return {**said, "previous": None, "problem": "", "requests": 3}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(ArtifactStore(tmp_path / "place" / "store"))


@pytest.fixture
def show(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "place"))
    monkeypatch.setenv("EDGEWRIGHT_STORE", fleet.store.root)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments, catch_exceptions=False).output

    return run


def test_the_newest_report_of_the_newest_boot_counts(fleet: Fleet) -> None:
    assert fleet.take([(report(1), "2026-01-01T00:00:00+00:00")])
    assert fleet.take([(report(3, "2"), "2026-01-02T00:00:00+00:00")])
    assert not fleet.take([(report(3, "2"), "2026-01-03T00:00:00+00:00")]), "the same again"
    assert not fleet.take([(report(2), "2026-01-03T00:00:00+00:00")]), "an older one"
    assert fleet.take([(report(1, "2", boot="b"), "2026-01-04T00:00:00+00:00")])
    assert not fleet.take([(report(9, boot="a"), "2026-01-05T00:00:00+00:00")]), "of a boot that ended"
    (node,) = fleet.nodes()
    assert (node["model"]["version"], node["boot"], node["sequence"]) == ("2", "b", 1)
    assert node["seen"] == "2026-01-02T00:00:00+00:00", "since the first report of this version"
    assert node["last_report"] == "2026-01-04T00:00:00+00:00"


def test_names_of_nodes_do_not_lead_out_of_the_store(fleet: Fleet) -> None:
    fleet.take([(report(node="../../x"), "2026-01-01T00:00:00+00:00")])
    assert [key for key in fleet.store.list_keys("fleet") if ".." in key.split("/")] == []
    assert fleet.nodes()[0]["node"] == "../../x"


@pytest.mark.parametrize("value", [None, b"", b"[]", b"{", b"1", b'{"format": "other"}',
                                   json.dumps({**report(), "sequence": "x"}).encode(),
                                   json.dumps({**report(), "model": 1}).encode()])  # fmt: skip
def test_other_messages_are_no_reports(value: bytes | None) -> None:
    assert read_report(value) is None


def test_the_command_shows_them(fleet: Fleet, show: Callable[..., str]) -> None:
    assert "edgewright sink fleet" in show()
    fleet.take([(report(), "2026-01-01T00:00:00+00:00")])
    fleet.take([({**report(node="n2"), "model": None, "problem": "no source"}, "2026-01-01T00:00:00+00:00")])
    text = show()
    assert [line.split()[:4] for line in text.splitlines()[1:]] == [["n1", "pump", "1", "onnx"], ["n2", "-", "-", "-"]]
    assert "no source" in text
    found = json.loads(show("--json", "--model", "pump"))["nodes"]
    assert [node["node"] for node in found] == ["n1"]
    assert found[0]["silent_seconds"] > 0
    assert "no nodes" in show("--silent", "99999d")


def read(kafka: KafkaServer, topic: str, fleet: Fleet) -> FleetCounts:
    return FleetSink({"bootstrap.servers": kafka.bootstrap}, [topic], f"g-{topic}", fleet, print).run(once=True)


def test_what_nodes_report_to_kafka_is_kept(
    kafka: KafkaServer, fleet: Fleet, bundles: Bundles, tmp_path: Path, start: Callable[..., Process]
) -> None:
    topic = f"reports-{uuid.uuid4().hex[:8]}"
    bundles.write(tmp_path / "offered", 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, b"no report")
    assert producer.flush(60) == 0
    node = start(tmp_path / "offered", "--kafka", f"kafka://{kafka.bootstrap}/{topic}", "--report", "0.3")

    def runs(version: str) -> bool:
        read(kafka, topic, fleet)
        return [(n["node"], (n["model"] or {}).get("version")) for n in fleet.nodes()] == [("n1", version)]

    eventually(lambda: runs("1"), node.text)
    bundles.write(tmp_path / "offered", 2)
    eventually(lambda: runs("2"), node.text)
    first = fleet.nodes()[0]
    node.kill()
    again = start(tmp_path / "offered", "--kafka", f"kafka://{kafka.bootstrap}/{topic}", "--report", "0.3")
    eventually(lambda: runs("2") and fleet.nodes()[0]["boot"] != first["boot"], again.text)
    assert fleet.nodes()[0]["seen"] == first["seen"]
    assert read(kafka, topic, fleet).unreadable == 0, "offsets were committed"


def test_a_topic_that_is_not_there_is_named(kafka: KafkaServer, fleet: Fleet) -> None:
    with pytest.raises(NotFound, match="no topic nowhere"):
        read(kafka, "nowhere", fleet)


def test_a_report_that_is_too_large_does_not_block_the_others(kafka: KafkaServer) -> None:
    topic = f"reports-{uuid.uuid4().hex[:8]}"
    sending = KafkaReports(kafka_address(f"kafka://{kafka.bootstrap}/{topic}"), "n1")
    assert sending.deliver(b"x" * (2 << 20))
    assert sending.deliver(json.dumps(report()).encode())
