"""As much of TensorRT 11's Python interface as building and running an engine needs; onnxruntime computes."""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum
from typing import Any

import numpy as np
import onnx
import onnxruntime

__version__ = "11.4.0.stand-in"
_MAGIC = b"stand-in engine\n"


class Logger:
    WARNING = 2

    def __init__(self, severity: int) -> None:
        assert severity == self.WARNING


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class _Tensor:
    def __init__(self, value: Any) -> None:
        self.name = value.name
        self.shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]


class _Network:
    data = b""

    def get_input(self, index: int) -> _Tensor:
        return _Tensor(onnx.load_from_string(self.data).graph.input[index])


class OnnxParser:
    def __init__(self, network: _Network, logger: Logger) -> None:
        self._network, self.num_errors = network, 0

    def parse(self, data: bytes) -> bool:
        kinds = {node.op_type for node in onnx.load_from_string(data).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        self._network.data = data
        self.num_errors = 1 if os.environ.get("HOME") == "/refused" else 0
        return not self.num_errors

    def get_error(self, index: int) -> str:
        return "In node 0 with name: x and operator: Frobnicate (importNode): UNSUPPORTED_NODE"


class _Profile:
    def set_shape(self, name: str, smallest: Any, usual: Any, largest: Any) -> None:
        assert smallest[0] == 1
        assert tuple(smallest[1:]) == tuple(usual[1:]) == tuple(largest[1:])
        self.largest = int(largest[0])


class _Config:
    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        assert (pool, size) == (MemoryPoolType.WORKSPACE, 1 << 30)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profile = profile
        return 0


class Builder:
    def __init__(self, logger: Logger) -> None:
        pass

    def create_network(self, flags: int) -> _Network:
        assert flags == 0
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes:
        return _MAGIC + config.profile.largest.to_bytes(4, "little") + network.data


class _Context:
    def __init__(self, session: Any, largest: int) -> None:
        self._session, self._largest = session, largest
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return 1 <= shape[0] <= self._largest

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._shape[0], *self._session.get_outputs()[0].shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        source, result = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        given = np.empty(self._shape, dtype=np.float32)
        ctypes.memmove(given.ctypes.data, self._addresses[source], given.nbytes)
        (found,) = self._session.run([result], {source: given})
        ctypes.memmove(self._addresses[result], found.ctypes.data, found.nbytes)
        return stream_handle == 7


class _Engine:
    num_io_tensors = 2

    def __init__(self, data: bytes) -> None:
        self._session = onnxruntime.InferenceSession(data[4:], providers=["CPUExecutionProvider"])
        self._largest = int.from_bytes(data[:4], "little")

    def get_tensor_name(self, index: int) -> str:
        return str((self._session.get_inputs()[0], self._session.get_outputs()[0])[index].name)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == self._session.get_inputs()[0].name else TensorIOMode.OUTPUT

    def create_execution_context(self) -> _Context:
        return _Context(self._session, self._largest)


class Runtime:
    def __init__(self, logger: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, data: bytes) -> _Engine | None:
        return _Engine(data[len(_MAGIC) :]) if data.startswith(_MAGIC) else None
