"""New versions of registered models, and aliases that move, are batches."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from support.mlflow_server import MlflowServer

from edgewright.artifacts import ArtifactStore
from edgewright.spec.triggers import RegistryTrigger
from edgewright.streams.batches import BatchLog
from edgewright.streams.registry_events import RegistrySource


def source(uri: str, store: Path, **config: Any) -> RegistrySource:
    trigger = RegistryTrigger.model_validate({"every": 0.01, **config})
    return RegistrySource(trigger, uri, BatchLog(ArtifactStore(store), "pipe", "registry-x"))


def found(one: RegistrySource) -> list[tuple[str, str]]:
    events = []
    for _ in range(4):
        time.sleep(0.02)
        while (batch := one.poll(0.1)) is not None:
            events.append((batch.details["event"]["model"], batch.details["event"]["version"]))
    return events


def test_versions_with_fitting_tags_and_aliases(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    uri = mlflow_server.uri
    client = MlflowClient(uri)
    name = f"heart-{uuid.uuid4().hex[:6]}"
    client.create_registered_model(name)
    client.create_model_version(name, "s3://x/old", tags={"prepare": "vitis-ai"})
    versions = source(uri, tmp_path / "a", model="heart-*", tag={"prepare": "vitis-ai"})
    champion = source(uri, tmp_path / "b", model=name, alias="champion")
    assert found(versions) == []  # what is there at the first look starts nothing
    assert found(champion) == []
    client.create_model_version(name, "s3://x/other")
    client.create_model_version(name, "s3://x/new", tags={"prepare": "vitis-ai"})
    assert found(versions) == [(name, "3")]
    assert found(source(uri, tmp_path / "a", model="heart-*", tag={"prepare": "vitis-ai"})) == []
    for version in ("1", "3", "1"):
        client.set_registered_model_alias(name, "champion", version)
        assert found(champion) == [(name, version)]
    assert len(list(champion.batches.pending())) == 3
