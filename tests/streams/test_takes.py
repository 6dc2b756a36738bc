"""Batches start runs once, runs take batches once, and what a run did not use waits for the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.errors import NotFound, Skipped
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.dispatch import Dispatcher, Rules
from edgewright.streams.takes import put_back, settle, take


class FakeRuns:
    """Airflow as far as a dispatcher sees it: refuses a run id that it has."""

    def __init__(self) -> None:
        self.confs: dict[str, Any] = {}
        self.states: dict[str, str] = {}
        self.dies_after: int | None = None

    def start(self, run_id: str, conf: Mapping[str, Any]) -> bool:
        new = run_id not in self.confs
        self.confs.setdefault(run_id, conf)
        if self.dies_after is not None and len(self.confs) >= self.dies_after:
            raise KeyboardInterrupt
        return new

    def state(self, run_id: str) -> str | None:
        return self.states.get(run_id)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def fill(store: ArtifactStore, count: int, first: int = 0, messages: int = 1) -> BatchLog:
    log = BatchLog(store, "pipe", "kafka-t")
    log.head()
    for number in range(first, first + count):
        key, sha256 = log.write_data(f"t-0-{number}", b"{}\n")
        assert log.append(Batch(0, f"t-0-{number}", "kafka", key, messages, sha256=sha256)) is not None
    return log


def dispatcher(store: ArtifactStore, runs: FakeRuns, **rules: Any) -> Dispatcher:
    return Dispatcher(store, "pipe", Rules("kafka-t", **rules), runs)


def claims(runs: FakeRuns) -> dict[str, str]:
    return {run_id: conf["edgewright"]["batch"] for run_id, conf in runs.confs.items()}


def test_a_burst_starts_one_run_a_batch(store: ArtifactStore) -> None:
    fill(store, 200)
    runs = FakeRuns()
    assert len(dispatcher(store, runs).start()) == 200
    assert dispatcher(store, runs).start() == []
    assert len(runs.confs) == 200


def test_more_batches_than_one_folder_of_numbers(store: ArtifactStore) -> None:
    fill(store, 1050)
    runs = FakeRuns()
    dispatcher(store, runs).start()
    fill(store, 3, first=1050)
    assert dispatcher(store, runs).start() == [f"event__t-0-{n}" for n in (1050, 1051, 1052)]
    assert len(runs.confs) == 1053


def test_a_pass_that_dies_between_start_and_mark_starts_nothing_twice(store: ArtifactStore) -> None:
    fill(store, 5)
    runs = FakeRuns()
    runs.dies_after = 3
    with pytest.raises(KeyboardInterrupt):
        dispatcher(store, runs).start()
    runs.dies_after = None
    dispatcher(store, runs).start()
    assert sorted(runs.confs) == [f"event__t-0-{n}" for n in range(5)]


def test_of_two_passes_that_die_at_once_each_starts_what_it_claimed(store: ArtifactStore) -> None:
    log = fill(store, 4)
    batches = [batch for number in range(1, 5) if (batch := log.read(number))]
    # one saw three batches, the other four, as two schedulers may; the first had three before the other looked
    log.write_claim("event__one", [1, 2, 3])
    log.write_claim("event__other", [1, 2, 3, 4])
    log.claim(batches[:3], "event__one")
    log.claim(batches, "event__other")
    runs = FakeRuns()
    assert dispatcher(store, runs, cooldown=1).start() == ["event__one", "event__other"]
    numbers = [store.read_json(claim)["numbers"] for claim in claims(runs).values()]
    assert numbers == [[1, 2, 3], [4]]


def test_what_waits_for_the_cooldown_starts_together(store: ArtifactStore) -> None:
    fill(store, 1)
    runs = FakeRuns()
    assert len(dispatcher(store, runs, cooldown=0.5, together=3).start()) == 1
    fill(store, 5, first=1)
    assert dispatcher(store, runs, cooldown=600, together=3).start() == []
    (store_last,) = [key for key in store.list_keys("events") if key.endswith("last_start.json")]
    store.write_json(store_last, {"at": "2026-01-01T00:00:00+00:00"})
    started = dispatcher(store, runs, cooldown=600, together=3).start()
    numbers = [store.read_json(claims(runs)[run_id])["numbers"] for run_id in started]
    assert numbers == [[2, 3, 4], [5, 6]]


def test_strict_order_waits_for_the_one_before(store: ArtifactStore) -> None:
    fill(store, 3)
    runs = FakeRuns()
    strict = dispatcher(store, runs, strict=True)
    assert strict.start() == ["event__t-0-0"]
    assert strict.start() == []
    runs.states["event__t-0-0"] = "failed"
    strict.settle()
    assert strict.start() == []
    runs.states["event__t-0-0"] = "success"
    settle(store, "pipe", "event__t-0-0", claims(runs)["event__t-0-0"], success=True, outcome={})
    assert strict.start() == ["event__t-0-1"]


def test_a_failed_batch_blocks_no_other_and_can_be_released(store: ArtifactStore) -> None:
    log = fill(store, 2)
    runs = FakeRuns()
    found = dispatcher(store, runs)
    found.start()
    runs.states = {"event__t-0-0": "failed", "event__t-0-1": "success"}
    assert found.settle() == 2
    assert [log.state(1), log.state(2)] == ["failed", "done"]
    with pytest.raises(NotFound, match="done, not failed"):
        log.release(2)
    log.release(1)
    assert found.start() == ["event__t-0-0__2"]
    assert found.settle() == 0


def test_a_run_takes_its_batch_once_and_sees_the_same_when_tried_again(store: ArtifactStore) -> None:
    fill(store, 2)
    runs = FakeRuns()
    dispatcher(store, runs).start()
    first, second = claims(runs)
    one = take(store, "pipe", first, claims(runs)[first], growing=True)
    assert one.own == [("kafka-t", 1)]
    assert one.grown == []
    settle(store, "pipe", first, claims(runs)[first], success=True, outcome={})
    two = take(store, "pipe", second, claims(runs)[second], growing=True)
    assert (two.own, two.grown) == ([("kafka-t", 2)], [("kafka-t", 1)])
    assert take(store, "pipe", first, claims(runs)[first], growing=True) == one


def test_what_was_too_little_waits_and_joins_the_next_run(store: ArtifactStore) -> None:
    log = fill(store, 2)
    runs = FakeRuns()
    dispatcher(store, runs).start()
    first, second = claims(runs)
    take(store, "pipe", first, claims(runs)[first], growing=False)
    put_back(store, "pipe", first, "too few")
    settle(store, "pipe", first, claims(runs)[first], success=True, outcome={})
    assert log.state(1) == "waiting"
    two = take(store, "pipe", second, claims(runs)[second], growing=False)
    assert two.own == [("kafka-t", 1), ("kafka-t", 2)]
    with pytest.raises(Skipped, match="another run has taken"):
        take(store, "pipe", first, claims(runs)[first], growing=False)
    settle(store, "pipe", second, claims(runs)[second], success=True, outcome={})
    assert [log.state(1), log.state(2)] == ["done", "done"]


def test_a_run_that_failed_before_it_took_its_batch_is_settled_all_the_same(store: ArtifactStore) -> None:
    log = fill(store, 1)
    runs = FakeRuns()
    dispatcher(store, runs).start()
    (run_id,) = runs.confs
    settle(store, "pipe", run_id, claims(runs)[run_id], success=False, outcome={})
    assert log.state(1) == "failed"
    take(store, "pipe", run_id, claims(runs)[run_id], growing=False)  # the run is tried again
    settle(store, "pipe", run_id, claims(runs)[run_id], success=True, outcome={})
    assert log.state(1) == "done"


def test_of_two_who_append_one_is_first(store: ArtifactStore) -> None:
    one, other = fill(store, 1), BatchLog(store, "pipe", "kafka-t")
    other.head()
    assert one.append(Batch(0, "a", "kafka", "k", 1, positions={"t/0": [0, 9]})) is not None
    assert other.append(Batch(0, "b", "kafka", "k", 1)) is None
    assert other.positions() == {"t/0": [0, 9]}
