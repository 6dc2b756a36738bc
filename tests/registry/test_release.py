"""A release: one folder that says everything, the same bytes each time, and that MLflow itself can load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import yaml
from onnx import helper
from support.releases import model_folder, release_folder

from edgewright.errors import ConfigError, DamagedArtifact
from edgewright.registry.mlmodel import signature, write_mlmodel
from edgewright.registry.release import Facts, Golden, build_release, content_digest, read_variants
from edgewright.serving.release import read_release


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_builds_are_equal_byte_for_byte(tmp_path: Path) -> None:
    one, two = (release_folder(tmp_path / name, "m")[0] for name in ("a", "b"))
    assert contents(one) == contents(two)
    assert sorted(contents(one)) == [
        "MLmodel", "README.md", "golden.json", "manifest.json",
        "variants/onnx/MLmodel", "variants/onnx/model.json", "variants/onnx/model.onnx",
    ]  # fmt: skip


def test_the_digest_covers_models_and_name_and_not_the_run(tmp_path: Path) -> None:
    _, first = release_folder(tmp_path / "a", "m", lineage={"run_id": "r1"}, metrics={"accuracy": 0.9})
    _, again = release_folder(tmp_path / "b", "m", lineage={"run_id": "r2"})
    _, renamed = release_folder(tmp_path / "c", "n")
    _, changed = release_folder(tmp_path / "d", "m", 2.0)
    assert first["digest"] == again["digest"] == content_digest(first)
    assert len({first["digest"], renamed["digest"], changed["digest"]}) == 3
    assert first["lineage"] == {"run_id": "r1"}


def test_the_manifest_names_every_other_file(tmp_path: Path) -> None:
    folder, manifest = release_folder(tmp_path, "m")
    assert sorted([*manifest["files"], "manifest.json"]) == sorted(contents(folder))
    assert manifest["format"] == "edgewright.release/1"
    assert manifest["default_variant"] == "onnx"
    assert manifest["variants"][0]["file"] == "variants/onnx/model.onnx"


def test_the_service_reads_it(tmp_path: Path) -> None:
    folder, manifest = release_folder(tmp_path, "m")
    release = read_release(folder)
    assert release.manifest.digest == manifest["digest"]
    assert len(release.golden.inputs) == 20
    assert len(release.golden.outputs["onnx"]) == 20


def test_mlflow_loads_the_release_and_each_variant_and_gets_the_golden_scores(tmp_path: Path) -> None:
    folder, _ = release_folder(tmp_path, "m")
    code = (
        "import sys, json, mlflow.pyfunc, numpy, pandas\n"
        "golden = json.load(open(sys.argv[1] + '/golden.json'))\n"
        "rows = pandas.DataFrame(golden['inputs'])[['a', 'b', 'c']].to_numpy('float32')\n"
        "for place in ('', '/variants/onnx'):\n"
        "    model = mlflow.pyfunc.load_model(sys.argv[1] + place)\n"
        "    assert model.metadata.metadata['columns'] == ['a', 'b', 'c']\n"
        "    found = model.predict(rows)['probabilities']\n"
        "    numpy.testing.assert_allclose(found, golden['outputs']['onnx'], rtol=1e-6)\n"
        "import mlflow.onnx; mlflow.onnx.load_model(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=120)


def test_mlflow_calls_a_model_with_text_columns_by_one_array_a_column(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("LabelEncoder", ["s"], ["n"], domain="ai.onnx.ml", keys_strings=["a", "b"],
                         values_floats=[0.0, 1.0], default_float=-1.0),
        helper.make_node("Add", ["n", "x"], ["prediction"]),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info(*tensor, [None, 1]) for tensor in (("s", 8), ("x", 1))]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("prediction", 1, [None, 1])])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "model.onnx")
    columns = signature([{"name": "s", "type": "string"}, {"name": "x", "type": "number"}], "regression", 0)
    write_mlmodel(tmp_path, data="model.onnx", libraries={}, signature=columns, metadata={}, python="3.11")
    code = (
        "import sys, mlflow.pyfunc, numpy\n"
        "columns = {'s': numpy.array([['a'], ['b']], dtype=object), 'x': numpy.array([[1], [2]], dtype='float32')}\n"
        "assert mlflow.pyfunc.load_model(sys.argv[1]).predict(columns)['prediction'].tolist() == [[1.0], [3.0]]\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)


def test_a_variant_given_twice_is_taken_once(tmp_path: Path) -> None:
    one, two = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    assert [variant.target for variant in read_variants([one, two])] == ["onnx"]


def test_two_models_of_one_target_are_refused(tmp_path: Path) -> None:
    one, two = model_folder(tmp_path / "a", 1.0), model_folder(tmp_path / "b", 2.0)
    with pytest.raises(ConfigError, match="two models have the target onnx and differ"):
        read_variants([one, two])


def test_the_same_file_with_and_without_figures_is_one_variant(tmp_path: Path) -> None:
    trained, measured = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    document = json.loads((measured / "model.json").read_text())
    (measured / "model.json").write_text(json.dumps({**document, "metrics": {"accuracy": 0.9, "size_bytes": 1.0}}))
    for order in ([trained, measured], [measured, trained]):
        (found,) = read_variants(order)
        assert found.document["metrics"] == {"accuracy": 0.9, "size_bytes": 1.0}


def test_models_that_answer_different_questions_are_refused(tmp_path: Path) -> None:
    one, two = model_folder(tmp_path / "a"), model_folder(tmp_path / "b", target="onnx-int8")
    document = json.loads((two / "model.json").read_text())
    for key, value, words in (("label", "z", "label"), ("classes", [1, 0], "classes"), ("features", [], "columns")):
        (two / "model.json").write_text(json.dumps({**document, key: value}))
        with pytest.raises(
            ConfigError, match=f"onnx and onnx-int8 are no variants of one model: they have other {words}"
        ):
            read_variants([one, two])


@pytest.mark.parametrize("change", [{"target": "../up"}, {"file": "other.onnx"}, {"sha256": "0" * 64}])
def test_a_damaged_model_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    folder = model_folder(tmp_path / "a")
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(DamagedArtifact, match="not a model"):
        read_variants([folder])


def test_the_default_is_the_last_variant_with_a_self_test(tmp_path: Path) -> None:
    targets = ("onnx", "onnx-int8", "vendor")
    variants = read_variants([model_folder(tmp_path / target, target=target) for target in targets])
    scores = [[0.5, 0.5]]
    for tested, default in ((["onnx", "onnx-int8"], "onnx-int8"), (["onnx"], "onnx"), ([], None)):
        folder = tmp_path / f"release-{len(tested)}"
        folder.mkdir()
        golden = Golden([{"a": 1, "b": None, "c": 0}], dict.fromkeys(tested, scores))
        assert build_release(folder, "m", variants, golden, Facts())["default_variant"] == default
        flavors = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
        assert bool(flavors) == (default is not None)


def test_the_card_tells_what_people_ask(tmp_path: Path) -> None:
    gate = {"task": "quality", "metric": "accuracy", "operator": ">=", "limit": 0.75, "value": None, "passed": True,
            "note": "no | champion"}  # fmt: skip
    facts = {
        "description": "Alert.",
        "metrics": {"accuracy": 0.85},
        "gates": [gate],
        "lineage": {"run_id": "r1", "x": ""},
    }
    folder, _ = release_folder(tmp_path, "m", **facts)
    card = (folder / "README.md").read_text()
    for text in (
        "# m\n\nAlert.\n",
        "| accuracy | 0.85 |",
        "| quality | accuracy | >= 0.75 |  | passed (no \\| champion) |",
        "| onnx (default) | onnx |",
        "| b | number | -3 | 3 | yes |",
        "/models/m/invocations",
        "| run id | `r1` |",
    ):
        assert text in card


def test_the_card_says_what_ran_each_variant(tmp_path: Path) -> None:
    ran = model_folder(
        tmp_path / "a", verified={"runtime": "onnxruntime"}, metrics={"accuracy": 0.91, "size_bytes": 9.0}
    )
    idle = model_folder(tmp_path / "b", target="arm", verified={"runtime": None, "unverified": "no AArch64"})
    folder = tmp_path / "release"
    folder.mkdir()
    manifest = build_release(folder, "m", read_variants([ran, idle]), Golden([], {}), Facts())
    assert [entry["verified"].get("unverified") for entry in manifest["variants"]] == [None, "no AArch64"]
    card = (folder / "README.md").read_text()
    assert "| onnx | onnx | 9 | 0.91 | onnxruntime |" in card
    assert "| nothing: no AArch64 |" in card
