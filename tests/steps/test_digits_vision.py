"""The example digits-vision, from its YAML: needs PyTorch, g++, and an interpreter with Quark."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "dags" / "digits-vision"


def test_a_training_that_was_cut_off_ends_with_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    model = importlib.import_module("model")
    monkeypatch.delitem(sys.modules, "model")
    frame = pd.read_csv(EXAMPLE / "digits.csv.gz").head(200)
    data = SimpleNamespace(
        X=frame.drop(columns="digit"), y=frame.digit, seed=3, checkpoint=None, log_metric=lambda *_, **__: None
    )
    whole = model.fit(data, width=2, epochs=5)
    data.checkpoint = tmp_path
    model.fit(data, width=2, epochs=2)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    resumed = model.fit(data, width=2, epochs=5)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_example_runs_through_and_is_published(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = tmp_path / "digits-vision"
    shutil.copytree(EXAMPLE, folder)
    command = [sys.executable, "-m", "edgewright.cli.main", "run", str(folder / "pipeline.yaml"), "--json"]
    if not os.environ.get("EDGEWRIGHT_TARGET_PYTHON_VITIS_AI"):
        text = (folder / "pipeline.yaml").read_text()
        start, end = text.index("  - id: dpu"), text.index("  - id: fpga")
        (folder / "pipeline.yaml").write_text((text[:start] + text[end:]).replace("{$x: dpu}, ", ""))
    environ = {**os.environ, "EDGEWRIGHT_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hls" in json.dumps(json.loads(done.stdout))
