"""What the collector takes, and above all what it leaves."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.artifacts.gc import Policy, collect, plan
from edgewright.artifacts.locks import Lease
from edgewright.artifacts.store import MANIFEST
from edgewright.errors import Busy, DamagedArtifact

POLICY = Policy(older_than=timedelta(days=30), keep_runs=1, grace=timedelta(days=1))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def artifact(store: ArtifactStore, text: str, kind: Any = "model", **meta: Any) -> ArtifactRef:
    folder = Path(store.root.removeprefix("file://")).parent / "made" / text
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(text)
    return store.put(folder, kind, meta)


def run(store: ArtifactStore, dag: str, name: str, *refs: ArtifactRef, uses: ArtifactRef | None = None) -> None:
    outputs = {str(number): ref.model_dump() for number, ref in enumerate(refs)}
    config = {"data": uses.model_dump()} if uses else {}
    store.write_json(f"runs/{dag}/{name}/task/request.json", {"config": config})
    store.write_json(f"runs/{dag}/{name}/task/result.json", {"outputs": outputs})


def age(store: ArtifactStore, key: str, days: float) -> None:
    """Make everything below a key look as if it was written some days ago."""
    place = Path(store.root.removeprefix("file://")) / key
    moment = time.time() - days * 86400
    for path in [place, *place.rglob("*")]:
        os.utime(path, (moment, moment))


def keys(store: ArtifactStore, *, keep: set[str] = frozenset(), policy: Policy = POLICY) -> dict[str, str]:  # type: ignore[assignment]
    return {removal.key: removal.what for removal in plan(store, keep, policy).removals}


def place(ref: ArtifactRef) -> str:
    return f"artifacts/{ref.sha256[:2]}/{ref.sha256}"


def test_an_empty_store_has_nothing_to_remove(store: ArtifactStore) -> None:
    assert plan(store).removals == []


def test_old_runs_go_with_what_only_they_need(store: ArtifactStore) -> None:
    shared, old, new = artifact(store, "shared"), artifact(store, "old"), artifact(store, "new")
    run(store, "demo", "r1", old, uses=shared)
    run(store, "demo", "r2", new, uses=shared)
    run(store, "other", "r1", artifact(store, "its own"))
    age(store, "", 100)
    age(store, "runs/demo/r2", 50)
    assert keys(store) == {"runs/demo/r1": "run", place(old): "artifact"}
    report = plan(store, (), POLICY)
    assert report.kept == {"run": 2, "cache entry": 0, "artifact": 3}
    assert report.of("run")[0].why == "100 days old, 1 runs of its pipeline are newer"
    before = report.size
    assert collect(store, report).size == before > 0
    assert not store.verify(old)
    assert store.verify(shared)
    assert store.verify(new)
    assert store.read_json("runs/demo/r1/task/result.json") is None
    assert plan(store, (), POLICY).removals == []


def test_young_runs_and_the_last_ones_stay(store: ArtifactStore) -> None:
    for number in range(4):
        run(store, "demo", f"r{number}", artifact(store, f"a{number}"))
        age(store, f"runs/demo/r{number}", 100 - number)
    age(store, "runs/demo/r0", 29)
    age(store, "artifacts", 100)
    report = plan(store, (), Policy(keep_runs=2))
    assert [removal.key for removal in report.of("run")] == ["runs/demo/r2", "runs/demo/r1"]
    assert len(report.of("artifact")) == 2


def test_what_the_registry_holds_stays_with_the_run_that_made_it(store: ArtifactStore) -> None:
    data = artifact(store, "data", "dataset")
    release = artifact(store, "release", "bundle", digest="d" * 64, version="3")
    run(store, "demo", "r1", release, uses=data)
    run(store, "demo", "r2")
    age(store, "", 100)
    age(store, "runs/demo/r2", 50)
    assert set(keys(store)) == {"runs/demo/r1", place(data), place(release)}
    assert keys(store, keep={"d" * 64}) == {}, "by the release's digest"
    assert keys(store, keep={release.sha256}) == {}, "by the artifact's digest"


def test_a_cache_entry_stays_while_it_is_young_or_its_artifacts_do(store: ArtifactStore) -> None:
    held, lost, cached = artifact(store, "held"), artifact(store, "lost"), artifact(store, "cached")
    run(store, "demo", "r1", held)
    for name, ref in (("aa", held), ("bb", lost), ("cc", cached)):
        store.write_json(f"cache/{name}/{name}.json", {"outputs": {"model": ref.model_dump()}})
    age(store, "", 100)
    age(store, "cache/cc", 2)
    assert set(keys(store)) == {"cache/bb/bb.json", place(lost)}


def test_documents_of_others_keep_what_they_refer_to(store: ArtifactStore) -> None:
    grown = artifact(store, "grown", "dataset")
    store.write_json("events/demo/kafka/batch.json", {"dataset": grown.model_dump()})
    age(store, "", 100)
    assert keys(store) == {}


def test_an_artifact_of_a_run_under_way_stays(store: ArtifactStore) -> None:
    artifact(store, "just made")
    assert keys(store) == {}


def test_an_old_artifact_that_is_wanted_again_stays(store: ArtifactStore) -> None:
    ref = artifact(store, "again")
    age(store, "artifacts", 100)
    report = plan(store, (), POLICY)
    assert [removal.key for removal in report.removals] == [place(ref)]
    artifact(store, "again")  # between plan and collect
    assert collect(store, report).removals == []
    assert store.verify(ref)


def test_leftovers_go_after_a_day(store: ArtifactStore) -> None:
    root = Path(store.root.removeprefix("file://"))
    (root / "artifacts/ab/.tmp-x/deep").mkdir(parents=True)
    (root / "artifacts/ab/.tmp-x/deep/file").write_text("half")
    (root / "runs/demo/r1/task").mkdir(parents=True)
    (root / "runs/demo/r1/task/.tmp-result.json-y").write_text("{")
    half = root / "artifacts/cd" / ("cd" + "0" * 62)
    half.mkdir(parents=True)
    (half / "file").write_text("no manifest")
    assert keys(store) == {}
    age(store, "", 2)
    assert keys(store) == {
        "artifacts/ab/.tmp-x": "temporary",
        "runs/demo/r1/task/.tmp-result.json-y": "temporary",
        f"artifacts/cd/{half.name}": "unfinished artifact",
    }
    collect(store, plan(store, (), POLICY))
    assert [p for p in root.rglob("*") if p.is_file() and p.name != ".guard"] == []


def test_a_document_that_cannot_be_read_stops_the_collector(store: ArtifactStore) -> None:
    run(store, "demo", "r1", artifact(store, "a"))
    Path(store.root.removeprefix("file://"), "runs/demo/r1/task/result.json").write_text("{")
    with pytest.raises(DamagedArtifact, match=r"runs/demo/r1/task/result.json is not JSON"):
        plan(store)


def test_two_collectors_do_not_work_at_once(store: ArtifactStore) -> None:
    with Lease(store, "gc").hold(), pytest.raises(Busy, match="gc is locked"):
        collect(store, plan(store), timeout=0.2)


def test_on_s3_the_same(s3_store: str, tmp_path: Path) -> None:
    store = ArtifactStore(s3_store, cache_dir=tmp_path / "cache")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("a")
    kept = store.put(tmp_path / "a", "model")
    (tmp_path / "a/file").write_text("b")
    lost = store.put(tmp_path / "a", "model")
    run(store, "demo", "r1", kept)
    store._fs.pipe_file(store._path(f"artifacts/ab/{'ab' * 32}/file"), b"no manifest")
    policy = Policy(older_than=timedelta(0), keep_runs=1, grace=timedelta(0))
    report = plan(store, (), policy)
    assert {(removal.key, removal.what) for removal in report.removals} == {
        (place(lost), "artifact"), (f"artifacts/ab/{'ab' * 32}", "unfinished artifact"),
    }  # fmt: skip
    assert len(collect(store, report).removals) == 2
    assert store.verify(kept)
    assert not [key for key in store.list_keys("artifacts") if lost.sha256 in key and key.endswith(MANIFEST)]
