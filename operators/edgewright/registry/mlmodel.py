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
_NUMERIC = ("integer", "number", "boolean")


def signature(features: Sequence[Mapping[str, Any]], problem: str, classes: int) -> dict[str, str]:
    """Return MLflow's signature, as JSON text: the tensors that the ONNX model takes and gives.

    No column specification: for a data frame MLflow's ONNX flavor puts every output into one column, which fails as
    soon as a classifier gives more than one score a row. An array (or one a column) in, arrays out, works.

    Args:
        features: Columns with ``name`` and ``type``.
        problem: ``classification`` or ``regression``.
        classes: Number of classes.
    """
    if all(feature["type"] in _NUMERIC for feature in features):
        inputs = [_tensor(None, "float32", [-1, len(features)])]
    else:
        kinds = {feature["name"]: "float32" if feature["type"] in _NUMERIC else "object" for feature in features}
        inputs = [_tensor(name, kind, [-1, 1]) for name, kind in kinds.items()]
    if problem == "classification":
        outputs = [_tensor("label", "int64", [-1]), _tensor("probabilities", "float32", [-1, classes])]
    else:
        outputs = [_tensor("prediction", "float32", [-1, 1])]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs)}


def _tensor(name: str | None, dtype: str, shape: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return found if name is None else {"name": name, **found}


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
