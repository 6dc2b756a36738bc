"""The bracelet pipeline as a data scientist writes it without Edgewright: seven plain functions over files.

They do the same work as the steps (the same data, checks, model, metrics, plots, export, INT8, registration and
deployment), with nothing around it: no versioned artifacts, no cache, no gates' report, no retries.

Heavy libraries are imported inside of the functions, as in any hand-written Airflow task.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PIPELINE = Path(os.environ.get("BENCH_PIPELINE", Path(__file__).parents[2] / "dags" / "bracelet"))
LABEL = "num"


def _user_module(name: str) -> Any:
    import importlib

    if str(PIPELINE) not in sys.path:
        sys.path.insert(0, str(PIPELINE))
    return importlib.import_module(name)


def ingest(work: str) -> str:
    """Read the CSV, split it with stratification, write Parquet."""
    import pandas as pd
    from sklearn.model_selection import train_test_split

    frame = pd.read_csv(PIPELINE / "cleveland.csv")
    train, test = train_test_split(frame, test_size=0.25, random_state=7, stratify=frame[LABEL])
    Path(work).mkdir(parents=True, exist_ok=True)
    train.to_parquet(Path(work) / "train.parquet", compression="zstd")
    test.to_parquet(Path(work) / "test.parquet", compression="zstd")
    return work


def validate(work: str) -> str:
    """Check both parts by the pandera schema."""
    import pandas as pd

    schema = _user_module("schema").Bracelet
    for part in ("train", "test"):
        schema.validate(pd.read_parquet(Path(work) / f"{part}.parquet"), lazy=True)
    return work


def _place() -> str | None:
    """Where MLflow keeps the files: beside a database; a server decides by itself."""
    address = os.environ["MLFLOW_TRACKING_URI"]
    return (
        Path(address.removeprefix("sqlite:///")).with_name("files").as_uri() if address.startswith("sqlite") else None
    )


def _parts(work: str) -> tuple[Any, Any]:
    import pandas as pd

    return pd.read_parquet(Path(work) / "train.parquet"), pd.read_parquet(Path(work) / "test.parquet")


def train(work: str) -> str:
    """Fit the pipeline's own model, pickle it, log it to MLflow."""
    import pickle

    from mlflow import MlflowClient

    data, _ = _parts(work)
    features = [name for name in data.columns if name != LABEL]
    given = SimpleNamespace(
        X=data[features], y=data[LABEL], frame=data, label=LABEL, features=features, seed=0, classes=[0, 1],
        log_metric=lambda *a, **k: None,
    )  # fmt: skip
    model = _user_module("model").fit(given, alpha=0.001)
    (Path(work) / "model.pkl").write_bytes(pickle.dumps(model))
    client = MlflowClient()
    found = client.get_experiment_by_name("plain")
    experiment = found.experiment_id if found else client.create_experiment("plain", _place())
    run = client.create_run(experiment)
    client.log_param(run.info.run_id, "alpha", 0.001)
    client.log_metric(run.info.run_id, "train_accuracy", model.score(data[features], data[LABEL]))
    for name in ("model.py", "schema.py", "pipeline.yaml"):
        client.log_artifact(run.info.run_id, str(PIPELINE / name), "source")
    client.set_terminated(run.info.run_id)
    (Path(work) / "run_id").write_text(run.info.run_id)
    return work


def evaluate(work: str) -> str:
    """Measure on the test part, draw three plots, write a page, log the metrics."""
    import base64
    import io
    import pickle

    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from mlflow import MlflowClient
    from sklearn import metrics
    from sklearn.calibration import calibration_curve

    _, test = _parts(work)
    model = pickle.loads((Path(work) / "model.pkl").read_bytes())
    x, y = test.drop(columns=[LABEL]), test[LABEL]
    scores = model.predict_proba(x)[:, 1]
    guess = (scores >= 0.5).astype(int)
    found = {
        "accuracy": metrics.accuracy_score(y, guess),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, guess),
        "precision": metrics.precision_score(y, guess),
        "recall": metrics.recall_score(y, guess),
        "f1": metrics.f1_score(y, guess),
        "roc_auc": metrics.roc_auc_score(y, scores),
        "log_loss": metrics.log_loss(y, scores),
        "brier": metrics.brier_score_loss(y, scores),
    }
    images = []
    for kind in ("confusion", "roc", "calibration"):
        figure, axes = plt.subplots(figsize=(4, 4))
        if kind == "confusion":
            axes.imshow(metrics.confusion_matrix(y, guess))
        elif kind == "roc":
            axes.plot(*metrics.roc_curve(y, scores)[:2])
        else:
            axes.plot(*calibration_curve(y, scores, n_bins=10))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
        images.append(base64.b64encode(buffer.getvalue()).decode())
    page = "".join(f'<img src="data:image/png;base64,{image}">' for image in images)
    (Path(work) / "report.html").write_text(f"<pre>{json.dumps(found, indent=1)}</pre>{page}")
    client = MlflowClient()
    for name, value in found.items():
        client.log_metric((Path(work) / "run_id").read_text(), name, value)
    if found["accuracy"] < 0.75 or found["roc_auc"] < 0.80:
        raise ValueError(f"not good enough: {found}")
    return work


def quantize(work: str) -> str:
    """Export to ONNX, compare, quantize to static INT8, compare, time both."""
    import pickle

    import numpy as np
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from skl2onnx import to_onnx

    data, test = _parts(work)
    model = pickle.loads((Path(work) / "model.pkl").read_bytes())
    calibration = data.drop(columns=[LABEL]).to_numpy(np.float32)[:256]
    x = test.drop(columns=[LABEL]).to_numpy(np.float32)
    graph = to_onnx(model, calibration[:1], options={"zipmap": False}, target_opset=17)
    place = Path(work) / "model.onnx"
    place.write_bytes(graph.SerializeToString())

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([{graph.graph.input[0].name: calibration[i : i + 32]} for i in range(0, 256, 32)])

        def get_next(self) -> Any:
            return next(self.rows, None)

    small = Path(work) / "model.int8.onnx"
    quantize_static(
        str(place), str(small), Rows(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    answers = []
    for file in (place, small):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(file), options)
        feed = session.get_inputs()[0].name
        answers.append(session.run(None, {feed: x})[1])
        times = []
        for _ in range(200):
            start = time.perf_counter()
            session.run(None, {feed: x[:1]})
            times.append(time.perf_counter() - start)
    expected = model.predict_proba(test.drop(columns=[LABEL]))
    if np.abs(answers[0] - expected).max() > 1e-4:
        raise ValueError("the export differs")
    accuracy = [(a.argmax(1) == test[LABEL].to_numpy()).mean() for a in answers]
    if accuracy[0] - accuracy[1] > 0.02:
        raise ValueError(f"INT8 costs too much: {accuracy}")
    return work


def publish(work: str) -> str:
    """Register the files as a model version and move the alias."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    run_id = (Path(work) / "run_id").read_text()
    for name in ("model.onnx", "model.int8.onnx", "model.pkl"):
        client.log_artifact(run_id, str(Path(work) / name), "model")
    try:
        client.create_registered_model("plain")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version("plain", f"runs:/{run_id}/model", run_id, await_creation_for=0)
    client.set_registered_model_alias("plain", "champion", version.version)
    return work


def deploy(work: str) -> str:
    """Ask the service, if one is named, whether it is there: without Edgewright nothing loads a model by itself."""
    import httpx

    url = os.environ.get("BENCH_SERVICE")
    if url:
        httpx.get(f"{url}/health", timeout=10)
    return work


STEPS = (ingest, validate, train, evaluate, quantize, publish, deploy)


def main() -> None:
    """Run all of them in one process; arguments: work folder, MLflow address."""
    os.environ["MLFLOW_TRACKING_URI"] = sys.argv[2]
    for step in STEPS:
        step(sys.argv[1])


if __name__ == "__main__":
    main()
