"""The target ``onnx-int8``: onnxruntime's static (QDQ) or dynamic quantization to 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from edgewright.errors import UserFault
from edgewright.targets.base import Compiled, Job
from edgewright.targets.graph import canonical_bytes, describe, integer_nodes, parse

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_FORMATS = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}
_TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
_BATCH = 64
_ARITHMETIC = ("MatMul", "Gemm", "Conv")


class _Rows(CalibrationDataReader):  # type: ignore[misc]  # untyped library
    """Feeds calibration rows in batches."""

    def __init__(self, feed: Mapping[str, Any]) -> None:
        rows = len(next(iter(feed.values())))
        starts = range(0, rows, _BATCH)
        self._batches = iter([{name: array[i : i + _BATCH] for name, array in feed.items()} for i in starts])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or ``None`` at the end."""
        return next(self._batches, None)


def compile_model(job: Job) -> Compiled:
    """Quantize a float model.

    Raises:
        UserFault: the model has nothing that INT8 could make smaller or faster (the quantizer itself would return a
            copy and report success), or the calibration rows hold missing values that reach the arithmetic.
    """
    source, target = job.scratch / "float.onnx", job.scratch / "int8.onnx"
    source.write_bytes(job.model)
    before = parse(job.model)
    _refuse_without_arithmetic(before)
    method = str(job.options.get("method", "static"))
    if method == "static":
        _check_rows(job)
    with _quiet():
        if method == "static":
            _static(job, source, target, _after_arithmetic(before))
        else:
            quantize_dynamic(
                str(source), str(target), per_channel=bool(job.options.get("per_channel", True)),
                weight_type=QuantType.QInt8,
            )  # fmt: skip
    model = parse(target.read_bytes())
    nodes = integer_nodes(model)
    if nodes == 0:
        raise _cannot_help(model)
    details = {**describe(model), "method": method, "integer_nodes": nodes}
    if method == "static":
        details["calibration_rows"] = len(next(iter(job.calibration.values())))
    return Compiled(canonical_bytes(model), details=details)


def _after_arithmetic(model: Any) -> list[str]:
    """Return the names of the nodes behind the last matrix product: what turns its sums into scores.

    They stay in float. In 8 bits, probabilities would no longer add up to one, and nothing would get faster.
    """
    wanted: set[str] = set()
    behind: list[str] = []
    for node in reversed(model.graph.node):
        if node.op_type in _ARITHMETIC or wanted & set(node.output):
            wanted |= set(node.input)
        else:
            behind.append(node.name)
    return behind


def _static(job: Job, source: Path, target: Path, exclude: list[str]) -> None:
    quantize_static(
        str(source),
        str(target),
        _Rows(job.calibration),
        quant_format=_FORMATS[str(job.options.get("format", "qdq"))],
        per_channel=bool(job.options.get("per_channel", True)),
        calibrate_method=_METHODS[str(job.options.get("calibration_method", "minmax"))],
        activation_type=_TYPES[str(job.options.get("activation", "int8"))],
        weight_type=QuantType.QInt8,
        nodes_to_exclude=exclude,
        extra_options=_extra(job.options),
    )


def _extra(options: Mapping[str, Any]) -> dict[str, Any] | None:
    extra = {"ActivationSymmetric": True, "WeightSymmetric": True} if options.get("symmetric") else {}
    if options.get("float_bias"):
        extra["QuantizeBias"] = False
    return extra or None


def _check_rows(job: Job) -> None:
    """Refuse rows from which no range can be learnt; the calibrator's own words would help nobody."""
    session = onnxruntime.InferenceSession(job.model, providers=["CPUExecutionProvider"])
    for output, value in zip(session.get_outputs(), session.run(None, dict(job.calibration)), strict=True):
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserFault(
                f"missing values in the calibration rows reach the arithmetic: {output.name} are no numbers",
                hint="put an imputer (SimpleImputer) at the front of the model",
            )


def _refuse_without_arithmetic(model: Any) -> None:
    """Refuse tree ensembles, linear models and the like: their operators have no integer form."""
    constants = {value.name for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _ARITHMETIC and constants & set(node.input):
            return
    raise _cannot_help(model)


def _cannot_help(model: Any) -> UserFault:
    kinds = Counter(node.op_type for node in model.graph.node if node.domain == "ai.onnx.ml")
    main = [kind for kind in kinds if kind.startswith(("TreeEnsemble", "Linear", "SVM"))] or sorted(kinds)
    made_of = f" (it is made of {', '.join(main)})" if main else ""
    return UserFault(
        f"INT8 cannot help this model{made_of}: it has no matrix products with constant weights",
        hint="use target: onnx, or train a neural network",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's chatter out of the task's log: calibrators print, and the root logger gets advice."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
