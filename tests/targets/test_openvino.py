"""OpenVINO in its own environment, built from the lock that ships: the real compiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.errors import GateFailed
from edgewright.steps.models import read_document

pytestmark = pytest.mark.slow

CODE = """
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def fit(data):
    model = make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((64, 32), max_iter=40, random_state=0))
    return model.fit(data.X, data.y)
"""


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    frame.loc[::17, "c"] = np.nan
    return frame.assign(y=(frame.a - frame.b + 0.3 * random.normal(size=rows) > 0).astype(int))


def test_openvino_int8_is_compiled_run_and_reproducible(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    place.model_py(CODE)
    data = place.dataset({"train": table(400, 1), "test": table(100, 2)}, "y")
    model = place.run("train", data=data, entry="model.py:fit").outputs["model"]
    gates = {"verified": True, "agreement": ">= 0.9", "sqnr_db": ">= 10", "integer_nodes": "> 0"}
    result = place.run("quantize", model=model, data=data, target="openvino", gates=gates)
    folder = place.store.fetch(result.outputs["model"])
    names = {path.name for path in folder.iterdir()}
    assert {"model.xml", "model.bin", "before.onnx", "after.onnx", "model.json"} <= names
    document = read_document(folder)
    assert document.verified == {"runtime": "OpenVINO on CPU", "part": "test", "rows": 100}
    assert document.libraries["openvino"].startswith("2026.4")
    assert {"latency_us", "latency_256_us", "sqnr_db"} <= set(result.metrics)
    request = place.request("quantize", "again", model=model, data=data, target="openvino")
    request.cache = "off"
    from edgewright.steps.execute import execute

    again = execute(request, store=place.store)
    assert again.outputs["model"].sha256 == result.outputs["model"].sha256
    with pytest.raises(GateFailed, match="sqnr_db"):
        place.run("quantize", "strict", model=model, data=data, target="openvino", gates={"sqnr_db": ">= 190"})
    for precision in ("fp16", "fp32"):
        floats = place.run(
            "quantize", precision, model=model, data=data, target="openvino", options={"precision": precision}
        )
        assert floats.metrics["agreement"] == 1.0
