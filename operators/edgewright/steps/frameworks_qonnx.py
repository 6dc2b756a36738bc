"""Models of quantization-aware training: PyTorch modules with Brevitas layers, and QONNX files.

What is kept runs anywhere: ``model.onnx`` computes with the quantizers written out in ONNX's own operators. Beside it
``model.qonnx`` says how many bits each number has, for targets that build hardware of that.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import UserCodeError, UserFault
from edgewright.steps.frameworks_torch import PROBE, finish, hold_against, is_module, want_numbers
from edgewright.steps.models import QONNX, ModelDocument, OnnxModel, onnx_document, write_model

if TYPE_CHECKING:
    from edgewright.steps.training_data import TrainingData

_MARK = b"qonnx.custom_op"


class Qonnx:
    """Quantized networks: float32 ``[rows, features]`` to logits ``[rows, classes]`` or predictions ``[rows, 1]``."""

    name = "Brevitas"
    takes = "a PyTorch module with Brevitas layers, or a QONNX model, that gives logits [rows, classes] or predictions"

    def accepts(self, found: Any) -> bool:
        """Whether it is a module with layers of Brevitas, or a graph with nodes of QONNX."""
        if is_module(found):
            return any(type(part).__module__.startswith("brevitas.") for part in found.modules())
        onnx = sys.modules.get("onnx")
        if onnx is not None and isinstance(found, onnx.ModelProto):
            return any(node.domain.startswith(_MARK.decode()) for node in found.graph.node)
        return isinstance(found, bytes) and _MARK in found

    def save(self, found: Any, folder: Path, data: TrainingData) -> ModelDocument:
        """Write the graph with its quantizers, and one that runs anywhere, held against the module."""
        from edgewright.targets import graph, qonnx

        want_numbers(data, "quantized network")
        rows = np.array(data.X.head(PROBE), dtype=np.float32)
        width = len(data.classes) if data.problem == "classification" else 1
        logits = _ask(found, rows, width) if is_module(found) else None
        source = _exported(found, rows) if logits is not None else _parsed(found)
        _name(source)
        try:
            model = qonnx.lower(source)
        except UserFault as error:
            raise UserCodeError(error.message, hint=error.hint) from error
        finish(model, data)
        libraries = ("torch", "brevitas", "onnx", "onnxruntime") if logits is not None else ("onnx", "onnxruntime")
        document = onnx_document(data, libraries)
        written = graph.canonical_bytes(model)
        loaded = OnnxModel(written, document)
        if logits is not None:
            hold_against(loaded, logits, data)
        else:
            _check_width(loaded.scores(data.X.head(3)).shape, width)
        details = {**graph.describe(model), "estimator": type(found).__name__, "trained_bits": qonnx.bits_of(source)}
        (folder / QONNX).write_bytes(graph.canonical_bytes(source))
        return write_model(folder, written, document.model_copy(update={"details": details}))


def _ask(module: Any, rows: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """Return a module's output for some rows; a tensor with a scale is taken at its value."""
    import torch

    module.eval().cpu()
    try:
        with torch.no_grad():
            found = module(torch.from_numpy(rows))
    except Exception as error:
        raise UserCodeError(f"the returned module does not run on {list(rows.shape)} float32 rows: {error}",
                            hint="it takes one tensor [rows, features]") from error  # fmt: skip
    array: np.ndarray[Any, Any] = getattr(found, "value", found).numpy().astype(np.float64)
    _check_width(array.shape, width)
    return array


def _check_width(shape: tuple[int, ...], width: int) -> None:
    if len(shape) != 2 or shape[1] != width:
        raise UserCodeError(f"the returned model gives {list(shape)} for {shape[0]} rows",
                            hint=f"it must give [rows, {width}]")  # fmt: skip


def _exported(module: Any, rows: np.ndarray[Any, Any]) -> Any:
    """Return a Brevitas module as QONNX with any number of rows."""
    import torch
    from brevitas.export import export_qonnx

    from edgewright.targets import graph

    axes = {"X": {0: graph.ROWS}, "scores": {0: graph.ROWS}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return export_qonnx(
                module, args=torch.from_numpy(rows[:1]), opset_version=graph.OPSETS[""] if _new(torch) else 13,
                input_names=["X"], output_names=["scores"], dynamic_axes=axes, dynamo=False,
            )  # fmt: skip
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserCodeError(
                f"Brevitas cannot export the returned module: {lines[0]}",
                hint="onnx and onnxoptimizer must be there, and all its layers known to QONNX",
            ) from error


def _new(torch: Any) -> bool:
    return int(str(torch.__version__).split(".")[0]) >= 2


def _parsed(found: Any) -> Any:
    from edgewright.targets import graph

    return graph.parse(found if isinstance(found, bytes) else found.SerializeToString())


def _name(model: Any) -> None:
    """Give the graph our names, and any number of rows."""
    from edgewright.targets import graph

    constants = {one.name for one in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UserCodeError(f"the QONNX model has {len(inputs)} inputs and {len(model.graph.output)} outputs",
                            hint="it has one of each: [rows, features] and logits or predictions")  # fmt: skip
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    graph.rename(model, {inputs[0].name: "X", model.graph.output[0].name: "scores"})
    graph.name_rows(model.graph.input)
    graph.name_rows(model.graph.output)
    del model.graph.value_info[:]
