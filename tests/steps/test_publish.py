"""publish: from trained models to a registered release that tells where it comes from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.mlflow_server import free_port
from support.models import Workplace
from support.releases import put_model

from edgewright.errors import ConfigError, DamagedArtifact, Unavailable
from edgewright.registry import Registry
from edgewright.steps.contract import StepResult

FIT = """
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

def fit(data):
    return make_pipeline(SimpleImputer(), MLPClassifier((16,), random_state=0, max_iter=300)).fit(data.X, data.y)
"""


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame.a + 0.5 * frame.b > 0).astype(int)
    frame.loc[::7, "b"] = np.nan
    if seed == 2:
        frame.loc[0, "a"] = np.nan  # a gap that the training data do not have
    return frame


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("publish")
    place = Workplace(root / "place", tracking_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}")
    place.model_py(FIT)
    return place


@pytest.fixture(scope="module")
def made(place: Workplace) -> dict[str, StepResult]:
    """Train, evaluate and quantize once, as a run would before it publishes."""
    data = place.dataset({"train": table(150, 1), "test": table(40, 2)}, "y")
    model = place.run("train", "model", data=data, entry="model.py:fit").outputs["model"]
    judged = place.run("evaluate", "quality", model=model, data=data, gates={"accuracy": ">= 0.7"})
    small = place.run("quantize", "int8", model=model, data=data, target="onnx-int8")
    return {"train": place_result(place, "model"), "evaluate": judged, "quantize": small}


def place_result(place: Workplace, task: str) -> StepResult:
    return StepResult.model_validate(place.last(task))


def publish(place: Workplace, made: dict[str, StepResult], run: str = "run-1", **config: Any) -> StepResult:
    outputs = made["quantize"].outputs
    models = [made["train"].outputs["model"], *(ref for ref in outputs.values() if ref.kind == "model")]
    return place.run("publish", "release", run, **{"models": [m.model_dump(mode="json") for m in models]} | config)


def test_a_release_with_its_history(place: Workplace, made: dict[str, StepResult], tmp_path: Path) -> None:
    result = publish(place, made, name="history", tags={"team": "edge"}, description="A test.")
    ref = result.outputs["release"]
    assert ref.kind == "bundle"
    assert ref.meta["name"] == "history"
    assert ref.meta["version"] == "1"
    assert sorted(ref.meta["variants"]) == ["onnx", "onnx-int8", "sklearn"]
    assert ref.meta["default_variant"].startswith("onnx")
    assert (result.tags["model_version"], result.tags["alias"], result.tags["registration"]) == (
        "1",
        "champion",
        "created",
    )
    version = Registry(place.tracking_uri).champion("history")
    assert version is not None
    assert version.digest == ref.meta["digest"]
    assert version.run_id == made["train"].tags["mlflow_run_id"] == result.tags["mlflow_run_id"]
    tags = version.tags
    assert (tags["team"], tags["dag_id"], tags["run_id"], tags["gates"]) == ("edge", "demo", "run-1", "1 of 1 passed")
    assert (tags["git_commit"], tags["git_dirty"], tags["entry"]) == ("abc", "true", "model.py:fit")
    assert tags["dataset_rows"] == "190"
    assert float(tags["metric.accuracy"]) == pytest.approx(made["evaluate"].metrics["accuracy"], rel=1e-5)
    folder = place.store.fetch(ref)
    assert Registry(place.tracking_uri).download(version, tmp_path).joinpath("manifest.json").read_bytes() == (
        (folder / "manifest.json").read_bytes()
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["evaluation"]["gates"][0]["task"] == "quality"
    assert manifest["evaluation"]["metrics"]["int8.size_bytes"] > 0
    assert "A test." in (folder / "README.md").read_text()


def test_a_published_version_is_offered_to_nodes(
    place: Workplace, made: dict[str, StepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewright.edge.node import Node
    from edgewright.edge.shelf import Shelf
    from edgewright.edge.sources import Folder
    from edgewright.edge.updates import Updater, Wanted

    pytest.importorskip("model_signing")
    key, public, offered = tmp_path / "key.pem", tmp_path / "key.pub", tmp_path / "offered"
    bundle = {"to": str(offered), "targets": ["onnx-int8"], "sign": True}
    monkeypatch.delenv("EDGEWRIGHT_SIGNING_KEY", raising=False)
    with pytest.raises(ConfigError, match="there is no key"):
        publish(place, made, name="offered", bundle=bundle)
    assert Registry(place.tracking_uri).champion("offered") is None
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    command = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("EDGEWRIGHT_SIGNING_KEY", str(key))
    result = publish(place, made, name="offered", bundle=bundle)
    assert result.tags["bundle.onnx-int8"] == f"{offered}/offered-1-onnx-int8.tar"
    (path,) = offered.iterdir()
    before = path.read_bytes()
    publish(place, made, "run-2", name="offered", bundle=bundle)
    assert path.read_bytes() == before, "what is offered already stays"
    path.unlink()
    publish(place, made, "run-3", name="offered", bundle=bundle)  # nothing new to register, but to offer
    assert path.exists()
    shelf = Shelf(tmp_path / "home")
    node = Node("n1", shelf, Updater(shelf, Folder(str(offered)), Wanted("onnx-int8", key=public)))
    assert node.update(), node.problem
    body = json.dumps({"dataframe_records": [{"a": 2.0, "b": 1.0, "c": 0.0}]}).encode()
    answer = node.predict(body, "application/json").body
    assert answer["predictions"] == [1]
    assert answer["model"] == {"name": "offered", "version": "1", "variant": "onnx-int8"}


def test_a_published_version_is_offered_as_an_oci_artifact(
    place: Workplace, made: dict[str, StepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewright.bundles.oci import open_artifacts

    monkeypatch.delenv("AIRFLOW_CONN_HARBOR", raising=False)
    with pytest.raises(ConfigError, match="no connection 'harbor'"):
        publish(place, made, name="artifact", bundle={"to": "oci://127.0.0.1:1/edge", "connection": "harbor"})
    assert Registry(place.tracking_uri).champion("artifact") is None
    bundle = {"to": f"oci-layout://{tmp_path}/layout"}
    result = publish(place, made, name="artifact", bundle=bundle)
    assert result.tags["bundle.onnx-int8"] == f"oci-layout://{tmp_path}/layout:artifact-1-onnx-int8"
    layout = open_artifacts(bundle["to"])
    assert layout.tags() == ["artifact-1-onnx", "artifact-1-onnx-int8"]
    before = layout.digest("artifact-1-onnx-int8")
    publish(place, made, "run-2", name="artifact", bundle=bundle)
    assert layout.digest("artifact-1-onnx-int8") == before


def test_the_self_test_has_rows_of_the_test_part_that_a_service_takes(
    place: Workplace, made: dict[str, StepResult]
) -> None:
    folder = place.store.fetch(publish(place, made, name="golden").outputs["release"])
    golden = json.loads((folder / "golden.json").read_text())
    test = table(40, 2)
    assert golden["source"] == "part test"
    assert len(golden["inputs"]) == 20
    assert golden["inputs"][0]["a"] == pytest.approx(test.a[1]), "row 0 has a gap that the model never saw"
    assert golden["inputs"][6]["b"] is None
    assert sorted(golden["outputs"]) == ["onnx", "onnx-int8", "sklearn"]
    np.testing.assert_allclose(golden["outputs"]["onnx"], golden["outputs"]["sklearn"], atol=1e-5)


def test_a_page_holds_all_variants_side_by_side(place: Workplace, made: dict[str, StepResult]) -> None:
    result = publish(place, made, name="compared")
    report = result.outputs["report"]
    assert report.meta["variants"][0] == "onnx", "what the others are held against comes first"
    assert sorted(report.meta["variants"]) == ["onnx", "onnx-int8"]
    folder = place.store.fetch(report)
    page = (folder / "report.html").read_text()
    assert "compared version 1: variants" in page
    assert "agreement with the trained model" in page
    data = json.loads((folder / "metrics.json").read_text())["variants"]
    measured = json.loads((place.store.fetch(made["quantize"].outputs["report"]) / "metrics.json").read_text())
    assert data["onnx-int8"]["latency"] == measured["variants"]["onnx-int8"]["latency"]
    assert data["onnx-int8"]["against"]["sqnr_db"] == measured["metrics"]["sqnr_db"]
    assert data["onnx"]["quality"] == measured["variants"]["onnx"]["quality"]
    assert data["onnx"]["against"] == {}, "that is what the others are held against"
    assert {file.name for file in folder.glob("*.png")} >= {"latency_1.png", "latency_256.png"}
    kept = _mlflow_files(place, made["train"].tags["mlflow_run_id"])
    assert "variants/report.html" in kept
    # another run of the same models, whose own tasks did not measure: the run that did is named by the lineage
    again = publish(place, made, "another-run", name="compared")
    assert again.outputs["report"].meta["variants"] == report.meta["variants"]


def _mlflow_files(place: Workplace, run_id: str) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(place.tracking_uri)
    return {item.path for item in client.list_artifacts(run_id, "variants")}


def test_the_page_of_a_run_that_is_gone_shows_what_the_manifest_holds(
    place: Workplace, made: dict[str, StepResult]
) -> None:
    other = Workplace(place.root.parent / "elsewhere", tracking_uri=place.tracking_uri)
    models = [made["train"].outputs["model"], made["quantize"].outputs["model"], made["quantize"].outputs["float"]]
    for ref in models:
        copied = other.store.put(place.store.fetch(ref), kind=ref.kind, meta=dict(ref.meta))
        assert copied.sha256 == ref.sha256
    config = {"models": [model.model_dump(mode="json") for model in models]}
    result = other.run("publish", "release", "copied", name="copied", **config)
    data = json.loads((other.store.fetch(result.outputs["report"]) / "metrics.json").read_text())["variants"]
    assert list(data) == ["onnx", "onnx-int8"]
    assert data["onnx-int8"]["size_bytes"] > 0
    assert data["onnx-int8"]["latency"] == {}, "times stand in the reports of the run only"


def test_one_variant_is_compared_with_nothing(place: Workplace, tmp_path: Path) -> None:
    model = put_model(place.store, tmp_path / "m", 9.5).model_dump(mode="json")
    result = place.run("publish", "release", "alone", models=[model], name="alone")
    assert sorted(result.outputs) == ["release"]


def test_the_same_models_of_another_run_are_the_same_version(place: Workplace, made: dict[str, StepResult]) -> None:
    first = publish(place, made, name="twice")
    again = publish(place, made, "run-2", name="twice")
    assert again.tags["registration"] == "reused"
    assert again.outputs["release"] == first.outputs["release"], "what is registered is what counts"
    assert any("is registered" in n or "are registered as twice version 1 already" in n for n in again.notes)
    assert len(Registry(place.tracking_uri).versions("twice")) == 1


def test_models_from_elsewhere_are_published_with_what_is_known(place: Workplace, tmp_path: Path) -> None:
    model = put_model(place.store, tmp_path / "m")
    result = place.run("publish", "release", "hand", models=[model.model_dump(mode="json")], name="elsewhere")
    assert any("made-up rows" in note for note in result.notes)
    golden = json.loads((place.store.fetch(result.outputs["release"]) / "golden.json").read_text())
    assert golden["source"] == "made from the ranges of the training data"
    assert (golden["inputs"][0], golden["inputs"][-1]) == ({"a": -3, "b": -3, "c": -3}, {"a": 3, "b": 3, "c": 3})


def test_an_older_run_says_that_the_alias_stays(place: Workplace, tmp_path: Path) -> None:
    def published(weight: float, time: str) -> StepResult:
        model = put_model(place.store, tmp_path / f"{weight}", weight).model_dump(mode="json")
        request = place.request("publish", "release", f"at-{weight}", models=[model], name="backfill")
        from edgewright.steps.execute import execute

        return execute(request.model_copy(update={"data_time": time}), store=place.store)

    assert published(1.0, "2026-03-01T00:00:00+00:00").tags["alias"] == "champion"
    late = published(2.0, "2026-01-01T00:00:00+00:00")
    assert "alias" not in late.tags
    assert late.tags["alias_not_moved"] == "champion"
    assert any("are older than those of version 1" in note for note in late.notes)


def test_a_pickle_alone_is_published_without_a_default(place: Workplace, made: dict[str, StepResult]) -> None:
    model = made["train"].outputs["model"].model_dump(mode="json")
    result = place.run("publish", "release", models=[model], name="pickle")
    assert result.outputs["release"].meta["default_variant"] is None
    assert any("add a quantize task" in note for note in result.notes)


def test_without_a_registry_it_says_how_to_name_one(place: Workplace, made: dict[str, StepResult]) -> None:
    request = place.request(
        "publish", "release", models=[made["train"].outputs["model"].model_dump(mode="json")], name="x"
    )
    from edgewright.steps.execute import execute

    with pytest.raises(ConfigError, match="no model registry here\n  hint: set EDGEWRIGHT_TRACKING_URI"):
        execute(request.model_copy(update={"tracking_uri": ""}), store=place.store)
    with pytest.raises(Unavailable, match="MLflow does not answer"):
        execute(request.model_copy(update={"tracking_uri": f"http://127.0.0.1:{free_port()}"}), store=place.store)


def test_a_registered_version_that_is_damaged_is_not_reused(place: Workplace, tmp_path: Path) -> None:
    model = put_model(place.store, tmp_path / "m", 7.0).model_dump(mode="json")
    place.run("publish", "release", "d1", models=[model], name="damaged")
    version = Registry(place.tracking_uri).version("damaged", 1)
    Path(version.source.removeprefix("file://"), "variants/onnx/model.onnx").write_bytes(b"bad")
    from edgewright.steps.execute import execute

    # an unchanged pipeline asks the registry only who has the alias; a refresh looks at the bytes too
    again = place.request("publish", "release", "d2", models=[model], name="damaged")
    with pytest.raises(DamagedArtifact, match="registered as version 1, and what is there is damaged"):
        execute(again.model_copy(update={"cache": "refresh"}), store=place.store)


def test_publishing_what_the_alias_points_to_already_builds_nothing(place: Workplace, tmp_path: Path) -> None:
    model = put_model(place.store, tmp_path / "m", 7.5).model_dump(mode="json")
    first = place.run("publish", "release", "n1", models=[model], name="known")
    second = place.run("publish", "release", "n2", models=[model], name="known")
    assert second.outputs == first.outputs
    assert second.tags == first.tags | {"registration": "reused"}
    registry = Registry(place.tracking_uri)
    other = put_model(place.store, tmp_path / "o", 8.5).model_dump(mode="json")
    place.run("publish", "release", "n3", models=[other], name="known")
    registry.roll_back("known")
    registry.set_alias("known", "champion", 2)
    # the alias has moved away: the same models are looked at in full again
    third = place.run("publish", "release", "n4", models=[model], name="known")
    assert third.tags["model_version"] == "1"
    assert registry.champion("known").version == "1"  # type: ignore[union-attr]


def test_publishing_to_a_server(place: Workplace, made: dict[str, StepResult], mlflow_server: Any) -> None:
    from edgewright.steps.execute import execute

    request = place.request(
        "publish", "release", models=[made["quantize"].outputs["model"].model_dump(mode="json")], name="srv"
    )
    result = execute(request.model_copy(update={"tracking_uri": mlflow_server.uri}), store=place.store)
    assert result.tags["registration"] == "created"
    assert any("MLflow has no run" in note for note in result.notes), "it was trained with another tracking address"
