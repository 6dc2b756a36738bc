"""``edgewright gc``: what something needs stays, what nothing needs goes, and nobody guesses."""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.streams.batches import Batch, BatchLog


def make_old(home: Path, run_id: str, days: int = 60) -> None:
    """Make a run, its cache entries and all artifacts look old."""
    then = time.time() - days * 86400
    store = home / "store"
    for file in (
        *store.glob(f"runs/*/{run_id}/*/*.json"),
        *store.glob("cache/*/*.json"),
        *store.glob("artifacts/**/*"),
    ):
        os.utime(file, (then, then))


@pytest.fixture
def old(workplace):
    """Return a workplace with one old run of the data."""
    workplace.run("--until", "data", "--run-id", "old")
    make_old(workplace.home, "old")
    return workplace


def gc(workplace, *arguments: str) -> dict:
    done = workplace.call("gc", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of(plan: dict, what: str) -> list[str]:
    return [removal["key"] for removal in plan["removals"] if removal["what"] == what]


def test_only_shows_unless_told(old):
    plan = gc(old, "--keep-runs", "0")
    assert plan["removed"] is False
    assert of(plan, "run") == ["runs/bracelet/old"]
    assert len(of(plan, "artifact")) == 1
    assert plan["bytes"] > 0
    assert gc(old, "--keep-runs", "0") == plan
    assert "run it again with --yes" in old.call("gc", "--keep-runs", "0").stdout


def test_yes_removes_it(old):
    plan = gc(old, "--keep-runs", "0", "--yes")
    store = old.home / "store"
    assert not (store / of(plan, "run")[0]).exists()
    assert not (store / of(plan, "artifact")[0]).exists()
    assert list(store.glob("cache/*/*.json")) == []
    assert of(gc(old, "--keep-runs", "0"), "run") == []
    again = old.run("--until", "data")
    assert again["tasks"][0]["cached"] is False


def test_the_last_runs_stay(old):
    assert of(gc(old), "run") == []


def test_what_a_young_run_reuses_stays(old):
    old.run("--until", "data", "--run-id", "young")
    plan = gc(old, "--keep-runs", "0", "--yes")
    assert of(plan, "run") == ["runs/bracelet/old"]
    assert of(plan, "artifact") == []
    assert of(plan, "cache entry") == []
    assert old.run("--until", "data")["tasks"][0]["cached"] is True


def test_artifacts_of_the_last_day_stay_whatever_was_asked(workplace):
    workplace.run("--until", "data", "--run-id", "now")
    plan = gc(workplace, "--older-than", "0h", "--keep-runs", "0")
    assert of(plan, "run") == ["runs/bracelet/now"]
    assert of(plan, "artifact") == []


def test_a_registered_model_keeps_its_run(workplace):
    workplace.run("--skip", "live", "--run-id", "published")
    make_old(workplace.home, "published")
    plan = gc(workplace, "--keep-runs", "0")
    assert of(plan, "run") == []
    assert of(plan, "artifact") == []


def test_a_dataset_goes_when_its_retention_is_over(workplace):
    pipeline = workplace.pipeline / "pipeline.yaml"
    pipeline.write_text(pipeline.read_text().replace("label: num,", "label: num, retention: 4w,"))
    assert "retention: 4w" in pipeline.read_text()
    workplace.run("--until", "data", "--run-id", "old")
    make_old(workplace.home, "old")
    assert of(gc(workplace), "expired dataset") == [], "its last run is young"
    (result,) = (workplace.home / "store").glob("runs/bracelet/old/data/result.json")
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=29)
    result.write_text(json.dumps({**json.loads(result.read_text()), "started": then.isoformat()}))
    make_old(workplace.home, "old")
    plan = gc(workplace, "--yes")
    assert (len(of(plan, "expired dataset")), len(of(plan, "cache entry")), of(plan, "run")) == (1, 1, [])
    assert plan["kept"]["artifact"] == plan["kept"]["cache entry"] == 0
    gone = workplace.call("data", "show", "bracelet")
    assert gone.returncode == 1
    assert "when its retention was over" in gone.stderr
    again = workplace.run("--until", "data", "--run-id", "new")
    assert again["tasks"][0]["cached"] is False
    shown = json.loads(workplace.call("data", "show", "bracelet", "--json").stdout)
    assert [one["run"] for one in shown["versions"]] == ["new"], "the same rows are the same version"


def test_nothing_goes_when_the_registry_does_not_answer(old):
    done = old.call("gc", "--yes", "--keep-runs", "0", env={"EDGEWRIGHT_TRACKING_URI": "http://127.0.0.1:1"})
    assert done.returncode == 69
    assert (old.home / "store" / "runs" / "bracelet" / "old").exists()


def test_wrong_ages_are_usage(workplace):
    done = workplace.call("gc", "--older-than", "soon")
    assert done.returncode == 2
    assert "write 12h, 30d or 8w" in done.stderr


def test_nothing_goes_while_the_stacks_registry_is_away(old):
    (old.home / "mlflow-server.db").touch()
    done = old.call("gc", "--yes", "--keep-runs", "0")
    assert done.returncode == 69
    assert "edgewright up" in done.stderr
    assert (old.home / "store" / "runs" / "bracelet" / "old").exists()


def test_of_events_only_what_ended_well_long_ago_goes(old):
    store = ArtifactStore(old.home / "store")
    log = BatchLog(store, "stream", "kafka-labels")
    for number, mark in enumerate(("done", "failed"), 1):
        key, sha256 = log.write_data(mark, b"{}\n")
        log.append(Batch(0, mark, "kafka", key, 1, sha256=sha256))
        log.mark("dispatched", number, {"run_id": mark})
        log.mark(mark, number, {"run_id": mark})
    then = time.time() - 60 * 86400
    for file in (old.home / "store" / "events").rglob("*.json*"):
        os.utime(file, (then, then))
    key = "events/stream/kafka-labels/data/done.jsonl"
    assert of(gc(old), "batch of events") == [key]
    assert "would remove" in old.call("gc", "--dry-run").stdout
    assert of(gc(old, "--yes"), "batch of events") == [key]
    assert not (old.home / "store" / key).exists()
    assert of(gc(old), "batch of events") == []
