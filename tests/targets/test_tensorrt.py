"""TensorRT engines: the portable model for real, the engine by stand-ins for TensorRT, CUDA and the driver."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import GateFailed, UserFault
from edgewright.steps.compiling_gpu import _check_symmetric
from edgewright.steps.models import OnnxModel, read_document
from edgewright.targets.gpus import nvidia_gpus

STAND_IN = Path(__file__).resolve().parents[1] / "support" / "nvidia"
CODE = """
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def fit(data):
    model = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=40, random_state=0))
    return model.fit(data.X, data.y)
"""
Trained = tuple[Workplace, ArtifactRef, ArtifactRef]


def _table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    return frame.assign(y=np.where(frame.a - frame.b > 0.5, 2, np.where(frame.c > 0, 1, 0)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = Workplace(tmp_path_factory.mktemp("place"))
    place.model_py(CODE)
    data = place.dataset({"train": _table(300, 1), "test": _table(90, 2)}, "y")
    return place, data, place.run("train", data=data, entry="model.py:fit").outputs["model"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a GPU and an environment with TensorRT, as far as stand-ins go."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{STAND_IN}" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{STAND_IN / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGEWRIGHT_TARGET_PYTHON_TENSORRT", str(python))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_gpus() == []


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_there_is_the_portable_model_and_no_engine(trained: Trained) -> None:
    place, data, model = trained
    config = {"model": model, "data": data, "target": "tensorrt"}
    result = place.run("quantize", "alone", **config, gates={"accuracy_drop": "<= 0.01", "integer_nodes": "> 0"})
    folder = place.store.fetch(result.outputs["model"])
    assert not (folder / "model.engine").exists()
    document = read_document(folder)
    assert (document.file, document.format) == ("model.onnx", "tensorrt")
    assert document.verified["unverified"].startswith("there is no NVIDIA GPU here, so no engine was built")
    portable = document.verified["checks"]["portable"]
    assert portable["runtime"] == "onnxruntime"
    assert portable["rows"] == 90
    assert portable["sqnr_db"] > 20
    assert any("no engine was built" in note for note in result.notes)
    assert result.gates[0].note.startswith("not run here: there is no NVIDIA GPU")
    scores = OnnxModel((folder / "model.onnx").read_bytes(), document).scores(_table(3, 3))
    assert scores.shape == (3, 3)
    _holds_what_tensorrt_takes(folder / "core.onnx")
    with pytest.raises(GateFailed, match="verified"):
        place.run("quantize", "strict", **config, gates={"verified": True})


def _holds_what_tensorrt_takes(path: Path) -> None:
    core = onnx.load(path)
    constants = {one.name: numpy_helper.to_array(one) for one in core.graph.initializer}
    kinds = [node.op_type for node in core.graph.node]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds)
    zeros = [constants[n.input[2]] for n in core.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    widths = {constants[n.input[1]].size for n in core.graph.node if n.op_type == "DequantizeLinear"}
    assert 16 in widths  # a scale a channel of the weights
    # no bias in 32-bit integers: TensorRT takes biases in floats
    assert not [name for name, array in constants.items() if array.dtype == np.int32 and array.ndim]


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_the_engine_is_built_run_and_compared(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    place, data, model = trained
    config = {"model": model, "data": data, "target": "tensorrt", "options": {"batch": 32}}
    result = place.run("quantize", "built", **config, gates={"verified": True, "accuracy_drop": "<= 0.02"})
    folder = place.store.fetch(result.outputs["model"])
    names = {path.name for path in folder.iterdir()}
    assert {"model.engine", "model.onnx", "core.onnx", "before.onnx", "after.onnx"} <= names
    document = read_document(folder)
    assert document.file == "model.engine"
    assert document.verified["runtime"] == "TensorRT"
    assert document.verified["rows"] == 90
    checks = document.verified["checks"]
    # the stand-in computes the graph as it is, 32 rows at a time
    assert checks["engine_and_portable"]["max_difference"] < 1e-4
    assert checks["portable"]["rows"] == 90
    engine = document.details["engine"]
    assert (engine["compute_capability"], engine["device"], engine["largest_batch"]) == ("9.0", "Stand-in GPU", 32)
    assert engine["tensorrt"] == "11.4.0.stand-in"
    assert result.metrics["latency_us"] > 0
    # another GPU is another result
    place.run("quantize", "again", **config, gates={"verified": True, "accuracy_drop": "<= 0.02"})
    key = place.store.read_json("runs/demo/run-1/built/key.json")
    assert "Stand-in GPU, 9.0" in str(key)


@pytest.mark.usefixtures("gpu")
def test_a_model_that_tensorrt_cannot_read_is_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    place, data, model = trained
    monkeypatch.setenv("HOME", "/refused")
    with pytest.raises(UserFault, match="TensorRT cannot read this model: In node 0"):
        place.run("quantize", "refused", model=model, data=data, target="tensorrt")


def test_zero_points_that_tensorrt_does_not_take_are_refused() -> None:
    from onnx import TensorProto, helper

    from edgewright.errors import SystemFault

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="first"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy"]
    constants = [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(3), "z")]
    model = helper.make_model(helper.make_graph(nodes, "m", values[:1], values[1:], constants),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=10)  # fmt: skip
    with pytest.raises(SystemFault, match="zero point int8 3 at first"):
        _check_symmetric(model.SerializeToString())
