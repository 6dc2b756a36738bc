"""What an ``.xmodel`` says of itself: AMD's XIR graph, as far as a check needs it.

The file is one protocol buffer, ``serial_v2.Graph`` (``graph_proto_v2.proto`` of XIR, repository Xilinx/Vitis-AI).
Its messages are described here as far as they are read; the parser passes over the rest. The compiler writes
the attributes ``device``, ``dpu_name`` and ``dpu_fingerprint`` (``uint64``) on each subgraph; VART compares the last
with the DPU's own before it runs anything.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgewright.errors import UserFault

_PACKAGE = "edgewright.xir"
_TEXT, _UINT32, _UINT64, _MESSAGE = 9, 13, 4, 11  # FieldDescriptorProto.Type
_ONE, _MANY = 1, 3  # FieldDescriptorProto.Label
#: Message -> its fields: name, number, label, type, and the message's name.
_MESSAGES: dict[str, tuple[tuple[str, int, int, int, str], ...]] = {
    "AttrValue": (("uint64_value", 8, _ONE, _UINT64, ""), ("string_value", 11, _ONE, _TEXT, "")),
    # a map is a repeated pair on the wire
    "Attr": (("key", 1, _ONE, _TEXT, ""), ("value", 2, _ONE, _MESSAGE, "AttrValue")),
    "Tensor": (("tensor_name", 1, _ONE, _TEXT, ""), ("tensor_dim", 2, _MANY, _UINT32, "")),
    "OPNode": (
        ("op_name", 1, _ONE, _TEXT, ""),
        ("op_type", 2, _ONE, _TEXT, ""),
        ("output_tensor", 5, _ONE, _MESSAGE, "Tensor"),
    ),
    "SubGraph": (
        ("subgraph_name", 1, _ONE, _TEXT, ""),
        ("subg_attr", 5, _MANY, _MESSAGE, "Attr"),
        ("subg_child", 10, _MANY, _MESSAGE, "SubGraph"),
    ),
    "Graph": (
        ("graph_name", 1, _ONE, _TEXT, ""),
        ("op_node", 5, _MANY, _MESSAGE, "OPNode"),
        ("subg_root", 10, _ONE, _MESSAGE, "SubGraph"),
    ),
}


@dataclass(frozen=True)
class Xmodel:
    """A graph for or by AMD's compiler.

    Attributes:
        name: The graph's name.
        inputs: Shape of each input by its name, the batch first, channels last.
        operators: How many of each kind there are.
        devices: How many subgraphs below the root run on each device (``DPU``, ``CPU``, ``USER``).
        dpus: Names of the DPUs that it is compiled for.
        fingerprints: Fingerprints of these DPUs.
    """

    name: str
    inputs: dict[str, tuple[int, ...]]
    operators: dict[str, int]
    devices: dict[str, int]
    dpus: tuple[str, ...]
    fingerprints: tuple[int, ...]


def read_xmodel(data: bytes) -> Xmodel:
    """Return what an xmodel says of itself.

    Raises:
        UserFault: it is none.
    """
    from google.protobuf.message import DecodeError

    graph = _graph_class()()
    try:
        graph.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise UserFault(f"this is no xmodel: {error}") from None
    if not graph.op_node:
        raise UserFault("this is no xmodel: it has no operators")
    operators: dict[str, int] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    for node in graph.op_node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
        if node.op_type in ("data", "data-fix"):
            inputs[node.op_name] = tuple(node.output_tensor.tensor_dim)
    found = [{one.key: one.value for one in child.subg_attr} for child in graph.subg_root.subg_child]
    devices: dict[str, int] = {}
    for attributes in found:
        if "device" in attributes:
            device = attributes["device"].string_value
            devices[device] = devices.get(device, 0) + 1
    dpus = sorted({a["dpu_name"].string_value for a in found if "dpu_name" in a})
    fingerprints = sorted({a["dpu_fingerprint"].uint64_value for a in found if "dpu_fingerprint" in a})
    return Xmodel(graph.graph_name, inputs, dict(sorted(operators.items())), devices, tuple(dpus), tuple(fingerprints))


@functools.cache
def _graph_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="edgewright/xir.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in _fields(fields):
            message.field.add(**field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Graph"))


def _fields(fields: tuple[tuple[str, int, int, int, str], ...]) -> Iterator[dict[str, Any]]:
    for name, number, label, kind, message in fields:
        described = {"name": name, "number": number, "label": label, "type": kind}
        yield {**described, "type_name": f".{_PACKAGE}.{message}"} if message else described
