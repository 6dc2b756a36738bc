"""Rows about nodes in the model registry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from mlflow import MlflowClient
from support.mlflow_server import free_port

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.sink import command as sink
from edgewright.registry import Registry
from edgewright.streams.fleet import FORMAT, Fleet
from edgewright.streams.fleet_registry import MOST, RegistryRows


def report(node: str, version: str, sequence: int, **more: Any) -> dict[str, Any]:
    model = {"name": "pump", "version": version, "target": "onnx", "since": "2026-01-01T08:00:30+01:00"}
    said = {"format": FORMAT, "node": node, "boot": "a", "sequence": sequence, "model": model, "previous": None}
    return {**said, "problem": "", **more}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def registry(database: str) -> Iterator[Registry]:
    client = MlflowClient(database)
    client.create_registered_model("pump")
    for number in (1, 2):
        client.create_model_version("pump", f"file:///releases/{number}", tags={"digest": str(number)})
    yield Registry(database)
    client.delete_registered_model("pump")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(ArtifactStore(tmp_path / "store"))


def rows(registry: Registry, version: str) -> dict[str, str]:
    tags = registry.version("pump", version).tags
    return {name: text for name, text in tags.items() if name.startswith("node")}


def test_a_version_has_a_row_for_each_node_that_runs_it(registry: Registry, fleet: Fleet) -> None:
    said: list[str] = []
    writer = RegistryRows(registry, fleet, said.append)
    fleet.take([(report("n1", "1", 1), "2026-01-02T00:00:00+00:00")])
    fleet.take([(report("n2", "1", 1, problem="no\nsource"), "2026-01-02T00:00:00+00:00")])
    assert writer.write() == 3
    assert rows(registry, "1") == {
        "nodes": "2",
        "node.n1": "onnx since 2026-01-01T07:00Z, last report 2026-01-02T00:00Z",
        "node.n2": "onnx since 2026-01-01T07:00Z, last report 2026-01-02T00:00Z; no source",
    }
    assert rows(registry, "2") == {}
    writer.note()
    assert writer.write() == 0, "a moment ago"
    assert writer.write(now=True) == 0, "nothing new"
    fleet.take([(report("n1", "1", 2), "2026-01-02T00:09:00+00:00")])
    writer.note()
    assert writer.write(now=True) == 0, "a later report alone is no news yet"
    fleet.take([(report("n1", "1", 3), "2026-01-02T00:11:00+00:00")])
    writer.note()
    assert writer.write(now=True) == 1
    assert rows(registry, "1")["node.n1"].endswith("last report 2026-01-02T00:11Z")
    fleet.take([(report("n1", "2", 4), "2026-01-02T00:12:00+00:00")])
    # a sink that was started anew knows nothing of what the one before wrote
    assert RegistryRows(registry, fleet, said.append).write() == 4
    assert sorted(rows(registry, "1")) == ["node.n2", "nodes"]
    assert sorted(rows(registry, "2")) == ["node.n1", "nodes"]
    assert registry.version("pump", 1).tags["digest"], "other tags stay"
    assert said == []


def test_names_that_a_tag_cannot_have_are_told_apart(registry: Registry, fleet: Fleet) -> None:
    names = ["a/b c", "a_b_c", "ä", "ö"]
    fleet.take([(report(name, "1", 1), "2026-01-02T00:00:00+00:00") for name in names])
    RegistryRows(registry, fleet, print).write()
    found = rows(registry, "1")
    assert found.pop("nodes") == "4"
    assert len(found) == 4
    assert "node.a_b_c" in found


def test_a_large_fleet_is_counted_and_the_last_to_report_are_shown(registry: Registry, fleet: Fleet) -> None:
    times = [f"2026-01-02T{n // 60:02}:{n % 60:02}:00+00:00" for n in range(MOST + 5)]
    fleet.take([(report(f"n{n}", "1", 1), time) for n, time in enumerate(times)])
    RegistryRows(registry, fleet, print).write()
    found = rows(registry, "1")
    assert found.pop("nodes") == str(MOST + 5)
    assert len(found) == MOST
    assert "node.n4" not in found


def test_a_registry_that_is_away_is_told_and_tried_again(registry: Registry, fleet: Fleet) -> None:
    said: list[str] = []
    fleet.take([(report("n1", "1", 1), "2026-01-02T00:00:00+00:00")])
    writer = RegistryRows(Registry(f"http://127.0.0.1:{free_port()}"), fleet, said.append)
    assert writer.write() == 0
    assert "the registry has no rows about nodes" in said[0]
    writer._registry = registry
    assert writer.write(now=True) == 2


def test_models_that_the_registry_does_not_know_have_no_rows(registry: Registry, fleet: Fleet) -> None:
    elsewhere = {"name": "unknown", "version": "1", "target": "onnx", "since": ""}
    fleet.take([({**report("n1", "1", 1), "model": elsewhere}, "2026-01-02T00:00:00+00:00")])
    fleet.take([({**report("n2", "1", 1), "model": None}, "2026-01-02T00:00:00+00:00")])
    said: list[str] = []
    assert RegistryRows(registry, fleet, said.append).write() == 0
    assert said == []


def test_the_sink_writes_the_rows(
    kafka: KafkaServer, registry: Registry, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"reports-{uuid.uuid4().hex[:8]}"
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, json.dumps(report("n1", "2", 1)).encode())
    assert producer.flush(60) == 0
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEWRIGHT_TRACKING_URI", database)
    source = ["fleet", "--from", f"kafka://{kafka.bootstrap}/{topic}", "--once", "--json"]
    for group, option, expected in (("a", "--no-registry", []), ("b", "--registry", ["node.n1", "nodes"])):
        found = CliRunner().invoke(sink, [*source, "--group", f"{topic}-{group}", option], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        assert sorted(rows(registry, "2")) == expected
