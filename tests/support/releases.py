"""Models and releases for the tests of the registry: small, real ONNX graphs, written without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.registry.release import Facts, Golden, build_release, read_variants
from edgewright.steps.models import Feature, ModelDocument, write_model

FEATURES = [Feature(name=name, type="number", minimum=-3.0, maximum=3.0, missing=name == "b") for name in "abc"]


def linear_graph(weight: float) -> bytes:
    """Return a two-class logistic regression on three columns."""
    weights = np.array([[0, weight], [0, 0.5], [0, -1]], dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["X"], ["gap"]),
            helper.make_node("Where", ["gap", "zero", "X"], ["filled"]),
            helper.make_node("MatMul", ["filled", "W"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [numpy_helper.from_array(weights, "W"), numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def model_folder(folder: Path, weight: float = 1.0, target: str = "onnx", **changes: Any) -> Path:
    """Write a model folder as docs/contracts.md describes it."""
    folder.mkdir(parents=True)
    document = ModelDocument(
        format="onnx", target=target, file="model.onnx", problem="classification", label="y", classes=[0, 1],
        features=FEATURES, libraries={"onnx": onnx.__version__}, **changes,
    )  # fmt: skip
    write_model(folder, linear_graph(weight), document)
    return folder


def put_model(store: ArtifactStore, folder: Path, weight: float = 1.0, target: str = "onnx") -> ArtifactRef:
    """Write a model folder and store it."""
    return store.put(model_folder(folder, weight, target), "model", {"target": target})


def release_folder(root: Path, name: str, weight: float = 1.0, **facts: Any) -> tuple[Path, dict[str, Any]]:
    """Build a release with one ONNX variant; return its folder and manifest."""
    from edgewright.steps.golden import golden_rows, score_golden

    variants = read_variants([model_folder(root / "model", weight)])
    rows, source = golden_rows(None, variants[0].document["features"])
    golden, _ = score_golden(variants, rows, source, set())
    folder = root / "built"
    folder.mkdir()
    manifest = build_release(folder, name, variants, golden, Facts(**facts))
    assert isinstance(golden, Golden)
    return folder, json.loads((folder / "manifest.json").read_text()) | {"digest": manifest["digest"]}
