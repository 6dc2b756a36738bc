"""Real releases (small ONNX models, as publish lays them out) and a real service process on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

NUMBERS = [
    {"name": "age", "type": "number", "minimum": 29.0, "maximum": 77.0, "missing": False},
    {"name": "chol", "type": "number", "minimum": 126.0, "maximum": 564.0, "missing": False},
    {"name": "ca", "type": "number", "minimum": 0.0, "maximum": 3.0, "missing": True},
]
ROWS = [{"age": 45, "chol": 230, "ca": 1}, {"age": 63, "chol": 300.5, "ca": None}, {"age": 30, "chol": 130, "ca": 0}]


def _save(graph: onnx.GraphProto, domain: str = "") -> bytes:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return model.SerializeToString()


def _tensor(name: str, values: Any, kind: int = TensorProto.FLOAT) -> onnx.TensorProto:
    array = np.asarray(values, dtype=np.float32 if kind == TensorProto.FLOAT else np.int64)
    return helper.make_tensor(name, kind, array.shape, array.reshape(-1))


def classifier(bias: float = 0.0, features: int = 3) -> bytes:
    """Two classes: a sigmoid of a weighted sum, missing values as 0."""
    weights = [[0.02], [0.005], [0.4]][:features]
    nodes = [
        helper.make_node("IsNaN", ["X"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "X"], ["clean"]),
        helper.make_node("MatMul", ["clean", "weights"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["sick"]),
        helper.make_node("Sub", ["one", "sick"], ["healthy"]),
        helper.make_node("Concat", ["healthy", "sick"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", features])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 2]),
        ],
        [_tensor("weights", weights), _tensor("bias", [bias]), _tensor("zero", [0.0]), _tensor("one", [1.0])],
    )
    return _save(graph)


def regressor(bias: float = 0.0) -> bytes:
    nodes = [
        helper.make_node("MatMul", ["X", "weights"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["prediction"]),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1])],
        [_tensor("weights", [[2.0], [3.0]]), _tensor("bias", [bias])],
    )
    return _save(graph)


def text_classifier() -> bytes:
    """One input a feature: a text that is encoded one-hot, and a number; three classes."""
    nodes = [
        helper.make_node(
            "OneHotEncoder", ["city"], ["hot"], domain="ai.onnx.ml", cats_strings=["Oslo", "Rome", ""], zeros=1
        ),
        helper.make_node("Reshape", ["hot", "shape"], ["flat"]),
        helper.make_node("Mul", ["flat", "amount"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [
            helper.make_tensor_value_info("city", TensorProto.STRING, ["rows", 1]),
            helper.make_tensor_value_info("amount", TensorProto.FLOAT, ["rows", 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3]),
        ],
        [_tensor("shape", [-1, 3], TensorProto.INT64)],
    )
    return _save(graph)


def foreign_domain() -> bytes:
    node = helper.make_node("Evil", ["X"], ["prediction"], domain="com.example")
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", 2])]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1])]
    return _save(helper.make_graph([node], "model", inputs, outputs), "com.example")


def external_data() -> bytes:
    model = onnx.load_from_string(regressor())
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return model.SerializeToString()


def scores(model: bytes, features: list[dict[str, Any]], rows: list[dict[str, Any]], problem: str) -> list[list[float]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    if all(feature["type"] == "number" for feature in features):
        cells = [[np.nan if row[f["name"]] is None else row[f["name"]] for f in features] for row in rows]
        feed: dict[str, Any] = {"X": np.array(cells, dtype=np.float32)}
    else:
        feed = {}
        for feature in features:
            kind = np.float32 if feature["type"] == "number" else object
            column = [row[feature["name"]] if row[feature["name"]] is not None else "" for row in rows]
            feed[feature["name"]] = np.array(column, dtype=kind).reshape(-1, 1)
    (found,) = session.run(["probabilities" if problem == "classification" else "prediction"], feed)
    return found.tolist()


@dataclass
class ReleaseMaker:
    """Writes releases below ``<root>/<name>/<version>``, as a folder of releases has them."""

    root: Path

    def make(
        self,
        version: int,
        variants: dict[str, bytes] | None = None,
        *,
        name: str = "bracelet",
        features: list[dict[str, Any]] = NUMBERS,
        rows: list[dict[str, Any]] = ROWS,
        problem: str = "classification",
        classes: Sequence[Any] = (0, 1),
        golden: dict[str, list[list[float]]] | None = None,
        default: str | None = None,
        pickled: bool = False,
    ) -> Path:
        variants = variants or {"onnx": classifier(bias=-version)}
        folder = self.root / name / str(version)
        entries: dict[str, Any] = {}
        for target, data in variants.items():
            self._variant(folder / "variants" / target, target, data, "onnx", features, problem, classes)
            entries[target] = {"sha256": hashlib.sha256(data).hexdigest()}
        if pickled:
            data = b"\x80\x04}."
            self._variant(folder / "variants" / "sklearn", "sklearn", data, "pickle", features, problem, classes)
            entries["sklearn"] = {"sha256": hashlib.sha256(data).hexdigest()}
        if golden is None:
            golden = {target: scores(data, features, rows, problem) for target, data in variants.items()}
        digest = hashlib.sha256(json.dumps([name, entries], sort_keys=True).encode()).hexdigest()
        manifest = {
            "format": "edgewright.release/1", "name": name, "digest": digest, "problem": problem, "label": "num",
            "classes": classes, "features": features, "variants": entries,
            "default_variant": default or list(variants)[-1], "lineage": {},
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "golden.json").write_text(json.dumps({"inputs": rows, "outputs": golden}))
        return folder

    @staticmethod
    def _variant(
        folder: Path,
        target: str,
        data: bytes,
        form: str,
        features: list[dict[str, Any]],
        problem: str,
        classes: Sequence[Any],
    ) -> None:
        folder.mkdir(parents=True)
        file = "model.onnx" if form == "onnx" else "estimator.pkl"
        (folder / file).write_bytes(data)
        document = {
            "version": 1, "format": form, "target": target, "file": file, "sha256": hashlib.sha256(data).hexdigest(),
            "problem": problem, "label": "num", "classes": classes, "features": features, "metrics": {},
            "libraries": {},
        }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(document))


@dataclass
class ServiceProcess:
    """A running service and a client for it."""

    url: str
    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path
    home: Path = field(default_factory=Path)

    def put(self, name: str, version: int | str, **more: Any) -> httpx.Response:
        return self.client.put(f"/admin/models/{name}", json={"version": str(version), **more})

    def predict(self, rows: list[dict[str, Any]], name: str | None = None) -> httpx.Response:
        path = f"/models/{name}/invocations" if name else "/invocations"
        return self.client.post(path, json={"dataframe_records": rows})

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def running(
    home: Path, tracking_uri: str, *options: str, headers: dict[str, str] | None = None, wait: bool = True
) -> Iterator[ServiceProcess]:
    """Run a service on a free port of loopback until the block ends."""
    home.mkdir(parents=True, exist_ok=True)
    ready, log = home / "ready.json", home / "service.log"
    ready.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "edgewright.serving", "--port", "0", "--home", str(home),
        "--tracking-uri", tracking_uri, "--ready-file", str(ready), *options,
    ]  # fmt: skip
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        )
    try:
        deadline = time.monotonic() + 60
        while wait and not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        url = json.loads(ready.read_text())["url"]
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            yield ServiceProcess(url, process, client, log, home)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
