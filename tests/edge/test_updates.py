"""What a node takes, what it refuses, and that it always has a whole bundle."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.edge import ROW, Bundles

from edgewright.edge.node import FAILURES, Node
from edgewright.edge.shelf import Shelf
from edgewright.edge.sources import Folder, open_source
from edgewright.edge.updates import Updater, Wanted
from edgewright.errors import ConfigError, DamagedArtifact, DeployRejected, StoreError, SystemFault, Unavailable

BODY = json.dumps({"dataframe_records": [ROW]}).encode()


def node_of(home: Path, source: Path, bundles: Bundles | None = None, **wanted: Any) -> Node:
    key = bundles.public if bundles else None
    shelf = Shelf(home)
    return Node("n1", shelf, Updater(shelf, Folder(str(source)), Wanted("onnx", key=key, **wanted)))


def version(node: Node) -> int | None:
    return node.shelf.state.current.version if node.shelf.state.current else None


def test_the_newest_is_taken_and_the_one_before_is_kept(bundles: Bundles, tmp_path: Path) -> None:
    offered = tmp_path / "offered"
    bundles.write(offered, 1)
    node = node_of(tmp_path / "home", offered, bundles)
    assert not node.runs()
    assert node.update()
    first = node.predict(BODY, "application/json").body
    assert first["model"] == {"name": "pump", "version": "1", "variant": "onnx"}
    assert not node.update()  # nothing newer
    bundles.write(offered, 2)
    assert node.update()
    second = node.predict(BODY, "application/json").body
    assert second["probabilities"] != first["probabilities"]
    told = node.describe()
    assert (told["model"]["version"], told["previous"]["version"], told["model"]["signed"]) == ("2", "1", True)
    assert len(list((tmp_path / "home/slots").iterdir())) == 2
    # offline: the source is gone, and the node starts again with what it has
    for path in offered.iterdir():
        path.unlink()
    offered.rmdir()
    again = node_of(tmp_path / "home", offered, bundles)
    assert not again.update()
    assert "the source is not there" in again.problem
    assert again.predict(BODY, "application/json").body["probabilities"] == second["probabilities"]


def test_nothing_is_taken_that_does_not_prove_itself(bundles: Bundles, tmp_path: Path) -> None:
    offered, home = tmp_path / "offered", tmp_path / "home"
    bundles.write(offered, 1)
    node = node_of(home, offered, bundles)
    assert node.update()

    def refused(words: str) -> None:
        assert not node.update()
        assert words in node.problem, node.problem
        assert version(node) == 1
        assert node.predict(BODY, "application/json").body["model"]["version"] == "1"
        assert [path.name for path in (home / "slots").iterdir()] == [node.shelf.state.current.slot]  # type: ignore[union-attr]

    path = bundles.write(offered, 2)
    data = bytearray(path.read_bytes())
    data[data.index(b"linear")] ^= 1
    path.write_bytes(data)
    refused("the signature does not fit")
    mark = node.problem
    assert not node.update()  # not fetched again
    assert node.problem == mark
    path.write_bytes(path.read_bytes()[:3000])
    refused("")
    bundles.write(offered, 3, signed=False)
    refused("not signed")
    bundles.write(offered, 1, called="pump-9-onnx.tar")  # an old one, right in itself, under a new name
    refused("not what its name says")
    path.unlink()
    (offered / "pump-4-hls.tar").write_bytes(b"x")  # another target is none of ours
    (offered / "pump-9-onnx.tar").unlink()
    node.problem = ""
    refused("")
    bundles.write(offered, 3)  # the file was replaced by a right one
    assert node.update()
    assert version(node) == 3


def test_a_bundle_for_another_target_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    bundles.write(tmp_path / "offered", 1, called="pump-1-onnx-int8.tar")
    shelf = Shelf(tmp_path / "home")
    updater = Updater(shelf, Folder(str(tmp_path / "offered")), Wanted("onnx-int8", key=bundles.public))
    with pytest.raises(DamagedArtifact, match="is pump version 1 for onnx, not what its name says"):
        updater.update()


def test_an_older_one_is_taken_only_by_its_number(bundles: Bundles, tmp_path: Path) -> None:
    offered = tmp_path / "offered"
    bundles.write(offered, 2)
    assert node_of(tmp_path / "home", offered, bundles).update()
    (offered / "pump-2-onnx.tar").unlink()
    bundles.write(offered, 1)
    node = node_of(tmp_path / "home", offered, bundles)
    assert not node.update()
    assert version(node) == 2
    node = node_of(tmp_path / "home", offered, bundles, version=1)
    assert node.update()
    assert version(node) == 1


def test_several_models_need_a_choice(bundles: Bundles, tmp_path: Path) -> None:
    offered = tmp_path / "offered"
    bundles.write(offered, 1)
    bundles.write(offered, 1, name="fan")
    shelf = Shelf(tmp_path / "home")
    with pytest.raises(ConfigError, match="several models are offered: fan, pump"):
        Updater(shelf, Folder(str(offered)), Wanted("onnx")).update()
    node = node_of(tmp_path / "home", offered, bundles, name="fan")
    assert node.update()
    assert node.describe()["model"]["name"] == "fan"


def test_a_clock_that_is_wrong_changes_nothing(bundles: Bundles, tmp_path: Path) -> None:
    offered = tmp_path / "offered"
    os.utime(bundles.write(offered, 1), (4e9, 4e9))
    node = node_of(tmp_path / "home", offered, bundles)
    assert node.update()
    state = tmp_path / "home/state.json"
    document = json.loads(state.read_text())
    document["current"]["since"] = "2099-01-01T00:00:00.000Z"
    state.write_text(json.dumps(document))
    os.utime(bundles.write(offered, 2), (1, 1))  # newer by its version, older by every clock
    node = node_of(tmp_path / "home", offered, bundles)
    assert node.update()
    assert version(node) == 2


def test_a_model_that_fails_on_requests_is_given_up(bundles: Bundles, tmp_path: Path) -> None:
    offered = tmp_path / "offered"
    bundles.write(offered, 1)
    node = node_of(tmp_path / "home", offered, bundles)
    assert node.update()
    bundles.write(offered, 2)
    assert node.update()
    model = node._model
    assert model is not None

    class Broken:
        def run(self, *_: Any) -> Any:
            raise RuntimeError("the accelerator does not answer")

    model[0].session = Broken()
    for _ in range(FAILURES):
        with pytest.raises(SystemFault, match="accelerator"):
            node.predict(BODY, "application/json")
    assert node.predict(BODY, "application/json").body["model"]["version"] == "1"
    assert "failed on 3 requests in a row" in node.problem
    assert not node.update()  # the one that failed is not taken again
    assert version(node) == 1
    assert version(node_of(tmp_path / "home", offered, bundles)) == 1


def test_a_bundle_that_rots_on_the_disk_gives_way_to_the_one_before(bundles: Bundles, tmp_path: Path) -> None:
    offered = tmp_path / "offered"
    bundles.write(offered, 1)
    node = node_of(tmp_path / "home", offered, bundles)
    assert node.update()
    bundles.write(offered, 2)
    assert node.update()
    slot = node.shelf.state.current
    assert slot is not None
    (tmp_path / "home/slots" / slot.slot / "model/model.onnx").write_bytes(b"rot")
    again = node_of(tmp_path / "home", offered, bundles)
    assert again.predict(BODY, "application/json").body["model"]["version"] == "1"


def test_a_full_disk_leaves_everything_as_it_was(bundles: Bundles, tmp_path: Path) -> None:
    offered = tmp_path / "offered"
    bundles.write(offered, 1)
    assert node_of(tmp_path / "home", offered, bundles).update()
    bundles.write(offered, 2)
    # in a process of its own: no file may grow beyond 4 KiB there, which the kernel says as it says a full disk
    code = f"""
        import resource, signal
        from pathlib import Path
        from edgewright.edge.shelf import Shelf
        from edgewright.edge.sources import Folder
        from edgewright.edge.updates import Updater, Wanted
        from edgewright.errors import StoreError
        updater = Updater(Shelf(Path({str(tmp_path / "home")!r})), Folder({str(offered)!r}), Wanted("onnx"))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            updater.update()
        except StoreError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert os.strerror(errno.EFBIG) in done.stdout, done.stdout + done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096
    node = node_of(tmp_path / "home", offered, bundles)
    assert version(node) == 1
    assert len(list((tmp_path / "home/slots").iterdir())) == 1
    assert node.update()  # with room again, nothing stands in the way
    assert version(node) == 2


def test_a_place_that_is_no_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an address of OCI artifacts"):
        open_source("oci://registry")
    with pytest.raises(Unavailable, match="the source is not there"):
        Folder(str(tmp_path / "none")).offers("onnx")
    with pytest.raises(ConfigError, match="cannot be used"):
        Folder("nonsense://x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        Shelf(tmp_path / "file" / "home")


def test_a_bundle_without_a_self_test_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    from edgewright.bundles import write_archive

    folder = tmp_path / "content"
    subprocess.run(["cp", "-r", str(bundles.folder(1)), str(folder)], check=True)
    (folder / "golden.json").unlink()
    (folder / "model.sig").unlink(missing_ok=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["golden.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_archive(folder, tmp_path / "offered/pump-1-onnx.tar")
    shelf = Shelf(tmp_path / "home")
    with pytest.raises(DeployRejected, match="no self-test"):
        Updater(shelf, Folder(str(tmp_path / "offered")), Wanted("onnx")).update()
