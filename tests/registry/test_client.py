"""The registry as people use it: look, move aliases, roll back, download; and what happens when it is away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.mlflow_server import MlflowServer, free_port
from support.releases import release_folder

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, DamagedArtifact, NotFound, StoreError, Unavailable
from edgewright.registry import RegisteredModel, RegisteredVersion, Registry
from edgewright.registry.publish import Published, Publishing, publish


def put(
    registry: Registry, store: ArtifactStore, root: Path, name: str, weight: float = 1.0, alias: str | None = "champion"
) -> Published:
    folder, manifest = release_folder(root / f"{weight}", name, weight)
    return publish(registry, store, Publishing(name, manifest["digest"], folder, alias))


@pytest.fixture
def three(registry: Registry, store: ArtifactStore, tmp_path: Path, name: str) -> list[RegisteredVersion]:
    return [put(registry, store, tmp_path, name, weight).version for weight in (1.0, 2.0, 3.0)]


def test_nothing_is_there_at_first(registry: Registry, name: str) -> None:
    assert registry.champion(name) is None
    assert registry.versions(name) == []
    assert registry.find_by_digest(name, "0" * 64) is None
    with pytest.raises(NotFound, match=f"no registered model {name}"):
        registry.version(name, 1)


def test_looking_into_a_database_that_does_not_exist_does_not_make_one(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (registry.champion("a"), registry.versions("a"), registry.models()) == (None, [], [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["", "file:///tmp/mlruns", "/tmp/mlruns", "databricks"])
def test_other_addresses_are_refused_with_what_is_allowed(address: str) -> None:
    with pytest.raises(ConfigError, match=r"http\(s\)://host:port or sqlite:"):
        Registry(address)


def test_versions_models_and_aliases(registry: Registry, three: list[RegisteredVersion], name: str) -> None:
    assert [v.version for v in registry.versions(name)] == ["3", "2", "1"]
    assert registry.versions(name)[0].aliases == ("champion",)
    assert RegisteredModel(name, ("3", "2", "1"), {"champion": "3", "previous": "2"}) in registry.models()
    champion = registry.champion(name)
    assert champion is not None
    assert champion.uri == f"models:/{name}/3"
    assert registry.version(name, 2).aliases == ("previous",)
    assert registry.find_by_digest(name, three[1].digest) == registry.version(name, "2")
    with pytest.raises(NotFound, match="has no version 9\n  hint: it has: 3, 2, 1"):
        registry.version(name, 9)
    with pytest.raises(ConfigError, match="not a version: '../1'"):
        registry.version(name, "../1")


def test_roll_back_swaps_and_says_who_and_when(registry: Registry, three: list[RegisteredVersion], name: str) -> None:
    assert registry.roll_back(name, by="ann").version == "2"
    assert [v.version for v in (registry.champion(name), registry.champion(name, "previous")) if v] == ["2", "3"]
    note = json.loads(registry.version(name, 3).tags["rolled_back"])
    assert (note["by"], note["to"]) == ("ann", "2")
    last = registry.history(name)[0]
    assert (last["by"], last["from"], last["to"], last["why"]) == ("ann", "3", "2", "rolled back")
    assert registry.roll_back(name).version == "3", "a second roll back undoes the first"
    assert "rolled_back" not in registry.version(name, 3).tags


def test_roll_back_without_anything_before_says_so(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(NotFound, match="has no alias champion"):
        registry.roll_back(name)
    put(registry, store, tmp_path, name)
    with pytest.raises(NotFound, match="no version before version 1"):
        registry.roll_back(name)


def test_an_alias_keeps_its_own_version_before(registry: Registry, three: list[RegisteredVersion], name: str) -> None:
    registry.set_alias(name, "challenger", 1)
    registry.set_alias(name, "challenger", 2, by="bob", why="looks better")
    model = next(model for model in registry.models() if model.name == name)
    assert model.aliases == {"champion": "3", "previous": "2", "challenger": "2", "previous-challenger": "1"}
    assert registry.history(name, "challenger")[0]["why"] == "looks better"
    registry.delete_alias(name, "challenger")
    assert registry.champion(name, "challenger") is None
    with pytest.raises(NotFound):
        registry.set_alias(name, "champion", 7)
    with pytest.raises(ConfigError, match="MLflow refuses to set the alias v1"):
        registry.set_alias(name, "v1", 1)


def test_a_download_is_the_release_that_was_published(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    folder, manifest = release_folder(tmp_path / "r", name)
    version = publish(registry, store, Publishing(name, manifest["digest"], folder)).version
    found = registry.download(version, tmp_path / "new" / "place")
    assert found == tmp_path / "new" / "place" / "release"
    published = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {p.relative_to(found): p.read_bytes() for p in found.rglob("*") if p.is_file()} == published
    assert [p.name for p in found.parent.iterdir()] == ["release"]
    assert registry.download(version, tmp_path / "new" / "place") == found, "a second one replaces it"


def stored_files(registry: Registry, version: RegisteredVersion, server: MlflowServer) -> Path:
    """Return the folder in which MLflow keeps a version's files."""
    if not registry.connection.is_server:
        return Path(version.source.removeprefix("file://"))
    return next((server.folder / "artifacts").rglob(version.source.removeprefix("models:/"))) / "artifacts"


def test_damage_in_the_registry_is_found(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str, mlflow_server: MlflowServer
) -> None:
    version = put(registry, store, tmp_path, name).version
    files = stored_files(registry, version, mlflow_server)
    model, manifest = files / "variants/onnx/model.onnx", files / "manifest.json"
    original, described = model.read_bytes(), manifest.read_text()
    model.write_bytes(original[:-1] + b"\0")
    with pytest.raises(DamagedArtifact, match=r"variants/onnx/model.onnx does not match its sha256"):
        registry.download(version, tmp_path / "d")
    model.unlink()
    with pytest.raises(DamagedArtifact, match=r"variants/onnx/model.onnx is missing in the registry"):
        registry.download(version, tmp_path / "d")
    model.write_bytes(original)
    for change, message in [
        (lambda d: d["variants"][0]["files"].update({"model.onnx": "0" * 64}), "does not match the digest"),
        (lambda d: d["files"]["variants/onnx/model.onnx"].update(sha256="0" * 64), "contradicts itself"),
        (lambda d: d["files"].update({"../../evil": {"sha256": "0" * 64, "size": 1}}), "outside of the release"),
        (lambda d: d["files"].update({"/etc/passwd": {"sha256": "0" * 64, "size": 1}}), "outside of the release"),
        (lambda d: d.pop("variants"), "cannot be read"),
        (lambda d: d.update(format="other/1"), "another format"),
    ]:
        document = json.loads(described)
        change(document)  # type: ignore[no-untyped-call]
        manifest.write_text(json.dumps(document))
        with pytest.raises(DamagedArtifact, match=message):
            registry.download(version, tmp_path / "d")
    assert list((tmp_path / "d").iterdir()) == [], "nothing is left of a download that failed"


def test_a_folder_that_cannot_be_written_says_so(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    version = put(registry, store, tmp_path, name).version
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the release cannot be kept"):
        registry.download(version, tmp_path / "file")


def test_a_version_that_somebody_else_registered_is_listed_and_not_downloaded(
    registry: Registry, tmp_path: Path, name: str
) -> None:
    with registry.connection.calls("register") as client:
        client.create_registered_model(name)
        experiment = client.create_experiment(name, artifact_location=(tmp_path / "mlf").as_uri())
        run = client.create_run(experiment)
        client.log_text(run.info.run_id, "text", "model/MLmodel")
        source = f"{run.info.artifact_uri}/model"
        client.create_model_version(name, source, run_id=run.info.run_id, await_creation_for=0)
    (version,) = registry.versions(name)
    assert (version.digest, version.tags) == ("", {})
    with pytest.raises(DamagedArtifact, match=r"manifest.json is missing"):
        registry.download(version, tmp_path / "d")


# -- MLflow is away ----------------------------------------------------------------------------------------------------


def test_a_server_that_is_down_is_named_at_once_with_how_to_start_it() -> None:
    port = free_port()
    started = time.monotonic()
    with pytest.raises(Unavailable, match=f"http://127.0.0.1:{port}: MLflow does not answer.*\n.*edgewright up"):
        Registry(f"http://127.0.0.1:{port}").champion("a")
    assert time.monotonic() - started < 2


def test_a_server_that_hangs_is_given_up_within_ten_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="timed out"):
            Registry(f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}").models()
        assert time.monotonic() - started < 10


def test_a_password_is_never_shown() -> None:
    with pytest.raises(Unavailable) as caught:
        Registry(f"http://user:secret@127.0.0.1:{free_port()}").models()
    assert "secret" not in str(caught.value)


def test_a_server_that_dies_between_two_calls_is_found_out(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    registry = Registry(server.uri)
    assert registry.models() == []
    server.stop()
    started = time.monotonic()
    with pytest.raises(Unavailable, match="MLflow does not answer"):
        registry.models()
    assert time.monotonic() - started < 12


def test_mlflows_own_settings_are_left_alone(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    threads = [threading.Thread(target=registry.models) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_database_that_cannot_be_opened_says_where(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match="file is not a database"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}").models()


def test_two_processes_may_create_the_database_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from edgewright.registry import Registry\n"
        "with Registry(sys.argv[1]).connection.calls('look') as client: print(client.search_experiments())"
    )
    uri = f"sqlite:///{tmp_path / 'db' / 'mlflow.db'}"
    both = [subprocess.Popen([sys.executable, "-c", code, uri], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error


def test_a_process_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    code = (
        "import sys; from edgewright.registry import Registry\n"
        "with Registry(sys.argv[1]).connection.calls('look') as client: print(client.search_experiments())"
    )
    file = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", code, f"sqlite:///{file}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        temporary = tmp_path / f".mlflow.db.new-{process.pid}"
        limit = time.monotonic() + 60
        # it grows to about 700 KiB, and has a name of its own while it does
        while process.poll() is None and not (temporary.exists() and os.path.getsize(temporary) > 250_000):
            assert time.monotonic() < limit
            time.sleep(0.005)
        process.kill()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(part.name for part in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


def test_the_light_client_is_enough() -> None:
    code = (
        "import sys; from edgewright.registry import Registry\n"
        "assert 'mlflow' not in sys.modules\n"
        f"try: Registry('http://127.0.0.1:{free_port()}').models()\nexcept Exception: pass\n"
        "assert 'mlflow' not in sys.modules, 'a server that is down costs no import'\n"
        "import edgewright.registry.publish, edgewright.registry.release, edgewright.registry.download\n"
        "heavy = {'mlflow', 'onnx', 'onnxruntime', 'sklearn', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
