from __future__ import annotations

import contextlib

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support import prediction_service as support

from edgewright.errors import DeployRejected
from edgewright.serving.graph_safety import check_model


@pytest.mark.parametrize("model", [support.classifier, support.regressor, support.text_classifier])
def test_standard_models_pass(model: object) -> None:
    check_model(model())  # type: ignore[operator]


def test_imported_domains_that_no_node_uses_do_no_harm() -> None:
    model = onnx.load_from_string(support.regressor())
    model.opset_import.append(helper.make_opsetid("ai.onnx.training", 1))
    check_model(model.SerializeToString())


def branch(node: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])


def wrapped(graph: onnx.GraphProto) -> bytes:
    choice = helper.make_node("If", ["condition"], ["y"], then_branch=graph, else_branch=graph)
    return helper.make_model(branch(choice)).SerializeToString()


def test_subgraphs_and_constants_are_looked_into() -> None:
    constant = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
    check_model(wrapped(branch(constant)))
    with pytest.raises(DeployRejected, match="domain com.example"):
        check_model(wrapped(branch(helper.make_node("Evil", [], ["y"], domain="com.example"))))
    constant.attribute[0].t.external_data.add(key="location", value="*/_ORT_MEM_ADDR_/*")
    with pytest.raises(DeployRejected, match="data in other files"):
        check_model(wrapped(branch(constant)))


def test_functions_of_other_domains_are_refused() -> None:
    model = onnx.load_from_string(support.regressor())
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(helper.make_function("com.example", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    with pytest.raises(DeployRejected, match="domain com.example"):
        check_model(model.SerializeToString())


def test_depth_is_bounded() -> None:
    graph = branch(helper.make_node("Identity", ["x"], ["y"]))
    for _ in range(20):
        graph = branch(helper.make_node("If", ["c"], ["y"], then_branch=graph))
    with pytest.raises(DeployRejected, match="levels deep"):
        check_model(helper.make_model(graph).SerializeToString())


@given(st.data())
def test_any_bytes_are_judged(data: st.DataObject) -> None:
    whole = bytearray(support.classifier())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(DeployRejected):
        check_model(bytes(whole[:cut]))
