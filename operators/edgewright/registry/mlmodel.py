"""``MLmodel``: MLflow's own description of a model, written by us so that no step needs MLflow's heavy half.

A release has one for its default variant and one in every ONNX variant's folder, because MLflow's ONNX flavor looks for
it beside the model file; so ``models:/<name>/<version>/variants/<target>`` is an MLflow model as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

NAME = "MLmodel"
#: Our types of columns in MLflow's words; all numbers are given as double, because only double may be missing.
_TYPES = {"integer": "double", "number": "double", "boolean": "double"}


def signature(features: Sequence[Mapping[str, Any]], problem: str, classes: int) -> dict[str, str]:
    """Return MLflow's signature: columns in, tensors out, each as JSON text.

    Args:
        features: Columns with ``name``, ``type`` and ``missing``.
        problem: ``classification`` or ``regression``.
        classes: Number of classes.
    """
    columns = [
        {"type": _TYPES.get(feature["type"], "string"), "name": feature["name"], "required": not feature.get("missing")}
        for feature in features
    ]
    if problem == "classification":
        outputs = [_tensor("label", "int64", [-1]), _tensor("probabilities", "float32", [-1, classes])]
    else:
        outputs = [_tensor("prediction", "float32", [-1, 1])]
    return {"inputs": json.dumps(columns), "outputs": json.dumps(outputs)}


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, "name": name}


def write_mlmodel(
    folder: Path,
    *,
    data: str | None,
    libraries: Mapping[str, str],
    signature: Mapping[str, str],
    metadata: Mapping[str, Any],
    python: str,
) -> None:
    """Write a folder's ``MLmodel``.

    Args:
        folder: The release, or a variant of it.
        data: Path of the ONNX file in it; ``None`` where there is none, and so no flavor that MLflow could load.
        libraries: Versions of what made the model.
        signature: What :func:`signature` returned.
        metadata: Small facts for people and programs.
        python: Version of Python.
    """
    flavors: dict[str, Any] = {}
    if data is not None:
        flavors["onnx"] = {
            "code": None,
            "data": data,
            "onnx_version": libraries.get("onnx", ""),
            "providers": ["CPUExecutionProvider"],
        }
        flavors["python_function"] = {"data": data, "loader_module": "mlflow.onnx", "python_version": python}
    document = {"flavors": flavors, "metadata": dict(metadata), "signature": dict(signature)}
    text = yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=1000)
    (folder / NAME).write_text(text, encoding="utf-8")
