"""The arithmetic of a model as PyTorch's layers: what the container of ``vitis-ai-xmodel`` makes a module of.

Every layer is a plain mapping (``kind``, ``inputs``, ``output``, its numbers) and names its weights; both travel as
files, because the container has neither this package nor a current ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgewright.errors import UserFault

Layer = dict[str, Any]


class Layers:
    """The layers of a graph, in order, and their weights by name.

    Args:
        model: The arithmetic of a model, as ``partition.split`` cuts it: one input, one output.

    Raises:
        UserFault: it holds something that no layer here stands for.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self._constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self._nodes = [node for node in model.graph.node if not self._is_constant(node)]
        self._users: dict[str, int] = {}
        for node in self._nodes:
            for name in node.input:
                self._users[name] = self._users.get(name, 0) + 1
        self.source = str(model.graph.input[0].name)
        self.result = str(model.graph.output[0].name)
        self.layers: list[Layer] = []
        self.weights: dict[str, Any] = {}
        self._add_all()

    def _is_constant(self, node: Any) -> bool:
        from onnx import numpy_helper

        if node.op_type != "Constant":
            return False
        (value,) = [one for one in node.attribute if one.name == "value"] or [None]
        if value is not None:
            self._constants[node.output[0]] = numpy_helper.to_array(value.t)
        return value is not None

    def _add_all(self) -> None:
        unknown = sorted({node.op_type for node in self._nodes} - set(_MAKERS))
        if unknown:
            raise UserFault(
                f"no layer of PyTorch is made of {', '.join(unknown)}, which this model's arithmetic uses",
                hint=f"there are layers for: {', '.join(sorted(_MAKERS))}",
            )
        skipped: set[int] = set()
        for index, node in enumerate(self._nodes):
            if index in skipped:
                continue
            if node.op_type == "MatMul":
                skipped |= self._matmul(index, node)
            else:
                _MAKERS[node.op_type](self, node, _attributes(node))

    def _matmul(self, index: int, node: Any) -> set[int]:
        """Add a dense layer, with the bias that is added behind it; return which nodes that took."""
        weight = self._weight(node, node.input[1], dimensions=2).T
        bias, output, took = None, node.output[0], set()
        following = self._nodes[index + 1] if index + 1 < len(self._nodes) else None
        if following is not None and following.op_type == "Add" and self._users.get(output) == 1:
            others = [name for name in following.input if name != output]
            if len(others) == 1 and len(following.input) == 2 and others[0] in self._constants:
                found = self._constants[others[0]]
                if found.size in (1, weight.shape[0]):
                    bias, output, took = (
                        np.broadcast_to(found.ravel(), weight.shape[:1]),
                        following.output[0],
                        {index + 1},
                    )
        self.add("linear", node.input[:1], output, [weight] if bias is None else [weight, bias])
        return took

    def add(self, kind: str, inputs: Any, output: str, weights: list[Any] | None = None, **numbers: Any) -> None:
        """Add a layer."""
        names = []
        for array in weights or ():
            names.append(f"w{len(self.weights)}")
            self.weights[names[-1]] = np.ascontiguousarray(array, dtype=np.float32)
        self.layers.append({"kind": kind, "inputs": list(inputs), "output": output, "weights": names, **numbers})

    def _weight(self, node: Any, name: str, dimensions: int | None = None) -> Any:
        """Return a constant.

        Raises:
            UserFault: it is computed, or has another number of dimensions.
        """
        if name not in self._constants:
            raise UserFault(f"{node.op_type} {node.name}: its weights are computed, and a DPU wants constants")
        found = self._constants[name]
        if dimensions is not None and found.ndim != dimensions:
            raise UserFault(f"{node.op_type} {node.name}: weights with {found.ndim} dimensions, not {dimensions}",
                            hint="a DPU convolves images: [rows, channels, height, width]")  # fmt: skip
        return found

    # -- one for each operator -------------------------------------------------------------------------------------

    def conv(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add a convolution; uneven padding becomes a layer of its own."""
        weights = [
            self._weight(node, name, 4 if place == 0 else None) for place, name in enumerate(node.input[1:]) if name
        ]
        source, padding = self._padded(node, given)
        self.add("conv", [source], node.output[0], weights, stride=_pair(given, "strides"), padding=padding,
                 dilation=_pair(given, "dilations"), groups=int(given.get("group", 1)))  # fmt: skip

    def gemm(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add a dense layer."""
        if given.get("transA"):
            raise _refused(node, "a transposed input")
        weight = self._weight(node, node.input[1], 2)
        weight = weight if given.get("transB") else weight.T
        weights = [weight * given.get("alpha", 1.0)]
        if len(node.input) > 2 and node.input[2]:
            bias = self._weight(node, node.input[2]).ravel() * given.get("beta", 1.0)
            weights.append(np.broadcast_to(bias, weight.shape[:1]))
        self.add("linear", node.input[:1], node.output[0], weights)

    def batch_norm(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add a normalization."""
        weights = [self._weight(node, name, 1) for name in node.input[1:5]]
        self.add("batch_norm", node.input[:1], node.output[0], weights, epsilon=float(given.get("epsilon", 1e-5)))

    def pool(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add a maximum or an average over windows."""
        if _pair(given, "dilations") != [1, 1] or len(given["kernel_shape"]) != 2:
            raise _refused(node, "dilations, or windows that are not [height, width]")
        source, padding = self._padded(node, given, uneven=False)
        numbers: dict[str, Any] = {"ceil_mode": bool(given.get("ceil_mode", 0))}
        if node.op_type == "AveragePool":
            numbers["count_include_pad"] = bool(given.get("count_include_pad", 0))
        kind = "max_pool" if node.op_type == "MaxPool" else "average_pool"
        self.add(kind, [source], node.output[0], kernel=list(given["kernel_shape"]), stride=_pair(given, "strides"),
                 padding=padding, **numbers)  # fmt: skip

    def clip(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add a ReLU6; a DPU has no other limits."""
        limits = [float(self._constants[name]) for name in node.input[1:] if name in self._constants]
        if limits != [0.0, 6.0]:
            raise _refused(node, f"limits {limits}; a DPU has 0 and 6")
        self.add("relu6", node.input[:1], node.output[0])

    def binary(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add a sum or product of two values."""
        if any(name in self._constants for name in node.input):
            raise _refused(node, "a constant that is no bias of a layer")
        self.add(node.op_type.lower(), node.input, node.output[0])

    def reshape(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add a change of shape that keeps the rows apart."""
        shape = [int(value) for value in self._weight(node, node.input[1]).ravel()]
        rest = shape[1:]
        if shape[0] not in (0, -1) or any(size < (-1 if shape[0] == 0 else 1) or size == 0 for size in rest):
            raise _refused(node, f"the shape {shape}: the first dimension must be that of the rows")
        if rest == [-1] or len(rest) == 1:
            self.add("flatten", node.input[:1], node.output[0])
        elif -1 in rest:
            raise _refused(node, f"the shape {shape}: write its sizes out")
        else:
            self.add("reshape", node.input[:1], node.output[0], shape=rest)

    def plain(self, node: Any, given: Mapping[str, Any]) -> None:
        """Add what has no more than a number."""
        if node.op_type == "LeakyRelu":
            self.add("leaky_relu", node.input, node.output[0], slope=float(given.get("alpha", 0.01)))
        elif node.op_type == "Concat":
            self.add("concat", node.input, node.output[0], axis=int(given["axis"]))
        elif node.op_type == "Flatten":
            if int(given.get("axis", 1)) != 1:
                raise _refused(node, "an axis other than 1")
            self.add("flatten", node.input, node.output[0])
        elif node.op_type == "Identity":
            self.add("identity", node.input, node.output[0])
        else:
            kind = {"Relu": "relu", "GlobalAveragePool": "global_average_pool"}[node.op_type]
            self.add(kind, node.input, node.output[0])

    def _padded(self, node: Any, given: Mapping[str, Any], *, uneven: bool = True) -> tuple[str, list[int]]:
        """Return what the layer takes, and its even padding."""
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise _refused(node, "padding that follows from the shape (auto_pad): export it as numbers")
        top, left, bottom, right = given.get("pads") or [0, 0, 0, 0]
        if (top, left) == (bottom, right):
            return str(node.input[0]), [top, left]
        if not uneven:
            raise _refused(node, f"uneven padding {[top, left, bottom, right]}")
        name = f"{node.output[0]}__padded"
        self.add("pad", node.input[:1], name, padding=[left, right, top, bottom])
        return name, [0, 0]


_MAKERS: dict[str, Callable[[Layers, Any, Mapping[str, Any]], None]] = {
    "Add": Layers.binary,
    "AveragePool": Layers.pool,
    "BatchNormalization": Layers.batch_norm,
    "Clip": Layers.clip,
    "Concat": Layers.plain,
    "Conv": Layers.conv,
    "Flatten": Layers.plain,
    "Gemm": Layers.gemm,
    "GlobalAveragePool": Layers.plain,
    "Identity": Layers.plain,
    "LeakyRelu": Layers.plain,
    "MatMul": Layers.gemm,
    "MaxPool": Layers.pool,
    "Mul": Layers.binary,
    "Relu": Layers.plain,
    "Reshape": Layers.reshape,
}


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _pair(given: Mapping[str, Any], name: str) -> list[int]:
    return [int(value) for value in given.get(name) or (1, 1)]


def _refused(node: Any, what: str) -> UserFault:
    return UserFault(
        f"{node.op_type} {node.name}: {what}", where="model", hint="change the layer, or use target: onnx-int8"
    )
