"""From a fitted scikit-learn estimator to an ONNX graph with the inputs and outputs that we promise."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType

from edgewright.errors import UserFault
from edgewright.targets import graph

NUMERIC = ("integer", "number", "boolean")


def export_sklearn(
    estimator: Any, features: Sequence[tuple[str, str]], *, problem: str, classes: int
) -> onnx.ModelProto:
    """Convert an estimator.

    Args:
        estimator: A fitted classifier or regressor, pipelines included.
        features: Names and types of its columns, in order.
        problem: ``classification`` or ``regression``.
        classes: How many classes it knows.

    Returns:
        The model: one float32 input ``X`` where all features are numbers, else one input a feature; outputs ``label``
        and ``probabilities``, or ``prediction``. The first dimension is free.

    Raises:
        UserFault: a part of the estimator has no ONNX form.
    """
    numeric = all(kind in NUMERIC for _, kind in features)
    single = numeric and not _selects_by_name(estimator)
    inputs = [("X", FloatTensorType([None, len(features)]))] if single else [_input(*item) for item in features]
    model = _convert(estimator, inputs, problem)
    if problem == "classification":
        graph.finish_classifier(model, _float_output(model, "probabilities"), classes)
    else:
        graph.finish_regressor(model, model.graph.output[0].name)
    if numeric and not single:
        graph.join_inputs(model, [name for name, _ in features])
    graph.name_rows(model.graph.input)
    return graph.parse(graph.canonical_bytes(model))


def _input(name: str, kind: str) -> tuple[str, Any]:
    if kind in NUMERIC:
        return name, FloatTensorType([None, 1])
    if kind == "string":
        return name, StringTensorType([None, 1])
    raise UserFault(
        f"the feature {name} is a {kind}, which ONNX models here cannot take",
        hint="turn it into a number in a transform step, such as days since a date",
    )


def _convert(estimator: Any, inputs: list[tuple[str, Any]], problem: str) -> onnx.ModelProto:
    last = _last_step(estimator)
    options = {id(last): {"zipmap": False}} if problem == "classification" else None
    noise = io.StringIO()
    try:
        with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("skl2onnx").setLevel(logging.ERROR)
            return convert_sklearn(
                estimator, "model", initial_types=inputs, options=options, target_opset=dict(graph.OPSETS)
            )
    except UserFault:
        raise
    except Exception as error:  # the converters raise whatever they like
        raise UserFault(
            f"{type(last).__name__} cannot be exported to ONNX: {_first_line(error)}",
            hint="skl2onnx converts linear models, MLP, random forests, gradient boosting, SVC and others; "
            "own transformers and FunctionTransformer have no ONNX form: use the transform step",
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _last_step(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    return _last_step(steps[-1][1]) if steps else estimator


def _selects_by_name(estimator: Any) -> bool:
    """Whether a ColumnTransformer inside picks columns by name: skl2onnx then needs one input a column."""
    if type(estimator).__name__ == "ColumnTransformer":
        return True
    children = [part for _, part in getattr(estimator, "steps", [])]
    children += [part for _, part in getattr(estimator, "transformer_list", [])]
    return any(_selects_by_name(child) for child in children)


def _float_output(model: onnx.ModelProto, preferred: str) -> str:
    names = [value.name for value in model.graph.output]
    return preferred if preferred in names else names[-1]
