"""Bundles: the same release gives the same bytes, and nothing foreign is believed."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.releases import release_folder

from edgewright.artifacts.digest import describe_tree, sha256_bytes
from edgewright.bundles import Limits, build_bundle, open_bundle, write_archive
from edgewright.bundles.signing import sign, verify
from edgewright.errors import ConfigError, DamagedArtifact, DeployRejected


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release_folder(tmp_path_factory.mktemp("release"), "pump", description="Alarm of a pump")[0]


@pytest.fixture
def folder(release: Path, tmp_path: Path) -> Path:
    """A right bundle, not packed yet."""
    found = tmp_path / "content"
    found.mkdir()
    build_bundle(release, found, target="onnx", version="7")
    return found


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    place = tmp_path_factory.mktemp("keys")

    def make(name: str) -> tuple[Path, Path]:
        private, public = place / f"{name}.pem", place / f"{name}.pub"
        if not private.exists():
            command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
            subprocess.run(command, check=True, capture_output=True)
            command = ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)]
            subprocess.run(command, check=True, capture_output=True)
        return private, public

    return make


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".tar")
    write_archive(folder, path)
    return path


def resummed(folder: Path, **changes: Any) -> Path:
    """Write the sums anew, as an attacker would."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").unlink()
    manifest["files"] = describe_tree(folder)
    model = folder / manifest["model"]["file"]
    if model.exists():
        manifest["model"]["sha256"] = sha256_bytes(model.read_bytes())
        document = json.loads((folder / "model/model.json").read_text())
        document["sha256"] = manifest["model"]["sha256"]
        (folder / "model/model.json").write_text(json.dumps(document))
        manifest["files"] = describe_tree(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return packed(folder)


def test_the_same_release_gives_the_same_bytes(release: Path, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    manifest = build_bundle(release, again, target="onnx", version="7")
    assert packed(again).read_bytes() == packed(folder).read_bytes()
    assert (manifest["name"], manifest["version"], manifest["target"]) == ("pump", "7", "onnx")
    (tensor,) = manifest["inputs"]
    assert (tensor["name"], tensor["type"], tensor["shape"]) == ("X", "float32", ["rows", 3])
    assert [(c["name"], c["minimum"], c["maximum"], c["missing"]) for c in tensor["columns"]][1] == ("b", -3, 3, True)
    assert [output["name"] for output in manifest["outputs"]] == ["label", "probabilities"]
    assert manifest["preprocessing"] == {"missing": "NaN", "inside": True}
    assert set(manifest["files"]) == {"README.md", "golden.json", "model/model.json", "model/model.onnx"}


def test_a_right_bundle_opens(folder: Path, tmp_path: Path) -> None:
    found = open_bundle(packed(folder), tmp_path / "opened")
    assert found.manifest["name"] == "pump"
    assert not found.signed
    assert any("answers 20 rows as it did" in check for check in found.checks)
    assert (tmp_path / "opened/model/model.onnx").exists()


def test_what_a_release_does_not_have_is_said(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no variant hls"):
        build_bundle(release, tmp_path, target="hls", version="1")


# -- signatures ----------------------------------------------------------------------------------------------------


def test_a_signature_is_checked_against_the_key(
    folder: Path, tmp_path: Path, keys: Callable[[str], tuple[Path, Path]]
) -> None:
    pytest.importorskip("model_signing")
    private, public = keys("ours")
    with pytest.raises(DamagedArtifact, match="not signed"):
        open_bundle(packed(folder), tmp_path / "unsigned", public_key=public)
    signature = tmp_path / "model.sig"
    sign(folder, signature, private_key=private)
    signature.rename(folder / "model.sig")
    path = packed(folder)
    assert open_bundle(path, tmp_path / "opened", public_key=public, run=False).signed
    with pytest.raises(DamagedArtifact, match="the signature does not fit"):
        open_bundle(path, tmp_path / "other", public_key=keys("theirs")[1])
    for number, (name, text) in enumerate([("golden.json", "{}"), (".git/hook", "x"), ("more.txt", "x")]):
        changed = folder / name
        before = changed.read_bytes() if changed.exists() else None
        changed.parent.mkdir(exist_ok=True)
        changed.write_text(text)
        with pytest.raises(DamagedArtifact, match="the signature does not fit"):
            open_bundle(packed(folder), tmp_path / f"changed-{number}", public_key=public)
        changed.unlink() if before is None else changed.write_bytes(before)


def test_the_command_of_the_signing_library_agrees(
    folder: Path, tmp_path: Path, keys: Callable[[str], tuple[Path, Path]]
) -> None:
    verifying = pytest.importorskip("model_signing").verifying
    private, public = keys("ours")
    signature = tmp_path / "model.sig"
    sign(folder, signature, private_key=private)
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, signature)
    verify(folder, signature, public_key=public)
    document = json.loads(signature.read_text())
    envelope = document["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    for change in (
        {"payload": base64.b64encode(payload.replace(b"README", b"README2")).decode()},
        {"signatures": []},
        {"payloadType": "text/plain"},
        {"payload": "*"},
    ):
        signature.write_text(json.dumps({**document, "dsseEnvelope": {**envelope, **change}}))
        with pytest.raises(DamagedArtifact, match="the signature does not fit"):
            verify(folder, signature, public_key=public)


def test_keys_that_cannot_be_used_are_said(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    with pytest.raises(ConfigError, match="no such private key"):
        sign(folder, tmp_path / "s", private_key=tmp_path / "none.pem")
    bad = tmp_path / "bad.pem"
    bad.write_text("hello")
    with pytest.raises(ConfigError, match="the key cannot sign"):
        sign(folder, tmp_path / "s", private_key=bad)
    (folder / "model.sig").write_text("{}")
    with pytest.raises(ConfigError, match="not a public key"):
        open_bundle(packed(folder), tmp_path / "opened", public_key=bad)


# -- archives ------------------------------------------------------------------------------------------------------


def archive(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd"
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("../out", tarfile.REGTYPE, b"x")], "outside"),
        ([("/etc/cron", tarfile.REGTYPE, b"x")], "outside"),
        ([("link", tarfile.SYMTYPE, b"")], "no plain file"),
        ([("link", tarfile.LNKTYPE, b"")], "no plain file"),
        ([("pipe", tarfile.FIFOTYPE, b"")], "no plain file"),
        ([("a", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2")], "twice"),
        ([("a", tarfile.REGTYPE, b"1"), ("a/b", tarfile.REGTYPE, b"2")], "twice"),
        ([("a", tarfile.REGTYPE, bytes(2048))], "larger than"),
        ([(f"f{n}", tarfile.REGTYPE, b"") for n in range(9)], "larger than"),
        ([("a", tarfile.REGTYPE, b"x")], "not a bundle"),
    ],
)
def test_archives_with_a_plan_are_refused(tmp_path: Path, members: list[Any], words: str) -> None:
    path = archive(tmp_path / "bad.tar", *members)
    with pytest.raises(DamagedArtifact, match=words):
        open_bundle(path, tmp_path / "opened", limits=Limits(total_bytes=1024, files=8))
    assert not (tmp_path / "opened").exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bad.tar"]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b" + bytes(600)])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    with pytest.raises(DamagedArtifact, match="not a bundle"):
        open_bundle(path, tmp_path / "opened")


# -- contents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("model/model.onnx", b"other", "does not match its sha256"),
        ("model/more.bin", b"other", "do not name the same files: model/more.bin"),
        ("golden.json", None, "do not name the same files: golden.json"),
        ("manifest.json", b"[]", "cannot be read"),
        ("manifest.json", b'{"format": "other/9"}', "another|its format is 'other/9'"),
        ("manifest.json", b"[" * 100_000, "cannot be read"),
    ],
)
def test_changed_contents_are_refused(folder: Path, tmp_path: Path, name: str, data: bytes | None, words: str) -> None:
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)
    with pytest.raises(DamagedArtifact, match=words):
        open_bundle(packed(folder), tmp_path / "opened", run=False)


def test_a_pickle_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model/estimator.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DeployRejected, match="holds a pickle"):
        open_bundle(resummed(folder), tmp_path / "opened")


def with_graph(folder: Path, nodes: list[Any], *, opset: int = 17, domain: str = "", constants: Any = ()) -> Path:
    """Put another graph into a bundle, with sums that are right."""
    body = helper.make_graph(
        [*nodes, helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)], "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        ],
        list(constants),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(body, opset_imports=opsets, ir_version=10)
    (folder / "model/model.onnx").write_bytes(model.SerializeToString())
    return resummed(folder)


def test_foreign_operators_and_new_opsets_are_refused(folder: Path, tmp_path: Path) -> None:
    path = with_graph(folder, [helper.make_node("Run", ["X"], ["probabilities"], domain="evil")], domain="evil")
    with pytest.raises(DeployRejected, match="operators of the domain evil"):
        open_bundle(path, tmp_path / "opened")
    path = with_graph(folder, [helper.make_node("Relu", ["X"], ["probabilities"])], opset=23)
    with pytest.raises(DeployRejected, match="version 23 of the operators ai.onnx; at most 21"):
        open_bundle(path, tmp_path / "opened")


def test_data_outside_of_the_file_are_refused(folder: Path, tmp_path: Path) -> None:
    tensor = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[3, 2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    nodes = [helper.make_node("MatMul", ["X", "W"], ["probabilities"])]
    with pytest.raises(DeployRejected, match="external data"):
        open_bundle(with_graph(folder, nodes, constants=[tensor]), tmp_path / "opened")


def test_a_model_that_eats_memory_is_stopped(folder: Path, tmp_path: Path) -> None:
    size = onnx.numpy_helper.from_array(np.array([1 << 16, 1 << 16], dtype=np.int64), "size")
    axes = onnx.numpy_helper.from_array(np.array([0, 1], dtype=np.int64), "axes")
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big", "axes"], ["sum"], keepdims=1),
        helper.make_node("Concat", ["X", "sum"], ["probabilities"], axis=1),
    ]
    path = with_graph(folder, nodes, constants=[size, axes])
    with pytest.raises(DeployRejected, match="self-test failed|ended the process"):
        open_bundle(path, tmp_path / "opened", limits=Limits(memory_gib=1.0))


def test_a_model_that_never_ends_is_stopped(folder: Path, tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["state"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    most = onnx.numpy_helper.from_array(np.array(1 << 60, dtype=np.int64), "most")
    always = onnx.numpy_helper.from_array(np.array(True), "always")
    loop = helper.make_node("Loop", ["most", "always", "X"], ["probabilities"], body=body)
    path = with_graph(folder, [loop], constants=[most, always])
    started = time.monotonic()
    with pytest.raises(DeployRejected, match="did not answer its self-test within 6 s"):
        open_bundle(path, tmp_path / "opened", limits=Limits(seconds=6))
    assert time.monotonic() - started < 120


def test_a_model_that_answers_differently_is_refused(folder: Path, tmp_path: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["outputs"][3] = golden["outputs"][3][::-1]
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(DeployRejected, match="a score differs by"):
        open_bundle(resummed(folder), tmp_path / "opened")


def test_a_bundle_without_a_self_test_says_so(folder: Path, tmp_path: Path) -> None:
    (folder / "golden.json").unlink()
    found = open_bundle(resummed(folder), tmp_path / "opened")
    assert "the model was not run: the bundle has no self-test" in found.checks
