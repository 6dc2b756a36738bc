"""QONNX, the exchange format of quantization-aware training, written out in ONNX's own operators: anything runs those.

QONNX is ONNX with ``Quant`` nodes of any number of bits (``qonnx.custom_op.general``, as Brevitas exports them).
onnxruntime does not know them. Here ``Quant(x, scale, zero point, bits)`` becomes its definition, ``(round(clip(x /
scale + zero point)) - zero point) * scale``; of constants, such as weights, the result itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgewright.errors import UserFault

DOMAIN = "qonnx.custom_op"
_ROUNDING: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ROUND": ("Round", np.round),
    "CEIL": ("Ceil", np.ceil),
    "FLOOR": ("Floor", np.floor),
}


def is_qonnx(model: Any) -> bool:
    """Whether a graph has nodes of QONNX."""
    return any(node.domain.startswith((DOMAIN, "onnx.brevitas")) for node in model.graph.node)


def lower(model: Any) -> Any:
    """Return a graph that computes the same by ONNX's own operators.

    Raises:
        UserFault: it has nodes of QONNX other than ``Quant``, or their scale, zero point or bits are computed.
    """
    import onnx
    from onnx import helper, numpy_helper

    from edgewright.targets.graph import prune

    found = onnx.ModelProto()
    found.CopyFrom(model)
    constants = {one.name: numpy_helper.to_array(one) for one in found.graph.initializer}
    nodes: list[Any] = []
    for node in found.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        if node.op_type != "Quant":
            if is_qonnx(helper.make_model(helper.make_graph([node], "one", [], []))):
                raise UserFault(
                    f"QONNX's {node.op_type} is not known here", hint="quantizers of Brevitas with Quant nodes"
                )
            nodes.append(node)
            continue
        lowered = _lowered(node, constants)
        if isinstance(lowered, list):
            nodes += lowered
        else:
            constants[node.output[0]] = lowered
    del found.graph.node[:], found.graph.initializer[:], found.graph.value_info[:]
    found.graph.node.extend(nodes)
    made = {name for node in nodes for name in node.output}
    kept = [numpy_helper.from_array(array, name) for name, array in constants.items() if name not in made]
    found.graph.initializer.extend(kept)
    opsets = [entry for entry in found.opset_import if not entry.domain.startswith((DOMAIN, "onnx.brevitas"))]
    del found.opset_import[:]
    found.opset_import.extend(opsets)
    prune(found)
    return found


def bits_of(model: Any) -> list[int]:
    """Return how many bits the nodes of a QONNX graph quantize to, each number once."""
    from onnx import numpy_helper

    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    named = [node.input[3] for node in model.graph.node if node.op_type == "Quant"]
    return sorted({int(constants[name]) for name in named if name in constants})


def _lowered(node: Any, constants: dict[str, Any]) -> Any:
    """Return the nodes that stand for a ``Quant``; of a constant, what it is quantized to."""
    from onnx import helper

    absent = [name for name in node.input[1:4] if name not in constants]
    if absent:
        raise UserFault(f"the scale, zero point or bits of {node.name or node.output[0]} are computed, not constant")
    scale, zero, bits = (np.asarray(constants[name], dtype=np.float32) for name in node.input[1:4])
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    mode = given.get("rounding_mode", b"ROUND").decode().upper()
    if mode not in _ROUNDING:
        raise UserFault(f"the rounding {mode} of {node.name or node.output[0]} is not known here",
                        hint=f"there are {', '.join(_ROUNDING)}")  # fmt: skip
    low, high = _limits(int(bits), signed=bool(given.get("signed", 1)), narrow=bool(given.get("narrow", 0)))
    operator, rounded = _ROUNDING[mode]
    value = constants.get(node.input[0])
    if value is not None:
        whole = rounded(np.clip(np.asarray(value, dtype=np.float32) / scale + zero, low, high))
        return ((whole - zero) * scale).astype(np.float32)
    name = node.output[0]
    steps: list[tuple[str, Any]] = [("Div", scale)] + ([("Add", zero)] if zero.any() else [])
    steps += [("Clip", np.float32(low)), (operator, None)] + ([("Sub", zero)] if zero.any() else []) + [("Mul", scale)]
    nodes, source = [], node.input[0]
    for place, (kind, array) in enumerate(steps):
        target = name if place == len(steps) - 1 else f"{name}__{place}"
        inputs = [source]
        if array is not None:
            inputs.append(f"{name}__c{place}")
            constants[inputs[-1]] = np.asarray(array, dtype=np.float32)
        if kind == "Clip":
            inputs.append(f"{name}__high")
            constants[inputs[-1]] = np.asarray(high, dtype=np.float32)
        nodes.append(helper.make_node(kind, inputs, [target], name=f"{name}__{kind}"))
        source = target
    return nodes


def _limits(bits: int, *, signed: bool, narrow: bool) -> tuple[int, int]:
    if signed:
        return -(1 << (bits - 1)) + narrow, (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - narrow
