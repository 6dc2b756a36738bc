"""The target ``vitis-ai``: power-of-two INT8 in ONNX by AMD Quark, as AMD's DPUs and NPUs compute.

Runs in the target's own environment. What Quark writes is checked here, not believed: every scale is a power of two,
zero points are what the style promises, and what lies between quantized values are operators that a DPU has. Whether
``vai_c_xir`` takes such a file was not tried by anybody here: that compiler wants the output of the quantizers in its
own container (docs/targets.md).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewright.errors import SystemFault, UserFault
from edgewright.targets.base import Compiled, Job

#: Operators of DPUCZDX8G and DPUCVDX8G by their ONNX names (Vitis AI user guide UG1414, "Currently Supported
#: Operators"), and those that only move data.
DPU_OPERATORS = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace",
        "Flatten", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul",
        "MaxPool", "Mul", "PRelu", "Pad", "ReduceMean", "Relu", "Reshape", "Resize", "Slice", "SpaceToDepth",
        "Squeeze", "Sub", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_QDQ = ("QuantizeLinear", "DequantizeLinear")
_BATCH = 32


def compile_model(job: Job) -> Compiled:
    """Quantize the arithmetic of a model with power-of-two scales.

    Raises:
        UserFault: a DPU has no such operator, or nothing was quantized.
        SystemFault: Quark did not keep what the style promises.
    """
    import onnx

    style = str(job.options["style"])
    _refuse_operators(onnx.load_from_string(job.model))
    source, target = job.scratch / "float.onnx", job.scratch / "quantized.onnx"
    source.write_bytes(job.model)
    with _quiet():
        _quantize(source, target, job, style)
    data = target.read_bytes()
    model = onnx.load_from_string(data)
    checks = check_graph(model, style)
    nodes = Counter(node.op_type for node in model.graph.node)
    details = {
        "style": style,
        "integer_nodes": sum(nodes[kind] for kind in _QDQ),
        "calibration_rows": len(next(iter(job.calibration.values()))),
        "checks": checks,
    }
    return Compiled(data, details=details, tools={"amd-quark": _version("amd-quark")})


def _refuse_operators(model: Any) -> None:
    unknown = sorted({node.op_type for node in model.graph.node} - DPU_OPERATORS - {"Constant"})
    if unknown:
        raise UserFault(
            f"a DPU has no {', '.join(unknown)}, which this model's arithmetic uses",
            hint=f"it has: {', '.join(sorted(DPU_OPERATORS))}",
        )


def _quantize(source: Path, target: Path, job: Job, style: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader

    ((name, rows),) = job.calibration.items()
    # in a closure, not in an attribute: Quark prints the attributes of a reader
    batches = iter([{name: rows[index : index + _BATCH]} for index in range(0, len(rows), _BATCH)])

    class Rows(CalibrationDataReader):  # type: ignore[misc]  # untyped library
        """Feeds calibration rows in batches."""

        def get_next(self) -> dict[str, Any] | None:
            """Return the next batch, or ``None`` at the end."""
            return next(batches, None)

    from quark.onnx import ModelQuantizer, QConfig

    config = QConfig.get_default_config("XINT8") if style == "xint8" else _dpu_config()
    ModelQuantizer(config).quantize_model(str(source), str(target), Rows())


def _dpu_config() -> Any:
    from quark.onnx import PowerOfTwoMethod, QuantFormat, QuantizationConfig, QuantType
    from quark.onnx.quantization.config import Config

    return Config(
        global_quant_config=QuantizationConfig(
            calibrate_method=PowerOfTwoMethod.MinMSE,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            enable_npu_cnn=True,
            extra_options={"ActivationSymmetric": True},
        )
    )


def check_graph(model: Any, style: str) -> dict[str, Any]:
    """Return what was found in a quantized graph.

    Args:
        model: An ONNX graph with QuantizeLinear and DequantizeLinear.
        style: ``dpu`` demands signed integers and zero points 0; ``xint8`` allows unsigned activations around 128.

    Raises:
        UserFault: nothing in it is quantized.
        SystemFault: a scale is no power of two, a zero point is another than promised, or an operator between
            quantized values is none that a DPU has.
    """
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    exponents: set[int] = set()
    zeros: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in _QDQ:
            continue
        for value in constants[node.input[1]].ravel():
            exponent = math.log2(float(value))
            if exponent != round(exponent):
                raise SystemFault(f"Quark wrote a scale that is no power of two: {float(value)!r} of {node.name}")
            exponents.add(round(exponent))
        zeros |= _zero_points(node, constants, style)
    if not exponents:
        raise UserFault("Quark quantized no node, so the model may not be called INT8", hint="use target: onnx")
    kinds = {node.op_type for node in model.graph.node} - {*_QDQ, "Constant"}
    foreign = sorted(kinds - DPU_OPERATORS)
    if foreign:
        raise SystemFault(f"Quark wrote operators that a DPU does not have: {', '.join(foreign)}")
    return {
        "scales": f"powers of two, 2^{min(exponents)} to 2^{max(exponents)}",
        "zero_points": sorted(zeros),
        "operators": sorted(kinds),
    }


def _zero_points(node: Any, constants: dict[str, Any], style: str) -> set[str]:
    array = constants[node.input[2]]
    found = {f"{array.dtype} {int(value)}" for value in array.ravel()}
    allowed = {"int8 0", "int32 0"} if style == "dpu" else {"int8 0", "int32 0", "uint8 0", "uint8 128"}
    if not found <= allowed:
        raise SystemFault(f"Quark wrote the zero point {sorted(found)[0]} of {node.name}; {style} means {allowed}")
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Quark's log away: at its usual level it prints the calibration data."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
