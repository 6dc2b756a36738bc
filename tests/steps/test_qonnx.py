"""Quantization-aware trained models: QONNX that a training function returns, and what is kept of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import Workplace
from support.qat import quant, trained_bits

from edgewright.errors import UserCodeError, UserFault
from edgewright.steps.models import load_model, read_document
from edgewright.targets import qonnx


def _graph(nodes: list[Any], constants: dict[str, Any], width: int = 4) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array, dtype=np.float32), name) for name, array in constants.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name in "xy"]
    graph = helper.make_graph(nodes, "m", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("qonnx.custom_op.general", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _run(model: onnx.ModelProto, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})[0]


ROWS = np.asarray([[-9.0, -0.75, -0.25, 0.0], [0.25, 0.75, 1.25, 9.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("given", "constants", "expected"),
    [
        # halves go to the even neighbour; four bits: -8 to 7, narrow -7 to 7, unsigned 0 to 15
        ({"signed": 1, "narrow": 0}, {}, [[-4.0, -1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 3.5]]),
        ({"signed": 1, "narrow": 1}, {}, [[-3.5, -1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 3.5]]),
        ({"signed": 0, "narrow": 0}, {}, [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 7.5]]),
        ({"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"}, {}, [[-4.0, -1.0, -0.5, 0.0], [0.0, 0.5, 1.0, 3.5]]),
        ({"signed": 1, "narrow": 0, "rounding_mode": "CEIL"}, {}, [[-4.0, -0.5, 0.0, 0.0], [0.5, 1.0, 1.5, 3.5]]),
        ({"signed": 1, "narrow": 0}, {"z": 2.0}, [[-5.0, -1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 2.5]]),
    ],
)
def test_a_quantizer_computes_what_qonnx_says(given: dict[str, Any], constants: Any, expected: Any) -> None:
    model = _graph([quant("x", "y", **given)], {"s": 0.5, "z": 0.0, "b": 4.0, **constants})
    assert qonnx.is_qonnx(model)
    lowered = qonnx.lower(model)
    assert not qonnx.is_qonnx(lowered)
    assert {entry.domain for entry in lowered.opset_import} == {""}
    np.testing.assert_array_equal(_run(lowered, ROWS), np.asarray(expected, dtype=np.float32))
    assert qonnx.is_qonnx(model)  # the original is left alone


def test_weights_are_quantized_at_once() -> None:
    nodes = [quant("w", "q"), helper.make_node("MatMul", ["x", "q"], ["y"])]
    weights = np.eye(4, dtype=np.float32) * 0.3
    lowered = qonnx.lower(_graph(nodes, {"w": weights, "s": 0.25, "z": 0.0, "b": 6.0}))
    assert [node.op_type for node in lowered.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(_run(lowered, ROWS), ROWS * 0.25)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (quant("x", "y", scale="x"), "the scale, zero point or bits of quant_y are computed"),
        (quant("x", "y", rounding_mode="UP"), "the rounding UP of quant_y is not known here"),
        (helper.make_node("Trunc", ["x"], ["y"], domain="qonnx.custom_op.general"), "QONNX's Trunc is not known here"),
    ],
)
def test_what_is_not_known_is_refused(node: Any, says: str) -> None:
    with pytest.raises(UserFault, match=says):
        qonnx.lower(_graph([node], {"s": 0.5, "z": 0.0, "b": 4.0}))


def _table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(np.round(random.normal(size=(rows, 4)) * 16) / 16, columns=["a", "b", "c", "d"])
    return frame.assign(y=np.where(frame.a - frame.b > 0.5, 2, np.where(frame.c > 0, 1, 0)))


CODE = """
from pathlib import Path

def fit(data):
    return (Path(__file__).parent / "net.qonnx").read_bytes()
"""


def test_train_keeps_one_that_runs_anywhere_and_one_with_the_bits(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    train = _table(300, 1)
    (place.code / "net.qonnx").write_bytes(trained_bits(train))
    place.model_py(CODE)
    data = place.dataset({"train": train, "test": _table(80, 2)}, "y")
    result = place.run("train", data=data, entry="model.py:fit")
    folder = place.store.fetch(result.outputs["model"])
    document = read_document(folder)
    assert document.format == "onnx"
    assert document.details["trained_bits"] == [6, 16]
    assert not [name for name in document.details["opsets"] if "qonnx" in name]
    kept = onnx.load_from_string((folder / "model.qonnx").read_bytes())
    assert sum(node.op_type == "Quant" for node in kept.graph.node) == 6
    assert [value.name for value in (*kept.graph.input, *kept.graph.output)] == ["X", "scores"]
    scores = load_model(folder).scores(train.head(5))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    quality = place.run("evaluate", model=result.outputs["model"], data=data, gates={"accuracy": ">= 0.7"})
    assert quality.gates[0].passed


def test_a_qonnx_model_of_another_width_is_refused(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    train = _table(60, 1)
    (place.code / "net.qonnx").write_bytes(trained_bits(train, outputs=2))
    place.model_py(CODE)
    with pytest.raises(UserCodeError, match=r"gives \[3, 2\] for 3 rows"):
        place.run("train", data=place.dataset({"train": train}, "y"), entry="model.py:fit")


BREVITAS = """
import torch
from torch import nn
import brevitas.nn as qnn
from brevitas.quant import Int8ActPerTensorFixedPoint as Signed
from brevitas.quant import Int8WeightPerTensorFixedPoint as Weight
from brevitas.quant import Int16Bias
from brevitas.quant import Uint8ActPerTensorFixedPoint as Unsigned

def fit(data):
    torch.manual_seed(data.seed)
    dense = dict(bias=True, weight_bit_width=6, weight_quant=Weight, bias_quant=Int16Bias)
    network = nn.Sequential(
        qnn.QuantIdentity(bit_width=6, act_quant=Signed, return_quant_tensor=True),
        qnn.QuantLinear(4, 16, **dense),
        qnn.QuantReLU(bit_width=6, act_quant=Unsigned, return_quant_tensor=True),
        qnn.QuantLinear(16, 3, **dense),
    )
    rows, labels = torch.tensor(data.X.to_numpy("float32")), torch.tensor(data.y.to_numpy("int64"))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(40):
        for batch in torch.randperm(len(rows)).split(64):
            loss = nn.functional.cross_entropy(network(rows[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network
"""


def test_a_module_of_brevitas_is_kept_as_it_computes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("brevitas")
    place = Workplace(tmp_path)
    place.model_py(BREVITAS)
    train = _table(300, 1)
    data = place.dataset({"train": train, "test": _table(80, 2)}, "y")
    folder = place.store.fetch(place.run("train", data=data, entry="model.py:fit").outputs["model"])
    assert read_document(folder).details["trained_bits"] == [6, 16]
    assert qonnx.is_qonnx(onnx.load_from_string((folder / "model.qonnx").read_bytes()))
