"""The target ``onnx-fp16``: weights and arithmetic in 16-bit floats, inputs and outputs as before."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgewright.errors import UserFault
from edgewright.targets.base import Compiled, Job
from edgewright.targets.graph import describe, parse, sort_nodes
from edgewright.targets.partition import join, split

#: Largest finite 16-bit float (IEEE 754 binary16).
_LARGEST = 65504.0


def compile_model(job: Job) -> Compiled:
    """Convert the arithmetic of a float model; what stands around it (scalers, softmax) stays in 32 bits.

    Raises:
        UserFault: the model has no arithmetic, or a weight is larger than a 16-bit float can be.
    """
    parts = split(parse(job.model), {name: array[:2] for name, array in job.calibration.items()})
    core = parse(parts.core)
    _refuse_large(core)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns of each number below 6e-8 that becomes 0
        converted = convert_float_to_float16(core, keep_io_types=True)
    sort_nodes(converted)
    count = 0
    for tensor in converted.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            # the converter writes each number as a varint, which takes two to three bytes
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
            count += 1
    data = join(parts, converted)
    return Compiled(data, details={**describe(parse(data)), "fp16_weights": count})


def _refuse_large(model: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size and float(np.abs(values).max()) > _LARGEST:
            raise UserFault(
                f"the weight {tensor.name} reaches {float(np.abs(values).max()):g}, above {_LARGEST:g}: "
                "16-bit floats cannot hold it",
                hint="scale the features, or use target: onnx",
            )
