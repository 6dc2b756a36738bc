"""Variants that are added to a registered version: whole or not at all, and what was registered stays as it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.releases import model_folder, release_folder

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, DamagedArtifact
from edgewright.registry import Registry
from edgewright.registry.additions import Addition, add_variants
from edgewright.registry.publish import Publishing, publish
from edgewright.registry.release import Facts, read_variants
from edgewright.registry.versions import RegisteredVersion
from edgewright.serving.library import Library
from edgewright.serving.release import read_release
from edgewright.serving.sources import RegistrySource

ADDER = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from edgewright.artifacts import ArtifactStore
from edgewright.registry import Registry
from edgewright.registry.additions import Addition, add_variants
from edgewright.registry.release import Facts, read_variants
uri, store, model, name, scratch = sys.argv[1:]
MlflowClient.set_model_version_tag = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
registry = Registry(uri)
(variant,) = read_variants([Path(model)])
found = [Addition(variant, None)]
add_variants(registry, ArtifactStore(store), registry.version(name, 1), found, Facts(), Path(scratch))
"""


@pytest.fixture
def version(registry: Registry, store: ArtifactStore, name: str, tmp_path: Path) -> RegisteredVersion:
    folder, manifest = release_folder(tmp_path / "release", name)
    tags = {"targets": "onnx"}
    return publish(registry, store, Publishing(name, manifest["digest"], folder, tags=tags)).version


def addition(tmp_path: Path, target: str, weight: float = 2.0) -> Addition:
    (variant,) = read_variants([model_folder(tmp_path / f"{target}-{weight}", weight, target)])
    return Addition(variant, [[0.5, 0.5]] * 20)


def add(registry: Registry, store: ArtifactStore, version: RegisteredVersion, one: Addition, scratch: Path):
    gate = {"task": "variant", "metric": "sqnr_db", "operator": ">=", "limit": 20.0, "value": 30.0, "passed": True}
    facts = Facts(metrics={"variant.sqnr_db": 30.0}, gates=[gate], lineage={"dag_id": "prepare", "run_id": "r"})
    return add_variants(registry, store, version, [one], facts, scratch)


def test_the_version_has_it_and_is_the_same_release(
    registry: Registry, store: ArtifactStore, version: RegisteredVersion, tmp_path: Path
) -> None:
    before = json.loads((registry.download(version, tmp_path / "before") / "manifest.json").read_text())
    changed = add(registry, store, version, addition(tmp_path, "onnx-fp16"), tmp_path / "one")
    changed = add(registry, store, changed, addition(tmp_path, "vitis-ai"), tmp_path / "two")
    assert (changed.version, changed.digest) == (version.version, version.digest)
    assert changed.tags["targets"] == "onnx,onnx-fp16,vitis-ai"
    folder = registry.download(changed, tmp_path / "after")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["digest"] == before["digest"]
    assert [variant["target"] for variant in manifest["variants"]] == ["onnx", "onnx-fp16", "vitis-ai"]
    assert manifest["variants"][1]["added"] == {"dag_id": "prepare", "run_id": "r"}
    assert manifest["evaluation"]["gates"][-1]["metric"] == "sqnr_db"
    assert manifest["default_variant"] == "onnx"
    assert "vitis-ai" in (folder / "README.md").read_text()
    assert not (folder / "added").exists()
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {*manifest["files"], "manifest.json"}
    assert read_release(folder, "vitis-ai").golden.outputs["vitis-ai"][0] == [0.5, 0.5]


def test_a_service_that_has_the_version_fetches_what_was_added(
    registry: Registry, store: ArtifactStore, version: RegisteredVersion, tmp_path: Path, uri: str
) -> None:
    library = Library(tmp_path / "service", RegistrySource(uri))
    assert library.fetch(version.name, "1", None).variant.target == "onnx"
    add(registry, store, version, addition(tmp_path, "onnx-fp16"), tmp_path / "one")
    assert library.fetch(version.name, "1", "onnx-fp16").variant.target == "onnx-fp16"


def test_a_second_variant_for_the_same_target_is_refused(
    registry: Registry, store: ArtifactStore, version: RegisteredVersion, tmp_path: Path
) -> None:
    add(registry, store, version, addition(tmp_path, "onnx-fp16"), tmp_path / "one")
    with pytest.raises(ConfigError, match="got a variant for onnx-fp16 meanwhile"):
        add(registry, store, version, addition(tmp_path, "onnx-fp16", 3.0), tmp_path / "two")


def test_what_is_killed_before_the_tag_leaves_nothing(
    registry: Registry, store: ArtifactStore, version: RegisteredVersion, tmp_path: Path, uri: str
) -> None:
    model = addition(tmp_path, "onnx-fp16").variant.folder
    arguments = [uri, store.root, str(model), version.name, str(tmp_path / "scratch")]
    done = subprocess.run([sys.executable, "-c", ADDER, *arguments], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = registry.version(version.name, "1")
    assert not left.added
    manifest = json.loads((registry.download(left, tmp_path / "left") / "manifest.json").read_text())
    assert [variant["target"] for variant in manifest["variants"]] == ["onnx"]


@pytest.mark.parametrize("what", ["files", "tag", "target"])
def test_what_does_not_match_is_damaged(
    registry: Registry, store: ArtifactStore, version: RegisteredVersion, tmp_path: Path, what: str, uri: str
) -> None:
    changed = add(registry, store, version, addition(tmp_path, "onnx-fp16"), tmp_path / "one")
    sha256 = changed.added["onnx-fp16"]
    if what == "files":
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "model.onnx").write_bytes(b"other")
        registry.upload(changed, tmp_path / "bad", f"added/onnx-fp16-{sha256[:12]}")
    elif what == "tag":
        registry.set_tags(changed, {"added.onnx-fp16": f"{sha256[:12]}{'0' * 52}"})
    else:
        registry.set_tags(changed, {"added.onnx": sha256})
    with pytest.raises(DamagedArtifact):
        registry.download(registry.version(version.name, "1"), tmp_path / "download")
    assert not (tmp_path / "download" / "release").exists()
