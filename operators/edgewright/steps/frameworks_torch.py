"""PyTorch modules as what a training function returns: exported to ONNX at once, so that nothing else needs PyTorch."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import UserCodeError
from edgewright.steps.models import NUMERIC, ModelDocument, OnnxModel, onnx_document, write_model

if TYPE_CHECKING:
    from edgewright.steps.training_data import TrainingData

#: Largest difference between the module's and the export's logits, relative to the largest logit.
_TOLERANCE = 1e-3
PROBE = 64


class Torch:
    """Trained modules from float32 ``[rows, features]`` to logits ``[rows, classes]`` or predictions ``[rows, 1]``."""

    name = "PyTorch"
    takes = "a PyTorch module that takes [rows, features] and gives logits [rows, classes] or predictions [rows, 1]"

    def accepts(self, found: Any) -> bool:
        """Whether it is a module."""
        return is_module(found)

    def save(self, found: Any, folder: Path, data: TrainingData) -> ModelDocument:
        """Export the module, hold the export against it, and write the ONNX model."""
        from edgewright.targets import graph

        want_numbers(data, "PyTorch module")
        rows = np.array(data.X.head(PROBE), dtype=np.float32)  # a copy: PyTorch wants to be able to write
        logits = _ask(found, rows, len(data.classes) if data.problem == "classification" else 1)
        model = _export(found, rows)
        finish(model, data)
        document = onnx_document(data, ("torch", "onnx", "onnxruntime"))
        written = graph.canonical_bytes(model)
        hold_against(OnnxModel(written, document), logits, data)
        details = {**graph.describe(model), "estimator": type(found).__name__}
        return write_model(folder, written, document.model_copy(update={"details": details}))


def is_module(found: Any) -> bool:
    """Tell whether something is a PyTorch module; PyTorch is not imported for that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(found, torch.nn.Module)


def want_numbers(data: TrainingData, what: str) -> None:
    """Refuse data with other columns than numbers, for a model that takes one array."""
    other = [name for name in data.features if data.feature_types[name] not in NUMERIC]
    if other:
        raise UserCodeError(
            f"a {what} takes numbers; the data have {', '.join(other)}", hint="encode them in a transform"
        )


def _ask(module: Any, rows: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """Return a module's output for some rows; leave it in evaluation mode on the processor."""
    import torch

    module.eval().cpu()
    try:
        with torch.no_grad():
            found = module(torch.from_numpy(rows))
    except Exception as error:
        raise UserCodeError(
            f"the returned module does not run on {list(rows.shape)} float32 rows: {error}",
            hint="it takes one tensor [rows, features]; reshape images inside forward: x.view(-1, 1, 8, 8)",
        ) from error
    shape = tuple(getattr(found, "shape", ()))
    if shape != (len(rows), width):
        raise UserCodeError(
            f"the returned module gives {list(shape)} for {len(rows)} rows", hint=f"it must give [rows, {width}]"
        )
    array: np.ndarray[Any, Any] = found.numpy().astype(np.float64)
    return array


def _export(module: Any, rows: np.ndarray[Any, Any]) -> Any:
    """Return a module as an ONNX graph from ``X`` to ``scores``, with any number of rows."""
    import torch

    from edgewright.targets import graph

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter by tracing is deprecated; the other one writes newer opsets
        try:
            torch.onnx.export(
                module, (torch.from_numpy(rows[:2]),), buffer, input_names=["X"], output_names=["scores"],
                dynamic_axes={"X": {0: graph.ROWS}, "scores": {0: graph.ROWS}}, opset_version=graph.OPSETS[""],
                dynamo=False,
            )  # fmt: skip
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserCodeError(
                f"the returned module cannot be exported to ONNX: {lines[0]}",
                hint="use layers that ONNX has, and no control flow that depends on values",
            ) from error
    return graph.parse(buffer.getvalue())


def finish(model: Any, data: TrainingData) -> None:
    """Make our outputs of the graph's ``scores``: logits, or predictions."""
    from onnx import helper

    from edgewright.targets import graph

    if data.problem == "regression":
        graph.finish_regressor(model, "scores")
        return
    model.graph.node.append(helper.make_node("Softmax", ["scores"], ["softmax"], name="softmax", axis=-1))
    graph.finish_classifier(model, "softmax", len(data.classes))


def hold_against(exported: OnnxModel, logits: np.ndarray[Any, Any], data: TrainingData) -> None:
    """Refuse an export that answers differently: tracing freezes what depends on the example's values."""
    expected = logits
    if data.problem == "classification":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = powers / powers.sum(axis=1, keepdims=True)
    apart = float(np.abs(exported.scores(data.X.head(PROBE)) - expected).max())
    if not apart <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise UserCodeError(
            f"the exported module answers differently: {apart:.3g} on the first rows of the part train",
            hint="tracing freezes what depends on the example: no Python branches on values in forward",
        )
