"""The service with a real registry: releases as publish builds them, MLflow on SQLite."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support import prediction_service as support
from support.prediction_service import NUMBERS, ROWS, ServiceProcess

from edgewright.registry.release import Facts, Golden, build_release, read_variants


class PublishedModels:
    """Registers releases in a registry of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(self.uri, self.uri)
        self.client.create_registered_model("bracelet")

    def publish(self, version: int, models: dict[str, bytes]) -> Path:
        maker = support.ReleaseMaker(self.folder / "models")
        made = maker.make(version, models)
        variants = read_variants([made / "variants" / target for target in models])
        golden = json.loads((made / "golden.json").read_text())
        release = self.folder / "releases" / str(version)
        release.mkdir(parents=True)
        manifest = build_release(release, "bracelet", variants, Golden(golden["inputs"], golden["outputs"]), Facts())
        tags = {"digest": manifest["digest"]}
        self.client.create_model_version("bracelet", str(release), tags=tags, await_creation_for=0)
        self.client.set_registered_model_alias("bracelet", "champion", str(version))
        return release


@pytest.fixture
def published(tmp_path: Path) -> PublishedModels:
    return PublishedModels(tmp_path)


def until(condition: Callable[[], Any], service: ServiceProcess) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.1)


def test_the_champion_is_served_and_stays_without_the_registry(tmp_path: Path, published: PublishedModels) -> None:
    published.publish(1, {"onnx": support.classifier(-1), "onnx-int8": support.classifier(-1.001)})
    home = tmp_path / "home"
    with support.running(home, published.uri, "--model", "bracelet@champion") as service:
        until(lambda: service.client.get("/ping").status_code == 200, service)
        model = service.client.get("/admin/models").json()["models"][0]
        assert (model["version"], model["variant"], model["features"]) == (
            "1",
            "onnx-int8",
            [f["name"] for f in NUMBERS],
        )
        published.publish(2, {"onnx": support.classifier(-2)})
        by_alias = service.client.put("/admin/models/bracelet", json={"alias": "champion"})
        assert by_alias.json()["model"]["version"] == "2", by_alias.text
        assert service.put("bracelet", 9).status_code == 404
        answer = service.predict(ROWS).json()
    # a restart with a registry that is gone: the alias cannot be looked up, the model is served all the same
    with support.running(home, "http://127.0.0.1:9", "--model", "bracelet@champion") as service:
        again = service.predict(ROWS).json()
        assert again["probabilities"] == answer["probabilities"]
        until(lambda: "bracelet@champion cannot be loaded" in service.log.read_text(), service)
        assert service.predict(ROWS).json()["model"]["version"] == "2"
        refused = service.put("bracelet", 1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")


def test_a_damaged_registry_file_is_refused(tmp_path: Path, published: PublishedModels) -> None:
    published.publish(1, {"onnx": support.classifier(-1)})
    with support.running(tmp_path / "home", published.uri) as service:
        assert service.put("bracelet", 1).status_code == 200
        release = published.publish(2, {"onnx": support.classifier(-2)})
        (release / "variants/onnx/model.onnx").write_bytes(b"damaged")
        answer = service.put("bracelet", 2)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "damaged")
        assert service.predict(ROWS).json()["model"]["version"] == "1"
        assert [p.name for p in (tmp_path / "home/models/bracelet").iterdir()] == ["1"]
