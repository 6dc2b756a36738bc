"""prepare-for-edge: a registered version with a tag is compiled for exactly those targets, and has the variants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.cli.local import LocalRunner
from edgewright.errors import ConfigError, NotFound
from edgewright.installation import Installation
from edgewright.registry import Registry
from edgewright.spec import load_pipeline
from edgewright.spec.triggers import RegistryTrigger
from edgewright.steps.contract import Identity, StepResult
from edgewright.steps.execute import execute
from edgewright.steps.run_record import RunRecord
from edgewright.streams.batches import BatchLog
from edgewright.streams.registry_events import RegistrySource

EXAMPLE = Path(__file__).parents[2] / "dags" / "prepare-for-edge" / "pipeline.yaml"

FIT = """
from sklearn.neural_network import MLPClassifier

def fit(data):
    return MLPClassifier((16,), random_state=0, max_iter=300).fit(data.X, data.y)
"""


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame.a + 0.5 * frame.b > 0).astype(int)
    return frame


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("prepare")
    place = Workplace(root / "place", tracking_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}")
    place.model_py(FIT)
    return place


@pytest.fixture(scope="module")
def models(place: Workplace) -> list[dict[str, object]]:
    data = place.dataset({"train": table(150, 1), "test": table(40, 2)}, "y")
    trained = place.run("train", "model", data=data, entry="model.py:fit").outputs["model"]
    exported = place.run("quantize", "float", model=trained, data=data, target="onnx").outputs["model"]
    return [trained.model_dump(mode="json"), exported.model_dump(mode="json")]


def registered(place: Workplace, models: list[dict[str, object]], name: str, prepare: str | None) -> StepResult:
    tags = {} if prepare is None else {"prepare": prepare}
    return place.run("publish", "release", name=name, models=models, tags=tags)


def fetched(place: Workplace, **config: object) -> StepResult:
    return place.run("fetch", "version", "run-2", **config)


def runner(place: Workplace, **params: object) -> LocalRunner:
    home = Installation(home=place.root / "home", store=place.store.root, tracking_uri=place.tracking_uri)
    return LocalRunner(load_pipeline(EXAMPLE), installation=home, params=params)


def test_the_example_adds_what_the_tag_asks_for(place: Workplace, models: list, tmp_path: Path) -> None:
    registered(place, models, "asked", "onnx-fp16, onnx-int8,onnx")
    before = Registry(place.tracking_uri).version("asked", 1)
    outcome = runner(place, registered="asked/1").run()
    assert outcome.state == "success", outcome
    version = Registry(place.tracking_uri).version("asked", 1)
    assert len(Registry(place.tracking_uri).versions("asked")) == 1
    assert (version.digest, version.aliases) == (before.digest, ("champion",))
    assert sorted(version.added) == ["onnx-fp16", "onnx-int8"]
    folder = Registry(place.tracking_uri).download(version, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {v["target"] for v in manifest["variants"]} == {"sklearn", "onnx", "onnx-fp16", "onnx-int8"}
    assert all(v["verified"]["runtime"] for v in manifest["variants"] if v.get("added"))
    assert set(json.loads((folder / "golden.json").read_text())["outputs"]) >= {"onnx-fp16", "onnx-int8"}
    # whoever of the instances came last drew all of them
    record = RunRecord(place.store, Identity(dag_id="prepare-for-edge", run_id=outcome.run_id, task_id="-"))
    pages = [task.result.outputs["report"] for task in record.tasks if task.result.step == "publish"]
    whole = max(pages, key=lambda page: len(page.meta["variants"]))
    data = json.loads((place.store.fetch(whole) / "metrics.json").read_text())["variants"]
    assert sorted(data) == ["onnx", "onnx-fp16", "onnx-int8"]
    assert data["onnx-int8"]["latency"]["1"]["p50"] > 0
    again = runner(place, registered="asked").run()
    assert [task.state for task in again.tasks] == ["success", "skipped", "skipped"]
    # who publishes the same models again finds the version, with what was added to it
    found = registered(place, models, "asked", "onnx-fp16, onnx-int8,onnx")
    assert found.tags["model_version"] == "1"


def test_a_target_that_fails_keeps_none_of_the_others_from_being_added(place: Workplace, models: list) -> None:
    registered(place, models, "partly", "litert,onnx-fp16")
    outcome = runner(place, registered="partly/1").run()
    assert outcome.state == "failed"
    assert list(Registry(place.tracking_uri).version("partly", 1).added) == ["onnx-fp16"]


def test_a_registered_version_with_the_tag_is_an_event_that_the_step_reads(place: Workplace, models: list) -> None:
    batches = BatchLog(place.store, "demo", "registry-any")
    trigger = RegistryTrigger.model_validate({"model": "event*", "tag": {"prepare": "*"}, "every": 0.01})
    source = RegistrySource(trigger, place.tracking_uri, batches)
    assert source.poll() is None
    source._next = 0.0
    registered(place, models, "event-a", None)
    registered(place, models, "event-b", "onnx-int8")
    batch = source.poll()
    assert batch is not None
    assert batch.details["event"] == {"model": "event-b", "version": "1", "alias": None}
    claim = batches.write_claim("event__event-b-v1-new", [batch.number])
    request = place.request("fetch", "version").model_copy(update={"batch": claim})
    result = execute(request, store=place.store)
    assert result.tags == {"model_name": "event-b", "model_version": "1", "targets": '["onnx-int8"]'}
    assert {name: ref.kind for name, ref in result.outputs.items()} == {
        "model": "model", "dataset": "dataset", "release": "bundle",
    }  # fmt: skip
    assert result.outputs["dataset"].meta["rows"] == 190


def test_targets_that_do_not_exist_are_told_at_once(place: Workplace, models: list) -> None:
    registered(place, models, "wrong", "vitis_ai,onxn")
    with pytest.raises(ConfigError, match="tag prepare: no such target: vitis_ai.*no such target: onxn") as caught:
        fetched(place, registered="wrong")
    assert 'did you mean "vitis-ai"?' in str(caught.value)
    with pytest.raises(ConfigError, match="nothing says which version"):
        fetched(place)
    with pytest.raises(NotFound, match="wrong has no challenger"):
        fetched(place, registered="wrong@challenger")


def test_a_dataset_that_is_gone_is_told(place: Workplace, models: list, tmp_path: Path) -> None:
    registered(place, models, "moved", "onnx-int8")
    elsewhere = Workplace(tmp_path / "elsewhere", tracking_uri=place.tracking_uri)
    with pytest.raises(NotFound, match="the dataset of moved version 1 .* is not in this artifact store"):
        fetched(elsewhere, registered="moved")


def test_what_is_registered_does_not_change(place: Workplace, models: list) -> None:
    registered(place, models, "kept", None)
    release = fetched(place, registered="kept").outputs["release"]
    frame = table(150, 9)
    frame["y"] = 1 - frame.y
    data = place.dataset({"train": frame, "test": frame.head(40)}, "y")
    trained = place.run("train", "other", "run-3", data=data, entry="model.py:fit").outputs["model"]
    other = place.run("quantize", "float", "run-3", model=trained, data=data, target="onnx").outputs["model"]
    with pytest.raises(ConfigError, match="kept version 1 has another variant for onnx"):
        place.run("publish", "added", "run-3", models=[other.model_dump(mode="json")], release=release)
    three = frame.rename(columns={"c": "d"})
    data = place.dataset({"train": three, "test": three.head(40)}, "y")
    trained = place.run("train", "named", "run-4", data=data, entry="model.py:fit").outputs["model"]
    with pytest.raises(ConfigError, match="no variants of one model: they have other columns"):
        place.run("publish", "added", "run-4", models=[trained.model_dump(mode="json")], release=release)
