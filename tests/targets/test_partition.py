"""Cutting a model around its arithmetic: the three parts in a row are the model."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgewright.errors import UserFault
from edgewright.targets import graph
from edgewright.targets.base import Job, compile_for, find_target
from edgewright.targets.partition import join, split

ROWS = {"X": np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)}


def pipeline() -> onnx.ModelProto:
    """Return a scaler, two layers and a softmax, as converters write them."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Scaler", ["X"], ["scaled"], domain="ai.onnx.ml", offset=[0.1] * 4, scale=[2.0] * 4),
        helper.make_node("MatMul", ["scaled", "w1"], ["m1"], name="m1"),
        helper.make_node("Add", ["m1", "b1"], ["a1"], name="a1"),
        helper.make_node("Relu", ["a1"], ["r1"], name="r1"),
        helper.make_node("Gemm", ["r1", "w2", "b2"], ["g2"], name="g2"),
        helper.make_node("Softmax", ["g2"], ["probabilities"], name="s", axis=-1),
    ]
    body = helper.make_graph(
        nodes, "m",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3])],
        [weight("w1", 4, 8), weight("b1", 8), weight("w2", 8, 3), weight("b2", 3)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(body, opset_imports=opsets, ir_version=10)


def run(model: bytes, arrays: dict[str, np.ndarray]) -> np.ndarray:  # type: ignore[type-arg]
    return onnxruntime.InferenceSession(model).run(None, arrays)[0]  # type: ignore[no-any-return]


def test_the_parts_in_a_row_are_the_model() -> None:
    parts = split(pipeline(), ROWS)
    assert (parts.source, parts.result, parts.shape) == ("scaled", "g2", (4,))
    assert parts.before is not None
    kinds = [[node.op_type for node in graph.parse(p).graph.node] for p in (parts.before, parts.core, parts.after)]
    assert kinds == [["Scaler"], ["MatMul", "Add", "Relu", "Gemm"], ["Softmax"]]
    middle = run(parts.core, {"scaled": run(parts.before, ROWS)})
    assert np.array_equal(run(parts.after, {"g2": middle}), run(pipeline().SerializeToString(), ROWS))


def test_joined_parts_are_one_model_again() -> None:
    parts = split(pipeline(), ROWS)
    joined = join(parts, graph.parse(parts.core))
    onnx.checker.check_model(onnx.load_from_string(joined))
    assert np.array_equal(run(joined, ROWS), run(pipeline().SerializeToString(), ROWS))
    assert joined == join(split(pipeline(), ROWS), graph.parse(parts.core))


def test_a_model_that_starts_with_its_arithmetic_has_nothing_before() -> None:
    model = pipeline()
    del model.graph.node[0]
    model.graph.node[0].input[0] = "X"
    parts = split(model, ROWS)
    assert parts.before is None
    assert parts.source == "X"


def test_a_model_without_arithmetic_is_refused() -> None:
    model = pipeline()
    del model.graph.node[1:]
    model.graph.output[0].name = "scaled"
    with pytest.raises(UserFault, match="nothing to compile"):
        split(model, ROWS)


def test_arithmetic_with_two_sources_is_refused() -> None:
    model = pipeline()
    model.graph.node[2].op_type = "Sub"
    model.graph.node[2].input[1] = "other"
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["X"], ["other"], name="other", keepdims=1))
    with pytest.raises(UserFault, match="takes more than one value"):
        split(model, ROWS)


def test_half_floats_halve_the_weights_and_nearly_keep_the_scores(tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = graph.canonical_bytes(pipeline())
    compiled = compile_for(find_target("onnx-fp16"), Job(data, ROWS, {}, tmp_path))
    assert compiled.details["fp16_weights"] == 4
    weights = [tensor for tensor in graph.parse(compiled.data).graph.initializer if tensor.data_type == 10]
    assert sum(len(tensor.raw_data) for tensor in weights) == 2 * (4 * 8 + 8 + 8 * 3 + 3)
    assert np.allclose(run(compiled.data, ROWS), run(data, ROWS), atol=2e-3)
    assert compile_for(find_target("onnx-fp16"), Job(data, ROWS, {}, tmp_path)).data == compiled.data


def test_a_weight_that_half_floats_cannot_hold_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = pipeline()
    model.graph.initializer[3].CopyFrom(onnx.numpy_helper.from_array(np.float32([1e5, 0, 0]), "b2"))
    with pytest.raises(UserFault, match="the weight b2 reaches 100000, above 65504"):
        compile_for(find_target("onnx-fp16"), Job(graph.canonical_bytes(model), ROWS, {}, tmp_path))


def test_nodes_are_sorted() -> None:
    model = pipeline()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    graph.sort_nodes(model)
    assert [node.op_type for node in model.graph.node] == ["Scaler", "MatMul", "Add", "Relu", "Gemm", "Softmax"]
