"""What ``edgewright gc`` takes of events, and above all what it leaves."""

from __future__ import annotations

import dataclasses
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.gc import collect
from edgewright.errors import DamagedArtifact, NotFound, StoreError
from edgewright.streams.batches import Batch, BatchLog, open_data
from edgewright.streams.retention import EventRetention
from edgewright.streams.takes import take

MONTH = timedelta(days=30)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def bring(store: ArtifactStore, source: str, name: str, mark: str | None, kind: str = "kafka") -> BatchLog:
    log = BatchLog(store, "pipe", source)
    key, sha256 = log.write_data(name, b"{}\n", [{"reason": "no JSON"}])
    log.head()
    made = log.append(Batch(0, name, kind, key, 1, rejected=1, size=3, sha256=sha256))
    assert made is not None
    for each in ("claimed", "dispatched") if mark else ():
        log.mark(each, made.number, {"run_id": name})
    if mark:
        log.mark(mark, made.number, {"run_id": name})
    return log


def make_old(store: ArtifactStore, days: int = 60) -> None:
    moment = time.time() - days * 86400
    for path in Path(store.root.removeprefix("file://")).rglob("*"):
        os.utime(path, (moment, moment))


def names(store: ArtifactStore) -> list[str]:
    return sorted(removal.key.rpartition("/")[2] for removal in EventRetention(store, MONTH).plan().removals)


def test_only_what_ended_well_long_ago_goes(store: ArtifactStore) -> None:
    for name, mark in (("done", "done"), ("new", None), ("bad", "failed"), ("few", "waiting"), ("busy", "dispatched")):
        bring(store, "kafka-x", name, mark)
    bring(store, "wait-labels-kafka-x", "waited", "done")
    assert names(store) == []  # all of it is young
    make_old(store)
    bring(store, "kafka-x", "young", "done")
    retention = EventRetention(store, MONTH)
    report = retention.plan()
    assert names(store) == ["done.jsonl", "waited.jsonl"]
    assert report.kept == {"batch of events": 5}
    assert len(collect(store, report, confirm=retention.confirm).removals) == 2
    log = BatchLog(store, "pipe", "kafka-x")
    left = {key.rpartition("/")[2] for key in store.list_keys(f"{log.prefix}/data")}
    assert left == {f"{name}.jsonl" for name in ("new", "bad", "few", "busy", "young")}
    assert len(store.list_keys(f"{log.prefix}/dead")) == 6  # dead letters stay
    assert names(store) == []
    # the log is whole: what comes next has the next number, and what waits is still found
    assert [batch.name for batch in log.pending()] == ["new"]
    assert bring(store, "kafka-x", "next", None).head().number == 7  # type: ignore[union-attr]
    with pytest.raises(NotFound, match="edgewright gc removed them"):
        log.release(1, force=True)
    log.release(3)


def test_a_run_that_is_tried_again_keeps_its_batch(store: ArtifactStore) -> None:
    log = bring(store, "kafka-x", "both", "done")
    log.mark("failed", 1, {"run_id": "both"})
    make_old(store)
    assert names(store) == []


def test_a_growing_dataset_keeps_its_batches_but_not_those_of_waits(store: ArtifactStore) -> None:
    for source in ("kafka-x", "wait-labels-kafka-x", "pull-x"):
        bring(store, source, source, "done")
    take(store, "pipe", "run2", None, growing=True)
    make_old(store)
    assert names(store) == ["pull-x.jsonl", "wait-labels-kafka-x.jsonl"]


def test_a_take_that_does_not_grow_protects_nothing(store: ArtifactStore) -> None:
    bring(store, "kafka-x", "one", "done")
    take(store, "pipe", "run2", None, growing=False)
    make_old(store)
    assert names(store) == ["one.jsonl"]


def test_two_ingests_of_a_run_of_which_one_grows(store: ArtifactStore) -> None:
    bring(store, "kafka-x", "one", "done")
    assert take(store, "pipe", "run2", None, growing=False).grown == []
    assert take(store, "pipe", "run2", None, growing=True).grown == [("kafka-x", 1)]
    assert take(store, "pipe", "run2", None, growing=False).grown == []
    make_old(store)
    assert names(store) == []


def test_a_batch_stays_as_long_as_its_run(store: ArtifactStore) -> None:
    bring(store, "kafka-x", "of a registered model", "done")
    bring(store, "kafka-x", "gone", "done")
    make_old(store)
    stays = {"runs/pipe/of%20a%20registered%20model"}
    (removal,) = EventRetention(store, MONTH, stays).plan().removals
    assert removal.key.endswith("/gone.jsonl")


def test_what_a_schema_was_asked_about_goes_in_both_versions(store: ArtifactStore) -> None:
    log = bring(store, "kafka-x", "one", "done")
    key, _ = log.write_data("one.valid", b"{}\n")
    batch = log.read(1)
    assert batch is not None
    log.replace(dataclasses.replace(batch, data=key))
    make_old(store)
    assert names(store) == ["one.jsonl", "one.valid.jsonl"]


def test_two_batches_of_the_same_payloads(store: ArtifactStore) -> None:
    bring(store, "kafka-x", "same", "done")
    bring(store, "kafka-x", "same", None)
    make_old(store)
    assert names(store) == []


def test_a_batch_that_starts_again_meanwhile_stays(store: ArtifactStore) -> None:
    log = bring(store, "kafka-x", "one", "done")
    bring(store, "kafka-x", "two", "done")
    make_old(store)
    retention = EventRetention(store, MONTH)
    report = retention.plan()
    log.release(1, force=True)
    assert [removal.key for removal in collect(store, report, confirm=retention.confirm).removals] == [
        f"{log.prefix}/data/two.jsonl"
    ]
    assert [batch.name for batch in log.pending()] == ["one"]
    assert not log.is_removed(1)


def test_a_collector_that_dies_between_mark_and_removal_is_finished_by_the_next(store: ArtifactStore) -> None:
    log = bring(store, "kafka-x", "one", "done")
    make_old(store)
    retention = EventRetention(store, MONTH)
    (removal,) = retention.plan().removals
    assert retention.confirm(removal)
    with pytest.raises(NotFound, match="edgewright gc removed them"):
        log.release(1, force=True)
    assert log.state(1) == "done"
    again = EventRetention(store, MONTH)
    assert len(collect(store, again.plan(), confirm=again.confirm).removals) == 1


def test_a_dataset_that_begins_to_grow_meanwhile_or_later(store: ArtifactStore) -> None:
    log = bring(store, "kafka-x", "one", "done")
    make_old(store)
    retention = EventRetention(store, MONTH)
    (removal,) = retention.plan().removals
    take(store, "pipe", "run2", None, growing=True)
    assert not retention.confirm(removal)
    assert take(store, "pipe", "run3", None, growing=True).grown == [("kafka-x", 1)]
    # one that grows after its first batch is gone says so and goes on without
    store.delete("events/pipe/growing.json")
    assert retention.confirm(removal)
    found = take(store, "pipe", "run4", None, growing=True)
    assert (found.grown, found.removed) == ([], 1)
    assert log.is_removed(1)


def test_a_store_that_fails_leaves_everything(store: ArtifactStore) -> None:
    log = bring(store, "kafka-x", "one", "done")
    make_old(store)
    store.write_bytes(log.key("done", 1), b"{half")
    os.utime(Path(store.root.removeprefix("file://")) / log.key("done", 1), (1, 1))
    with pytest.raises(DamagedArtifact, match="is not JSON"):
        EventRetention(store, MONTH).plan()


def test_messages_that_are_gone_say_why(store: ArtifactStore) -> None:
    log = bring(store, "kafka-x", "one", "done")
    batch = log.read(1)
    assert batch is not None
    store.delete(batch.data)
    with pytest.raises(StoreError, match="not found"):  # lost: not by a collector
        open_data(store, batch)
    log.mark("removed", 1, {})
    with pytest.raises(NotFound, match="edgewright gc removed them"):
        open_data(store, batch)


def test_of_objects_only_copies_go_and_only_when_all_are_done(store: ArtifactStore) -> None:
    log = bring(store, "objects-x", "one", "done", kind="objects")
    store.write_bytes(f"{log.prefix}/objects/abc-a.csv", b"x\n1\n")
    bring(store, "objects-x", "two", "failed", kind="objects")
    make_old(store)
    assert names(store) == []
    log.mark("done", 2, {"run_id": "two"})
    log.unmark("failed", 2)
    make_old(store)
    assert names(store) == ["abc-a.csv"]
    collect(store, EventRetention(store, MONTH).plan())
    assert len(store.list_keys(f"{log.prefix}/data")) == 2  # they say which versions were seen
