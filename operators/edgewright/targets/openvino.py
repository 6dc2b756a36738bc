"""The target ``openvino``: OpenVINO's intermediate representation, with 8-bit integers by NNCF.

Runs in the target's own environment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.errors import UserFault
from edgewright.targets.base import Compiled, Job


def compile_model(job: Job) -> Compiled:
    """Convert the arithmetic of a model, and quantize it where asked.

    Raises:
        UserFault: NNCF found nothing to quantize.
    """
    import openvino

    source = job.scratch / "model.onnx"
    source.write_bytes(job.model)
    model = openvino.Core().read_model(str(source))
    precision = job.options["precision"]
    details: dict[str, Any] = {"precision": precision}
    tools = {"openvino": _version("openvino")}
    if precision == "int8":
        model = _quantize(model, job)
        tools["nncf"] = _version("nncf")
        count = sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
        integers = sum(str(node.get_element_type()) in _INTEGERS for node in _constants(model))
        if count == 0 and integers == 0:
            raise UserFault("NNCF quantized no node, so the model may not be called INT8", hint="use target: onnx")
        details |= {"integer_nodes": count + integers, "calibration_rows": len(next(iter(job.calibration.values())))}
    target = job.scratch / "model.xml"
    openvino.save_model(model, str(target), compress_to_fp16=precision == "fp16")
    weights = target.with_suffix(".bin").read_bytes()
    return Compiled(target.read_bytes(), details=details, files={"model.bin": weights}, tools=tools)


_INTEGERS = ("<Type: 'int8_t'>", "<Type: 'uint8_t'>", "<Type: 'int4_t'>", "<Type: 'uint4_t'>")


def _constants(model: Any) -> list[Any]:
    return [node for node in model.get_ops() if node.get_type_name() == "Constant"]


def _quantize(model: Any, job: Job) -> Any:
    import nncf

    nncf.set_log_level(logging.ERROR)
    (rows,) = job.calibration.values()
    dataset = nncf.Dataset([rows[index : index + 1] for index in range(len(rows))])
    preset = nncf.QuantizationPreset(job.options["preset"])
    return nncf.quantize(model, dataset, preset=preset, subset_size=len(rows), fast_bias_correction=True)


def open_model(folder: Path, job: Job) -> Callable[[dict[str, Any]], Any]:
    """Return a function from input arrays to the output, on this processor with one thread."""
    import openvino

    # by default a processor with bfloat16 computes in that, and proves something else than what was made
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", config)
    request = compiled.create_infer_request()
    output = compiled.output(0)

    def call(arrays: dict[str, Any]) -> Any:
        request.infer(arrays)
        return request.get_tensor(output).data.copy()

    return call


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
