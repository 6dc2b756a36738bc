"""Writes a .tflite file of two dense layers; runs in the environment of the target litert, which has the schema."""

from __future__ import annotations

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def dense(path: Path, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:  # type: ignore[type-arg]
    """Write dense layers ``(weights [in, out], bias [out])`` with ReLU between them; the output is logits."""
    buffers, tensors, operators = [schema.BufferT()], [], []

    def tensor(name: str, shape: list[int], data: np.ndarray | None = None) -> int:  # type: ignore[type-arg]
        found = schema.TensorT()
        found.name, found.shape, found.type = name.encode(), shape, schema.TensorType.FLOAT32
        found.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = list(np.ascontiguousarray(data, dtype=np.float32).tobytes())
            buffers.append(buffer)
            found.buffer = len(buffers) - 1
        tensors.append(found)
        return len(tensors) - 1

    current = first = tensor("X", [1, layers[0][0].shape[0]])
    for index, (weights, bias) in enumerate(layers):
        options = schema.FullyConnectedOptionsT()
        last = index == len(layers) - 1
        kind = schema.ActivationFunctionType
        options.fusedActivationFunction = kind.NONE if last else kind.RELU
        operator = schema.OperatorT()
        operator.opcodeIndex = 0
        names = [tensor(f"w{index}", list(weights.T.shape), weights.T), tensor(f"b{index}", [len(bias)], bias)]
        operator.inputs = [current, *names]
        current = tensor(f"y{index}", [1, len(bias)])
        operator.outputs = [current]
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = options
        operators.append(operator)
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, operators, [first], [current]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


if __name__ == "__main__":
    with np.load(sys.argv[1]) as arrays:
        count = len(arrays.files) // 2
        dense(Path(sys.argv[2]), [(arrays[f"w{n}"], arrays[f"b{n}"]) for n in range(count)])
