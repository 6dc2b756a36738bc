"""checkpoint: what a training leaves in its folder is there after it was killed, and goes when it has succeeded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import UserCodeError
from edgewright.steps import checkpoints
from edgewright.steps.contract import Identity, StepRequest, StepResult

#: Counts epochs in its checkpoint. Waits for ever in the third one when it began at the first.
FIT = """
import json, time
from sklearn.linear_model import LogisticRegression

def fit(data):
    state = data.checkpoint / "state.json"
    done = json.loads(state.read_text()) if state.exists() else []
    first = not done
    while len(done) < 5:
        done.append("first" if first else "again")
        part = state.with_suffix(".tmp")
        part.write_text(json.dumps(done))
        part.replace(state)
        if first and len(done) == 3:
            time.sleep(600)
    (data.source_folder / "epochs.txt").write_text(" ".join(done))
    return LogisticRegression().fit(data.X, data.y)
"""
#: Saves only when it is asked to end, as programs for machines that may vanish do.
SCRIPT = """
import os, pathlib, pickle, signal, sys, time
import pandas as pd
from sklearn.linear_model import LogisticRegression
folder = pathlib.Path(os.environ["EDGEWRIGHT_CHECKPOINT"])
def save(*_):
    (folder / "weights.bin").write_bytes(b"w" * 1000)
    sys.exit(3)
signal.signal(signal.SIGTERM, save)
if not (folder / "weights.bin").exists():
    print("ready to be ended")
    time.sleep(600)
rows = pd.read_parquet(os.environ["EDGEWRIGHT_INPUT"] + "/train.parquet")
model = LogisticRegression().fit(rows[["a"]], rows.y)
pickle.dump(model, open(os.environ["EDGEWRIGHT_OUTPUT"] + "/model.pkl", "wb"))
"""
Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    frame = pd.DataFrame({"a": [float(number % 7) for number in range(80)], "y": [n % 2 for n in range(80)]})
    return place.dataset({"train": frame}, "y")


@pytest.fixture
def identity() -> Identity:
    return Identity(dag_id="demo", run_id="r", task_id="model")


@pytest.fixture
def begin(place: Workplace, data: ArtifactRef, identity: Identity, tmp_path: Path) -> Begin:
    def call(**config: Any) -> subprocess.Popen[str]:
        request = StepRequest(
            step="train", identity=identity, store=place.store.root, source={"folder": str(place.code)},
            config={"data": data.model_dump(mode="json"), "checkpoint": 1, **config},
        )  # fmt: skip
        file = tmp_path / "request.json"
        file.write_text(request.model_dump_json())
        return subprocess.Popen([sys.executable, "-m", "edgewright.steps", str(file), "--json"], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    return call


def wait_for(condition: Callable[[], Any], worker: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert worker.poll() is None, worker.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_training_goes_on_from_its_last_checkpoint(
    place: Workplace, begin: Begin, identity: Identity, tmp_path: Path
) -> None:
    (place.code / "model.py").write_text(FIT)
    worker = begin(entry="model.py:fit")
    wait_for(lambda: checkpoints.last(place.store, identity), worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    saved = checkpoints.last(place.store, identity)
    assert saved is not None
    retry = begin(entry="model.py:fit")
    out, errors = retry.communicate(timeout=120)
    assert retry.returncode == 0, errors
    result = StepResult.model_validate_json(out)
    assert f"training goes on from checkpoint {saved['number']}, saved at {saved['saved']}" in result.notes
    assert (place.code / "epochs.txt").read_text() == "first first first again again"
    # a task that has succeeded begins anew when somebody clears it
    assert checkpoints.last(place.store, identity) is None
    assert not place.store.scan(f"{identity.key}/checkpoint")


def test_what_a_program_saves_when_it_is_asked_to_end_is_kept(
    place: Workplace, begin: Begin, identity: Identity
) -> None:
    (place.code / "train.py").write_text(SCRIPT)
    worker = begin(script="train.py", checkpoint="1h")
    assert worker.stderr is not None
    while "ready to be ended" not in worker.stderr.readline():
        assert worker.poll() is None
    worker.terminate()
    worker.communicate(timeout=120)
    assert worker.returncode == 143
    # nobody may take it for a step that failed: the place was taken away
    assert place.store.read_json(f"{identity.key}/result.json") is None
    assert list(checkpoints.last(place.store, identity)["files"]) == ["weights.bin"]  # type: ignore[index]
    retry = begin(script="train.py", checkpoint="1h")
    out, errors = retry.communicate(timeout=120)
    assert retry.returncode == 0, errors
    assert StepResult.model_validate_json(out).state == "success"


FAILS_ONCE = """
from sklearn.linear_model import LogisticRegression

def fit(data, rate=1.0):
    weights = data.checkpoint / "weights.bin"
    if not weights.exists():
        weights.write_bytes(b"w")
        data.checkpoint.joinpath("half.tmp").write_bytes(b"h")
        import os, time
        long_ago = time.time() - 60
        os.utime(weights, (long_ago, long_ago))
        raise RuntimeError("the first time")
    return LogisticRegression(C=rate).fit(data.X, data.y)
"""


def train(place: Workplace, data: ArtifactRef, **more: Any) -> StepResult:
    return place.run("train", task="model", data=data, entry="model.py:fit", **{"checkpoint": "1h", **more})


def test_a_training_that_failed_goes_on_too(place: Workplace, data: ArtifactRef) -> None:
    (place.code / "model.py").write_text(FAILS_ONCE)
    with pytest.raises(UserCodeError, match="the first time"):
        train(place, data)
    assert train(place, data).notes[-1].startswith("training goes on from checkpoint 1, saved at ")


@pytest.mark.parametrize("change", ["code", "arguments", "data"])
def test_a_checkpoint_of_something_else_is_not_used(place: Workplace, data: ArtifactRef, change: str) -> None:
    (place.code / "model.py").write_text(FAILS_ONCE)
    with pytest.raises(UserCodeError):
        train(place, data)
    more: dict[str, Any] = {}
    if change == "code":
        (place.code / "model.py").write_text(FAILS_ONCE.replace("the first time", "another one"))
    elif change == "arguments":
        more["args"] = {"rate": 2.0}
    else:
        data = place.dataset({"train": pd.DataFrame({"a": [1.0, 2.0] * 20, "y": [0, 1] * 20})}, "y")
    with pytest.raises(UserCodeError, match="raised RuntimeError"):
        train(place, data, **more)


def test_how_often_it_is_saved_does_not_matter(place: Workplace, data: ArtifactRef) -> None:
    (place.code / "model.py").write_text(FAILS_ONCE)
    with pytest.raises(UserCodeError):
        train(place, data)
    assert train(place, data, checkpoint="2h").notes[-1].startswith("training goes on")


def test_a_damaged_checkpoint_is_not_used_and_that_is_said(
    place: Workplace, data: ArtifactRef, caplog: pytest.LogCaptureFixture
) -> None:
    (place.code / "model.py").write_text(FAILS_ONCE)
    with pytest.raises(UserCodeError):
        train(place, data)
    (key,) = (name for name in place.store.scan("runs") if "/checkpoint/" in name)
    place.store.write_bytes(key, b"something else")
    with caplog.at_level("INFO"), pytest.raises(UserCodeError, match="the first time"):
        train(place, data)
    assert "cannot be used (weights.bin is damaged): training starts from the beginning" in caplog.text


def saver(place: Workplace, identity: Identity, folder: Path, every: float = 0.01) -> checkpoints.Checkpoints:
    return checkpoints.Checkpoints(place.store, identity, "key", folder, every)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_checkpoints_are_there_at_most_and_unchanged_files_are_sent_once(
    place: Workplace, identity: Identity, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    kept = saver(place, identity, folder)
    kept.restore()
    (folder / "vocabulary").write_text("same")
    with kept:
        for number in (1, 2, 3):
            (folder / "deep").mkdir(exist_ok=True)
            (folder / "deep" / "weights").write_text(str(number))
            until(lambda: kept.number >= number)  # noqa: B023
    document = checkpoints.last(place.store, identity)
    assert document is not None
    assert set(document["files"]) == {"vocabulary", "deep/weights"}
    assert len(place.store.scan(f"{identity.key}/checkpoint")) == 2
    again = saver(place, identity, tmp_path / "again")
    again.restore()
    assert (tmp_path / "again" / "deep" / "weights").read_text() == "3"


def test_a_try_that_still_runs_elsewhere_does_not_overwrite_a_newer_one(
    place: Workplace, identity: Identity, tmp_path: Path
) -> None:
    lost, new = saver(place, identity, tmp_path / "lost"), saver(place, identity, tmp_path / "new")
    lost.restore()
    with lost:
        (tmp_path / "lost" / "weights").write_text("1")
        until(lambda: lost.number == 1)
        new.restore()
        with new:
            (tmp_path / "new" / "weights").write_text("2")
            until(lambda: new.number == 2)
            (tmp_path / "lost" / "weights").write_text("late")
            until(lambda: not lost._thread.is_alive())
    saved = saver(place, identity, tmp_path / "third")
    saved.restore()
    assert (tmp_path / "third" / "weights").read_text() == "2"


def test_a_document_that_leads_out_of_the_folder_is_refused(
    place: Workplace, identity: Identity, tmp_path: Path
) -> None:
    files = {"../escaped": {"sha256": "0" * 64, "size": 1}}
    document = {"version": 1, "number": 1, "key": "key", "writer": "", "saved": "now", "files": files}
    place.store.write_json(f"{identity.key}/checkpoint.json", json.loads(json.dumps(document)))
    kept = saver(place, identity, tmp_path / "folder")
    kept.restore()
    assert "leads out of the folder" in kept.note
