"""Targets that a GPU compiles: the portable INT8 graph that they start from, and what is left where there is no GPU.

``model.onnx`` (the whole model) and ``core.onnx`` (its arithmetic, as TensorRT takes it) are made anywhere and run by
onnxruntime; ``model.engine`` is built and run where a GPU is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgewright.errors import SystemFault
from edgewright.steps.variants import Rows, Variant, measure_onnx, sqnr_db
from edgewright.targets import TARGETS, Compiled, Job, Target, compile_for
from edgewright.targets.gpus import nvidia_gpus

PORTABLE = "core.onnx"


def portable_core(core: Job) -> Compiled:
    """Return the arithmetic with symmetric QuantizeLinear and DequantizeLinear, weights a channel, biases in floats.

    Raises:
        UserFault: INT8 cannot help this model.
        SystemFault: the quantizer wrote what TensorRT does not take.
    """
    options = {"method": "static", "per_channel": True, "symmetric": True, "activation": "int8", "float_bias": True}
    compiled = compile_for(
        TARGETS["onnx-int8"], Job(core.model, core.calibration, {**core.options, **options}, core.scratch)
    )
    _check_symmetric(compiled.data)
    return compiled


def _check_symmetric(data: bytes) -> None:
    """TensorRT takes signed 8-bit integers around zero, and no other."""
    from onnx import numpy_helper

    from edgewright.targets import graph

    model = graph.parse(data)
    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.zeros(1, np.uint8)
            if zero.dtype != np.int8 or zero.any():
                raise SystemFault(f"the quantizer wrote a zero point {zero.dtype} {zero.ravel()[0]} at {node.name}")


def measure_portable(variant: Variant, exported: Variant, rows: Rows) -> dict[str, Any]:
    """Run the portable model by onnxruntime; return what that says of it, and leave the variant as it is."""
    probe = replace(variant, files={}, latency={}, quality={})
    probe.document = variant.document.model_copy(update={"format": "onnx"})
    measure_onnx(probe, rows)
    assert probe.scores is not None
    assert exported.scores is not None
    found: dict[str, Any] = {"runtime": "onnxruntime", "part": rows.part, "rows": len(rows.y)}
    found |= {name: round(value, 9) for name, value in probe.quality.items()}
    found["sqnr_db"] = round(sqnr_db(exported.scores, probe.scores), 6)
    found["max_difference"] = round(float(np.abs(exported.scores - probe.scores).max()), 9)
    return found


def missing_gpu(target: Target) -> str:
    """Return why no engine can be built here; empty where one can."""
    if nvidia_gpus():
        return ""
    return f"there is no NVIDIA GPU here, so no {target.suffix.lstrip('.')} was built; the portable model.onnx was run"


def agreed(engine: Any, portable: Any) -> dict[str, Any]:
    """Return how far an engine's output is from that of the graph it was built of."""
    first, second = np.asarray(engine, dtype=np.float64), np.asarray(portable, dtype=np.float64)
    return {
        "sqnr_db": round(sqnr_db(second, first), 6),
        "max_difference": round(float(np.abs(first - second).max()), 9),
    }
