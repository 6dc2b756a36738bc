"""quantize: exports that equal their source, INT8 that is real, and refusals that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, GateFailed, UserFault
from edgewright.steps.models import load_model, read_document

CODE = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

def mlp(**more):
    return MLPClassifier((96, 48), max_iter=25, random_state=0, **more)

def fit(data):
    import warnings
    warnings.simplefilter("ignore")
    return make_pipeline({steps}).fit(data.X, data.y)
"""
MLP = "SimpleImputer(), StandardScaler(), mlp()"
NAMED = (
    "ColumnTransformer([('scale', StandardScaler(), ['c', 'a']), ('keep', 'passthrough', ['b'])]), "
    "SimpleImputer(), mlp()"
)
TEXT = (
    "ColumnTransformer([('city', OneHotEncoder(handle_unknown='ignore'), ['city']), "
    "('n', make_pipeline(SimpleImputer(), StandardScaler()), ['a', 'b'])]), mlp()"
)


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)) * [1, 20, 300], columns=["a", "b", "c"]).astype(np.float32)
    frame["y"] = (frame.a + frame.b / 40 + random.normal(scale=0.3, size=rows) > 0).astype(int)
    frame.loc[random.choice(rows, rows // 20), "c"] = np.nan
    return frame.astype({"a": float, "b": float, "c": float})


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    return place.dataset({"train": table(300, 1), "test": table(80, 2)}, "y")


def trained(place: Workplace, data: ArtifactRef, steps: str) -> ArtifactRef:
    place.model_py(CODE.replace("{steps}", steps))
    return place.run("train", data=data, entry="model.py:fit").outputs["model"]


def graph_of(place: Workplace, ref: ArtifactRef) -> onnx.ModelProto:
    return onnx.load(place.store.fetch(ref) / "model.onnx")


def test_int8_is_real_and_proven(place: Workplace, data: ArtifactRef) -> None:
    model = trained(place, data, MLP)
    result = place.run("quantize", model=model, data=data, gates={"accuracy_drop": "<= 0.05", "size_ratio": "< 1"})
    assert list(result.outputs) == ["model", "float", "report"]
    int8, exported = result.outputs["model"], result.outputs["float"]
    assert (int8.meta["target"], exported.meta["target"]) == ("onnx-int8", "onnx")
    kinds = {node.op_type for node in graph_of(place, int8).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    document = read_document(place.store.fetch(int8))
    assert document.verified == {"runtime": "onnxruntime", "part": "test", "rows": 80}
    assert document.metrics["accuracy"] == pytest.approx(result.metrics["accuracy"])
    assert document.details["integer_nodes"] > 6
    assert "latency_us" not in json.dumps(document.model_dump(mode="json"))
    assert result.metrics["export_max_difference"] < 1e-5
    assert result.metrics["agreement"] > 0.9
    assert 1 < result.metrics["latency_us"] < 10_000
    assert result.metrics["size_bytes"] == (place.store.fetch(int8) / "model.onnx").stat().st_size
    page = (place.store.fetch(result.outputs["report"]) / "report.html").read_text()
    assert "onnx-int8" in page


@pytest.mark.parametrize(
    "config",
    [
        {"method": "dynamic"},
        {"per_channel": False},
        {"calibration": {"rows": 40, "method": "entropy"}},
        {"calibration": {"method": "percentile"}},
    ],
)
def test_every_way_to_quantize_works(
    place: Workplace, data: ArtifactRef, config: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    result = place.run("quantize", model=trained(place, data, MLP), data=data, **config)
    assert result.metrics["agreement"] > 0.9
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ("SimpleImputer(), RandomForestClassifier(20, random_state=0)", "TreeEnsembleClassifier"),
        ("SimpleImputer(), StandardScaler(), LogisticRegression()", "LinearClassifier"),
    ],
)
def test_what_int8_cannot_help_is_refused_and_onnx_works(
    place: Workplace, data: ArtifactRef, steps: str, kind: str
) -> None:
    model = trained(place, data, steps)
    with pytest.raises(UserFault, match=f"INT8 cannot help this model.*{kind}") as caught:
        place.run("quantize", model=model, data=data)
    assert "use target: onnx" in str(caught.value)
    with pytest.raises(UserFault, match="INT8 cannot help"):
        place.run("quantize", model=model, data=data, method="dynamic")
    result = place.run("quantize", model=model, data=data, target="onnx", gates={"agreement": "== 1"})
    opsets = [entry.domain for entry in graph_of(place, result.outputs["model"]).opset_import]
    assert opsets == sorted(set(opsets))


def test_columns_picked_by_name_still_give_one_input(place: Workplace, data: ArtifactRef) -> None:
    model = trained(place, data, NAMED)
    result = place.run("quantize", model=model, data=data)
    graph = graph_of(place, result.outputs["float"]).graph
    assert [value.name for value in graph.input] == ["X"]
    assert [value.name for value in graph.output] == ["label", "probabilities"]
    assert result.metrics["export_max_difference"] < 1e-4


def test_text_features_become_one_input_each(place: Workplace) -> None:
    def with_city(rows: int, seed: int) -> pd.DataFrame:
        frame = table(rows, seed)
        return frame.assign(
            city=np.where(frame.a > 0.3, "Ulm", np.where(frame.a > -0.3, "Köln", "Bonn")),
            y=frame.y.map({0: "healthy", 1: "sick"}),
        )

    data = place.dataset({"train": with_city(300, 1), "test": with_city(80, 2)}, "y")
    result = place.run("quantize", model=trained(place, data, TEXT), data=data)
    exported = place.store.fetch(result.outputs["float"])
    names = [value.name for value in onnx.load(exported / "model.onnx").graph.input]
    assert set(names) == {"a", "b", "city"} or set(names) == {"a", "b", "c", "city"}
    assert read_document(exported).classes == ["healthy", "sick"]
    assert load_model(exported).scores(with_city(5, 3)).shape == (5, 2)
    assert result.metrics["export_max_difference"] < 1e-4


def test_several_classes_and_labels_that_are_no_indices(place: Workplace) -> None:
    def three(rows: int, seed: int) -> pd.DataFrame:
        frame = table(rows, seed)
        return frame.assign(y=np.select([frame.a < -0.4, frame.a < 0.4], [30, 10], 20))

    data = place.dataset({"train": three(300, 1), "test": three(80, 2)}, "y")
    result = place.run("quantize", model=trained(place, data, MLP), data=data)
    model = load_model(place.store.fetch(result.outputs["model"]))
    labels, probabilities = model.session.run(  # type: ignore[attr-defined]
        None, {"X": np.nan_to_num(three(9, 3)[["a", "b", "c"]].to_numpy(np.float32))}
    )
    assert model.document.classes == [10, 20, 30]
    assert labels.dtype == np.int64
    assert list(labels) == list(probabilities.argmax(axis=1))


@pytest.mark.parametrize(
    ("steps", "target"),
    [
        (
            "SimpleImputer(), StandardScaler(), MLPRegressor(hidden_layer_sizes=(32, 16), max_iter=200)",
            "onnx-int8",
        ),
        ("SimpleImputer(), RandomForestRegressor(10, random_state=0)", "onnx"),
        ("SimpleImputer(), LinearRegression()", "onnx"),
    ],
)
def test_regression(place: Workplace, steps: str, target: str) -> None:
    frames = {
        n: table(r, s).assign(y=lambda f: 3.0 * f.a + f.b / 20) for n, r, s in (("train", 300, 1), ("test", 80, 2))
    }
    data = place.dataset(frames, "y")
    gates = {"r2_drop": "<= 0.05", "rmse_ratio": "<= 1.5"}
    result = place.run("quantize", model=trained(place, data, steps), data=data, target=target, gates=gates)
    graph = graph_of(place, result.outputs["model"]).graph
    assert [value.name for value in graph.output] == ["prediction"]
    assert load_model(place.store.fetch(result.outputs["model"])).scores(table(7, 3)).shape == (7, 1)


def test_an_onnx_model_from_train_is_quantized_too(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(
        CODE.replace("{steps}", MLP)
        + """
def export(data):
    from skl2onnx import to_onnx
    import numpy as np
    return to_onnx(fit(data), data.X.to_numpy(np.float32), options={"zipmap": False})
"""
    )
    model = place.run("train", data=data, entry="model.py:export").outputs["model"]
    result = place.run("quantize", model=model, data=data)
    assert result.metrics["export_max_difference"] == 0
    with pytest.raises(UserFault, match="compiled for onnx-int8 already"):
        place.run("quantize", "again", model=result.outputs["model"], data=data)


def test_what_has_no_onnx_form_is_said(place: Workplace, data: ArtifactRef) -> None:
    steps = "SimpleImputer(), FunctionTransformer(abs), LogisticRegression()"
    with pytest.raises(UserFault, match="cannot be exported to ONNX") as caught:
        place.run("quantize", model=trained(place, data, steps), data=data, target="onnx")
    assert "transform step" in str(caught.value)


def test_an_export_that_differs_is_a_fault(place: Workplace, data: ArtifactRef) -> None:
    with pytest.raises(UserFault, match="the exported model differs from the trained one") as caught:
        place.run("quantize", model=trained(place, data, MLP), data=data, tolerance=1e-12)
    assert "raise tolerance" in str(caught.value)


def test_targets_and_gates_with_typos(place: Workplace, data: ArtifactRef) -> None:
    model = trained(place, data, MLP)
    with pytest.raises(ConfigError, match='no such target: onnx-int9; did you mean "onnx-int8"'):
        place.run("quantize", model=model, data=data, target="onnx-int9")
    with pytest.raises(ConfigError, match="no such metric: accuracy_dorp") as caught:
        place.run("quantize", model=model, data=data, gates={"accuracy_dorp": "<= 1"})
    assert "accuracy_drop" in str(caught.value)
    with pytest.raises(GateFailed, match="size_bytes"):
        place.run("quantize", model=model, data=data, gates={"size_bytes": "<= 100"})


@pytest.mark.parametrize("steps", [MLP, "SimpleImputer(), GradientBoostingClassifier(n_estimators=5, random_state=0)"])
def test_equal_inputs_give_equal_bytes_whatever_the_hash_seed(place: Workplace, data: ArtifactRef, steps: str) -> None:
    target = "onnx-int8" if steps == MLP else "onnx"
    request = place.request("quantize", model=trained(place, data, steps), data=data, target=target)
    request.cache = "off"
    path = place.root / "request.json"
    path.write_text(request.model_dump_json())
    found = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-m", "edgewright.steps", str(path), "--json", "--quiet"],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        outputs = json.loads(done.stdout)["outputs"]
        found.add((outputs["model"]["sha256"], outputs["float"]["sha256"]))
    assert len(found) == 1
