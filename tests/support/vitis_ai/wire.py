"""Xmodels byte by byte, as XIR's graph_proto_v2.proto has them: for programs that stand in for AMD's."""

from __future__ import annotations


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def operator(name: str, kind: str, shape: list[int]) -> bytes:
    """``OPNode`` with its output tensor; dimensions are packed, as proto3 packs numbers."""
    tensor = block(1, name) + block(2, b"".join(map(varint, shape))) + number(5, 1) + number(6, 8)
    return block(5, block(1, name) + block(2, kind) + block(5, tensor))


def subgraph(name: str, **attributes: int | str) -> bytes:
    """``SubGraph`` with attributes: texts are ``string_value``, numbers ``uint64_value``."""
    found = block(1, name)
    for key, value in attributes.items():
        found += block(5, block(1, key) + block(2, block(11, value) if isinstance(value, str) else number(8, value)))
    return found


def graph(name: str, operators: list[bytes], children: list[bytes]) -> bytes:
    root = block(1, "root") + b"".join(block(10, child) for child in children)
    return block(1, name) + b"".join(operators) + block(10, root)


def quantized(batch: int = 1) -> bytes:
    """What a quantizer exports: operators, and no subgraph yet."""
    operators = [operator("Network__input_0", "data", [batch, 64]), operator("Network__layer_0", "conv2d", [batch, 10])]
    return graph("Network", operators, [])


def compiled(fingerprint: int, dpu: str = "DPUCZDX8G_ISA1_B4096", device: str = "DPU") -> bytes:
    """What the compiler writes: operators in integers, and a subgraph a device."""
    operators = [operator("Network__input_0", "data-fix", [1, 64]), operator("Network__out", "download", [1, 10])]
    attributes: dict[str, int | str] = {"device": device, "workload": 5130}
    if device == "DPU":
        attributes |= {"dpu_name": dpu, "dpu_fingerprint": fingerprint, "debug_mode": "null"}
    return graph("Network", operators, [subgraph("in", device="USER"), subgraph("layers", **attributes)])
