"""schema: of a trigger: what does not fit is among the dead letters, everything else starts a run, once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.errors import UserCodeError
from edgewright.steps.message_schema import MessageSchema
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.dead_letters import read_again
from edgewright.streams.dispatch import Dispatcher, Rules

SCHEMA = """
import pandera.pandas as pa

Beat = pa.DataFrameSchema(
    {
        "rate": pa.Column(float, pa.Check.in_range(20, 250), coerce=True),
        "label": pa.Column(int, pa.Check.isin([0, 1])),
        "note": pa.Column(str, nullable=True),
    },
    strict=True,
)
Wide = pa.DataFrameSchema({"rate": pa.Column(float, pa.Check.in_range(0, 1000), coerce=True)})
Broken = pa.DataFrameSchema({"rate": pa.Column(checks=pa.Check(lambda rate: rate.nothing()))})
"""
GOOD = {"rate": 70, "label": 1, "note": "calm"}
BAD = {
    "range": {**GOOD, "rate": 300},
    "type": {**GOOD, "label": "sick"},
    "text": {**GOOD, "rate": "fast"},
    "missing": {"rate": 70, "note": None},
    "more": {**GOOD, "ward": 7},
}


@pytest.fixture
def log(tmp_path: Path) -> BatchLog:
    (tmp_path / "schema.py").write_text(SCHEMA)
    return BatchLog(ArtifactStore(tmp_path / "store"), "pipe", "kafka-t")


def add(log: BatchLog, *values: dict[str, Any]) -> Batch:
    head = log.head()
    name = f"b{head.number + 1 if head else 1}"
    lines = [{"topic": "t", "partition": 0, "offset": n, "timestamp": 1, "value": v} for n, v in enumerate(values)]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    key, sha256 = log.write_data(name, data)
    made = log.append(
        Batch(0, name, "kafka", key, len(values), size=len(data), sha256=sha256, positions={"t/0": [0, 9]})
    )
    assert made is not None
    return made


def values(log: BatchLog, key: str) -> list[dict[str, Any]]:
    with log.store.open(key) as file:
        return [json.loads(line) for line in file]


def schema(tmp_path: Path, name: str = "Beat", sent: list[Any] | None = None) -> MessageSchema:
    return MessageSchema(f"schema.py:{name}", tmp_path, (lambda entries: None) if sent is None else sent.extend)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("range", r"rate: fails in_range\(20, 250\)"),
        ("type", "label is not of type int64"),
        ("text", "rate: cannot be converted to float64"),
        ("missing", "label"),
        ("more", "column ward is not in the schema"),
    ],
)
def test_one_bad_message_among_good_ones_is_found(log: BatchLog, tmp_path: Path, kind: str, reason: str) -> None:
    sent: list[Mapping[str, Any]] = []
    checked = schema(tmp_path, sent=sent)(log, add(log, *[GOOD] * 7, BAD[kind], *[GOOD] * 5))
    assert (checked.messages, checked.rejected) == (12, 1)
    assert [line["value"] for line in values(log, checked.data)] == [GOOD] * 12
    (dead,) = values(log, log.dead_key(checked))
    assert dead["offset"] == 7

    assert re.search(reason, dead["reason"]), dead["reason"]
    assert sent == [dead]
    assert checked.positions == {"t/0": [0, 9]}


def test_looking_twice_changes_nothing(log: BatchLog, tmp_path: Path) -> None:
    batch = add(log, GOOD, BAD["range"])
    first = schema(tmp_path)(log, batch)
    # as if the first one had died before it wrote the batch anew
    second = schema(tmp_path)(log, batch)
    assert first == second == log.read(1)
    assert len(values(log, log.dead_key(first))) == 1
    assert schema(tmp_path, "Broken")(log, second) == second


def test_what_could_not_be_read_stays_among_the_dead_letters(log: BatchLog, tmp_path: Path) -> None:
    batch = add(log, GOOD, BAD["more"])
    unreadable = {"topic": "t", "partition": 0, "offset": 5, "timestamp": 1, "reason": "no JSON", "payload": "ew=="}
    log.write_data(batch.name, (log.store.open(batch.data)).read(), [unreadable])
    log.replace(Batch(**{**vars(batch), "rejected": 1}))
    found = log.read(1)
    assert found is not None
    checked = schema(tmp_path)(log, found)
    assert (checked.messages, checked.rejected) == (1, 2)
    assert [entry["reason"][:7] for entry in values(log, log.dead_key(checked))] == ["no JSON", "it does"]


class Runs:
    def __init__(self) -> None:
        self.started: dict[str, Any] = {}

    def start(self, run_id: str, conf: Mapping[str, Any]) -> bool:
        self.started[run_id] = conf
        return True

    def state(self, run_id: str) -> str | None:
        return None


def start(log: BatchLog, prepare: Any) -> list[str]:
    runs = Runs()
    return Dispatcher(log.store, "pipe", Rules("kafka-t"), runs, prepare=prepare).start()


def test_a_batch_in_which_nothing_fits_starts_nothing(log: BatchLog, tmp_path: Path) -> None:
    add(log, BAD["range"], BAD["type"])
    add(log, GOOD)
    assert start(log, schema(tmp_path)) == ["event__b2"]
    assert start(log, schema(tmp_path)) == []
    assert log.state(1) == "dispatched"


def test_dead_letters_are_asked_the_schema_of_that_day(log: BatchLog, tmp_path: Path) -> None:
    batch = schema(tmp_path)(log, add(log, GOOD, BAD["range"]))
    made = read_again(log, batch)
    assert made is not None
    assert schema(tmp_path)(log, made).messages == 0
    (tmp_path / "schema.py").write_text(SCHEMA.replace("(20, 250)", "(20, 400)"))
    batch = schema(tmp_path)(log, add(log, GOOD, {**GOOD, "rate": 500}))
    (tmp_path / "schema.py").write_text(SCHEMA.replace("(20, 250)", "(20, 600)"))
    made = read_again(log, batch)
    assert made is not None
    assert schema(tmp_path)(log, made).messages == 1


def test_a_schema_that_is_broken_keeps_the_messages_waiting(log: BatchLog, tmp_path: Path) -> None:
    add(log, GOOD)
    for name in ("Broken", "NotThere"):
        with pytest.raises(UserCodeError):
            start(log, schema(tmp_path, name))
    assert start(log, schema(tmp_path, "Wide")) == ["event__b1"]
