"""``render --format yaml`` is read by Airflow's own importer; ``--format python`` is the same Dag on Airflow 3.3."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edgewright.spec import load_pipeline
from edgewright.spec.render import airflow_yaml, python

pytestmark = [pytest.mark.slow, pytest.mark.airflow]
ROOT = Path(__file__).parents[2]
THEIRS = "airflow.sdk.importers.yaml_importer.YamlDagImporter"
CORPUS = ROOT / "tests" / "corpus" / "good"
#: Pipelines of many kinds; those whose steps take files have them in the corpus' folder.
NAMES = (
    "airflow_grammar", "fan_out_and_in", "markers", "metric_to_an_operator", "minimal", "outputs_by_name",
    "params_in_text", "params_of_all_types", "profile_local", "schedule_timetable", "task_without_uses", "templates",
    "transform", "unicode",
)  # fmt: skip
#: Fields whose values are compared after markers of literals are taken off.
FIELDS = ("upstream", "task_type", "_task_module", "retries", "retry_delay", "trigger_rule", "execution_timeout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bracelet and some of the corpus, with their code and data."""
    folder = tmp_path_factory.mktemp("rendered")
    shutil.copytree(CORPUS, folder / "good")
    shutil.copytree(ROOT / "dags" / "bracelet", folder / "bracelet")
    return folder


def _sources(folder: Path) -> list[Path]:
    return [folder / "bracelet" / "pipeline.yaml", *(folder / "good" / f"{name}.yaml" for name in NAMES)]


def _plain(value: Any) -> Any:
    """Take the marker of a literal off; texts of a hand-written Dag carry none."""
    if isinstance(value, dict):
        return _plain(value["$const"]) if set(value) == {"$const"} else {key: _plain(v) for key, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _same(rendered: dict[str, Any], original: dict[str, Any], *, typed: bool, config: bool) -> None:
    assert rendered["dag"]["timetable"] == original["dag"]["timetable"]
    assert rendered["dag"].get("start_date") == original["dag"].get("start_date")
    mine, theirs = dict(rendered["dag"]["params"]), dict(original["dag"]["params"])
    if typed:
        assert mine == theirs
    else:
        defaults = [None if isinstance(p["default"], dict) and p["default"].get("__type") == "arg_not_set"
                    else p["default"] for p in theirs.values()]  # fmt: skip
        assert [param["default"] for param in mine.values()] == defaults
    assert set(rendered["tasks"]) == set(original["tasks"])
    for name, task in original["tasks"].items():
        other = rendered["tasks"][name]
        assert {field: other.get(field) for field in FIELDS} == {field: task.get(field) for field in FIELDS}
        if config or "config" in other:
            assert _plain(other.get("config")) == _plain(task.get("config")), name


def test_airflows_own_importer_reads_the_rendered_yaml(airflow34: Any, airflow33: Any, folder: Path) -> None:
    originals = airflow33.describe("stubs", folder, *_sources(folder))["dags"]
    rendered = {file: airflow_yaml(load_pipeline(file)) for file in _sources(folder)}
    try:
        texts = {file: file.read_bytes() for file in rendered}
        for file, text in rendered.items():
            file.write_text(text, encoding="utf-8")
        found = airflow34.describe("bag", folder, *rendered, importer=THEIRS)
    finally:
        for file, data in texts.items():
            file.write_bytes(data)
    assert found["errors"] == {}
    assert set(found["dags"]) == set(originals)
    for dag_id, dag in found["dags"].items():
        # a task without markers keeps its configuration from the web pages there: it is no template
        _same(dag, originals[dag_id], typed=False, config=False)


def test_the_rendered_module_is_the_same_dag(airflow33: Any, folder: Path) -> None:
    originals = airflow33.describe("stubs", folder, *_sources(folder))["dags"]
    modules = []
    for file in _sources(folder):
        module = folder / f"rendered_{file.parent.name}_{file.stem}.py"
        module.write_text(python(load_pipeline(file)), encoding="utf-8")
        modules.append(module)
    found = airflow33.describe("bag", folder, *modules)
    assert found["errors"] == {}
    assert set(found["dags"]) == set(originals)
    for dag_id, dag in found["dags"].items():
        _same(dag, originals[dag_id], typed=True, config=True)
