"""What the target vitis-ai checks in a quantized graph, on graphs made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.errors import SystemFault, UserFault
from edgewright.targets.base import Job
from edgewright.targets.vitis_ai import check_graph, compile_model

ZERO = np.int8(0)


def quantized(scale: float = 0.25, zero: np.generic = ZERO, kind: str = "Relu") -> onnx.ModelProto:
    """Return an operator between a quantization and a dequantization."""
    nodes = [
        helper.make_node("QuantizeLinear", ["X", "scale", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="dequantize"),
        helper.make_node(kind, ["d"], ["Y"], name="middle"),
    ]
    constants = [
        numpy_helper.from_array(np.float32(scale), "scale"),
        numpy_helper.from_array(np.asarray(zero), "zero"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "XY"]
    return helper.make_model(helper.make_graph(nodes, "m", values[:1], values[1:], constants))


def test_what_is_right_is_described() -> None:
    found = check_graph(quantized(), "dpu")
    assert found == {"scales": "powers of two, 2^-2 to 2^-2", "zero_points": ["int8 0"], "operators": ["Relu"]}
    assert check_graph(quantized(zero=np.uint8(128)), "xint8")["zero_points"] == ["uint8 128"]


def test_a_scale_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(SystemFault, match="no power of two: 0.3"):
        check_graph(quantized(scale=0.3), "dpu")


@pytest.mark.parametrize(("style", "zero"), [("dpu", np.uint8(128)), ("dpu", np.int8(3)), ("xint8", np.uint8(7))])
def test_a_zero_point_that_the_style_does_not_mean_is_refused(style: str, zero: np.generic) -> None:
    with pytest.raises(SystemFault, match="zero point"):
        check_graph(quantized(zero=zero), style)


def test_an_operator_that_a_dpu_does_not_have_is_refused() -> None:
    with pytest.raises(SystemFault, match="does not have: Erf"):
        check_graph(quantized(kind="Erf"), "dpu")


def test_a_graph_without_quantized_nodes_may_not_be_called_int8() -> None:
    model = quantized()
    del model.graph.node[:2]
    with pytest.raises(UserFault, match="quantized no node"):
        check_graph(model, "dpu")


def test_such_an_operator_is_refused_before_anything_is_quantized(tmp_path: Path) -> None:
    model = quantized(kind="Erf")
    del model.graph.node[:2]
    with pytest.raises(UserFault, match="a DPU has no Erf"):
        compile_model(Job(model.SerializeToString(), {}, {"style": "dpu"}, tmp_path))
