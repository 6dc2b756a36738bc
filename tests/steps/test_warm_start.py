"""warm_start: training that goes on from the champion, and what it does where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, DataError
from edgewright.steps.contract import StepResult
from edgewright.steps.models import load_model

CODE = """
from sklearn.linear_model import SGDClassifier

def fit(data, warm_start=None):
    model = SGDClassifier(loss="log_loss", random_state=0) if warm_start is None else warm_start
    return model.partial_fit(data.X, data.y, classes=data.classes)
"""


def table(rows: int, seed: int, classes: tuple[int, ...] = (0, 1), columns: str = "ab") -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, len(columns))), columns=list(columns))
    frame["y"] = np.resize(np.array(classes), rows)
    frame["a"] += frame.y * 3
    return frame


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", registered_model="demo")
    place.model_py(CODE)
    return place


def learn(place: Workplace, run: str, frame: pd.DataFrame, **more: Any) -> StepResult:
    data = place.dataset({"train": frame, "test": table(40, 99)}, "y")
    return place.run("train", run=run, data=data, entry="model.py:fit", warm_start="champion", **more)


def publish(place: Workplace, run: str, model: ArtifactRef) -> None:
    place.run("publish", run=run, models=[model.model_dump(mode="json")], name="demo", alias="champion")


def steps_of(place: Workplace, result: StepResult) -> float:
    """How many rows a model has learnt in all (SGD counts them from one)."""
    return float(load_model(place.store.fetch(result.outputs["model"])).estimator.t_) - 1  # type: ignore[attr-defined]


def test_each_training_goes_on_from_the_champion(place: Workplace) -> None:
    first = learn(place, "one", table(50, 1))
    assert first.notes[-1] == "demo has no champion yet: training starts from nothing"
    assert steps_of(place, first) == 50
    publish(place, "one", first.outputs["model"])
    second = learn(place, "two", table(30, 2))
    assert second.notes[-1] == "training goes on from demo version 1"
    assert second.tags["warm_start"] == "demo version 1"
    assert steps_of(place, second) == 80
    # the same data and the same champion: nothing new to learn
    assert learn(place, "three", table(30, 2)).cache.hit
    publish(place, "two", second.outputs["model"])
    again = learn(place, "four", table(30, 2))
    assert not again.cache.hit
    assert steps_of(place, again) == 110


def test_a_compiled_variant_leads_back_to_what_was_trained(place: Workplace) -> None:
    data = place.dataset({"train": table(50, 1), "test": table(40, 99)}, "y")
    model = place.run("train", run="one", data=data, entry="model.py:fit", warm_start="champion").outputs["model"]
    exported = place.run("quantize", run="one", model=model, data=data, target="onnx").outputs["model"]
    publish(place, "one", exported)
    assert steps_of(place, learn(place, "two", table(10, 3))) == 60


@pytest.mark.parametrize("frame", [table(1, 5), table(12, 5, (1,))], ids=["one row", "one class"])
def test_one_row_and_one_class_can_be_learnt(place: Workplace, frame: pd.DataFrame) -> None:
    publish(place, "one", learn(place, "one", table(50, 1)).outputs["model"])
    result = learn(place, "two", frame)
    assert steps_of(place, result) == 50 + len(frame)
    assert result.metrics["rows"] == len(frame)


def test_without_a_champion_one_class_is_refused_plainly(place: Workplace) -> None:
    with pytest.raises(DataError, match="has only the value 1 in the part train"):
        learn(place, "one", table(12, 5, (1,)))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (table(30, 2, (0, 1, 2)), "does not know the class 2: training starts from nothing"),
        (table(30, 2, columns="ac"), "takes b, which the data do not have: training starts from nothing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_starts_from_nothing(place: Workplace, frame: pd.DataFrame, reason: str) -> None:
    publish(place, "one", learn(place, "one", table(50, 1)).outputs["model"])
    result = place.run(
        "train", run="two", data=place.dataset({"train": frame, "test": frame}, "y"), entry="model.py:fit",
        warm_start="champion",
    )  # fmt: skip
    assert result.notes[-1] == f"demo version 1 {reason}"
    assert steps_of(place, result) == 30


def test_what_somebody_else_registered_is_never_loaded(place: Workplace, tmp_path: Path) -> None:
    publish(place, "one", learn(place, "one", table(50, 1)).outputs["model"])
    elsewhere = Workplace(tmp_path / "b", tracking_uri=place.tracking_uri, registered_model="demo")
    elsewhere.model_py(CODE)
    result = learn(elsewhere, "two", table(30, 2))
    assert result.notes[-1] == "demo version 1 was not trained in this store: training starts from nothing"


def test_a_function_that_cannot_take_it_is_told(place: Workplace) -> None:
    place.model_py("def fit(data, alpha=1):\n    return None\n")
    with pytest.raises(ConfigError, match="model.py:fit does not take warm_start"):
        learn(place, "one", table(30, 1))
    place.registered_model = None
    with pytest.raises(ConfigError, match="needs a model that this pipeline publishes"):
        learn(place, "two", table(30, 1))


def test_a_script_finds_the_file(place: Workplace) -> None:
    publish(place, "one", learn(place, "one", table(50, 1)).outputs["model"])
    (place.code / "more.py").write_text(
        "import os, pickle, pandas as pd\n"
        "model = pickle.load(open(os.environ['EDGEWRIGHT_WARM_START'], 'rb'))\n"
        "rows = pd.read_parquet(os.environ['EDGEWRIGHT_INPUT'] + '/train.parquet')\n"
        "model.partial_fit(rows[['a', 'b']], rows.y)\n"
        "pickle.dump(model, open(os.environ['EDGEWRIGHT_OUTPUT'] + '/model.pkl', 'wb'))\n"
    )
    data = place.dataset({"train": table(7, 3), "test": table(40, 99)}, "y")
    result = place.run("train", run="two", data=data, script="more.py", warm_start="champion")
    assert steps_of(place, result) == 57
