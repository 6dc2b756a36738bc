"""Graphs as layers of PyTorch: what the layers say, and, where there is a PyTorch, that they compute the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.errors import UserFault
from edgewright.targets import vitis_ai_xmodel
from edgewright.targets.base import Job
from edgewright.targets.torch_layers import Layers

HERE = Path(__file__).resolve().parents[1] / "support" / "vitis_ai"
RANDOM = np.random.default_rng(0)
#: A Python with PyTorch; the interpreter of these tests where it has one.
PYTHON = os.environ.get("EDGEWRIGHT_TEST_TORCH_PYTHON")


def _array(*shape: int) -> Any:
    return (RANDOM.normal(size=shape) * 0.3).astype(np.float32)


def _graph(nodes: list[Any], constants: dict[str, Any], shape: list[Any], width: int) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *shape])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", width])
    graph = helper.make_graph(nodes, "model", [given], [made], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _plain() -> onnx.ModelProto:
    """What a small network of images is made of."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "w2"], ["d"], strides=[2, 2]),
        node("Flatten", ["d"], ["e"]),
        node("MatMul", ["e", "w3"], ["f"]),
        node("Add", ["f", "b3"], ["g"]),
        node("Relu", ["g"], ["h"]),
        node("Gemm", ["h", "w4", "b4"], ["y"], transB=1),
    ]
    constants = {"w1": _array(4, 1, 3, 3), "b1": _array(4), "w2": _array(6, 4, 2, 2), "w3": _array(24, 8),
                 "b3": _array(8), "w4": _array(3, 8), "b4": _array(3)}  # fmt: skip
    return _graph(nodes, constants, [1, 8, 8], 3)


def _rich() -> onnx.ModelProto:
    """One of each other layer."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], pads=[0, 1, 1, 2], dilations=[2, 1]),
        node("BatchNormalization", ["a", "s", "o", "m", "v"], ["b"], epsilon=1e-3),
        node("LeakyRelu", ["b"], ["c"], alpha=0.1),
        node("Conv", ["c", "w2"], ["d"], pads=[1, 1, 1, 1], group=2),
        node("Clip", ["d", "zero", "six"], ["e"]),
        node("Add", ["c", "e"], ["f"]),
        node("Mul", ["f", "e"], ["g"]),
        node("Concat", ["f", "g"], ["h"], axis=1),
        node("AveragePool", ["h"], ["i"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        node("MaxPool", ["i"], ["j"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Identity", ["j"], ["k"]),
        node("Conv", ["k", "w3"], ["l"]),
        node("GlobalAveragePool", ["l"], ["n"]),
        node("Reshape", ["n", "flat"], ["p"]),
        node("Gemm", ["p", "w4"], ["y"], alpha=0.5),
    ]
    constants = {
        "w1": _array(4, 3, 3, 3), "b1": _array(4), "s": _array(4) + 1, "o": _array(4), "m": _array(4),
        "v": np.abs(_array(4)) + 0.5, "w2": _array(4, 2, 3, 3), "zero": np.float32(0), "six": np.float32(6),
        "w3": _array(5, 8, 1, 1), "flat": np.asarray([0, -1]), "w4": _array(5, 2),
    }  # fmt: skip
    return _graph(nodes, {k: np.asarray(v) for k, v in constants.items()}, [3, 12, 12], 2)


def _calibrated(
    model: onnx.ModelProto, folder: Path, python: list[str], libraries: list[Path], shift: float = 0.0
) -> str:
    """Prepare a model, and run the first half of the container's program on it, which compares before it calibrates."""
    rows = _array(40, *[dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]])
    data = model.SerializeToString()
    (expected,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": rows})
    (folder / "board.json").write_text(json.dumps({"target": "DPUCZDX8G_ISA1_B4096"}))
    options = {"arch": str(folder / "board.json"), "conda": "vitis-ai-pytorch"}
    work = folder / "work"
    work.mkdir()
    vitis_ai_xmodel.prepare(Job(data, {"x": rows}, options, folder), {"x": rows}, expected + shift, work)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, libraries)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*python, "compile.py", "calibrate"], cwd=work, env=environ, text=True, check=False,
                          timeout=240, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert json.loads((work / "quantize_result" / "quant_info.json").read_text())["rows"] == 32
    return done.stdout


def test_a_network_of_images_computes_the_same(tmp_path: Path) -> None:
    _calibrated(_plain(), tmp_path, [sys.executable], [HERE, HERE / "numpy_torch"])


@pytest.mark.skipif(not PYTHON, reason="no EDGEWRIGHT_TEST_TORCH_PYTHON: a Python that has PyTorch")
@pytest.mark.parametrize("make", [_plain, _rich])
def test_pytorch_computes_the_same(tmp_path: Path, make: Any) -> None:
    _calibrated(make(), tmp_path, [str(PYTHON)], [HERE])


def test_a_sum_behind_a_product_is_its_bias() -> None:
    made = Layers(_plain())
    assert [one["kind"] for one in made.layers] == [
        "conv", "relu", "max_pool", "conv", "flatten", "linear", "relu", "linear"]  # fmt: skip
    assert made.layers[5]["output"] == "g"
    assert made.weights[made.layers[5]["weights"][0]].shape == (8, 24)


def test_a_module_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="differs from the float model by"):
        _calibrated(_plain(), tmp_path, [sys.executable], [HERE, HERE / "numpy_torch"], shift=0.1)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (helper.make_node("Tanh", ["x"], ["y"]), "no layer of PyTorch is made of Tanh"),
        (helper.make_node("Add", ["x", "w"], ["y"]), "a constant that is no bias of a layer"),
        (helper.make_node("Clip", ["x", "w"], ["y"], name="limit"), "Clip limit: limits"),
        (helper.make_node("Flatten", ["x"], ["y"], axis=2), "an axis other than 1"),
        (helper.make_node("Conv", ["x", "w"], ["y"]), "weights with 0 dimensions, not 4"),
        (helper.make_node("Conv", ["x", "x"], ["y"]), "its weights are computed"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 0, 1, 1]), "uneven padding"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"), "auto_pad"),
        (helper.make_node("Reshape", ["x", "s"], ["y"]), "the first dimension must be that of the rows"),
    ],
)
def test_what_has_no_layer_is_refused(node: Any, says: str) -> None:
    constants = {"w": np.asarray(2.0, dtype=np.float32), "s": np.asarray([4, 4])}
    with pytest.raises(UserFault, match=says):
        Layers(_graph([node], constants, [1, 4, 4], 4))
