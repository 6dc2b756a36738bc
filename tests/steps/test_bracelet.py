"""The example pipeline's steps on its real data: gates hold, nothing warns, whatever the regularisation."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.models import Workplace

EXAMPLE = Path(__file__).parents[2] / "dags" / "bracelet"


def gates_of(task: str) -> dict[str, str]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLE / "pipeline.yaml").read_text())
    return next(entry["with"]["gates"] for entry in document["tasks"] if entry["id"] == task)  # type: ignore[no-any-return]


@pytest.mark.parametrize("alpha", [0.0, 0.001, 0.01, 1.0])
def test_the_gates_hold_with_room(tmp_path: Path, alpha: float) -> None:
    place = Workplace(tmp_path)
    shutil.copytree(EXAMPLE, place.code, dirs_exist_ok=True)
    split = {"test": 0.25, "seed": 7, "stratify": True}
    raw = place.run("ingest", source="cleveland.csv", label="num", split=split).outputs["dataset"]
    checked = place.run("validate", data=raw, schema="schema.py:Bracelet")
    assert checked.metrics["rejected"] == 0
    data = checked.outputs["dataset"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = place.run("train", data=data, entry="model.py:fit", args={"alpha": alpha}).outputs["model"]
    quality = place.run("evaluate", model=model, data=data, slices=["sex", "age"], gates=gates_of("quality"))
    assert quality.metrics["accuracy"] > 0.8
    assert quality.metrics["roc_auc"] > 0.88
    int8 = place.run("quantize", model=model, data=data, target="onnx-int8", gates=gates_of("int8"))
    assert int8.metrics["size_ratio"] < 0.9
    assert int8.metrics["agreement"] > 0.97
