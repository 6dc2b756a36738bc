"""edgewright events: list, show, replay."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgewright.artifacts import ArtifactStore
from edgewright.cli.main import cli
from edgewright.streams.batches import Batch, BatchLog


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchLog:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path))
    log = BatchLog(ArtifactStore(tmp_path / "store"), "pipe", "kafka-t")
    for number in range(3):
        line = json.dumps({"offset": number, "value": {"n": number}}).encode() + b"\n"
        dead = {"topic": "t", "partition": 0, "offset": 9, "timestamp": 1, "reason": "it is no JSON"}
        dead["payload"] = base64.b64encode(b'{"n": "mended"}').decode()
        key, sha256 = log.write_data(f"t-0-{number}", line, [dead] if number == 1 else ())
        log.append(Batch(0, f"t-0-{number}", "kafka", key, 1, int(number == 1), len(line), sha256))
    log.mark("dispatched", 1, {"run_id": "event__t-0-0"})
    log.mark("failed", 1, {"run_id": "event__t-0-0"})
    return log


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["events", *arguments])


def test_list(log: BatchLog) -> None:
    assert [line.split()[2] for line in run("list", "pipe").output.splitlines()] == ["pending", "pending", "failed"]
    (row,) = json.loads(run("list", "pipe", "--state", "failed", "--json").output)["batches"]
    assert row["name"] == "t-0-0"


def test_show(log: BatchLog) -> None:
    output = run("show", "pipe", "t-0-1").output
    assert '{"n": 1}' in output
    assert "unreadable, offset 9: it is no JSON" in output


def test_replay_of_what_failed(log: BatchLog) -> None:
    assert "t-0-0 starts again" in run("replay", "pipe", "--failed").output
    assert log.state(1) == "pending"
    batch = log.read(1)
    assert batch is not None
    assert log.run_id([batch]) == "event__t-0-0__2"


def test_replay_of_dead_letters_once(log: BatchLog) -> None:
    assert "1 of 1 messages are batch t-0-1-dead" in run("replay", "pipe", "t-0-1", "--dead").output
    assert "none can be read" in run("replay", "pipe", "t-0-1", "--dead").output
    assert [batch.name for batch in log.pending()] == ["t-0-1", "t-0-2", "t-0-1-dead"]


def test_what_is_not_there_is_said(log: BatchLog) -> None:
    assert run("show", "pipe", "nothing").exit_code == 1
    assert run("replay", "pipe").exit_code == 1
    assert "is pending, not failed" in run("replay", "pipe", "t-0-1").output


def test_a_run_here_takes_a_file_as_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "data.csv").write_text("x,y\n1,0\n2,1\n")
    (tmp_path / "more.jsonl").write_text('{"x": 3, "y": 1}\n{"x": 4, "y": 0}\n')
    (tmp_path / "bad.jsonl").write_text('{"x": 3}\n[1]\n')
    pipeline = tmp_path / "pipeline.yaml"
    text = "dag_id: here\ntasks: [{id: data, uses: ingest, with: {source: data.csv, label: y, on_event: append}}]\n"
    pipeline.write_text(text)

    def rows(*arguments: str) -> int:
        done = CliRunner().invoke(cli, ["run", str(pipeline), "--json", *arguments])
        assert done.exit_code == 0, done.output
        return int(json.loads(done.stdout)["tasks"][0]["result"]["metrics"]["rows"])

    assert rows() == 2
    for _ in range(2):  # the same file counts once
        assert rows("--batch", str(tmp_path / "more.jsonl")) == 4
    assert rows() == 4
    bad = CliRunner().invoke(cli, ["run", str(pipeline), "--batch", str(tmp_path / "bad.jsonl")])
    assert bad.exit_code == 1
    assert "bad.jsonl:2: this is no object" in bad.output
    pipeline.write_text(text.replace(", on_event: append", ""))
    refused = CliRunner().invoke(cli, ["run", str(pipeline), "--batch", str(tmp_path / "more.jsonl")])
    assert "no task of here takes a batch" in refused.output
