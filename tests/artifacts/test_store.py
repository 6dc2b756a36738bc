"""The artifact store: whole or not there, on a local disk and on S3, also when the disk is full or the writer dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.store import MANIFEST
from edgewright.errors import DamagedArtifact, StoreError


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    root = tmp_path / "store" if request.param == "local" else request.getfixturevalue("s3_store")
    return ArtifactStore(root, cache_dir=tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "deep/file").write_bytes(b"1" * 5000)
    (made / "other").write_text("ä")
    return made


def stored(store: ArtifactStore, key: str, data: bytes | None) -> None:
    """Change or remove a stored file behind the store's back."""
    path = store._path(key)
    if data is None:
        store._fs.rm_file(path)
    else:
        store._fs.pipe_file(path, data)


def test_what_was_put_is_fetched(store: ArtifactStore, folder: Path) -> None:
    ref = store.put(folder, "model", {"target": "onnx"})
    found = store.fetch(ref)
    assert {p.relative_to(found).as_posix(): p.read_bytes() for p in found.rglob("*") if p.is_file()} | {
        MANIFEST: b""
    } == {"deep/file": b"1" * 5000, "other": "ä".encode(), MANIFEST: b""}
    assert (ref.size, ref.meta, ref.uri) == (
        5002,
        {"target": "onnx"},
        f"{store.root}/artifacts/{ref.sha256[:2]}/{ref.sha256}",
    )
    assert store.verify(ref)


def test_the_same_contents_are_stored_once(store: ArtifactStore, folder: Path) -> None:
    ref = store.put(folder, "model")
    assert store.put(folder, "model").sha256 == ref.sha256
    assert store.put(store.fetch(ref), "model").sha256 == ref.sha256, "a fetched folder is the same artifact"
    assert len({key.split("/")[2] for key in store.list_keys("artifacts")}) == 1


def test_what_is_not_there_says_so(store: ArtifactStore, folder: Path) -> None:
    ref = store.put(folder, "model").model_copy(update={"sha256": "0" * 64})
    with pytest.raises(StoreError, match="not in the store\n  hint: it may have been removed by gc"):
        store.fetch(ref)
    assert not store.verify(ref)


@pytest.mark.parametrize(("data", "words"), [(b"2" * 5000, "does not match its sha256"), (b"1", "has another size")])
def test_damage_is_found(store: ArtifactStore, folder: Path, data: bytes, words: str) -> None:
    ref = store.put(folder, "model")
    stored(store, f"artifacts/{ref.sha256[:2]}/{ref.sha256}/deep/file", data)
    with pytest.raises(DamagedArtifact, match=f"deep/file .*{words}"):
        store.fetch(ref)
    assert not store.verify(ref)


def test_a_lost_file_and_a_changed_manifest_are_found(store: ArtifactStore, folder: Path) -> None:
    ref = store.put(folder, "model")
    place = f"artifacts/{ref.sha256[:2]}/{ref.sha256}"
    stored(store, f"{place}/{MANIFEST}", b'{"files": {"other": {"sha256": "0", "size": 2}}}')
    with pytest.raises(DamagedArtifact, match="manifest does not match its digest"):
        store.fetch(ref)
    stored(store, f"{place}/{MANIFEST}", b"{")
    with pytest.raises(DamagedArtifact, match="is not JSON"):
        store.fetch(ref)


def test_a_damaged_artifact_is_written_anew(store: ArtifactStore, folder: Path) -> None:
    ref = store.put(folder, "model")
    place = f"artifacts/{ref.sha256[:2]}/{ref.sha256}"
    for damage in ((f"{place}/deep/file", b"shorter"), (f"{place}/other", None), (f"{place}/{MANIFEST}", b"{")):
        stored(store, *damage)
        store.discard_local_copy(ref)
        store.put(folder, "model")
        assert store.verify(ref), damage


def test_a_damaged_file_of_the_same_size_is_written_anew(tmp_path: Path, folder: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    ref = store.put(folder, "model")
    stored(store, f"artifacts/{ref.sha256[:2]}/{ref.sha256}/deep/file", b"2" * 5000)
    assert not store.verify(ref)
    store.put(folder, "model")
    assert store.verify(ref)


def test_documents(store: ArtifactStore) -> None:
    assert store.read_json("runs/a/b.json") is None
    assert store.write_json("runs/a/b.json", {"ä": [1, None]}) == f"{store.root}/runs/a/b.json"
    assert store.read_json("runs/a/b.json") == {"ä": [1, None]}
    store.write_json("runs/a/b.json", {})
    assert store.read_json("runs/a/b.json") == {}
    assert store.list_keys("runs") == ["runs/a/b.json"]
    assert store.list_keys("nothing") == []
    assert store.scan("runs")["runs/a/b.json"][0] == 2
    store.delete("runs")
    store.delete("runs")
    assert store.list_keys("runs") == []


def test_many_writers_of_one_artifact(store: ArtifactStore, folder: Path) -> None:
    found: list[str] = []

    def put() -> None:
        found.append(store.put(folder, "model").sha256)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert not [key for key in store.scan("artifacts") if ".tmp-" in key]


def test_a_folder_without_a_manifest_is_no_artifact_and_is_overwritten(tmp_path: Path, folder: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    ref = store.put(folder, "model")
    place = Path(store.fetch(ref))
    (place / MANIFEST).unlink()
    (place / "deep/file").write_text("half")
    with pytest.raises(StoreError, match="not in the store"):
        store.fetch(ref)
    assert store.verify(store.put(folder, "model"))


# -- bad days ----------------------------------------------------------------------------------------------------------

WRITER = """
import resource, signal, sys
from pathlib import Path
from edgewright.artifacts import ArtifactStore
from edgewright.errors import StoreError
limit = int(sys.argv[3])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("start", flush=True)
try:
    ArtifactStore(sys.argv[1]).put(Path(sys.argv[2]), "model")
except StoreError as error:
    print(error)
"""


def writer(store: Path, folder: Path, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(store), str(folder), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_file_that_cannot_be_written_to_its_end_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    said, _ = writer(tmp_path / "store", folder, limit=1000).communicate(timeout=60)
    assert "cannot store an artifact: File too large" in said
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == []
    assert ArtifactStore(tmp_path / "store").put(folder, "model")


def test_a_full_disk_says_what_to_do_and_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount")
    try:
        (folder / "large").write_bytes(os.urandom(100_000))
        store = ArtifactStore(disk / "store")
        with pytest.raises(StoreError, match=r"No space left on device\n  hint: the disk is full: free some space"):
            store.put(folder, "model")
        assert [p for p in disk.rglob("*") if p.is_file()] == []
        (disk / "filler").write_bytes(b"\0" * os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize)
        with pytest.raises(StoreError, match=r"cannot write runs/a.json.*\n  hint: the disk is full"):
            store.write_json("runs/a.json", {"a": "b" * 10_000})
        assert store.read_json("runs/a.json") is None
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_writer_that_is_killed_leaves_no_half_artifact(tmp_path: Path, folder: Path) -> None:
    for number in range(60):
        (folder / f"file-{number}").write_bytes(os.urandom(1 << 20))
    root = tmp_path / "store"
    process = writer(root, folder)
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None and not list(root.rglob("file-1*")):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = ArtifactStore(root)
    assert store.list_keys("artifacts") == [], "only a temporary folder, which nobody takes for one"
    assert [key for key in store.scan("artifacts") if "/.tmp-" in key]
    assert store.verify(store.put(folder, "model"))


def test_a_store_without_permission_says_so(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot store an artifact"):
        ArtifactStore(tmp_path / "file").put(folder, "model")


def test_a_bucket_that_does_not_exist_says_so(s3_store: str, folder: Path) -> None:
    with pytest.raises(StoreError):
        ArtifactStore("s3://no-such-bucket-anywhere/prefix").put(folder, "model")
