"""What an ONNX file may hold before onnxruntime sees it: standard operators, and all of its data inside.

A model file is input from outside. Operators of other domains need native code that a service must not load, and
external data would make the runtime read files whose paths the model chose. The ``onnx`` package is not needed in the
serving image: this reads the protobuf wire format itself, only as far as needed. Field numbers are those of
``onnx.proto3`` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from collections.abc import Iterator

from edgewright.errors import DeployRejected

#: ``com.microsoft`` holds onnxruntime's own quantized operators.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_DEPTH = 32

_TENSOR = {"external_data": 13, "data_location": 14}
# message -> {field number: message inside it}; what is not listed is skipped
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Only what a node calls counts: onnxruntime's own tools import domains that no node of the model uses.
_DOMAIN_FIELD = {"node": 7, "function": 10}


def check_model(data: bytes) -> None:
    """Refuse a model that is not plain, self-contained, standard ONNX.

    Raises:
        DeployRejected: with what was found and what is allowed.
    """
    try:
        _walk("model", memoryview(data), 0)
    except (IndexError, ValueError) as error:
        raise DeployRejected(f"the file is not an ONNX model: {error}") from error


def opsets_of(data: bytes) -> dict[str, int]:
    """Return the newest version of each operator set that a model imports, ``ai.onnx`` for the default one.

    Raises:
        DeployRejected: the bytes are no ONNX model.
    """
    found: dict[str, int] = {}
    try:
        for number, value in _fields(memoryview(data)):
            if number == 8 and isinstance(value, memoryview):  # opset_import: domain 1, version 2
                entry = dict(_fields(value))
                name = entry.get(1, b"")
                domain = (b"" if isinstance(name, int) else bytes(name)).decode("utf-8") or "ai.onnx"
                version = entry.get(2, 0)
                found[domain] = max(found.get(domain, 0), version if isinstance(version, int) else 0)
    except (IndexError, ValueError) as error:
        raise DeployRejected(f"the file is not an ONNX model: {error}") from error
    return found


def _walk(kind: str, data: memoryview, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise DeployRejected(f"the model nests graphs more than {MAX_DEPTH} levels deep")
    children = _CHILDREN.get(kind, {})
    domain_field = _DOMAIN_FIELD.get(kind)
    for number, value in _fields(data):
        if kind == "tensor":
            _check_tensor_field(number, value)
        elif number == domain_field and isinstance(value, memoryview):
            _check_domain(bytes(value).decode("utf-8"))
        elif number in children and isinstance(value, memoryview):
            _walk(children[number], value, depth + 1)


def _check_tensor_field(number: int, value: memoryview | int) -> None:
    if number == _TENSOR["external_data"] or (number == _TENSOR["data_location"] and value != 0):
        raise DeployRejected(
            "the model keeps data in other files (external data)",
            hint="save it as one file: onnx.save(model, path, save_as_external_data=False)",
        )


def _check_domain(domain: str) -> None:
    if domain not in DOMAINS:
        raise DeployRejected(
            f"the model uses operators of the domain {domain}, which this service does not run",
            hint=f"allowed are: {', '.join(sorted(name for name in DOMAINS if name))}",
        )


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield ``(field number, value)`` of one protobuf message.

    Raises:
        ValueError: the bytes are no protobuf message.
    """
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if number == 0 or position + size > end:
            raise ValueError(f"cut off at byte {position}")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"number too long at byte {position}")
