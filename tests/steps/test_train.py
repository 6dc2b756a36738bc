"""train: the user's function, what it may return, and what ends well when it does not behave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, DataError, Unavailable, UserCodeError
from edgewright.steps.models import load_model, read_document

LOGISTIC = """
from sklearn.linear_model import LogisticRegression

def fit(data, C: float = 1.0):
    return LogisticRegression(C=C, max_iter=1000).fit(data.X, data.y)
"""


def table(rows: int = 120, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame.a + 0.5 * frame.b + random.normal(scale=0.3, size=rows) > 0).astype(int)
    return frame


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    return place.dataset({"train": table(), "test": table(40, 2)}, "y")


def test_a_fitted_estimator_becomes_a_model_artifact(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(LOGISTIC)
    result = place.run("train", data=data, entry="model.py:fit", args={"C": 2})
    ref = result.outputs["model"]
    folder = place.store.fetch(ref)
    document = read_document(folder)
    assert (document.format, document.target, document.problem) == ("pickle", "sklearn", "classification")
    assert document.classes == [0, 1]
    assert document.feature_names == ["a", "b", "c"]
    assert document.features[0].minimum == pytest.approx(table().a.min())
    assert load_model(folder).estimator.C == 2.0  # type: ignore[attr-defined]
    assert result.metrics["train_accuracy"] > 0.85
    assert result.metrics["rows"] == 120
    assert ref.meta["rows"] == 120
    assert result.notes == ["no tracking server here: the run is not in MLflow"]


def test_train_sees_only_the_part_train(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(
        LOGISTIC + "    \n" + "def look(data):\n    assert len(data) == 120 == len(data.frame)\n    return fit(data)\n"
    )
    assert place.run("train", data=data, entry="model.py:look").state == "success"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "model.py:fit returned nothing"),
        ("return 42", "model.py:fit returned a int"),
        ("return LogisticRegression", "returned the class LogisticRegression"),
        ("return LogisticRegression()", "the returned LogisticRegression is not fitted"),
        ("raise ValueError('no luck')", "raised ValueError: no luck"),
        ("import sys; sys.exit(0)", r"called sys.exit\(0\)"),
        ("return LinearRegression().fit(data.X, data.y)", "no classifier, but the problem is classification"),
        ("return LinearSVC().fit(data.X, data.y)", "gives no probabilities"),
        ("return LogisticRegression().fit(data.frame, data.y)", "fitted on the label y itself"),
        ("return LogisticRegression().fit(data.X.assign(d=1), data.y)", "takes d, which the dataset does not have"),
        ("return LogisticRegression().fit(data.X.to_numpy()[:, :2], data.y)", "takes 2 columns without names"),
        ("m = LogisticRegression().fit(data.X, data.y); m.f = lambda x: x; return m", "cannot be kept"),
        ("return b'no onnx'", "not a valid ONNX model"),
        ("return 'absent.onnx'", "does not exist: absent.onnx"),
    ],
)
def test_what_a_function_must_not_do_is_the_users_fault(
    place: Workplace, data: ArtifactRef, body: str, message: str
) -> None:
    place.model_py(
        "from sklearn.linear_model import LinearRegression, LogisticRegression\nfrom sklearn.svm import LinearSVC\n\n"
        f"def fit(data):\n    {body}\n"
    )
    with pytest.raises(Exception, match=message) as caught:
        place.run("train", data=data, entry="model.py:fit")
    assert place.last("train")["state"] == "failed"
    assert place.last("train")["error"]["user_fault"], caught.value


def test_what_is_supported_is_said(place: Workplace, data: ArtifactRef) -> None:
    place.model_py("def fit(data):\n    return {}\n")
    with pytest.raises(UserCodeError, match="a fitted scikit-learn classifier or regressor .*; an ONNX model"):
        place.run("train", data=data, entry="model.py:fit")


def test_a_flood_of_output_does_no_harm(
    place: Workplace, data: ArtifactRef, capsys: pytest.CaptureFixture[str]
) -> None:
    place.model_py(
        LOGISTIC.replace("    return", "    for _ in range(100):\n        print('x' * 1_000_000)\n    return")
    )
    assert place.run("train", data=data, entry="model.py:fit").state == "success"
    assert len(capsys.readouterr().out) < 2_000_000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"alhpa": 1.0}, 'no such argument: alhpa; did you mean "alpha"'),
        ({"alpha": "0.1"}, "alpha must be float, not '0.1'"),
        ({"alpha": True}, "alpha must be float, not True"),
        ({"alpha": 1.0, "layers": [1, "x"]}, "layers must be"),
        ({}, "args: alpha is missing"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_line(
    place: Workplace, data: ArtifactRef, args: dict[str, Any], message: str
) -> None:
    place.model_py("""
def fit(data, alpha: float, layers: tuple[int, ...] = (8,)):
    raise AssertionError("must not be called")
""")
    with pytest.raises(ConfigError, match=message) as caught:
        place.run("train", data=data, entry="model.py:fit", args=args)
    assert str(caught.value).startswith("model.py:2: ")
    assert "alpha: float" in str(caught.value)


def test_arguments_arrive_as_their_annotations_say(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(
        LOGISTIC
        + """
def typed(data, alpha: float, layers: tuple[int, ...], mode: "str | None" = None, later: "np.ndarray" = None, **rest):
    assert type(alpha) is float and layers == (8, 4) and rest == {"free": {"x": 1}}, (alpha, layers, rest)
    return fit(data)
"""
    )
    args = {"alpha": 1, "layers": [8, 4], "free": {"x": 1}}
    assert place.run("train", data=data, entry="model.py:typed", args=args).state == "success"


def test_a_label_that_is_missing_or_constant_is_the_datas_fault(place: Workplace) -> None:
    place.model_py(LOGISTIC)
    constant = place.dataset({"train": table().assign(y=1), "test": table(20)}, "y")
    with pytest.raises(DataError, match="only the value 1 in the part train"):
        place.run("train", data=constant, entry="model.py:fit")


def test_text_labels_and_text_features(place: Workplace) -> None:
    frame = table().assign(city=lambda f: np.where(f.a > 0, "Ulm", "Bonn"), y=lambda f: f.y.map({0: "no", 1: "yes"}))
    data = place.dataset({"train": frame, "test": frame.head(20)}, "y")
    place.model_py(
        """
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

def fit(data):
    encode = ColumnTransformer([("city", OneHotEncoder(handle_unknown="ignore"), ["city"])], remainder="passthrough")
    return make_pipeline(encode, LogisticRegression()).fit(data.X, data.y)
"""
    )
    result = place.run("train", data=data, entry="model.py:fit")
    document = read_document(place.store.fetch(result.outputs["model"]))
    assert document.classes == ["no", "yes"]
    assert [f.type for f in document.features] == ["number", "number", "number", "string"]


def test_a_regression_by_the_labels_type(place: Workplace) -> None:
    frame = table().assign(y=lambda f: 2.0 * f.a + f.b)
    data = place.dataset({"train": frame, "test": frame.head(20)}, "y")
    place.model_py(
        "from sklearn.linear_model import LinearRegression\n\ndef fit(data):\n"
        "    return LinearRegression().fit(data.X, data.y)\n"
    )
    result = place.run("train", data=data, entry="model.py:fit")
    assert result.metrics["train_r2"] == pytest.approx(1)
    assert result.outputs["model"].meta["problem"] == "regression"


def test_a_model_may_use_fewer_columns_in_its_own_order(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(LOGISTIC.replace("data.X,", "data.X[['c', 'a']],"))
    result = place.run("train", data=data, entry="model.py:fit")
    assert read_document(place.store.fetch(result.outputs["model"])).feature_names == ["c", "a"]


def test_a_class_of_the_pipelines_own_travels_with_the_model(place: Workplace, data: ArtifactRef) -> None:
    own = """
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from helpers import twice

class Mine(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.inner_ = LogisticRegression().fit(twice(X), y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, X):
        return self.inner_.predict_proba(twice(X))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

def fit(data):
    return Mine().fit(data.X.to_numpy(), data.y)
"""
    place.model_py(own)
    (place.code / "helpers.py").write_text("def twice(X):\n    return X * 2\n")
    result = place.run("train", data=data, entry="model.py:fit")
    (place.code / "model.py").unlink()
    (place.code / "helpers.py").unlink()
    evaluated = place.run("evaluate", model=result.outputs["model"], data=data)
    assert evaluated.metrics["accuracy"] > 0.8


def test_an_onnx_model_is_given_our_names(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(
        LOGISTIC
        + """
def export(data):
    from skl2onnx import to_onnx
    import numpy as np
    model = fit(data)
    return to_onnx(model, data.X.to_numpy(np.float32), options={"zipmap": False})
"""
    )
    pickled = place.run("train", data=data, entry="model.py:fit")
    result = place.run("train", "onnx", data=data, entry="model.py:export")
    assert result.outputs["model"].meta["format"] == "onnx"
    frame = table(40, 2)
    expected = load_model(place.store.fetch(pickled.outputs["model"])).scores(frame)
    loaded = load_model(place.store.fetch(result.outputs["model"]))
    assert np.abs(loaded.scores(frame) - expected).max() < 1e-5
    assert [o.name for o in loaded.session.get_outputs()] == ["label", "probabilities"]  # type: ignore[attr-defined]


def test_an_onnx_model_without_usable_outputs_is_refused(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(
        LOGISTIC
        + """
def export(data):
    from skl2onnx import to_onnx
    import numpy as np
    return to_onnx(fit(data), data.X.to_numpy(np.float32))
"""
    )
    with pytest.raises(UserCodeError, match=r"no float32 output \[rows, 2\]") as caught:
        place.run("train", data=data, entry="model.py:export")
    assert "ZipMap" in str(caught.value)


def test_equal_inputs_give_equal_bytes_in_another_process(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(Path("dags/bracelet/model.py").read_text())
    digests = {place.run("train", data=data, entry="model.py:fit").outputs["model"].sha256}
    request = place.request("train", run="again", data=data, entry="model.py:fit")
    request.cache = "off"
    for seed in ("0", "77"):
        path = place.root / "request.json"
        path.write_text(request.model_dump_json())
        done = subprocess.run(
            [sys.executable, "-m", "edgewright.steps", str(path), "--json", "--quiet"],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        digests.add(json.loads(done.stdout)["outputs"]["model"]["sha256"])
    assert len(digests) == 1


def test_random_numbers_are_seeded(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(
        "import random\nimport numpy as np\n" + LOGISTIC.replace("C=C", "C=random.random() + np.random.rand()")
    )
    one, two, other = (
        place.run("train", f"t{i}", data=data, entry="model.py:fit", seed=seed, args={"C": float(i + 1)})
        for i, seed in enumerate((5, 5, 6))
    )
    shas = [r.outputs["model"].sha256 for r in (one, two, other)]
    assert shas[0] == shas[1] != shas[2]


# -- MLflow ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tracked(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path / "tracked", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


def client_of(place: Workplace) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=place.tracking_uri)


def test_a_run_is_kept_in_mlflow(tracked: Workplace) -> None:
    data = tracked.dataset({"train": table(), "test": table(40, 2)}, "y")
    tracked.model_py(
        LOGISTIC.replace(
            "    return", "    for i in range(5):\n        data.log_metric('loss', 1 / (i + 1))\n    return"
        )
    )
    result = tracked.run("train", data=data, entry="model.py:fit", args={"C": 0.5})
    client = client_of(tracked)
    run = client.get_run(result.tags["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.experiment_id == result.tags["mlflow_experiment_id"]
    assert client.get_experiment(run.info.experiment_id).name == "demo"
    assert run.data.params == {"C": "0.5"}
    assert run.data.metrics["train_accuracy"] == pytest.approx(result.metrics["train_accuracy"])
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    tags = run.data.tags
    assert tags["edgewright.dataset.sha256"] == data.sha256
    assert (tags["edgewright.git.commit"], tags["edgewright.git.dirty"]) == ("abc", "true")
    assert tags["edgewright.pipeline.sha256"] == "1" * 64
    assert tags["edgewright.library.scikit-learn"]
    assert {f.path for f in client.list_artifacts(run.info.run_id, "source")} == {
        "source/model.py",
        "source/pipeline.yaml",
    }
    assert result.outputs["model"].meta["mlflow_run_id"] == run.info.run_id

    again = tracked.run("train", run="run-2", data=data, entry="model.py:fit", args={"C": 0.5})
    assert again.cache.hit
    assert again.tags["mlflow_run_id"] == run.info.run_id
    assert len(client.search_runs([run.info.experiment_id])) == 1

    evaluated = tracked.run("evaluate", model=result.outputs["model"], data=data)
    metrics = client.get_run(run.info.run_id).data.metrics
    assert metrics["accuracy"] == pytest.approx(evaluated.metrics["accuracy"])
    assert {f.path for f in client.list_artifacts(run.info.run_id, "evaluation")} >= {"evaluation/report.html"}


def test_a_failed_function_and_a_killed_worker_leave_no_open_run(tracked: Workplace) -> None:
    data = tracked.dataset({"train": table(), "test": table(40, 2)}, "y")
    tracked.model_py("import os\n\ndef fit(data):\n    os._exit(9)\n")
    path = tracked.root / "request.json"
    path.write_text(tracked.request("train", data=data, entry="model.py:fit").model_dump_json())
    done = subprocess.run([sys.executable, "-m", "edgewright.steps", str(path)], capture_output=True, check=False)
    assert done.returncode == 9
    client = client_of(tracked)
    (experiment,) = [e for e in client.search_experiments() if e.name == "demo"]
    assert [r.info.status for r in client.search_runs([experiment.experiment_id])] == ["RUNNING"]

    tracked.model_py("def fit(data):\n    raise ValueError('broken')\n")
    with pytest.raises(UserCodeError, match="broken"):
        tracked.run("train", data=data, entry="model.py:fit")
    tracked.model_py(LOGISTIC)
    tracked.run("train", data=data, entry="model.py:fit")
    statuses = sorted(r.info.status for r in client.search_runs([experiment.experiment_id]))
    assert statuses == ["FAILED", "FAILED", "FINISHED"]


def test_mlflow_that_is_down_is_said_within_seconds(place: Workplace, data: ArtifactRef) -> None:
    place.model_py(LOGISTIC)
    place.tracking_uri = "http://someone:secret@127.0.0.1:9"
    with pytest.raises(Unavailable, match="MLflow does not answer") as caught:
        place.run("train", data=data, entry="model.py:fit")
    assert "secret" not in str(caught.value)
    last = place.last("train")
    assert last["error"]["retriable"]
    assert last["duration"] < 10
