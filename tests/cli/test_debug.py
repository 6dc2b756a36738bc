"""edgewright debug: the real request and inputs of a task, answered again here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

MODEL = """
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

def fit(data, scale=2.0):
    rows = len(data)
    print(f"{rows} rows", flush=True)
    raise ValueError("no convergence")
"""


@pytest.fixture
def failed(workplace):
    """Return a workplace with a run whose training failed."""
    text = workplace.pipeline.joinpath("pipeline.yaml").read_text()
    start = text.index("    with: {data: {$x: checks}, entry: model.py:fit")
    workplace.pipeline.joinpath("pipeline.yaml").write_text(
        text[:start]
        + "    with: {data: {$x: checks}, entry: model.py:fit, args: {scale: 3.0}}"
        + text[text.index("\n", start) :]
    )
    (workplace.pipeline / "model.py").write_text(MODEL)
    workplace.run("--until", "model", "--run-id", "one", code=1)
    return workplace


def test_a_failed_training_is_answered_again_and_its_result_stays(failed) -> None:
    kept = failed.home / "store" / "runs" / "bracelet" / "one" / "model" / "result.json"
    before = kept.read_text()
    done = failed.call("debug", "one", "model")
    assert done.returncode == 1
    assert "train as in run one, which ended: failed, UserCodeError: model.py:fit raised ValueError" in done.stderr
    assert "model.py:fit raised ValueError: no convergence" in done.stderr
    assert kept.read_text() == before
    assert list(failed.home.glob("store/runs/bracelet/debug__*/model/result.json"))


@pytest.mark.slow
def test_mended_code_is_tried_on_the_real_inputs(failed, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    mended.mkdir()
    code = MODEL.replace(
        'raise ValueError("no convergence")',
        "return make_pipeline(SimpleImputer(), LogisticRegression(C=scale, max_iter=5000)).fit(data.X, data.y)",
    )
    (mended / "model.py").write_text(code)
    done = failed.call("debug", "latest", "model", "--code", str(mended))
    assert done.returncode == 0, done.stderr
    assert "train: success" in done.stdout
    assert "train_accuracy = " in done.stdout
    assert not (failed.home / "store" / "cache").exists() or "debug__" not in "".join(
        file.read_text() for file in failed.home.glob("store/cache/*/*.json")
    )


def test_the_debugger_opens_where_the_users_code_failed(failed) -> None:
    command = failed.command("debug", "one", "model", "--pdb")
    done = subprocess.run(command, cwd=failed.folder, env=failed.environment(), input="p rows * 1000, scale\nq\n",
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert "(Pdb) (227000, 3.0)" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1


def test_what_acts_on_the_world_is_not_done_again_unasked(workplace) -> None:
    workplace.run("--until", "data", "--run-id", "one")
    folder = workplace.home / "store" / "runs" / "bracelet" / "one"
    request = json.loads((folder / "data" / "request.json").read_text())
    (folder / "release").mkdir()
    (folder / "release" / "request.json").write_text(json.dumps({**request, "step": "publish"}))
    done = workplace.call("debug", "one", "release")
    assert done.returncode == 1
    assert "publish acts on the world, and would do it again" in done.stderr
    absent = workplace.call("debug", "one", "model")
    assert "no such task in that run: model" in absent.stderr
