"""``edgewright score`` and the example ``bracelet-scoring``, with the champion of a real run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd

EXAMPLE = Path(__file__).parents[2] / "dags" / "bracelet-scoring"


def test_a_file_is_scored_by_the_champion_once(shared_workplace, first_run, tmp_path):
    file = tmp_path / "patients.csv"
    shutil.copy(shared_workplace.pipeline / "cleveland.csv", file)
    call = ("score", "bracelet", str(file), "--keep", "num", "--to", str(tmp_path / "predictions"))
    done = shared_workplace.call(*call, "--output", "csv")
    assert done.returncode == 0, done.stderr
    assert "303 rows scored by bracelet/1 (onnx), 0 aside" in done.stdout
    (part,) = (tmp_path / "predictions").glob("*/*/part-*.csv")
    found = pd.read_csv(part)
    assert ((found["prediction"] > 0) == (found["num"] > 0)).mean() > 0.8
    again = shared_workplace.call(*call, "--output", "csv", "--json")
    document = json.loads(again.stdout)
    assert (document["rows"], document["shards_reused"], document["model"]) == (303, 1, "bracelet/1")


def test_faults_are_one_line(shared_workplace, first_run, tmp_path):
    missing = shared_workplace.call("score", "bracelet", str(tmp_path / "nothing.csv"))
    assert missing.returncode == 1
    assert missing.stderr.endswith("nothing.csv: no such file, object or bucket\n")
    unknown = shared_workplace.call("score", "bracelet@nobody", str(tmp_path / "nothing.csv"))
    assert unknown.returncode == 1
    assert "the model bracelet has no nobody" in unknown.stderr


def test_the_example_scores_what_the_champion_can(shared_workplace, first_run):
    done = shared_workplace.call("run", str(EXAMPLE), "--json")
    assert done.returncode == 0, done.stderr
    folder = shared_workplace.home / "store" / "scores" / "bracelet-scoring" / "predictions"
    latest = json.loads((folder / "latest.json").read_text())
    assert (latest["model"], latest["rows"], latest["rejected"], latest["complete"]) == ("bracelet/1", 302, 1, True)
    (aside,) = folder.glob("*/tuesday-*/_rejected/00000.jsonl")
    assert json.loads(aside.read_text())["reasons"] == ["thalach: 'n.a.' is no number"]
