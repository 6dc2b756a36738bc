"""quantize for targets with an environment of their own: cut, compiled in a child, measured as the parts in a row."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, GateFailed, UserFault
from edgewright.steps.models import load_model, read_document
from edgewright.targets.base import TARGETS, Target

CODE = """
import warnings
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def fit(data):
    warnings.simplefilter("ignore")
    model = make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((16,), max_iter=10, random_state=0))
    return model.fit(data.X, data.y)

def trees(data):
    return make_pipeline(SimpleImputer(), RandomForestClassifier(5, random_state=0)).fit(data.X, data.y)
"""
MIRROR = Target(
    "mirror", "changes nothing", "mirror_compiler", suffix=".mirror", format="mirror", requires=(),
    runtime="a mirror", environment="openvino", core=True,
)  # fmt: skip


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)) * [1, 5, 20], columns=["a", "b", "c"])
    frame.loc[::11, "b"] = np.nan
    return frame.assign(y=(frame.a + 0.3 * random.normal(size=rows) > 0).astype(int))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    script = tmp_path / "python"
    support = Path(__file__).parents[1] / "support"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{support}" exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    for name in ("MIRROR", "WHOLE"):
        monkeypatch.setenv(f"EDGEWRIGHT_TARGET_PYTHON_{name}", str(script))
    monkeypatch.setitem(TARGETS, "mirror", MIRROR)
    found = Workplace(tmp_path)
    found.model_py(CODE)
    return found


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    return place.dataset({"train": table(200, 1), "test": table(60, 2)}, "y")


def trained(place: Workplace, data: ArtifactRef, entry: str = "fit") -> ArtifactRef:
    return place.run("train", entry, data=data, entry=f"model.py:{entry}").outputs["model"]


def test_the_parts_in_a_row_are_measured(place: Workplace, data: ArtifactRef) -> None:
    gates = {"verified": True, "agreement": "== 1", "sqnr_db": ">= 40", "accuracy_drop": "== 0"}
    config = {"model": trained(place, data), "data": data, "target": "mirror", "options": {"colour": "red"}}
    result = place.run("quantize", **config, gates=gates)
    folder = place.store.fetch(result.outputs["model"])
    assert {"model.mirror", "before.onnx", "after.onnx"} <= {path.name for path in folder.iterdir()}
    document = read_document(folder)
    assert document.verified == {"runtime": "a mirror", "part": "test", "rows": 60}
    assert "colour" in document.details["seen"]
    assert {"latency_us", "latency_p99_us", "latency_256_us", "latency_256_ratio"} <= set(result.metrics)
    with pytest.raises(UserFault, match="does not load in this process"):
        load_model(folder)
    page = (place.store.fetch(result.outputs["report"]) / "report.html").read_text()
    assert "times of the arithmetic alone" in page
    assert place.run("quantize", **config, gates=gates).cache.hit


def test_what_was_not_run_says_so_and_can_be_refused(place: Workplace, data: ArtifactRef) -> None:
    config = {
        "model": trained(place, data), "data": data, "target": "mirror", "options": {"unverified": "no such chip here"}
    }  # fmt: skip
    result = place.run("quantize", **config, gates={"accuracy_drop": "<= 0"})
    assert result.gates[0].passed
    assert result.gates[0].note == "not run here: no such chip here"
    assert result.metrics["verified"] == 0
    assert "accuracy" not in result.metrics
    assert any("was not run here (no such chip here)" in note for note in result.notes)
    assert result.outputs["model"].meta["verified"] is False
    with pytest.raises(GateFailed, match="verified = 0, gate == 1: FAILED"):
        place.run("quantize", "strict", **config, gates={"verified": True})


def test_a_whole_model_can_be_compiled_there_too(
    place: Workplace, data: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "whole", replace(MIRROR, name="whole", core=False, runtime=None))
    result = place.run("quantize", model=trained(place, data), data=data, target="whole")
    folder = place.store.fetch(result.outputs["model"])
    assert not (folder / "before.onnx").exists()
    assert read_document(folder).verified["unverified"] == "nothing here can run it"


def test_trees_have_no_arithmetic_to_compile(place: Workplace, data: ArtifactRef) -> None:
    with pytest.raises(UserFault, match="nothing to compile"):
        place.run("quantize", model=trained(place, data, "trees"), data=data, target="mirror")
    with pytest.raises(UserFault, match="nothing to compile"):
        place.run("quantize", "half", model=trained(place, data, "trees"), data=data, target="onnx-fp16")


def test_what_a_target_does_not_heed_is_refused(place: Workplace, data: ArtifactRef) -> None:
    model = trained(place, data)
    with pytest.raises(ConfigError, match="the target mirror does not heed method, per_channel"):
        place.run("quantize", model=model, data=data, target="mirror", method="dynamic", per_channel=False)
    with pytest.raises(ConfigError, match="the target onnx does not heed calibration") as caught:
        place.run("quantize", "onnx", model=model, data=data, target="onnx", calibration={"rows": 3})
    assert caught.value.hint == "leave it out; it heeds none of these"
