"""Cut a model into its arithmetic and what stands before and behind it.

A compiler for hardware knows convolutions, matrix products and what goes between them. Imputers, scalers and one-hot
encoders in front, and the softmax and the choice of a label behind, stay on the host's processor. The three parts in a
row are the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnxruntime
from onnx import helper

from edgewright.errors import UserFault
from edgewright.targets.graph import canonical_bytes, prune

ARITHMETIC = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: What may follow the last matrix product and still belongs to it.
_TRAILING = ("Add", "BatchNormalization")


@dataclass(frozen=True)
class Parts:
    """A model in three.

    Attributes:
        before: From the model's inputs to the arithmetic's input; ``None`` where that is the model's input itself.
        core: The arithmetic: one float32 input, one float32 output, the first dimension of both free.
        after: From the arithmetic's output to the model's outputs.
        source: Name of the core's input.
        result: Name of the core's output.
        shape: The core's input shape without its first dimension.
    """

    before: bytes | None
    core: bytes
    after: bytes
    source: str
    result: str
    shape: tuple[int, ...]


def split(model: onnx.ModelProto, probe: Mapping[str, Any]) -> Parts:
    """Cut a model around its arithmetic.

    Args:
        model: The float model.
        probe: Input name -> array of some rows: shapes inside are found by running the model on them, because shape
            inference knows nothing of ``ai.onnx.ml``.

    Raises:
        UserFault: it has none, or the arithmetic takes or gives more than one value.
    """
    constants = {value.name for value in model.graph.initializer}
    nodes = list(model.graph.node)
    places = [index for index, node in enumerate(nodes) if node.op_type in ARITHMETIC and constants & set(node.input)]
    if not places:
        raise UserFault(
            "the model has no matrix products or convolutions with constant weights, so there is nothing to compile",
            hint="use target: onnx, or train a neural network",
        )
    source = next(name for name in nodes[places[0]].input if name not in constants)
    result = _result(nodes, places[-1], constants)
    types = _types(model, [source, result], probe)
    core = _between(model, [source], [result], types)
    inputs = {value.name for value in model.graph.input}
    before = None if source in inputs else _between(model, sorted(inputs), [source], types)
    outputs = [value.name for value in model.graph.output]
    after = _between(model, [result], outputs, types)
    shape = tuple(dim.dim_value for dim in types[source].type.tensor_type.shape.dim[1:])
    return Parts(
        before and canonical_bytes(before), canonical_bytes(core), canonical_bytes(after), source, result, shape
    )


def split_behind(model: onnx.ModelProto, core: bytes, result: str, probe: Mapping[str, Any]) -> Parts:
    """Cut a model behind a value, for a target that takes all before it in a form of its own.

    Args:
        model: The float model with one input.
        core: That form, from the model's input to the value.
        result: The value.
        probe: Input name -> array of some rows.
    """
    (given,) = model.graph.input
    types = _types(model, [given.name, result], probe)
    after = _between(model, [result], [value.name for value in model.graph.output], types)
    shape = tuple(dim.dim_value for dim in types[given.name].type.tensor_type.shape.dim[1:])
    return Parts(None, core, canonical_bytes(after), given.name, result, shape)


def _result(nodes: list[Any], last: int, constants: set[str]) -> str:
    """Return the output of the last matrix product, its bias included."""
    name = nodes[last].output[0]
    for node in nodes[last + 1 :]:
        if name in node.input:
            rest = set(node.input) - {name}
            if node.op_type not in _TRAILING or not rest <= constants:
                break
            name = node.output[0]
    return str(name)


def _types(model: onnx.ModelProto, names: list[str], probe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of the model's inputs and outputs, and of some values inside (32-bit floats)."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    known = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    inside = [name for name in names if name not in known]
    seen.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inside)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, array in zip(inside, session.run(inside, dict(probe)), strict=True):
        shape = ["rows", *array.shape[1:]]
        known[name] = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    return known


def _between(model: onnx.ModelProto, sources: list[str], results: list[str], types: dict[str, Any]) -> onnx.ModelProto:
    """Return the part of a model from some values to others."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.input[:], part.graph.output[:]
    part.graph.input.extend(types[name] for name in sources)
    part.graph.output.extend(types[name] for name in results)
    for value in (*part.graph.input, *part.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "rows"
    inside = [node for node in part.graph.node if not set(node.output) & set(sources)]
    del part.graph.node[:]
    part.graph.node.extend(inside)
    prune(part)
    _check_closed(part, sources)
    used = {name for node in part.graph.node for name in node.input} | set(results)
    kept = [value for value in part.graph.input if value.name in used]
    del part.graph.input[:]
    part.graph.input.extend(kept)
    return part


def _check_closed(part: onnx.ModelProto, sources: list[str]) -> None:
    known = {*sources, *(value.name for value in part.graph.initializer), ""}
    for node in part.graph.node:
        known |= set(node.output)
    for node in part.graph.node:
        if not set(node.input) <= known:
            raise UserFault(
                f"the model's arithmetic takes more than one value ({node.op_type} needs another input), "
                "which this target cannot compile",
                hint="use target: onnx-int8",
            )


def join(parts: Parts, core: onnx.ModelProto) -> bytes:
    """Return one model of the parts before and behind, and another form of the arithmetic between them."""
    after = onnx.load_from_string(parts.after)
    pieces = [core, after] if parts.before is None else [onnx.load_from_string(parts.before), core, after]
    nodes = [node for piece in pieces for node in piece.graph.node]
    constants = {value.name: value for piece in pieces for value in piece.graph.initializer}
    graph = helper.make_graph(
        nodes, "model", list(pieces[0].graph.input), list(after.graph.output), list(constants.values())
    )
    used = {node.domain for node in nodes}
    opsets = [entry for piece in pieces for entry in piece.opset_import if entry.domain in used]
    joined = helper.make_model(graph, opset_imports=opsets, ir_version=max(piece.ir_version for piece in pieces))
    return canonical_bytes(joined)
