"""ONNX graphs: one canonical form, the names that we promise, and what a graph holds."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import TensorProto, helper

from edgewright.errors import UserFault

#: Newest versions that every runtime of ours reads (onnxruntime 1.31 stops at IR 13, older edge runtimes at 10).
IR_VERSION = 10
OPSETS = {"": 17, "ai.onnx.ml": 3}
ROWS = "rows"

_INTEGER_NODES = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}


def parse(data: bytes) -> onnx.ModelProto:
    """Return the model in some bytes.

    Raises:
        UserFault: they are not an ONNX model, or one that the checker refuses.
    """
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker each have their own errors
        raise UserFault(f"not a valid ONNX model: {error}") from error
    return model


def canonical_bytes(model: onnx.ModelProto) -> bytes:
    """Return the one byte form of a model; changes the model in place.

    Converters write ``opset_import`` in set order, which follows the process's hash seed, and sometimes twice (which
    quantizers refuse); names and documentation may hold times and random identifiers.
    """
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        versions[domain] = max(versions.get(domain, 0), entry.version)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))
    model.ir_version = min(model.ir_version, IR_VERSION)
    model.doc_string = ""
    model.graph.doc_string = ""
    model.graph.name = "model"
    properties = sorted((prop.key, prop.value) for prop in model.metadata_props)
    del model.metadata_props[:]
    for key, value in properties:
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString(deterministic=True))


def describe(model: onnx.ModelProto) -> dict[str, Any]:
    """Return small facts about a graph: its opsets, and how many nodes of each kind it has."""
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    return {
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "nodes": dict(sorted(kinds.items())),
    }


def integer_nodes(model: onnx.ModelProto) -> int:
    """Return how many nodes quantize, dequantize or compute with integers."""
    return sum(node.op_type in _INTEGER_NODES or node.op_type.startswith("QLinear") for node in model.graph.node)


def rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename values everywhere in the main graph; a name that is taken moves out of the way first."""
    taken = set(names.values()) - set(names)
    full = {**{name: f"{name}__inner" for name in taken}, **names}
    for node in model.graph.node:
        _swap(node.input, full)
        _swap(node.output, full)
    for values in (model.graph.input, model.graph.output, model.graph.initializer, model.graph.value_info):
        for value in values:
            value.name = full.get(value.name, value.name)


def _swap(values: Any, names: dict[str, str]) -> None:
    for index, value in enumerate(values):
        if value in names:
            values[index] = names[value]


def name_rows(values: Iterable[onnx.ValueInfoProto]) -> None:
    """Name the first dimension ``rows``, so that any number of rows may come."""
    for value in values:
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].Clear()
            shape.dim[0].dim_param = ROWS


def prune(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that no output needs."""
    needed = {value.name for value in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input) | _captured(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    constants = [value for value in model.graph.initializer if value.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    del model.graph.value_info[:]


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put every node behind those whose outputs it takes; tools that add nodes leave them anywhere."""
    makers = {name: node for node in model.graph.node for name in node.output}
    done: set[int] = set()
    ordered: list[onnx.NodeProto] = []
    waiting = list(reversed(model.graph.node))
    while waiting:
        node = waiting[-1]
        needed = [makers[name] for name in {*node.input, *_captured(node)} if name in makers]
        needed = [maker for maker in needed if id(maker) not in done and maker is not node]
        if id(node) in done or not needed:
            waiting.pop()
            if id(node) not in done:
                done.add(id(node))
                ordered.append(node)
        else:
            waiting.extend(sorted(needed, key=lambda maker: maker.name))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _captured(node: onnx.NodeProto) -> set[str]:
    """Return the names that the subgraphs of a node (If, Loop, Scan) take from outside."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= set(inner.input) | _captured(inner)
    return names


def finish_classifier(model: onnx.ModelProto, probabilities: str, classes: int) -> None:
    """Make the outputs ``label`` (int64 index) and ``probabilities`` (float32 ``[rows, classes]``) of a graph.

    Converters give labels in their own types (text, original integers); an index into the manifest's ``classes`` is
    the same for all of them.
    """
    rename(model, {probabilities: "probabilities", "label": "label__original"})
    model.graph.node.append(
        helper.make_node("ArgMax", ["probabilities"], ["label"], name="label_index", axis=1, keepdims=0)
    )
    del model.graph.output[:]
    model.graph.output.extend(
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [ROWS]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [ROWS, classes]),
        ]
    )
    _ensure_default_opset(model)
    prune(model)


def finish_regressor(model: onnx.ModelProto, prediction: str) -> None:
    """Make the output ``prediction`` (float32 ``[rows, 1]``) of a graph."""
    inner = f"{prediction}__raw"
    rename(model, {prediction: inner})
    model.graph.initializer.append(helper.make_tensor("prediction_shape", TensorProto.INT64, [2], [-1, 1]))
    model.graph.node.append(
        helper.make_node("Reshape", [inner, "prediction_shape"], ["prediction"], name="prediction_column")
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [ROWS, 1]))
    _ensure_default_opset(model)
    prune(model)


def _ensure_default_opset(model: onnx.ModelProto) -> None:
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", OPSETS[""]))


def join_inputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Replace one ``[rows, 1]`` input a feature by a single ``X`` ``[rows, features]`` that is split inside."""
    rename(model, {name: f"feature__{index}" for index, name in enumerate(names)})
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("X", TensorProto.FLOAT, [ROWS, len(names)]))
    nodes = []
    for index in range(len(names)):
        place = helper.make_tensor(f"column__{index}", TensorProto.INT64, [1], [index])
        model.graph.initializer.append(place)
        # Gather, not Split: its form is the same in every opset that a converter may have chosen
        nodes.append(helper.make_node("Gather", ["X", place.name], [f"feature__{index}"], name=place.name, axis=1))
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _ensure_default_opset(model)
