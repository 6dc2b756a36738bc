"""``bundle`` and ``verify`` on a model that a pipeline has published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.releases import release_folder

from edgewright.artifacts import ArtifactStore
from edgewright.cli.main import cli
from edgewright.registry import Registry
from edgewright.registry.publish import Publishing, publish


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with one model."""
    place = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{place / 'home' / 'mlflow.db'}"
    folder, manifest = release_folder(place / "release", "pump")
    publishing = Publishing(
        name="pump", digest=manifest["digest"], folder=folder, alias="champion", experiment="test", run_id="",
        data_time=None, description="", tags={}, own_tags={}, by="test",
    )  # fmt: skip
    publish(Registry(uri), ArtifactStore(place / "store"), publishing)
    return uri


@pytest.fixture
def published(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEWRIGHT_TRACKING_URI", uri)


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, standalone_mode=True)
    return result.exit_code, result.output


def test_a_registered_model_is_bundled_and_verified(published: None) -> None:
    code, text = call("bundle", "pump", "--target", "onnx", "--json")
    assert code == 0, text
    told = json.loads(text)
    assert (told["path"], told["signed"], told["version"]) == ("pump-1-onnx.tar", False, "1")
    code, text = call("bundle", "pump/1", "--target", "onnx", "-o", "again.tar")
    assert code == 0, text
    assert Path("again.tar").read_bytes() == Path("pump-1-onnx.tar").read_bytes()
    code, text = call("verify", "again.tar", "--into", "opened")
    assert code == 0, text
    assert "pump version 1, onnx" in text
    assert "answers 20 rows" in text
    assert "nobody vouches for it" in text
    assert Path("opened/manifest.json").exists()
    code, text = call("verify", "again.tar", "--into", "opened")
    assert code == 1
    assert "opened exists already" in text


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("pump@challenger", "pump has no challenger"),
        ("pump/9", "9"),
        ("pumpe", "pumpe has no champion"),
        ("a/b/c", "b/c"),
    ],
)
def test_models_that_are_not_there_are_said(published: None, model: str, words: str) -> None:
    code, text = call("bundle", model, "--target", "onnx")
    assert code == 1, text
    assert words in text


def test_a_file_that_is_not_there_is_said(published: None) -> None:
    code, text = call("verify", "none.tar")
    assert code == 1
    assert "no such bundle: none.tar" in text
