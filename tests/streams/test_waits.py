"""Waiting in the middle of a run: each batch is taken by one wait, and a wait that is tried again has the same one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.spec.steps.wait import WaitConfig
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.takes import take
from edgewright.streams.waits import Line, settle_ended, settle_run, wait_source

CONFIG = WaitConfig.model_validate({"kafka": {"topic": "labels"}})
SOURCE = wait_source("labels", CONFIG)


@pytest.fixture
def log(tmp_path: Path) -> BatchLog:
    return BatchLog(ArtifactStore(tmp_path / "store"), "pipe", SOURCE)


def again(log: BatchLog) -> BatchLog:
    return BatchLog(log.store, "pipe", SOURCE)


def bring(log: BatchLog, count: int, messages: int = 1) -> None:
    head = log.head()
    for number in range(head.number if head else 0, (head.number if head else 0) + count):
        key, sha256 = log.write_data(f"b{number}", b"{}\n" * messages)
        assert log.append(Batch(0, f"b{number}", "kafka", key, messages, sha256=sha256)) is not None


def name(line: Line) -> str | None:
    batch = line.take()
    return batch.name if batch else None


def test_the_source_follows_from_the_task_and_what_it_waits_for() -> None:
    assert SOURCE == "wait-labels-kafka-labels"
    objects = WaitConfig.model_validate({"objects": {"uri": "s3://raw/*.csv"}})
    assert wait_source("files", objects) == "wait-files-objects-s3-raw-csv"


def test_each_batch_is_taken_by_one_wait_and_a_retry_has_the_same(log: BatchLog) -> None:
    assert name(Line(log, "run1")) is None
    bring(log, 2)
    assert name(Line(again(log), "run1")) == "b0"
    assert name(Line(again(log), "run2")) == "b1"
    assert name(Line(again(log), "run1")) == "b0"
    assert name(Line(again(log), "run3")) is None


def test_instances_of_a_mapped_task_take_batches_of_their_own(log: BatchLog) -> None:
    bring(log, 2)
    assert [name(Line(log, "run1", index)) for index in (0, 1, 0, 1)] == ["b0", "b1", "b0", "b1"]
    assert settle_run(log.store, "pipe", "run1", success=True) == 2


def test_a_batch_without_a_readable_message_is_nobodys(log: BatchLog) -> None:
    bring(log, 1, messages=0)
    bring(log, 1)
    assert name(Line(log, "run1")) == "b1"


def test_many_at_once_take_all_of_them_once(log: BatchLog) -> None:
    bring(log, 12)
    taken: list[str | None] = []
    runs = [f"run{number}" for number in range(10)]
    # each run twice: a process that is believed dead, and its successor
    threads = [threading.Thread(target=lambda run=run: taken.append((run, name(Line(again(log), run)))))
               for run in [*runs, *runs]]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_run = {run: {batch for other, batch in taken if other == run} for run in runs}
    assert all(len(found) == 1 for found in by_run.values()), by_run
    assert len(set.union(*by_run.values()) - {None}) == 10


def test_a_claim_that_was_not_finished_is_finished_by_the_next_try(log: BatchLog) -> None:
    bring(log, 2)
    log.store.create_json(f"{log.prefix}/waits/run1/1.json", {"number": 1})  # killed before the claim
    assert name(Line(again(log), "run2")) == "b0"  # who claims first has it
    assert name(Line(again(log), "run1")) == "b1"
    assert name(Line(again(log), "run1")) == "b1"


def test_runs_that_ended_settle_their_batches_and_failed_ones_can_be_released(log: BatchLog) -> None:
    bring(log, 3)
    for run in ("good", "bad", "busy"):
        Line(log, run).take()
    states = {"good": "success", "bad": "failed", "busy": "running"}
    assert settle_ended(again(log), states.get) == 2
    assert [log.state(number) for number in (1, 2, 3)] == ["done", "failed", "dispatched"]
    states |= {"bad": "success", "busy": "success"}  # the failed run was tried again
    assert settle_ended(again(log), states.get) == 2
    assert [log.state(number) for number in (1, 2, 3)] == ["done"] * 3
    log.release(2, force=True)
    assert name(Line(again(log), "next")) == "b1"


def test_what_a_task_waited_for_does_not_grow_another_dataset(log: BatchLog) -> None:
    bring(log, 1)
    Line(log, "run1").take()
    settle_run(log.store, "pipe", "run1", success=True)
    assert take(log.store, "pipe", "run2", None, growing=True).grown == []
