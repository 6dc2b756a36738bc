"""Bundles as OCI artifacts: in a real registry and in an image layout on disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.edge import ROW, Bundles, Process, eventually
from support.oci_registry import OciRegistry

from edgewright.artifacts.digest import sha256_file
from edgewright.bundles.oci import Artifacts, holds_bundle, open_artifacts, pull_bundle, push_bundle
from edgewright.edge.sources import open_source
from edgewright.edge.updates import Wanted
from edgewright.errors import ConfigError, DamagedArtifact, NotFound, Unavailable

pytest.importorskip("oras")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciRegistry]:
    server = OciRegistry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture(params=["registry", "layout"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "layout":
        return f"oci-layout://{tmp_path / 'layout'}"
    return f"oci://{request.getfixturevalue('registry').host}/edge/{tmp_path.name.lower()}"


@pytest.fixture
def place(address: str) -> Artifacts:
    return open_artifacts(address)


def test_what_is_pushed_is_pulled(place: Artifacts, bundles: Bundles, tmp_path: Path) -> None:
    archive = bundles.write(tmp_path, 1)
    digest = push_bundle(place, archive, "pump-1-onnx")
    assert push_bundle(place, archive, "pump-1-onnx") == digest == place.digest("pump-1-onnx")
    push_bundle(place, bundles.write(tmp_path, 2), "pump-2-onnx")
    assert place.tags() == ["pump-1-onnx", "pump-2-onnx"]
    pull_bundle(place, "pump-1-onnx", tmp_path / "pulled.tar", 1 << 20)
    assert sha256_file(tmp_path / "pulled.tar") == sha256_file(archive)
    manifest = json.loads(place.manifest("pump-1-onnx"))
    assert manifest["artifactType"] == "application/vnd.edgewright.bundle.v1"
    content = (bundles.folder(1) / "manifest.json").read_bytes()
    assert holds_bundle(place, "pump-1-onnx", content, signed=True)
    assert not holds_bundle(place, "pump-1-onnx", content, signed=False)
    assert not holds_bundle(place, "pump-9-onnx", content, signed=True)
    with pytest.raises(NotFound):
        pull_bundle(place, "pump-9-onnx", tmp_path / "none.tar", 1 << 20)
    with pytest.raises(DamagedArtifact, match="larger than"):
        pull_bundle(place, "pump-1-onnx", tmp_path / "none.tar", 100)
    with pytest.raises(ConfigError, match="more than 128 letters"):
        push_bundle(place, archive, "x" * 129)


def test_a_node_takes_the_newest_and_one_that_was_replaced(
    address: str, place: Artifacts, bundles: Bundles, tmp_path: Path
) -> None:
    from edgewright.edge.node import Node
    from edgewright.edge.shelf import Shelf
    from edgewright.edge.updates import Updater

    push_bundle(place, bundles.write(tmp_path, 1), "pump-1-onnx")
    push_bundle(place, bundles.write(tmp_path, 1), "pump-1-hls")
    shelf = Shelf(tmp_path / "home")
    node = Node("n1", shelf, Updater(shelf, open_source(address), Wanted("onnx", key=bundles.public)))
    assert node.update(), node.problem
    push_bundle(place, bundles.write(tmp_path, 3), "pump-2-onnx")  # not what its name says
    assert not node.update()
    assert "not what its name says" in str(node.problem)
    push_bundle(place, bundles.write(tmp_path, 2), "pump-2-onnx")  # mended: another digest
    assert node.update(), node.problem
    assert shelf.state.current is not None
    assert shelf.state.current.version == 2


def test_a_blob_that_was_changed_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    place = open_artifacts(f"oci-layout://{layout}")
    push_bundle(place, bundles.write(tmp_path, 1), "pump-1-onnx")
    layer = json.loads(place.manifest("pump-1-onnx"))["layers"][0]["digest"].partition(":")[2]
    blob = layout / "blobs" / "sha256" / layer
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + b"x")
    with pytest.raises(DamagedArtifact, match="does not match its digest"):
        pull_bundle(place, "pump-1-onnx", tmp_path / "pulled.tar", 1 << 20)
    blob.write_bytes(data[:100])
    with pytest.raises(Unavailable, match="cut off"):
        pull_bundle(place, "pump-1-onnx", tmp_path / "pulled.tar", 1 << 20)
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_other_artifacts_are_no_bundles(place: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    layer = {"mediaType": "text/plain", "digest": f"sha256:{sha256_file(tmp_path / 'file')}", "size": 2}
    media = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media, "config": layer, "layers": [layer]}
    place.push("pump-1-onnx", json.dumps(manifest).encode(), {layer["digest"]: tmp_path / "file"})
    with pytest.raises(DamagedArtifact, match="no bundle of ours"):
        pull_bundle(place, "pump-1-onnx", tmp_path / "pulled.tar", 1 << 20)


def test_a_login_by_docker_or_handed_in(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = OciRegistry(tmp_path / "locked", login=True)
    address = f"oci://{server.host}/edge/pump"
    archive = bundles.write(tmp_path, 1)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    try:
        with pytest.raises(ConfigError, match="asks for a login"):
            open_artifacts(address).tags()
        with pytest.raises(ConfigError, match="refuses the login"):
            push_bundle(open_artifacts(address, ("edge", "wrong")), archive, "pump-1-onnx")
        push_bundle(open_artifacts(address, ("edge", "secret")), archive, "pump-1-onnx")
        token = base64.b64encode(b"edge:secret").decode()
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": token}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        assert open_artifacts(address).tags() == ["pump-1-onnx"]
    finally:
        server.stop()


def test_a_registry_that_is_away_is_said_at_once(registry: OciRegistry) -> None:
    with pytest.raises(Unavailable, match="cannot list the tags"):
        open_artifacts("oci://127.0.0.1:1/edge/pump").tags()
    with pytest.raises(Unavailable, match="the repository is not there"):
        open_artifacts(f"oci://{registry.host}/edge/nothing").tags()


@pytest.mark.parametrize("address", ["oci://host", "oci://user:secret@host/x", "oci-layout://host/x", "oci://h/UPPER"])
def test_addresses_that_mean_nothing_are_refused_without_their_password(address: str) -> None:
    with pytest.raises(ConfigError, match="not an address of OCI artifacts") as caught:
        open_artifacts(address)
    assert "secret" not in str(caught.value)


def test_the_node_answers_from_a_registry_and_without_it(
    registry: OciRegistry, bundles: Bundles, tmp_path: Path, start: Callable[..., Process]
) -> None:
    address = f"oci://{registry.host}/edge/node"
    place = open_artifacts(address)
    push_bundle(place, bundles.write(tmp_path, 1), "pump-1-onnx")
    node = start(address, "--key", str(bundles.public))
    eventually(lambda: node.version() == "1", node.text)
    push_bundle(place, bundles.write(tmp_path, 2), "pump-2-onnx")
    eventually(lambda: node.version() == "2", node.text)
    registry.stop()
    try:
        code, answer = node.get("/invocations", {"dataframe_records": [ROW]})
        assert (code, answer["model"]["version"]) == (200, "2")
    finally:
        registry.start()
