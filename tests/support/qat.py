"""A network of six bits in QONNX, as Brevitas exports one: least squares give it weights that classify."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "qonnx.custom_op.general"


def quant(source: str, target: str, scale: str = "s", zero: str = "z", bits: str = "b", **given: Any) -> Any:
    """A ``Quant`` node."""
    given = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **given}
    return helper.make_node(
        "Quant", [source, scale, zero, bits], [target], name=f"quant_{target}", domain=DOMAIN, **given
    )


def trained_bits(table: pd.DataFrame, outputs: int = 3, seed: int = 0, hidden: int = 24) -> bytes:
    """Return a network of one hidden layer: random features, and an output layer that was fitted to the label.

    All scales are powers of two, so that fixed-point arithmetic is exact.
    """
    random = np.random.default_rng(seed)
    X = table.drop(columns="y").to_numpy("float32")
    first = _rounded(random.normal(size=(X.shape[1], hidden)) * 0.7, 2**-4, 6)
    bias = _rounded(random.normal(size=hidden) * 0.5, 2**-8, 16)
    inner = np.clip(np.round(np.maximum(_rounded(X, 2**-3, 6) @ first + bias, 0) / 2**-3), 0, 63) * 2**-3
    wanted = np.eye(outputs)[np.minimum(table.y.to_numpy(), outputs - 1)] * 4 - 1
    design = np.hstack([inner, np.ones((len(inner), 1))])
    # a little weight decay keeps what six bits can hold
    solved = np.linalg.solve(design.T @ design + 3.0 * np.eye(hidden + 1), design.T @ wanted)
    constants: dict[str, Any] = {
        "w1": first, "b1": bias, "w2": solved[:-1], "b2": solved[-1], "sx": 2**-3, "sw": 2**-4, "sb1": 2**-8,
        "sb2": 2**-8, "zero": 0.0, "six": 6.0, "sixteen": 16.0,
    }  # fmt: skip
    nodes = [
        quant("x", "xq", "sx", "zero", "six"),
        quant("w1", "w1q", "sw", "zero", "six", narrow=1),
        quant("b1", "b1q", "sb1", "zero", "sixteen"),
        helper.make_node("Gemm", ["xq", "w1q", "b1q"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        quant("r", "rq", "sx", "zero", "six", signed=0),
        quant("w2", "w2q", "sw", "zero", "six", narrow=1),
        quant("b2", "b2q", "sb2", "zero", "sixteen"),
        helper.make_node("Gemm", ["rq", "w2q", "b2q"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(array, dtype=np.float32), name) for name, array in constants.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, X.shape[1]])
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, outputs])
    graph = helper.make_graph(nodes, "net", [given], [made], tensors)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 2)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def _rounded(values: Any, scale: float, bits: int) -> Any:
    return np.clip(np.round(values / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale
