"""How long versions of datasets stay, and what is left of them."""

from __future__ import annotations

import datetime
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.artifacts.ages import age_of
from edgewright.artifacts.gc import Policy, Report, collect, plan
from edgewright.artifacts.retention import DatasetRetention, tombstone_of
from edgewright.errors import StoreError

POLICY = Policy(older_than=timedelta(days=365), keep_runs=10, grace=timedelta(days=1))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


class Past:
    """Runs of long ago."""

    def __init__(self, store: ArtifactStore, folder: Path) -> None:
        self.store, self.folder = store, folder

    def artifact(self, text: str, kind: Any = "dataset", **meta: Any) -> ArtifactRef:
        folder = self.folder / text
        folder.mkdir(parents=True, exist_ok=True)
        manifest = {"rows": 3, "parts": {"train": {"rows": 3}}, "source": {"uri": "a.csv", "sha256": "s"},
                    "columns": [{"name": "age", "type": "integer", "missing": 0, "maximum": 61}]}  # fmt: skip
        (folder / "dataset.json").write_text(json.dumps({**manifest, "text": text}))
        return self.store.put(folder, kind, meta)

    def task(self, name: str, days: float, *made: ArtifactRef, of: ArtifactRef | None = None, **more: Any) -> None:
        """Write what a task of a run left, so many days ago."""
        dag_id, run_id, task_id = name.split("/")
        started = datetime.datetime.now(datetime.UTC) - timedelta(days=days)
        config = {"retention": more.get("retention")} | ({"data": of.model_dump()} if of else {})
        result = {
            "identity": {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}, "step": more.get("step", "ingest"),
            "started": started.isoformat(), "outputs": {str(n): ref.model_dump() for n, ref in enumerate(made)},
            "tags": more.get("tags", {}),
        }  # fmt: skip
        self.store.write_json(f"runs/{name}/request.json", {"config": config})
        self.store.write_json(f"runs/{name}/result.json", result)

    def old(self, days: float = 5) -> None:
        """Make every file look old enough for the time of grace."""
        moment = time.time() - days * 86400
        for path in Path(self.store.root.removeprefix("file://")).rglob("*"):
            os.utime(path, (moment, moment))


@pytest.fixture
def past(store: ArtifactStore, tmp_path: Path) -> Past:
    return Past(store, tmp_path / "made")


def place(ref: ArtifactRef) -> str:
    return f"artifacts/{ref.sha256[:2]}/{ref.sha256}"


def go(store: ArtifactStore, *, aliased: set[str] = frozenset(), policy: Policy = POLICY) -> Report:  # type: ignore[assignment]
    report = plan(store, (), policy)
    retention = DatasetRetention(store, policy, aliased)
    report.removals += retention.plan(report).removals
    return collect(store, report, confirm=retention.confirm)


def gone(report: Report) -> dict[str, str]:
    return {removal.key: removal.what for removal in report.removals}


def test_a_version_goes_when_its_time_is_over_and_leaves_its_lineage(store: ArtifactStore, past: Past) -> None:
    old, new, free = past.artifact("old"), past.artifact("new"), past.artifact("free")
    model, release = past.artifact("model", "model"), past.artifact("release", "bundle", digest="d" * 64)
    past.task("demo/r1/data", 91, old, retention="90d")
    past.task("demo/r1/model", 91, model, of=old, step="train")
    past.task("demo/r1/release", 91, release, of=model, step="publish",
              tags={"model_name": "demo", "model_version": "3"})  # fmt: skip
    past.task("demo/r2/data", 89, new, retention="90d")
    past.task("other/r1/data", 900, free)
    store.write_json("cache/aa/aa.json", {"outputs": {"dataset": old.model_dump()}})
    past.old()
    assert gone(go(store)) == {"cache/aa/aa.json": "cache entry", place(old): "expired dataset"}
    left = tombstone_of(store, old.sha256)
    assert left is not None
    assert (left["dataset"], left["run"], left["rows"], left["retention"]) == ("demo/data", "r1", 3, "90d")
    assert left["columns"] == [{"name": "age", "type": "integer"}], "no value of any row"
    assert left["source"] == {"uri": "a.csv", "sha256": "s"}
    assert [(one["digest"], one["registered"]) for one in left["models"]] == [
        (model.sha256, ""), (release.sha256, "demo/3"),
    ]  # fmt: skip
    with pytest.raises(StoreError, match="not in the store") as raised:
        store.fetch(old)
    assert f"the retention of demo/data (90d) was over on {left['removed'][:10]}" in str(raised.value.hint)
    for ref in (new, free, model, release):
        assert store.verify(ref)
    assert gone(go(store)) == {}, "and once only"


def test_what_was_made_from_it_goes_with_it(store: ArtifactStore, past: Past) -> None:
    data, clean, report = past.artifact("data"), past.artifact("clean"), past.artifact("report", "report")
    state = past.artifact("state", "model")
    past.task("demo/r1/data", 8, data, retention="1w")
    past.task("demo/r1/checks", 7.9, data, report, of=data, step="validate")
    past.task("demo/r1/ready", 7.9, clean, state, of=data, step="transform", retention="90d")
    past.old()
    assert gone(go(store)) == {
        place(data): "expired dataset", place(clean): "expired dataset", place(report): "expired report",
    }  # fmt: skip
    assert tombstone_of(store, clean.sha256)["made_from"] == [data.sha256]  # type: ignore[index]


def test_a_step_in_between_may_be_stricter(store: ArtifactStore, past: Past) -> None:
    data = past.artifact("data")
    past.task("demo/r1/data", 8, data)
    past.task("demo/r1/checks", 8, data, of=data, step="validate", retention="1w")
    past.old()
    assert gone(go(store)) == {place(data): "expired dataset"}


def test_the_last_run_that_made_it_counts_and_the_newest_declaration_holds(store: ArtifactStore, past: Past) -> None:
    again, late = past.artifact("again"), past.artifact("late")
    past.task("demo/r1/data", 100, again, retention="90d")
    past.task("demo/r2/data", 3, again, retention="90d")
    past.task("other/r1/data", 100, late)
    past.task("other/r2/data", 3, past.artifact("newer"), retention="90d")
    past.old()
    assert gone(go(store)) == {place(late): "expired dataset"}
    past.task("other/r3/data", 2, past.artifact("newest"))
    past.task("other/r4/data", 200, past.artifact("left"))
    past.old()
    assert gone(go(store)) == {}, "the declaration was taken back"


@pytest.mark.parametrize(("champions", "stays"), [("keep", True), ("remove", False)])
def test_what_the_champion_learnt_from(store: ArtifactStore, past: Past, champions: str, stays: bool) -> None:
    data, model = past.artifact("data"), past.artifact("model", "model")
    release = past.artifact("release", "bundle", digest="d" * 64)
    past.task("demo/r1/data", 100, data, retention={"after": "90d", "champions": champions})
    past.task("demo/r1/model", 100, model, of=data, step="train")
    past.task("live/r1/release", 100, release, of=model, step="publish")
    past.old()
    assert (gone(go(store, aliased={"d" * 64})) == {}) is stays
    assert (place(data) in gone(go(store))) is stays, "nothing points to it any more"


def test_a_run_that_is_at_work_on_it_keeps_it(store: ArtifactStore, past: Past) -> None:
    data = past.artifact("data")
    past.task("demo/r1/data", 100, data, retention="90d")
    assert gone(go(store)) == {}, "its files are young"
    past.old()
    report = plan(store, (), POLICY)
    retention = DatasetRetention(store, POLICY)
    report.removals += retention.plan(report).removals
    past.artifact("data")  # wanted again, between plan and collect
    assert gone(collect(store, report, confirm=retention.confirm)) == {}
    assert tombstone_of(store, data.sha256) is None


def test_what_goes_with_its_old_run_leaves_a_tombstone_too(store: ArtifactStore, past: Past) -> None:
    data = past.artifact("data")
    past.task("demo/r1/data", 100, data, retention="90d")
    past.task("demo/r2/data", 1, past.artifact("new"), retention="90d")
    past.old(50)
    report = go(store, policy=Policy(older_than=timedelta(days=0), keep_runs=1))
    assert place(data) in gone(report)
    assert tombstone_of(store, data.sha256) is not None


def test_killed_over_it_the_next_one_finishes(
    store: ArtifactStore, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = past.artifact("data")
    past.task("demo/r1/data", 100, data, retention="90d")
    past.old()
    calls, delete = [0], ArtifactStore.delete

    def dying(self: ArtifactStore, key: str) -> None:
        if key.startswith("artifacts/"):
            calls[0] += 1
            if calls[0] == 2:
                raise KeyboardInterrupt
        delete(self, key)

    monkeypatch.setattr(ArtifactStore, "delete", dying)
    with pytest.raises(KeyboardInterrupt):
        go(store)
    monkeypatch.setattr(ArtifactStore, "delete", delete)
    left = tombstone_of(store, data.sha256)
    past.old()
    assert set(gone(go(store))) == {place(data)}
    assert store.scan(place(data)) == {}
    assert left is not None
    assert left["rows"] == tombstone_of(store, data.sha256)["rows"] == 3  # type: ignore[index]


def test_on_s3_the_same(s3_store: str, tmp_path: Path) -> None:
    store = ArtifactStore(s3_store, cache_dir=tmp_path / "cache")
    past = Past(store, tmp_path / "made")
    data, kept = past.artifact("data"), past.artifact("kept")
    past.task("demo/r1/data", 100, data, retention="90d")
    past.task("demo/r2/data", 1, kept, retention="90d")
    report = go(store, policy=Policy(grace=timedelta(0)))
    assert gone(report) == {place(data): "expired dataset"}
    assert tombstone_of(store, data.sha256) is not None
    assert store.verify(kept)


def test_ages() -> None:
    assert [age_of(text) for text in ("12h", "90d", "8w")] == [
        timedelta(hours=12), timedelta(days=90), timedelta(weeks=8),
    ]  # fmt: skip
    for text in ("", "90", "3 months", "-1d", "90D"):
        with pytest.raises(ValueError, match="no age"):
            age_of(text)
