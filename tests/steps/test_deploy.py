"""A release goes live in a real service, or service and registry stay as they were."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import prediction_service as support
from support.prediction_service import ROWS, ReleaseMaker, ServiceProcess

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.errors import ConfigError, EdgewrightError
from edgewright.installation import Installation, Service
from edgewright.registry import Registry
from edgewright.spec.steps.deploy import DeployConfig
from edgewright.steps.contract import Identity, StepRequest, StepResult
from edgewright.steps.deploy import read_release
from edgewright.steps.execute import execute
from edgewright.steps.service_client import ServiceClient


@dataclass
class Place:
    """An installation with one service, and what is needed to deploy to it."""

    service: ServiceProcess
    releases: ReleaseMaker
    store: ArtifactStore

    def publish(self, version: int, **more: Any) -> ArtifactRef:
        """Put a release where the service finds it, and return the reference that publish would return."""
        return self.ref(self.releases.make(version, **more))

    def ref(self, folder: Path) -> ArtifactRef:
        manifest = json.loads((folder / "manifest.json").read_text())
        meta = {
            "name": manifest["name"], "version": folder.name, "digest": manifest["digest"],
            "variants": list(manifest["variants"]), "default_variant": manifest["default_variant"],
        }  # fmt: skip
        return self.store.put(folder, "bundle", meta)

    def deploy(
        self, release: ArtifactRef, *, service: str = "bracelet", tracking_uri: str = "", **more: Any
    ) -> StepResult:
        config = {"release": release.model_dump(mode="json"), "to": {"service": service}, **more}
        identity = Identity(dag_id="bracelet", run_id="r1", task_id="live")
        request = StepRequest(
            step="deploy", config=config, identity=identity, store=self.store.root, tracking_uri=tracking_uri
        )
        with contextlib.suppress(EdgewrightError):  # it stands in the result as well
            execute(request)
        return StepResult.model_validate(self.store.read_json(f"{identity.key}/result.json"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "installation"))
    with support.running(tmp_path / "home", f"file://{tmp_path / 'releases'}") as service:
        Installation(home=tmp_path / "installation", services={"bracelet": Service(url=service.url)}).save()
        yield Place(service, ReleaseMaker(tmp_path / "releases"), ArtifactStore(tmp_path / "store"))


def failed(result: StepResult) -> tuple[str, str]:
    assert result.state == "failed"
    assert result.error is not None
    return result.error.type, result.error.message


def test_a_release_goes_live(place: Place) -> None:
    first = place.deploy(place.publish(1))
    assert first.state == "success", first.error
    assert first.tags == {
        "service": "bracelet", "url": place.service.url, "model": "bracelet", "model_version": "1", "variant": "onnx",
    }  # fmt: skip
    assert 0 < first.metrics["latency_ms"] < 1000
    assert 0 < first.metrics["deploy_seconds"] < 30
    second = place.deploy(place.publish(2))
    assert second.tags["previous_version"] == "1"
    assert "serves bracelet version 2 (onnx); before it was version 1 (onnx)" in second.notes[0]
    assert place.service.predict(ROWS).json()["model"]["version"] == "2"
    assert "as before" in place.deploy(place.ref(place.releases.root / "bracelet" / "2")).notes[0]


def test_a_variant_can_be_chosen(place: Place) -> None:
    release = place.publish(1, variants={"onnx": support.classifier(-1), "onnx-int8": support.classifier(-1)})
    assert place.deploy(release).tags["variant"] == "onnx-int8"
    assert place.deploy(release, variant="onnx").tags["variant"] == "onnx"
    kind, message = failed(place.deploy(release, variant="onnx-int4"))
    assert kind == "ConfigError"
    assert 'no variant onnx-int4; did you mean "onnx-int8"?' in message


def test_an_unknown_service_names_the_known(place: Place) -> None:
    kind, message = failed(place.deploy(place.publish(1), service="bracelt"))
    assert kind == "NotFound"
    assert 'no such service: bracelt; did you mean "bracelet"?' in message
    assert "this installation has: bracelet" in message


def test_a_service_that_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    release = place.publish(1)
    place.service.stop()
    monkeypatch.setattr("edgewright.steps.service_client.PAUSES", ())
    result = place.deploy(release)
    kind, message = failed(result)
    assert kind == "Unavailable"
    assert place.service.url in message
    assert "edgewright up" in message
    assert result.error is not None
    assert result.error.retriable


def test_it_waits_a_little_for_a_service_that_starts(place: Place) -> None:
    away = Service(url="http://127.0.0.1:9")
    with ServiceClient("x", away, timeout=2, pauses=(0.01, 0.02)) as client, pytest.raises(Exception, match="answer"):
        client.serves("bracelet")


def test_a_refused_release_leaves_the_service_as_it_was(place: Place) -> None:
    assert place.deploy(place.publish(1)).state == "success"
    wrong = [[0.5, 0.5]] * 3
    result = place.deploy(place.publish(2, golden={"onnx": wrong}))
    kind, message = failed(result)
    assert kind == "DeployRejected"
    assert "bracelet version 2 (onnx) was refused: self-test failed: row 1 scores" in message
    assert result.error is not None
    assert not result.error.retriable
    assert place.service.predict(ROWS).json()["model"]["version"] == "1"


def test_a_service_with_another_registry_is_found_out(place: Place) -> None:
    release = place.publish(1)
    foreign = release.model_copy(update={"meta": {**release.meta, "digest": "0" * 64}})
    assert "different registries" in failed(place.deploy(foreign))[1]
    unknown = release.model_copy(update={"meta": {**release.meta, "version": "9"}})
    kind, message = failed(place.deploy(unknown))
    assert kind == "NotFound"
    assert "has no version 9" in message


def test_a_swap_that_does_not_prove_itself_is_taken_back(place: Place) -> None:
    assert place.deploy(place.publish(1)).state == "success"
    folder = place.releases.make(2)
    golden = json.loads((folder / "golden.json").read_text())
    golden["outputs"]["onnx"] = [[0.5, 0.5]] * 3
    # the service reads its own copy, which is right; the artifact says something else
    right = (folder / "golden.json").read_text()
    (folder / "golden.json").write_text(json.dumps(golden))
    release = place.ref(folder)
    (folder / "golden.json").write_text(right)
    kind, message = failed(place.deploy(release))
    assert kind == "DeployRejected"
    assert "a golden row got" in message
    assert "the service is back at version 1 (onnx)" in message
    assert place.service.predict(ROWS).json()["model"]["version"] == "1"


def test_a_token_is_sent_and_its_absence_explained(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("a-long-random-text-for-tests")
    uri = f"file://{tmp_path / 'releases'}"
    release = place.publish(1)
    with support.running(tmp_path / "guarded", uri, "--token-file", str(token)) as guarded:
        monkeypatch.setenv("EDGEWRIGHT_SERVICE_GUARDED", guarded.url)
        kind, message = failed(place.deploy(release, service="guarded"))
        assert kind == "ConfigError"
        assert "services.guarded.token_env or token_file" in message
        services = {"guarded": Service(url=guarded.url, token_file=str(token))}
        Installation(home=tmp_path / "installation", services=services).save()
        assert place.deploy(release, service="guarded").state == "success"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry in SQLite with four versions; champion went 1, 2, 3 (the versions' files do not matter here)."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    client.create_registered_model("bracelet")
    for _ in range(4):
        client.create_model_version("bracelet", str(tmp_path / "releases"), await_creation_for=0)
    registry = Registry(uri)
    for version in (1, 2, 3):
        registry.set_alias("bracelet", "champion", version)
    return registry


def aliases(registry: Registry) -> dict[str, str]:
    return registry.models()[0].aliases


def test_the_alias_of_a_refused_version_is_put_back(place: Place, registry: Registry) -> None:
    uri = registry.connection.uri
    assert place.deploy(place.publish(2)).state == "success"
    refused = place.publish(3, golden={"onnx": [[0.5, 0.5]] * 3})
    message = failed(place.deploy(refused, tracking_uri=uri))[1]
    assert "the alias champion is back at version 2" in message
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert registry.history("bracelet")[0]["why"] == "a service refused version 3"
    # a second try of the same task changes nothing more
    assert "no alias points to it" in failed(place.deploy(refused, tracking_uri=uri))[1]
    assert aliases(registry) == {"champion": "2", "previous": "1"}


def test_an_alias_that_moved_on_stays(place: Place, registry: Registry) -> None:
    registry.set_alias("bracelet", "champion", 4)
    refused = place.publish(3, golden={"onnx": [[0.5, 0.5]] * 3})
    assert "no alias points to it" in failed(place.deploy(refused, tracking_uri=registry.connection.uri))[1]
    assert aliases(registry) == {"champion": "4", "previous": "3"}


def test_a_first_version_that_is_refused_keeps_its_alias(place: Place, registry: Registry) -> None:
    registry.delete_alias("bracelet", "previous")
    refused = place.publish(3, golden={"onnx": [[0.5, 0.5]] * 3})
    message = failed(place.deploy(refused, tracking_uri=registry.connection.uri))[1]
    assert "stays with it, because there is no version before" in message
    assert aliases(registry) == {"champion": "3"}


def test_a_reference_that_was_not_published() -> None:
    ref = ArtifactRef(kind="bundle", uri="file:///x", sha256="0" * 64)
    with pytest.raises(ConfigError, match="no registered name"):
        read_release(ref, None)


def test_timeout_must_be_positive() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        DeployConfig.model_validate(
            {"release": {"kind": "bundle", "uri": "x", "sha256": "0" * 64}, "to": {"service": "a"}, "timeout": 0}
        )
