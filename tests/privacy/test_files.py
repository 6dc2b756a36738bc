"""Erasing from batches of events and from predictions: files are rewritten, and everything that counts them follows."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from support.people import INGEST, KEY, PEOPLE, TOKENS, RunStep
from support.releases import model_folder

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.digest import describe_tree, sha256_file
from edgewright.privacy.erase import erase
from edgewright.privacy.findings import Erasure
from edgewright.privacy.matcher import Matcher
from edgewright.privacy.rows import Rows
from edgewright.steps.contract import Identity, Source, StepRequest, StepResult
from edgewright.steps.event_rows import Events
from edgewright.steps.execute import execute
from edgewright.streams.batches import Batch, BatchLog, current
from edgewright.streams.pseudonyms import Pseudonyms

AGATHA, BERTRAM = TOKENS["Agatha"], TOKENS["Bertram"]
SECRET = Pseudonyms(KEY)


def line(value: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"topic": "t", "partition": 0, "offset": 1, "key": None, "value": value, **more}).encode() + b"\n"


def found(report: Erasure, what: str) -> dict[str, int]:
    return {one.where: one.count for one in report.erased if one.what == what}


# -- batches of events -----------------------------------------------------------------------------------------------


@pytest.fixture
def log(store: ArtifactStore, key: None, run_step: RunStep) -> BatchLog:
    """A log with a batch of four messages, two of Agatha: one by the pseudonym, one by name."""
    run_step("ingest", INGEST)  # says that person is personal
    log = BatchLog(store, "people", "kafka-readings")
    values = [{"person": AGATHA, "age": 1}, {"person": BERTRAM, "age": 2}, {"person": "Agatha", "age": 3}, {"age": 4}]
    lines = [line(value) for value in values]
    name, sha256 = log.write_data("t-0-3", b"".join(lines))
    log.append(Batch(0, "t-0-3", "kafka", name, 4, size=sum(map(len, lines)), sha256=sha256))
    return log


def messages(log: BatchLog, number: int = 1) -> list[dict[str, Any]]:
    batch = log.read(number)
    assert batch is not None
    with log.store.open(batch.data) as file:
        lines = file.readlines()
    assert batch.messages == len(lines)
    assert batch.size == sum(map(len, lines))
    return [json.loads(one)["value"] for one in lines]


def test_messages_of_a_batch_go_and_its_manifest_follows(log: BatchLog, store: ArtifactStore) -> None:
    before = log.read(1)
    assert before is not None
    report = erase(store, AGATHA, pseudonyms=SECRET)
    assert found(report, "events") == {before.data: 2}
    assert report.complete
    assert messages(log) == [{"person": BERTRAM, "age": 2}, {"age": 4}]
    after = log.read(1)
    assert after is not None
    assert after.sha256 != before.sha256
    assert (after.name, after.number, after.details) == ("t-0-3", 1, {"erased": 2})
    assert before.data not in store.list_keys("events"), "the old file is gone"
    assert current(store, before) == after, "what a wait handed on finds the new file"
    again = erase(store, AGATHA, pseudonyms=SECRET)
    assert found(again, "events") == {before.data: 2}, "what was done is reported again"
    assert log.read(1) == after
    erase(store, BERTRAM, pseudonyms=SECRET)
    assert messages(log) == [{"age": 4}]


def test_a_dry_run_and_a_run_without_the_key(log: BatchLog, store: ArtifactStore, tmp_path: Path) -> None:
    before = describe_tree(tmp_path)
    assert list(found(erase(store, AGATHA, pseudonyms=SECRET, dry_run=True), "events").values()) == [2]
    assert describe_tree(tmp_path) == before
    assert list(found(erase(store, AGATHA), "events").values()) == [1], "only by the pseudonym"
    assert [one["age"] for one in messages(log)] == [2, 3, 4]


def test_a_batch_of_nobody_else_starts_no_run(log: BatchLog, store: ArtifactStore) -> None:
    for text in ("one", "two"):
        name, sha256 = log.write_data(text, line({"person": AGATHA}))
        log.append(Batch(0, text, "kafka", name, 1, sha256=sha256))
    log.mark("dispatched", 2, {"run_id": "event__one"})
    erase(store, AGATHA)
    assert messages(log, 2) == messages(log, 3) == []
    assert log.marked("dispatched", 2)["run_id"] == "event__one"  # type: ignore[index]
    assert [batch.number for batch in log.pending()] == [1]
    assert "erased person" in log.marked("dispatched", 3)["reason"]  # type: ignore[index]


def test_dead_letters_and_copies_of_objects(log: BatchLog, store: ArtifactStore, tmp_path: Path) -> None:
    payload = base64.b64encode(b'{"person": "Agatha", "age": "old"}').decode()
    store.write_bytes(
        f"{log.prefix}/dead/t-0-3.jsonl",
        json.dumps({"reason": "no number", "payload": payload}).encode() + b"\n"
        + json.dumps({"reason": "no JSON", "payload": base64.b64encode(b"x").decode()}).encode() + b"\n",
    )  # fmt: skip
    text = b'age,person,note\r\n1,Agatha,"a ""b"",\nc"\r\n2,Bertram,\r\n3,"Cecilia",""\r\n'
    kept = b'age,person,note\r\n2,Bertram,\r\n3,"Cecilia",""\r\n'
    store.write_bytes(f"{log.prefix}/objects/aa-day.csv", text)
    store.write_bytes(f"{log.prefix}/objects/bb-day.csv.gz", gzip.compress(text))
    store.write_bytes(f"{log.prefix}/objects/cc-sheet.xlsx", b"PK")
    store.write_bytes(f"{log.prefix}/objects/dd-broken.parquet", b"no parquet")
    pq.write_table(pa.table({"person": ["Agatha", "Bertram"], "age": [1, 2]}), tmp_path / "a.parquet")
    store.put_file(f"{log.prefix}/objects/ee-day.parquet", tmp_path / "a.parquet")
    report = erase(store, AGATHA, pseudonyms=SECRET)
    counts = {name.rpartition("/")[2]: count for name, count in found(report, "events").items()}
    assert counts == {"t-0-3.jsonl": 1, "aa-day.csv": 1, "bb-day.csv.gz": 1, "ee-day.parquet": 1} | {
        "t-0-3.jsonl": counts["t-0-3.jsonl"]
    }
    assert [one.where.rpartition("/")[2] for one in report.kept] == ["dd-broken.parquet"]

    def read(name: str) -> bytes:
        with store.open(f"{log.prefix}/{name}") as file:
            return file.read()

    assert read("objects/aa-day.csv") == kept, "byte for byte, but for the person"
    assert gzip.decompress(read("objects/bb-day.csv.gz")) == kept
    assert pq.read_table(pa.BufferReader(read("objects/ee-day.parquet")))["person"].to_pylist() == ["Bertram"]
    assert read("dead/t-0-3.jsonl").count(b"\n") == 1


def test_a_run_takes_what_is_left_of_its_batch(log: BatchLog, store: ArtifactStore, tmp_path: Path) -> None:
    erase(store, AGATHA, pseudonyms=SECRET)
    batch = log.read(1)
    assert batch is not None
    run_id = log.run_id([batch])
    log.claim([batch], run_id)
    identity = Identity(dag_id="people", run_id=run_id, task_id="data")
    request = StepRequest(
        step="ingest", config={**INGEST, "on_event": "replace"}, identity=identity, store=store.root,
        source=Source(folder=str(tmp_path / "pipeline")), batch=log.write_claim(run_id, [1]),
    )  # fmt: skip
    with pytest.raises(Exception, match="missing|label|y"):
        execute(request)  # their messages have no label; but they are read, and counted right
    assert Events(own=[batch]).messages == 2


# -- predictions -----------------------------------------------------------------------------------------------------

Score = Callable[..., StepResult]


@pytest.fixture
def score(run_step: RunStep, store: ArtifactStore, tmp_path: Path) -> Score:
    """Score a file of four persons, whose every tenth row cannot be scored."""
    run_step("ingest", INGEST)
    model = store.put(model_folder(tmp_path / "model"), "model", {})
    lines = [f"{'n.a.' if n % 10 == 3 else n},{n},{n},{PEOPLE[n % 4]}" for n in range(200)]
    (tmp_path / "pipeline" / "visits.csv").write_text("\n".join(["a,b,c,person", *lines]) + "\n")

    def run(name: str = "r1", **more: Any) -> StepResult:
        config = {
            "model": model.model_dump(mode="json"), "source": "visits.csv", "keep": ["person"], "processes": 1,
            "shard_mib": 0.001, "max_rejected": 1, **more,
        }  # fmt: skip
        return run_step("score", config, run=name)

    return run


def persons(folder: Path) -> list[str]:
    """Return the persons of all files below a folder, those of rejected rows too."""
    names: list[str] = []
    for path in sorted(folder.rglob("part-*")):
        if path.suffix == ".parquet":
            names += pq.read_table(path)["person"].to_pylist()
        elif path.suffix == ".csv":
            names += pacsv.read_csv(path)["person"].to_pylist()
        else:
            names += [json.loads(one)["person"] for one in path.read_text().splitlines()]
    for path in folder.rglob("_rejected/*.jsonl"):
        for one in path.read_text().splitlines():
            names += [name for name in PEOPLE if name in json.loads(one)["text"]]
    return names


@pytest.mark.parametrize("output", ["parquet", "csv", "jsonl"])
def test_predictions_and_rejected_rows_go_and_markers_follow(
    output: str, score: Score, store: ArtifactStore, tmp_path: Path
) -> None:
    to = f"file://{tmp_path / 'out'}"
    first = score(output=output, to=to)
    assert sorted(set(persons(tmp_path / "out"))) == PEOPLE
    report = erase(store, AGATHA, pseudonyms=SECRET)
    assert sum(found(report, "predictions").values()) == 50
    left = persons(tmp_path / "out")
    assert (sorted(set(left)), len(left)) == (PEOPLE[1:], 150)
    latest = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert latest["rows"] + latest["rejected"] == 150
    base = tmp_path / "out" / latest["folder"]
    for file in latest["files"]:
        for part in file["parts"]:
            path = base / part["part"]
            assert (path.stat().st_size, sha256_file(path)) == (part["bytes"], part["sha256"])
    again = score(output=output, to=to)
    assert again.metrics["shards_reused"] == first.metrics["shards"], "nothing is scored again, so nobody comes back"
    assert again.metrics["rows"] == latest["rows"]
    assert found(erase(store, AGATHA, pseudonyms=SECRET), "predictions") == found(report, "predictions")


def test_what_cannot_be_rewritten_is_listed(score: Score, store: ArtifactStore, tmp_path: Path) -> None:
    import shutil

    (tmp_path / "a.db").touch()
    score(to=f"sqlite:///{tmp_path / 'a.db'}", into={"table": "risk"})
    score("r2", to=f"file://{tmp_path / 'moved'}")
    shutil.rmtree(tmp_path / "moved")
    kept = {one.where.rpartition("/")[2].partition("-")[0]: one.how for one in erase(store, AGATHA).kept}
    assert "a table, not searched" in kept["a.db#risk"]
    assert any("it cannot be reached" in how for how in kept.values())


KILLED = """
import os, signal, sys
from edgewright.artifacts import ArtifactStore
from edgewright.privacy import erase
from edgewright.steps.score_places import Place
from edgewright.streams.pseudonyms import Pseudonyms

left = [int(sys.argv[2])]


def dying(owner, name):
    method = getattr(owner, name)

    def call(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments, **options)

    setattr(owner, name, call)


for name in ("delete", "write_json", "put_file"):
    dying(ArtifactStore, name)
for name in ("filling", "write_json"):
    dying(Place, name)
erase.erase(ArtifactStore(sys.argv[1]), sys.argv[3], pseudonyms=Pseudonyms(sys.argv[4]))
"""


def test_killed_at_any_change_the_next_one_finishes(
    log: BatchLog, score: Score, store: ArtifactStore, tmp_path: Path
) -> None:
    score(to=f"file://{tmp_path / 'out'}", shard_mib=0.0015)
    kills = 0
    for steps in (2, 6, 7, 8, 9, 11, 14, 1000):
        command = [sys.executable, "-c", KILLED, store.root, str(steps), AGATHA, KEY]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ})
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    assert kills >= 5
    assert "Agatha" not in persons(tmp_path / "out")
    assert messages(log) == [{"person": BERTRAM, "age": 2}, {"age": 4}]
    report = store.read_json(f"erasures/reports/{AGATHA}.json")
    assert report is not None
    counts = {what: sum(one["count"] for one in report["erased"] if one["what"] == what)
              for what in ("events", "predictions")}  # fmt: skip
    assert counts == {"events": 2, "predictions": 50}
    reused = score(to=f"file://{tmp_path / 'out'}", shard_mib=0.0015).metrics
    assert reused["shards_reused"] == reused["shards"]


def test_everything_in_a_bucket(s3_store: str, log: BatchLog, score: Score, tmp_path: Path, run_step: RunStep) -> None:
    """The store, events and predictions are in S3: a store of its own with a dataset, a batch and a score."""
    bucket = ArtifactStore(s3_store, cache_dir=tmp_path / "cache")
    folder = str(tmp_path / "pipeline")

    def run(step: str, config: dict[str, Any]) -> StepResult:
        identity = Identity(dag_id="people", run_id="r1", task_id=step)
        request = StepRequest(
            step=step, config=config, identity=identity, source=Source(folder=folder), store=bucket.root
        )
        return execute(request, store=bucket)

    data = run("ingest", INGEST).outputs["dataset"]
    model = bucket.put(model_folder(tmp_path / "model2"), "model", {})
    config = {"model": model.model_dump(mode="json"), "source": "visits.csv", "keep": ["person"], "processes": 1,
              "shard_mib": 0.002, "max_rejected": 1}  # fmt: skip
    first = run("score", config)
    batch_log = BatchLog(bucket, "people", "kafka-readings")
    name, sha256 = batch_log.write_data("b", line({"person": "Agatha"}) + line({"person": "Bertram"}))
    batch_log.append(Batch(0, "b", "kafka", name, 2, sha256=sha256))
    report = erase(bucket, AGATHA, pseudonyms=SECRET)
    assert found(report, "dataset") == {data.sha256: 40}
    assert list(found(report, "events").values()) == [1]
    assert sum(found(report, "predictions").values()) == 50
    assert report.complete
    assert messages(batch_log) == [{"person": "Bertram"}]
    held = b"".join(bucket._fs.cat_file(path) for path in bucket._fs.find(bucket._path("scores")))
    assert b"Agatha" not in held
    assert b"Bertram" in held
    mark = bucket.read_json(f"erasures/artifacts/{data.sha256}.json")
    assert mark is not None
    assert bucket.find(data.sha256, "dataset") is None
    assert bucket.find(mark["replaced_by"]["digest"], "dataset") is not None
    assert run("score", config).metrics["shards_reused"] == first.metrics["shards"]
    assert found(erase(bucket, AGATHA, pseudonyms=SECRET), "events") == found(report, "events")


# -- rows of files ---------------------------------------------------------------------------------------------------


def test_a_record_that_was_cut_off_and_quotes_that_never_close() -> None:
    rows = Rows(Matcher(AGATHA, {"person"}, SECRET))
    aside = [
        {"row": 1, "text": '3,4,"Agatha"'}, {"row": 2, "text": "{'a': None, 'person': 'Agatha'}"},
        {"row": 3, "text": "{'a': None, 'person': 'Agatha', 'note': 'cut o"}, {"row": 4, "text": "Bertram"},
    ]  # fmt: skip
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in aside)
    assert rows.count("x/_rejected/00000.jsonl", lambda: io.BytesIO(lines)) == 3
    endless = b'a,b\n1,"' + b"x\n" * (1 << 20)
    with pytest.raises(ValueError, match="never closed"):
        rows.count("a.csv", lambda: io.BytesIO(endless))
