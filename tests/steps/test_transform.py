"""transform: functions on frames and batches, fitted state, and functions that do not behave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.errors import ConfigError, UserCodeError
from edgewright.steps.contract import StepResult
from edgewright.steps.data import Dataset
from edgewright.steps.fitted import read_state

CLEVELAND = Path(__file__).parents[2] / "dags" / "bracelet" / "cleveland.csv"
SCALER = """
from sklearn.preprocessing import StandardScaler

def fit(train):
    return StandardScaler().fit(train.drop(columns="num"))
"""


@pytest.fixture
def data(run_step: Any, pipeline_folder: Path) -> dict[str, Any]:
    shutil.copy(CLEVELAND, pipeline_folder)
    result = run_step(
        "ingest", {"source": "cleveland.csv", "label": "num", "split": {"test": 0.25, "seed": 7, "stratify": True}}
    )
    return result.outputs["dataset"].model_dump(mode="json")


def folder_of(result: StepResult, name: str = "dataset") -> Path:
    return Path(result.outputs[name].uri.removeprefix("file://"))


def opened(result: StepResult) -> Dataset:
    return Dataset.open(folder_of(result))


def code(folder: Path, text: str, name: str = "prepare.py") -> None:
    (folder / name).write_text(text)


def test_a_function_changes_every_part(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, "def add(frame, limit: float = 1):\n    return frame.assign(old=frame.age > limit)\n")
    result = run_step("transform", {"data": data, "entry": "prepare.py:add", "args": {"limit": 60}})
    dataset = opened(result)
    assert dataset.feature_types["old"] == "boolean"
    assert dataset.features[-1] == "old"
    for part in ("train", "test"):
        frame = dataset.frame(part)
        assert (frame.old == (frame.age > 60)).all()
    assert result.metrics == {"rows": 303, "columns": 15}
    assert "state" not in result.outputs


def test_columns_that_are_not_touched_keep_their_types(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, "def same(frame):\n    return frame\n")
    before = Dataset.open(Path(data["uri"].removeprefix("file://")))
    after = opened(run_step("transform", {"data": data, "entry": "prepare.py:same"}))
    assert before.feature_types["ca"] == "integer"
    assert after.columns == before.columns
    assert after.manifest["parts"] == before.manifest["parts"]
    assert after.table("train").equals(before.table("train"))


def test_arrow_batches_stream_through_a_function(run_step: Any, pipeline_folder: Path, tmp_path: Path) -> None:
    (pipeline_folder / "big.csv").write_text("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(150_000)))
    code(
        pipeline_folder,
        "import pyarrow.compute as pc\n"
        "def double(batch):\n"
        "    assert batch.num_rows <= 65536\n"
        "    return batch.append_column('twice', pc.multiply(batch.column('a'), 2))\n",
    )
    source = run_step("ingest", {"source": "big.csv", "label": "y"}).outputs["dataset"].model_dump(mode="json")
    dataset = opened(run_step("transform", {"data": source, "entry": "prepare.py:double", "frame": "arrow"}))
    frame = dataset.frame("train")
    assert len(frame) == 150_000
    assert (frame.twice == 2 * frame.a).all()


def test_state_is_fitted_on_train_only_and_kept(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(
        pipeline_folder,
        "def fit(train, column: str):\n    return {'mean': train[column].mean()}\n"
        "def center(frame, state, column: str, sign: int = 1):\n"
        "    return frame.assign(**{column: sign * (frame[column] - state['mean'])})\n",
    )
    config = {"data": data, "fit": "prepare.py:fit", "entry": "prepare.py:center", "args": {"column": "age"}}
    result = run_step("transform", config)
    dataset = opened(result)
    assert dataset.frame("train").age.mean() == pytest.approx(0, abs=1e-9)
    assert abs(dataset.frame("test").age.mean()) > 0.01
    state, document = read_state(folder_of(result, "state"))
    assert state == {"mean": pytest.approx(54.6, abs=1)}
    assert document["kind"] == "json"
    assert document["args"] == {"column": "age"}


def test_any_state_that_can_be_pickled_is_kept(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(
        pipeline_folder,
        "class Middle:\n    def __init__(self, train):\n        self.values = train.median()\n"
        "def fit(train):\n    return Middle(train)\n"
        "def fill(frame, state):\n    return frame.fillna(state.values)\n",
    )
    result = run_step("transform", {"data": data, "fit": "prepare.py:fit", "entry": "prepare.py:fill"})
    assert opened(result).manifest["missing"] == {}
    code(pipeline_folder, "raise RuntimeError('changed since')")
    state, document = read_state(folder_of(result, "state"))
    assert document["kind"] == "pickle"
    assert state.values["age"] > 40


def test_a_transformer_is_applied_and_described(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, SCALER)
    result = run_step("transform", {"data": data, "fit": "prepare.py:fit"})
    dataset = opened(result)
    train = dataset.frame("train")
    assert train.age.mean() == pytest.approx(0, abs=1e-9)
    assert set(dataset.y("train")) == {0, 1}
    (record,) = dataset.transforms
    assert record["kind"] == "sklearn"
    age = next(entry for entry in record["inputs"] if entry["name"] == "age")
    assert age == {"name": "age", "type": "integer", "missing": 0, "minimum": 29, "maximum": 77}
    state, document = read_state(folder_of(result, "state"))
    assert document["kind"] == "sklearn"
    original = Dataset.open(Path(data["uri"].removeprefix("file://")))
    pd.testing.assert_frame_equal(
        pd.DataFrame(state.transform(original.X("test")), columns=original.features), dataset.X("test")
    )


def test_the_manifest_finds_the_state_in_the_store(
    run_step: Any, pipeline_folder: Path, data: Any, tmp_path: Path
) -> None:
    code(pipeline_folder, SCALER)
    result = run_step("transform", {"data": data, "fit": "prepare.py:fit"})
    (record,) = opened(result).transforms
    state = ArtifactRef.model_validate(record["state"])
    assert ArtifactStore(tmp_path / "store").fetch(state) == folder_of(result, "state")
    assert str(tmp_path) not in (folder_of(result) / "dataset.json").read_text()


def test_a_column_transformer_names_its_columns_and_the_others_stay(
    run_step: Any, pipeline_folder: Path, data: Any
) -> None:
    code(
        pipeline_folder,
        "from sklearn.compose import ColumnTransformer\n"
        "from sklearn.preprocessing import OneHotEncoder, StandardScaler\n"
        "def fit(train):\n"
        "    parts = [('scaled', StandardScaler(), ['age']), ('kind', OneHotEncoder(), ['cp'])]\n"
        "    return ColumnTransformer(parts).fit(train[['age', 'cp']])\n",
    )
    dataset = opened(run_step("transform", {"data": data, "fit": "prepare.py:fit"}))
    assert dataset.features[:5] == ["scaled__age", "kind__cp_1", "kind__cp_2", "kind__cp_3", "kind__cp_4"]
    assert dataset.features[5] == "sex"
    assert dataset.columns[-1]["name"] == "num"
    assert "age" not in dataset.features
    assert "age" not in dataset.transforms[0]["passthrough"]


def test_transforms_add_up(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, SCALER + "\ndef same(frame):\n    return frame\n")
    first = run_step("transform", {"data": data, "entry": "prepare.py:same"}, task="one")
    second = run_step(
        "transform",
        {"data": first.outputs["dataset"].model_dump(mode="json"), "fit": "prepare.py:fit"},
        task="two",
    )
    assert [record["kind"] for record in opened(second).transforms] == ["function", "sklearn"]


def test_a_run_elsewhere_gives_the_same_digests(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, SCALER)
    config = {"data": data, "fit": "prepare.py:fit"}
    one = run_step("transform", config, cache="off")
    two = run_step("transform", config, run="r2", cache="off")
    assert {n: o.sha256 for n, o in one.outputs.items()} == {n: o.sha256 for n, o in two.outputs.items()}


def test_rows_may_be_left_out_and_it_is_said(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, "def known(frame):\n    return frame.dropna()\n")
    result = run_step("transform", {"data": data, "entry": "prepare.py:known"})
    assert opened(result).manifest["rows"] == 297
    assert any("rows became" in note for note in result.notes)


def test_rows_that_become_equal_are_said(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, "def few(frame):\n    return frame[['sex', 'num']]\n")
    result = run_step("transform", {"data": data, "entry": "prepare.py:few"})
    assert any("76 rows of test now equal rows of another part" in note for note in result.notes)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "prepare.py:change returned nothing"),
        ("return frame.age", "returned a Series, not a frame"),
        ("return frame.to_numpy()", "returned a ndarray, not a frame"),
        ("return frame.drop(columns='num')", "lost the label num (part train)"),
        ("return frame.assign(num=None)", "rows of train without a label"),
        ("return frame.iloc[:0]", "left no rows of train"),
        ("return frame.rename(columns={'age': 7})", "returned a column named 7"),
        ("return frame.rename(columns={'age': 'sex'})", "returned columns twice: sex"),
        ("return frame.assign(age=[1, 'x'] * (len(frame) // 2) + [1] * (len(frame) % 2))", "values of several kinds"),
        ("return frame.assign(age=[[1]] * len(frame))", "a column age of type list"),
        ("return frame.assign(new=1) if len(frame) > 100 else frame", "other columns for test than before"),
        ("return frame.assign(age=1 if len(frame) > 100 else 'x')", "the column age as integer and as string"),
        ("raise KeyError('chol')", "raised KeyError"),
        ("import sys; sys.exit(3)", "called sys.exit(3)"),
    ],
)
def test_functions_that_do_not_behave(run_step: Any, pipeline_folder: Path, data: Any, body: str, message: str) -> None:
    code(pipeline_folder, f"def change(frame):\n    {body}\n")
    with pytest.raises(UserCodeError) as caught:
        run_step("transform", {"data": data, "entry": "prepare.py:change"})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "prepare.py:fit returned nothing"),
        ("return {'mean': 1}", "returned a dict, and there is no entry to apply it"),
        ("return StandardScaler()", "a StandardScaler that is not fitted"),
        ("return StandardScaler().fit(train)", "fitted the StandardScaler on the label num too"),
        ("return StandardScaler().fit(train[['age']].to_numpy())", "takes 1 columns without names; there are 13"),
        ("return StandardScaler().fit(train[['age']].rename(columns={'age': 'x'}))", "which the dataset does not have"),
    ],
)
def test_fits_that_do_not_behave(run_step: Any, pipeline_folder: Path, data: Any, body: str, message: str) -> None:
    code(pipeline_folder, f"from sklearn.preprocessing import StandardScaler\ndef fit(train):\n    {body}\n")
    with pytest.raises(UserCodeError) as caught:
        run_step("transform", {"data": data, "fit": "prepare.py:fit"})
    assert message in str(caught.value)


def test_state_that_cannot_be_kept_is_refused(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(
        pipeline_folder,
        "def fit(train):\n    return lambda x: x\ndef apply(frame, state):\n    return frame\n",
    )
    with pytest.raises(UserCodeError, match="cannot be kept"):
        run_step("transform", {"data": data, "fit": "prepare.py:fit", "entry": "prepare.py:apply"})


def test_arguments_are_checked_before_anything_runs(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(
        pipeline_folder,
        "def fit(train, column: str):\n    raise AssertionError\n"
        "def apply(frame, state, power: int = 1):\n    return frame\n",
    )
    config = {"data": data, "fit": "prepare.py:fit", "entry": "prepare.py:apply"}
    with pytest.raises(ConfigError, match="args: column is missing"):
        run_step("transform", {**config, "args": {}})
    with pytest.raises(ConfigError, match='no such argument: colum; did you mean "column"'):
        run_step("transform", {**config, "args": {"colum": "age"}})
    with pytest.raises(ConfigError, match="power must be int"):
        run_step("transform", {**config, "args": {"column": "age", "power": "high"}})


def test_each_function_gets_the_arguments_that_it_names(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(
        pipeline_folder,
        "def fit(train, column):\n    return {'max': float(train[column].max()), 'column': column}\n"
        "def apply(frame, state, power: int):\n"
        "    return frame.assign(age=(frame[state['column']] / state['max']) ** power)\n",
    )
    config = {"data": data, "fit": "prepare.py:fit", "entry": "prepare.py:apply"}
    dataset = opened(run_step("transform", {**config, "args": {"column": "age", "power": 2}}))
    assert dataset.frame("train").age.max() == 1.0


def test_the_record_is_plain_json(run_step: Any, pipeline_folder: Path, data: Any) -> None:
    code(pipeline_folder, SCALER)
    result = run_step("transform", {"data": data, "fit": "prepare.py:fit"})
    document = json.loads((folder_of(result, "state") / "state.json").read_text())
    assert document["file"] == "state.pkl"
    assert document["libraries"]["scikit-learn"]
